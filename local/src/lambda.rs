//! A Lambda sandbox: one process of a function behind an emulated Lambda Runtime API.

use std::collections::BTreeMap;
use std::env::{current_exe, var_os};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::{Mutex, watch};

use crate::Result;
use crate::child::{Child, Output, Signal, supervised};
use crate::clock::unix_ms;
use crate::server::Server;

mod runtime_api;

use runtime_api::RuntimeApi;

/// The default time for an invocation, in milliseconds.
const DEADLINE_MS: i64 = 30_000;

/// How often to check whether the process has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// How often a process that should stop is checked, a millisecond apart.
const LOOKS_UNTIL_STOPPED: u32 = 1000;

const REGION: &str = "eu-central-1";

/// The options of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Invocations that the process works on at once (`AWS_LAMBDA_MAX_CONCURRENCY` when more than one).
    pub concurrency: usize,
    /// Stops the process after each answer and continues it before the next invocation, as Lambda does.
    pub freeze: bool,
    /// Gives each invocation an X-Ray trace, as Lambda does; emulators do not.
    pub traced: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 1, freeze: false, traced: true }
    }
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The function answered.
    Answered(Answer),
    /// The invocation failed; this is the report: `{"errorType", "errorMessage"}`.
    Failed(Value),
    /// The process ended before it answered.
    Died,
}

impl Ended {
    /// Returns the answer. Fails if the function gave no answer.
    pub fn answered(self) -> Result<Answer> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Failed(report) => Err(format!("the invocation failed: {report}").into()),
            Self::Died => Err("the process ended before it answered".into()),
        }
    }
}

/// An HTTP answer, as API Gateway takes it from a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers by lower-case name; several values of one are joined by `", "`.
    pub headers: BTreeMap<String, String>,
    /// The body, decoded if it was sent in base64.
    pub body: String,
    /// The body as JSON; `Null` if it is not JSON.
    pub json: Value,
    /// The function's raw answer.
    pub raw: Value,
}

impl Answer {
    fn read(raw: Value) -> Option<Self> {
        let status = u16::try_from(raw["statusCode"].as_u64()?).ok()?;
        let mut body = raw["body"].as_str().unwrap_or_default().to_owned();
        if raw["isBase64Encoded"] == true {
            body = String::from_utf8_lossy(&STANDARD.decode(body).ok()?).into_owned();
        }
        Some(Self {
            status,
            headers: headers(&raw),
            json: serde_json::from_str(&body).unwrap_or_default(),
            body,
            raw,
        })
    }
}

/// Reads the headers of either format, and prefers the one with all values.
fn headers(raw: &Value) -> BTreeMap<String, String> {
    let fields = |field: &str| raw[field].as_object().cloned().unwrap_or_default();
    let single = fields("headers").into_iter().map(|(name, value)| (name, vec![value]));
    let multiple = fields("multiValueHeaders").into_iter();
    let multiple = multiple.map(|(name, values)| (name, values.as_array().cloned().unwrap_or_default()));
    single
        .chain(multiple)
        .map(|(name, values)| {
            let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            (name.to_lowercase(), values.join(", "))
        })
        .collect()
}

/// How a sandbox's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Everything that it wrote.
    pub logs: String,
}

/// A running function. Its process ends with it.
pub struct Sandbox {
    api: Arc<RuntimeApi>,
    child: Arc<Mutex<Child>>,
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
    freeze: bool,
    /// The number of invocations in progress; at zero, the process may be frozen.
    in_flight: Mutex<usize>,
    _server: Server,
}

impl Sandbox {
    /// Starts the function with only this environment, `PATH` and the variables that Lambda sets. If it exits at once,
    /// [`Sandbox::ready`] reports that.
    pub async fn start(binary: &Path, env: &[(String, String)]) -> Result<Self> {
        Self::start_with(binary, env, Options::default()).await
    }

    /// Does the same as [`Sandbox::start`], with options.
    pub async fn start_with(binary: &Path, env: &[(String, String)], options: Options) -> Result<Self> {
        Self::run(supervised(binary, Signal::KILL), binary, env, options).await
    }

    /// Does the same as [`Sandbox::start`], below a program that watches the function, such as valgrind, with this program's arguments.
    pub async fn start_below(
        watcher: &str,
        arguments: &[String],
        binary: &Path,
        env: &[(String, String)],
    ) -> Result<Self> {
        let mut command = supervised(watcher, Signal::KILL);
        command.args(arguments).arg(binary);
        Self::run(command, binary, env, Options::default()).await
    }

    async fn run(
        mut command: Command,
        binary: &Path,
        env: &[(String, String)],
        options: Options,
    ) -> Result<Self> {
        let api = Arc::new(RuntimeApi::new(options.traced));
        let server = Server::start(0, runtime_api::routes(api.clone())).await?;
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        command
            .env_clear()
            .envs(var_os("PATH").map(|path| ("PATH", path)))
            .envs(lambda_variables(&name, server.address(), options))
            .envs(env.iter().map(|(name, value)| (name, value)));
        let child = Child::spawn(&name, command, &Output::Captured)?;
        let pid = child.pid();
        let child = Arc::new(Mutex::new(child));
        let (died, exit) = watch::channel(None);
        tokio::spawn(watch_over(Arc::downgrade(&child), api.clone(), died));
        Ok(Self {
            api,
            child,
            pid,
            exit,
            freeze: options.freeze,
            in_flight: Mutex::default(),
            _server: server,
        })
    }

    /// Waits until the function asks for its first invocation. If its process ends instead, fails with its output.
    pub async fn ready(&self) -> Result<()> {
        tokio::select! {
            () = self.api.asked() => Ok(()),
            Exit { code, logs } = self.exit() => Err(format!("ended with exit code {code:?}: {}", logs.trim()).into()),
        }
    }

    /// Invokes the function with 30 seconds to answer. Several calls may wait at once.
    pub async fn invoke(&self, event: Value) -> Ended {
        self.invoke_by(event, unix_ms() + DEADLINE_MS).await
    }

    /// Invokes the function with this deadline. The sandbox does not enforce the deadline; it gives up after a minute, with
    /// Lambda's message.
    pub async fn invoke_by(&self, event: Value, deadline_unix_ms: i64) -> Ended {
        self.thaw().await;
        let ended = self.api.invoke(event, deadline_unix_ms).await;
        self.freeze().await;
        ended
    }

    async fn thaw(&self) {
        let mut in_flight = self.in_flight.lock().await;
        if self.freeze && *in_flight == 0 {
            self.signal(Signal::CONT).await;
        }
        *in_flight += 1;
    }

    async fn freeze(&self) {
        let mut in_flight = self.in_flight.lock().await;
        *in_flight -= 1;
        if self.freeze && *in_flight == 0 {
            self.signal(Signal::STOP).await;
            stopped(self.pid).await;
        }
    }

    async fn signal(&self, signal: Signal) {
        // This fails if the process has ended, which the waiting callers learn anyway.
        let _ = self.child.lock().await.signal(signal);
    }

    /// Kills the process at once, as Lambda does if a process exceeds its memory, and waits until it has ended.
    pub async fn kill(&self) -> Result<()> {
        self.child.lock().await.kill().await?;
        self.exit().await;
        Ok(())
    }

    /// Asks the process to end, and waits until it has.
    pub async fn terminate(&self) -> Exit {
        self.signal(Signal::TERM).await;
        self.exit().await
    }

    /// Waits until the process ends.
    pub async fn exit(&self) -> Exit {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.ok();
        exit.and_then(|exit| exit.clone()).unwrap_or(Exit { code: None, logs: String::new() })
    }

    /// Returns what the function reported to `/runtime/init/error`, if anything.
    pub fn init_error(&self) -> Option<Value> {
        self.api.init_error()
    }

    /// Returns the process's output so far, standard output and error combined.
    pub async fn logs(&self) -> String {
        self.child.lock().await.logs()
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Watches the process until it has ended, then tells all waiting callers.
async fn watch_over(child: Weak<Mutex<Child>>, api: Arc<RuntimeApi>, died: watch::Sender<Option<Exit>>) {
    while let Some(child) = child.upgrade() {
        // Never waits while holding the process: a dropped sandbox must be the last owner.
        if let Ok(mut child) = child.try_lock_owned()
            && let Some(status) = child.ended()
        {
            died.send_replace(Some(Exit { code: status.code(), logs: child.logs() }));
            break;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
    api.close();
}

/// Waits until a process has stopped after its signal, which interrupts it anywhere.
async fn stopped(pid: u32) {
    for _ in 0..LOOKS_UNTIL_STOPPED {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if !stat.contains(") R ") && !stat.contains(") S ") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Returns the variables that Lambda sets for every function.
pub(crate) fn lambda_variables(
    name: &str,
    runtime_api: SocketAddr,
    options: Options,
) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("AWS_LAMBDA_RUNTIME_API", runtime_api.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "sandbox".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("_HANDLER", "bootstrap".to_owned()),
    ];
    if options.concurrency > 1 {
        variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", options.concurrency.to_string()));
    }
    variables
}

/// Returns the built function `name`: by `cargo lambda build`, in the folder `WPP_LOCAL_FUNCTIONS`, if that is set. Otherwise it is in
/// the target directory of the running program.
pub fn binary(name: &str) -> Result<PathBuf> {
    let found = match var_os("WPP_LOCAL_FUNCTIONS") {
        Some(folder) => Some(Path::new(&folder).join(name).join("bootstrap")).filter(|path| path.is_file()),
        None => {
            let program = current_exe()?;
            program.ancestors().skip(1).map(|directory| directory.join(name)).find(|path| path.is_file())
        }
    };
    found.ok_or_else(|| format!("{name} is not built: run `cargo build` first").into())
}

#[cfg(test)]
mod tests;
