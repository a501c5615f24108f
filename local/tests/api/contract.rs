//! `openapi.yaml` as the programs of others take it, against the functions behind plain HTTP: `make contract` installs them.

use std::sync::Arc;

use local::front;
use local::server::Server;
use local::test_app::TestApp;
use serde_json::json;
use tokio::process::Command;
use uuid::{Uuid, uuid};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The session of the examples in `openapi.yaml`, and whose number has it.
const SESSION: &str = "0046178507792";
const SCHOOL: Uuid = uuid!("00000000-0000-4000-8000-000000000001");

/// The functions behind plain HTTP, and the school of the token that the programs are given.
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
        Self { server: front::serve(app.clone()).await.unwrap(), app }
    }

    /// Runs a program in `local/contract`, and panics if it fails.
    async fn run(&self, program: &str, arguments: &[&str]) {
        let path = format!(
            "{WORKSPACE}/.tools/contract/bin:{WORKSPACE}/.tools/node/bin:{}",
            std::env::var("PATH").unwrap()
        );
        let status = Command::new(program)
            .args(arguments)
            .current_dir(format!("{WORKSPACE}/local/contract"))
            .env("PATH", path)
            .env("FUNCTIONS_URL", format!("{}/functions/v1", self.server.url()))
            .env("PLATFORM_URL", self.app.stack.platform.url())
            .env("TOKEN", &self.app.school.token)
            .kill_on_drop(true)
            .status();
        assert!(status.await.unwrap().success(), "{program} {}", arguments.join(" "));
    }
}

#[tokio::test]
#[ignore = "make contract"]
async fn schemathesis_finds_nothing() {
    Served::start().await.run("schemathesis", &["run", "../../openapi.yaml"]).await;
}

#[tokio::test]
#[ignore = "make contract"]
async fn a_client_that_is_generated_compiles_and_links_a_number() {
    let served = Served::start().await;
    served.run("npm", &["run", "--silent", "generate"]).await;
    served.run("npm", &["run", "--silent", "check"]).await;
    served.run("node", &["link.ts"]).await;
}
