//! Wires `wpp-qr` to Lambda.

mod drawing;
mod http_handler;

use std::process::ExitCode;

use shared::App;
use shared::http::run;
use shared::secrets::Secrets;

// One request at a time is what a sandbox mostly has: one thread starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run::main(App::from_env(Secrets::Supabase), "GET, POST", http_handler::handle).await
}
