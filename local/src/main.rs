//! `local dev`: runs the whole system on this machine.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if (arguments.next().as_deref(), arguments.next()) != (Some("dev"), None) {
        eprintln!("usage: local dev");
        return ExitCode::from(2);
    }
    match local::dev::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local dev: {error}");
            ExitCode::FAILURE
        }
    }
}
