//! A function that echoes its request, for the sandbox's tests.
//!
//! `?do=fail` fails, `?do=panic` panics, `?do=exit` ends the process, `?do=meet` waits until two requests are there at the same time.

use std::sync::Arc;
use std::time::Duration;

use lambda_http::{Error, Request, RequestExt, run_concurrent, service_fn};
use serde_json::{Value, json};
use tokio::sync::Barrier;

#[tokio::main]
async fn main() -> Result<(), Error> {
    if let Ok(reason) = std::env::var("REFUSE_TO_START") {
        return Err(reason.into());
    }
    let meeting = Arc::new(Barrier::new(2));
    run_concurrent(service_fn(move |request| echo(request, meeting.clone()))).await
}

async fn echo(request: Request, meeting: Arc<Barrier>) -> Result<Value, Error> {
    let query = request.query_string_parameters();
    match query.first("do") {
        Some("fail") => return Err("failed on request".into()),
        Some("panic") => panic!("panicked on request"),
        Some("exit") => std::process::exit(3),
        Some("meet") => {
            meeting.wait().await;
        }
        _ => {}
    }
    let left = request
        .lambda_context()
        .deadline()
        .elapsed()
        .map_or_else(|error| error.duration(), |_| Duration::ZERO);
    println!("echoed");
    let variables: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
    Ok(json!({
        "method": request.method().as_str(),
        "body": String::from_utf8_lossy(request.body().as_ref()),
        "left_s": left.as_secs(),
        "variables": variables,
    }))
}
