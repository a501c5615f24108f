//! Wires `wpp-create` to Lambda.

mod http_handler;
mod linking;

use std::process::ExitCode;

use shared::config::Config;
use shared::http::{logs, run};
use shared::rotation::Rotation;

// One request at a time is what a sandbox mostly has: one thread starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    logs::init();
    let function = async {
        let rotation = Rotation::start(Config::from_env(&["WPP_SECRET"])?)?;
        run::run(rotation, "POST", http_handler::handle).await
    };
    logs::exit_code(function.await)
}
