//! Lambda's event as an HTTP request. `lambda_http` converts it, but fails or panics over much that a client can put into
//! one, and Lambda would answer for us then. So it is handed only what the functions read, in a form that it takes.

use std::collections::HashMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lambda_http::aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest};
use lambda_http::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use lambda_http::request::LambdaRequest;
use lambda_http::{Request, RequestExt};
use reqwest::Url;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What the functions read from a query.
const QUERY_FIELDS: [&str; 4] = ["session", "session_name", "integration_id", "force"];

/// A query is longer than a URI may be long before any of these is good: the rest of it says nothing.
const QUERY_VALUE_LIMIT: usize = 1024;

/// The path parameter of an event that is no HTTP request; no route of ours has parameters.
const UNREADABLE: &str = "unreadable";

/// An event that can be handed on, whatever it was.
pub(crate) struct Readable(pub(crate) LambdaRequest);

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

impl From<Value> for Readable {
    fn from(event: Value) -> Self {
        // `cargo lambda watch` puts an `httpMethod` of its own into events of format 2.0, and that is always GET.
        let second = event["requestContext"]["http"]["method"].as_str();
        let first = event["httpMethod"].as_str().filter(|_| second.is_none());
        let method = first.or(second).and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let headers = headers(&event);
        let query = query(&event).into();
        let body = event["body"].as_str().map(str::to_owned);
        // What says that it is base64 and is not is a body that is not JSON, and refused as one.
        let is_base64 = event["isBase64Encoded"] == true
            && body.as_ref().is_some_and(|body| STANDARD.decode(body).is_ok());

        let request = if first.is_some() {
            let mut request = ApiGatewayProxyRequest::default();
            request.http_method = method.unwrap_or_default();
            request.headers = headers;
            request.query_string_parameters = query;
            request.body = body;
            request.is_base64_encoded = is_base64;
            LambdaRequest::ApiGatewayV1(request)
        } else {
            let mut request = ApiGatewayV2httpRequest::default();
            if method.is_none() {
                request.path_parameters.insert(UNREADABLE.to_owned(), String::new());
            }
            request.request_context.http.method = method.unwrap_or_default();
            request.headers = headers;
            request.query_string_parameters = query;
            request.body = body;
            request.is_base64_encoded = is_base64;
            LambdaRequest::ApiGatewayV2(request)
        };
        Self(request)
    }
}

/// Whether the event of this request was no HTTP request.
pub(crate) fn is_unreadable(request: &Request) -> bool {
    request.path_parameters_ref().is_some_and(|parameters| parameters.first(UNREADABLE).is_some())
}

/// What the functions read from a query, of each name the first, from whichever field the event has it in.
fn query(event: &Value) -> HashMap<String, String> {
    let url = event["rawQueryString"].as_str().map(|raw| Url::parse(&format!("http://localhost/?{raw}")));
    let (several, one) = (&event["multiValueQueryStringParameters"], &event["queryStringParameters"]);
    let value = |field: &str| match &url {
        Some(url) => Some(url.as_ref().ok()?.query_pairs().find(|(name, _)| name == field)?.1.into_owned()),
        None => several[field][0].as_str().or(one[field].as_str()).map(str::to_owned),
    };
    let cut = |value: String| value.chars().take(QUERY_VALUE_LIMIT).collect();
    QUERY_FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), cut(value(field)?)))).collect()
}

/// The headers, the last of several of one name. `Host` and the like only serve to put together the address that was
/// called, which nobody reads.
fn headers(event: &Value) -> HeaderMap {
    let several = event["multiValueHeaders"].as_object().into_iter().flatten();
    let last = several.filter_map(|(name, values)| Some((name, values.as_array()?.last()?)));
    let single = event["headers"].as_object().into_iter().flatten();
    let readable = |(name, value): (&String, &Value)| {
        let header = (HeaderName::from_str(name).ok()?, HeaderValue::from_str(value.as_str()?).ok()?);
        let is_address = header.0 == header::HOST || header.0 == "x-forwarded-proto";
        (!is_address).then_some(header)
    };
    // One by one, since to extend the map would keep the values of both.
    let mut headers = HeaderMap::new();
    for (name, value) in last.chain(single).filter_map(readable) {
        headers.insert(name, value);
    }
    headers
}

#[cfg(test)]
mod tests;
