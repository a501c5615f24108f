//! Wires `wpp-qr` to Lambda.

mod http_handler;

use std::process::ExitCode;

// One request at a time is what a sandbox mostly has: one thread starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    shared::http::run::serve("GET, POST", &[], http_handler::handle).await
}
