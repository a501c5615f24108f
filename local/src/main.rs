//! `local dev` runs the whole system on this machine, `local bench` measures the functions.

use std::process::ExitCode;

use local::bench::{self, Mode};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, outcome) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dev"] => ("dev", local::dev::run().await),
        ["bench"] => ("bench", bench::run(Mode::Table).await),
        ["bench", "check"] => ("bench", bench::run(Mode::Check).await),
        ["bench", "renew"] => ("bench", bench::run(Mode::Renew).await),
        _ => {
            eprintln!("usage: local dev | local bench [check | renew]");
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
