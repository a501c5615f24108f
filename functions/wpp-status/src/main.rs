//! Wires `wpp-status` to Lambda.

mod http_handler;

use std::process::ExitCode;

use shared::config::Needs;
use shared::http::run;

// One request at a time is what a sandbox mostly has: one thread starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run::main(Needs::ServiceKey, "GET, POST", http_handler::handle).await
}
