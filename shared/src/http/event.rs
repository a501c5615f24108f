//! An HTTP request as either format of API Gateway hands it on, read from its JSON as far as the functions need it. The
//! usual event types fail or panic over much that a client can put into one, and Lambda would answer for us then.

use std::collections::HashMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde_json::Value;

/// What the functions read from a query.
const QUERY_FIELDS: [&str; 4] = ["session", "session_name", "integration_id", "force"];

/// A request. It is made of any event, whatever that is.
#[derive(Debug, Default)]
pub(crate) struct HttpEvent {
    /// Nothing where the event is no HTTP request.
    pub(crate) method: Option<Method>,
    /// The last of several of one name.
    pub(crate) headers: HeaderMap,
    /// The first of several of one name.
    pub(crate) query: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl From<&Value> for HttpEvent {
    fn from(event: &Value) -> Self {
        // `cargo lambda watch` puts an `httpMethod` of its own into events of format 2.0, and that is always GET.
        let method = event["requestContext"]["http"]["method"].as_str().or(event["httpMethod"].as_str());
        Self {
            method: method.and_then(|method| Method::from_str(method).ok()),
            headers: headers(event),
            query: query(event),
            body: body(event),
        }
    }
}

/// The body's bytes. What says that it is base64 and is not is no JSON either, and refused as such.
fn body(event: &Value) -> Vec<u8> {
    let body = event["body"].as_str().unwrap_or_default();
    let decoded = (event["isBase64Encoded"] == true).then(|| STANDARD.decode(body).ok());
    decoded.flatten().unwrap_or_else(|| body.into())
}

fn query(event: &Value) -> HashMap<String, String> {
    let url = event["rawQueryString"].as_str().map(|raw| Url::parse(&format!("http://localhost/?{raw}")));
    let (several, one) = (&event["multiValueQueryStringParameters"], &event["queryStringParameters"]);
    let value = |field: &str| match &url {
        Some(url) => Some(url.as_ref().ok()?.query_pairs().find(|(name, _)| name == field)?.1.into_owned()),
        None => several[field][0].as_str().or(one[field].as_str()).map(str::to_owned),
    };
    QUERY_FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), value(field)?))).collect()
}

fn headers(event: &Value) -> HeaderMap {
    let several = event["multiValueHeaders"].as_object().into_iter().flatten();
    let last = several.filter_map(|(name, values)| Some((name, values.as_array()?.last()?)));
    let single = event["headers"].as_object().into_iter().flatten();
    let readable = |(name, value): (&String, &Value)| {
        Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value.as_str()?).ok()?))
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
