//! `local dev` runs the whole system on this machine, `local bench` measures the functions, `local limits` says whether they have
//! grown.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, outcome) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dev"] => ("dev", local::dev::run().await),
        ["bench"] => ("bench", local::bench::run().await),
        ["limits"] => ("limits", local::limits::check().await),
        ["limits", "renew"] => ("limits", local::limits::renew().await),
        _ => {
            eprintln!("usage: local dev | local bench | local limits [renew]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
