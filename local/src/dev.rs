//! `local dev`: the whole system for interactive use, including the three functions under `cargo lambda watch`.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Method};
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use uuid::{Uuid, uuid};

use crate::FUNCTIONS;
use crate::Result;
use crate::child::{Child, Output, Signal, named_by, on_path, supervised, workspace};
use crate::cluster::Installation;
use crate::events::Event;
use crate::http;
use crate::page::{Page, Person};
use crate::platform;
use crate::postgres::Storage;
use crate::service;
use crate::stack::{Settings, Stack};

/// The organizations that exist from the start, each with its user. The printed lines are about the first one.
const ORGANIZATION: Uuid = uuid!("00000000-0000-4000-8000-000000000001");
const PEOPLE: [(Uuid, Person); 2] = [
    (ORGANIZATION, Person { user: uuid!("00000000-0000-4000-8000-000000000002"), organization: "Lyceum 42" }),
    (
        uuid!("00000000-0000-4000-8000-000000000003"),
        Person { user: uuid!("00000000-0000-4000-8000-000000000004"), organization: "Riverside School" },
    ),
];

/// How long the printed token is valid, in seconds.
const TOKEN_LIFETIME_S: i64 = 12 * 3600;

/// The same at every start, so that tokens stay valid after a restart. It is no real secret: only servers on the loopback address
/// accept it.
const JWT_SECRET: &str = "local-jwt-secret-with-at-least-32-characters";

/// How long a built function may take to start and answer.
const FUNCTION_START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often to check that everything is still running, or that something has started.
const POLL: Duration = Duration::from_millis(250);

/// Runs the system until Ctrl-C, SIGTERM or a failure.
pub async fn run() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Dropping the future of `serve` stops everything that it started.
    tokio::select! {
        failed = serve() => failed,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

/// Starts everything, prints how to use it, and returns only when something fails.
async fn serve() -> Result<()> {
    let (port, page_port) = (port("WPP_LOCAL_PORT", 9000)?, port("WPP_LOCAL_PAGE_PORT", 9400)?);
    let cargo_lambda = cargo_lambda()?;
    let data = data_directory()?;
    let session = platform::session_for(&ORGANIZATION.to_string());
    let stack = Stack::start_with(settings(&data)?).await?;
    for (organization, person) in &PEOPLE {
        stack.seed(*organization, person.user, person.organization).await?;
    }
    let gateway = format!("http://127.0.0.1:{port}");
    let page = Page::start(page_port, &gateway, &stack, &PEOPLE.map(|(_, person)| person)).await?;
    build().await?;
    let mut watch = watch(&cargo_lambda, port, &stack)?;
    let functions = format!("{gateway}/functions/v1");
    let client = http::client()?;
    for name in FUNCTIONS {
        tokio::select! {
            answered = first_answer(&client, format!("{functions}/{name}")) => answered?,
            failure = failure(&stack, &mut watch) => return Err(failure.into()),
        }
    }
    let token = stack.keys.user_token_for(PEOPLE[0].1.user, TOKEN_LIFETIME_S);
    let events = write_events(&functions, &token, &session)?;
    let invoke = format!(
        "{} lambda invoke wpp-status --invoke-address 127.0.0.1 --invoke-port {port} --data-file {}/status.json",
        cargo_lambda.display(),
        events.display()
    );
    println!("See it work: {}", page.url());
    println!("{}", guide(&stack, &functions, &token, &session, &data, &invoke));
    Err(failure(&stack, &mut watch).await.into())
}

fn settings(data: &Path) -> Result<Settings> {
    Ok(Settings {
        postgres_port: port("WPP_LOCAL_POSTGRES_PORT", 9300)?,
        postgrest_port: port("WPP_LOCAL_POSTGREST_PORT", 9301)?,
        supabase_port: port("WPP_LOCAL_SUPABASE_PORT", 9200)?,
        storage: Storage::Lasting(data.to_owned()),
        jwt_secret: Some(JWT_SECRET.to_owned()),
        platform: platform::Settings {
            port: port("WPP_LOCAL_PLATFORM_PORT", 9100)?,
            file: Some(data.join("platform.json")),
            ..platform::Settings::default()
        },
    })
}

/// Reads a port from a variable. Fails if it is in use: all ports are checked before anything starts.
fn port(variable: &str, default: u16) -> Result<u16> {
    let port = match env::var(variable) {
        Ok(text) => {
            text.parse().ok().filter(|port| *port > 0).ok_or(format!("{variable}={text} is not a port"))?
        }
        Err(_) => default,
    };
    if service::is_free(port) {
        return Ok(port);
    }
    Err(format!("port {port} is in use: stop the program that uses it, or set {variable} to another port")
        .into())
}

/// Finds `CARGO_LAMBDA`, the workspace's own, or the one on the `PATH`.
fn cargo_lambda() -> Result<PathBuf> {
    let own = Some(workspace().join(".tools/cargo-lambda/bin/cargo-lambda")).filter(|file| file.exists());
    let found = named_by("CARGO_LAMBDA")?.or(own).or_else(|| on_path("cargo-lambda"));
    found.ok_or_else(|| {
        "cargo-lambda is not installed: run `make dev`, or set CARGO_LAMBDA to its path".into()
    })
}

/// Returns `WPP_LOCAL_DATA` if it is set, otherwise `.local` in the workspace. If PostgreSQL's user cannot reach that, returns a
/// directory in /var/tmp that is named by a hash of the workspace's path.
fn data_directory() -> Result<PathBuf> {
    if let Some(directory) = env::var_os("WPP_LOCAL_DATA") {
        return Ok(directory.into());
    }
    let workspace = workspace();
    let own = workspace.join(".local");
    if Installation::find()?.reaches(&own.join("postgres")) {
        return Ok(own);
    }
    let hash = digest(&SHA256, workspace.as_os_str().as_encoded_bytes());
    let name: String = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(PathBuf::from(format!("/var/tmp/wpp-local-{name}")))
}

/// Writes the events that `cargo lambda invoke` takes, with a token that is valid now, and `running.json`, from which `make link`
/// reads the address and the token. Returns the events' path, relative to the workspace.
fn write_events(functions: &str, token: &str, session: &str) -> Result<PathBuf> {
    let own = env::var_os("WPP_LOCAL_DATA").map_or(PathBuf::from(".local"), PathBuf::from);
    let (place, running) = (own.join("events"), json!({"functions": functions, "token": token}));
    let directory = workspace().join(&place);
    std::fs::create_dir_all(&directory)?;
    let events = [
        ("create", Event::post("wpp-create").json(&json!({}))),
        ("qr", Event::get("wpp-qr").query("session", session)),
        ("status", Event::post("wpp-status").json(&json!({"force": true}))),
    ];
    for (name, event) in events {
        let event = serde_json::to_string_pretty(&event.bearer(token).http_api())?;
        std::fs::write(directory.join(format!("{name}.json")), event)?;
    }
    std::fs::write(workspace().join(own).join("running.json"), running.to_string())?;
    Ok(place)
}

/// Builds the functions first: `cargo lambda watch` builds each one separately, and the builds would wait for each other. Uses `--bin`,
/// as it does: `--package` would choose other features, and all would be built twice.
async fn build() -> Result<()> {
    let mut cargo = supervised(env::var_os("CARGO").unwrap_or("cargo".into()), Signal::TERM);
    cargo.arg("build").current_dir(workspace());
    for name in FUNCTIONS {
        cargo.args(["--bin", name]);
    }
    remove_cargo_run_variables(&mut cargo);
    let mut build = Child::spawn("cargo build", cargo, &Output::Terminal)?;
    if build.wait().await?.success() {
        return Ok(());
    }
    Err(build.exit_report().into())
}

/// Serves the functions at the paths that `CargoLambda.toml` gives them.
fn watch(cargo_lambda: &Path, port: u16, stack: &Stack) -> Result<Child> {
    let mut watch = supervised(cargo_lambda, Signal::TERM);
    watch.args(["lambda", "watch", "--disable-cors", "--invoke-address", "127.0.0.1"]);
    watch.args(["--invoke-port", &port.to_string()]).current_dir(workspace()).envs(stack.env());
    // Nothing that is started here may send requests for this machine to a proxy.
    watch.env("NO_PROXY", "127.0.0.1");
    // Passed on, to try out a list of origins.
    watch.envs(env::var("CORS_ALLOWED_ORIGINS").map(|origins| ("CORS_ALLOWED_ORIGINS", origins)));
    remove_cargo_run_variables(&mut watch);
    Child::spawn("cargo lambda watch", watch, &Output::Terminal)
}

/// Removes the variables that `cargo run` sets for this package: they would make a nested cargo rebuild the others.
fn remove_cargo_run_variables(command: &mut Command) {
    let is_set_by_cargo_run =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_set_by_cargo_run) {
            command.env_remove(name);
        }
    }
}

/// Waits until the function at `url` answers a preflight request.
async fn first_answer(client: &Client, url: String) -> Result<()> {
    let answer = async {
        loop {
            let preflight = client.request(Method::OPTIONS, &url).header("origin", "http://localhost");
            if let Ok(response) = preflight.send().await
                && response.status().is_success()
            {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let answered = tokio::time::timeout(FUNCTION_START_TIMEOUT, answer).await;
    answered.map_err(|_| format!("{url} does not answer; see the output above").into())
}

/// Waits until a process ends unexpectedly, and returns a line that says which one and how.
async fn failure(stack: &Stack, watch: &mut Child) -> String {
    loop {
        if let Some(failure) = stack.failure().await {
            return failure;
        }
        if watch.ended().is_some() {
            return watch.exit_report();
        }
        tokio::time::sleep(POLL).await;
    }
}

fn guide(stack: &Stack, functions: &str, token: &str, session: &str, data: &Path, invoke: &str) -> String {
    let platform = stack.platform.url();
    let database = stack.postgres.url("postgres");
    let bearer = "-H \"Authorization: Bearer $TOKEN\"";
    let data = data.display();
    format!(
        "
The functions answer at {functions}/{{wpp-create,wpp-qr,wpp-status}}
A user's token, valid for 12 hours. Paste it first; the lines below use it:

TOKEN={token}

1. Create a number; the answer has its session and, unless a phone is linked already, its QR:

curl -sS {bearer} --json '{{}}' {functions}/wpp-create

2. Scan that QR, as a phone would:

curl -sS --json '{{\"session\":\"{session}\"}}' {platform}/_sim/scan

3. The number is connected:

curl -sS {bearer} --json '{{\"force\":true}}' {functions}/wpp-status

The same call, as a direct invocation of the function:

{invoke}

What else the platform can do: curl -sS {platform}
The database: psql {database}
The data stays in {data}. Press Ctrl-C to stop everything."
    )
}
