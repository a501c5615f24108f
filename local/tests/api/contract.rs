//! Checks `openapi.yaml` and the first call in `docs/api.md` with other programs, against the functions behind plain HTTP.
//! `make test-slow` installs the programs.

use std::sync::Arc;

use local::http_gateway;
use local::server::Server;
use local::test_app::TestApp;
use serde_json::json;
use tokio::process::Command;
use uuid::{Uuid, uuid};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The session in the examples of `openapi.yaml`, and the organization that has it.
const SESSION: &str = "0046178507792";
const SCHOOL: Uuid = uuid!("00000000-0000-4000-8000-000000000001");

/// The functions behind plain HTTP, and the school whose token the programs get.
struct Served {
    app: Arc<TestApp>,
    server: Server,
}

impl Served {
    async fn start() -> Self {
        let mut app = TestApp::start().await;
        app.school = app.stack.seed(SCHOOL, Uuid::new_v4(), "school").await.unwrap();
        let created = app.post("wpp-create", json!({})).await;
        assert_eq!(created.json["session"], SESSION, "{created:?}");
        let app = Arc::new(app);
        Self { server: http_gateway::serve(app.clone()).await.unwrap(), app }
    }

    /// Makes a command of an installed program, in a folder of `local`.
    fn program(&self, name: &str, folder: &str) -> Command {
        let path = format!(
            "{WORKSPACE}/.tools/contract/bin:{WORKSPACE}/.tools/node/bin:{}",
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::new(name);
        command.current_dir(format!("{WORKSPACE}/local/{folder}")).env("PATH", path).kill_on_drop(true);
        command
    }

    /// Runs a program in `local/contract`, and panics if it fails.
    async fn run(&self, program: &str, arguments: &[&str]) {
        let status = self
            .program(program, "contract")
            .args(arguments)
            .env("FUNCTIONS_URL", format!("{}/functions/v1", self.server.url()))
            .env("PLATFORM_URL", self.app.stack.platform.url())
            .env("TOKEN", &self.app.school.token)
            .status();
        assert!(status.await.unwrap().success(), "{program} {}", arguments.join(" "));
    }
}

/// Runs the program of `docs/api.md` with a user's token. Returns what it prints.
async fn first_call(served: &Served, token: &str) -> String {
    let (_, program) = include_str!("../../../docs/api.md").split_once("```js\n").unwrap();
    // An import may be anywhere in a module.
    let program = format!(
        "const {{ ORIGIN, KEY, TOKEN }} = process.env
        const supabase = {{ auth: {{ getSession: async () => ({{ data: {{ session: {{ access_token: TOKEN }} }} }}) }} }}
        {}",
        program.split_once("```").unwrap().0
    );
    let output = served
        .program("node", "browser")
        .args(["--input-type=module", "--eval", &program])
        .env("ORIGIN", served.server.url())
        .env("KEY", "sb_publishable_key")
        .env("TOKEN", token)
        .output();
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_first_call_of_the_docs_works_as_printed() {
    let served = Served::start().await;
    let printed = first_call(&served, &served.app.school.token).await;
    assert!(printed.starts_with("qr_issued 2@"), "{printed}");
    let printed = first_call(&served, "expired").await;
    assert!(printed.contains("code: 'unauthorized'") && printed.contains("retryable: false"), "{printed}");
}

#[tokio::test]
#[ignore = "make test-slow"]
async fn schemathesis_finds_nothing() {
    Served::start().await.run("schemathesis", &["run", "../../openapi.yaml"]).await;
}

#[tokio::test]
#[ignore = "make test-slow"]
async fn a_client_that_is_generated_compiles_and_links_a_number() {
    let served = Served::start().await;
    served.run("npm", &["run", "--silent", "generate"]).await;
    served.run("npm", &["run", "--silent", "check"]).await;
    served.run("node", &["link.ts"]).await;
}
