//! `wpp-status`: whether a WhatsApp number is connected.

mod http_handler;

use std::process::ExitCode;

use shared::Function;
use shared::http::{self, Method};
use shared::secrets::NeededSecrets;

// A sandbox usually has one request at a time, so one thread is enough; it starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    http::run(
        Function::from_env(NeededSecrets::Supabase),
        &[Method::GET, Method::POST],
        http_handler::get_status,
    )
    .await
}
