//! `wpp-create`: creates a WhatsApp number or continues with an existing one, up to the QR code that links it.

mod http_handler;
mod linking;

use std::process::ExitCode;

use shared::Function;
use shared::http::{self, Method};
use shared::secrets::NeededSecrets;

// A sandbox usually has one request at a time, so one thread is enough; it starts faster and needs less memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    http::run(Function::from_env(NeededSecrets::SupabaseAndWpp), &[Method::POST], http_handler::create_number)
        .await
}
