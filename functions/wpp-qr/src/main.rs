//! Wires `wpp-qr` to Lambda.

mod drawing;
mod http_handler;

use std::process::ExitCode;

use shared::config::Config;
use shared::http::{logs, run};
use shared::rotation::Rotation;

// One request at a time is what a sandbox mostly has: one thread starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    logs::init();
    let function = async {
        let rotation = Rotation::start(Config::from_env(&[])?)?;
        run::run(rotation, "GET, POST", http_handler::handle).await
    };
    logs::exit_code(function.await)
}
