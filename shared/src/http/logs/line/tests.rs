use std::collections::BTreeSet;

use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::platform::PlatformError;
use crate::record::CallStatus;
use crate::record::trace::Trace;
use crate::store::StoreError;
use crate::upstream::CallError;

/// As SAM names a function of a stack that is called `wpp-functions`.
const FUNCTION: &str = "wpp-functions-WppCreate-Ab3dEfGh1JkL";

fn request(is_first: bool) -> Request {
    let began = UnixMs(1_795_000_000_000);
    Request { function: FUNCTION.to_owned(), began, ended: UnixMs(began.0 + 1_230), is_first }
}

fn call(name: &'static str, ms: i64) -> Call {
    Call { name, status: CallStatus::Http(200), ms, attempts: 1 }
}

/// All that can be noted of a request.
fn record(calls: Vec<Call>) -> Record {
    let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    Record {
        organization_id: Some(Uuid::from_u128(u128::MAX)),
        session: Some("e6644332".to_owned()),
        token: Some(TokenUse::Reused),
        calls,
        ..Record::new(Uuid::from_u128(7).to_string(), Trace::of(Some(xray), &HeaderMap::new()))
    }
}

fn platform_error(why: PlatformError) -> Error {
    CallError { call: "auth/token", why }.into()
}

fn database_error(why: StoreError) -> Error {
    CallError { call: "wpp_begin_creation", why }.into()
}

fn json_of(line: &Line) -> Value {
    serde_json::from_str(&line.to_string()).unwrap()
}
#[test]
fn measure() {
    let line = Line::new(request(false), Record { source: Some(Source::Live), ..record(vec![call("wpp_find_number", 12), call("status", 41), call("qr", 38)]) }, Ok(200));
    println!("{} {line}", line.to_string().len());
    let refreshed = || Record { source: Some(Source::Live), token: Some(TokenUse::Refreshed), token_why: Some("expired"),
        ..record(vec![call("wpp_find_number", 12), call("wpp_claim_refresh", 9), call("auth/token", 312), call("wpp_save_token", 14), call("status", 41), call("qr", 38), call("wpp_save_snapshot", 22)]) };
    let line = Line::new(request(false), refreshed(), Ok(200));
    println!("{} {line}", line.to_string().len());
    let line = Line::new(request(true), refreshed(), Ok(200));
    println!("{} {line}", line.to_string().len());
    let failing = Record { refresh_failure: Some("platform auth/token: timed out".into()), source: None, token: Some(TokenUse::Failed), ..refreshed() };
    let line = Line::new(request(true), failing, Err(&platform_error(PlatformError::TimedOut)));
    println!("{} {line}", line.to_string().len());
}
