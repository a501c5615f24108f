//! Turns an event into the request that it stands for. `lambda_http` converts events of API Gateway (HTTP API, format 2.0) and of
//! function URLs. It panics on a malformed query, path, host or base64 body, so these are taken out first.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HOST;
use http::uri::PathAndQuery;
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use lambda_http::request::LambdaRequest;
use serde_json::value::RawValue;
use serde_json::{Value, from_str, json};

/// The name of a part that was malformed and is missing now.
pub(crate) type Malformed = Option<&'static str>;

/// Returns `None` for an event that is not an HTTP request: a warm-up ping, a message of a queue, a test in the console.
pub(crate) fn read(payload: &RawValue) -> Option<(LambdaRequest, Malformed)> {
    // To read a `LambdaRequest` would copy the event and go through it twice.
    match from_str::<ApiGatewayV2httpRequest>(payload.get()) {
        Ok(mut event) => {
            let malformed = take_malformed_parts(&mut event);
            Some((LambdaRequest::ApiGatewayV2(event), malformed))
        }
        // Also a field of another type than API Gateway's.
        Err(_) => Some((stand_in(payload)?, Some("event"))),
    }
}

/// Returns a request with the event's method alone, for an event that cannot be converted.
pub(crate) fn stand_in(payload: &RawValue) -> Option<LambdaRequest> {
    let event: Value = from_str(payload.get()).unwrap_or_default();
    let method = event["requestContext"]["http"]["method"].as_str()?;
    let event = json!({"requestContext": {"http": {"method": method}}});
    from_str(&event.to_string()).ok()
}

fn take_malformed_parts(event: &mut ApiGatewayV2httpRequest) -> Malformed {
    let mut malformed = None;
    let query = event.raw_query_string.as_deref().unwrap_or_default();
    if PathAndQuery::try_from(format!("/?{query}")).is_err() || !query.is_ascii() {
        event.raw_query_string = None;
        malformed = Some("query");
    }
    if event.is_base64_encoded && STANDARD.decode(event.body.as_deref().unwrap_or_default()).is_err() {
        event.body = None;
        malformed = Some("body");
    }
    let path = event.raw_path.as_deref().unwrap_or("/");
    if !path.starts_with('/') || PathAndQuery::try_from(path).is_err() {
        event.raw_path = None;
        malformed = Some("path");
    }
    // The conversion would make an address of the host, and nothing here depends on it.
    event.headers.remove(HOST);
    event.request_context.domain_name = None;
    malformed
}

#[cfg(test)]
mod tests;
