//! Wires `wpp-create` to Lambda.

mod http_handler;
mod linking;

use std::process::ExitCode;

use shared::App;
use shared::http::run;
use shared::secrets::Secrets;

// One request at a time is what a sandbox mostly has: one thread starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run::main(App::from_env(Secrets::SupabaseAndWpp), "POST", http_handler::handle).await
}
