//! Events as an HTTP API of API Gateway and a function URL send them to a Lambda function: payload format 2.0.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde_json::{Map, Value, json};

const API_HOST: &str = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
const FUNCTION_HOST: &str = "a1b2c3d4e5f6g7h8.lambda-url.eu-central-1.on.aws";
const ACCOUNT: &str = "123456789012";
const SOURCE_IP: &str = "192.0.2.7";
const USER_AGENT: &str = "Mozilla/5.0";
const TIME: &str = "12/Mar/2026:19:03:58 +0000";
const TIME_EPOCH_MS: i64 = 1_773_342_238_390;

/// A request to `/functions/v1/<name>`. [`http_api`](Self::http_api) or [`function_url`](Self::function_url) makes the event of it.
#[derive(Clone, Debug)]
pub struct Event {
    method: String,
    name: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Option<String>,
    is_base64: bool,
}

impl Event {
    /// Makes a request to the function `name`, with this method.
    pub fn new(method: &str, name: &str) -> Self {
        let headers = [
            ("Accept", "*/*"),
            ("User-Agent", USER_AGENT),
            ("X-Forwarded-For", SOURCE_IP),
            ("X-Forwarded-Port", "443"),
            ("X-Forwarded-Proto", "https"),
        ];
        Self {
            method: method.to_owned(),
            name: name.to_owned(),
            query: Vec::new(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body: None,
            is_base64: false,
        }
    }

    /// Makes a `GET`.
    pub fn get(name: &str) -> Self {
        Self::new("GET", name)
    }

    /// Makes a `POST` that has no body yet.
    pub fn post(name: &str) -> Self {
        Self::new("POST", name)
    }

    /// Makes an `OPTIONS`, as in a browser's preflight.
    pub fn options(name: &str) -> Self {
        Self::new("OPTIONS", name)
    }

    /// Adds a header. Values of the same name are joined with a comma.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `Authorization: Bearer <token>`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Adds a query parameter. Pass it unencoded.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a JSON body, and its `Content-Type`.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(&body.to_string())
    }

    /// Sets the body. Set its `Content-Type` with [`header`](Self::header).
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self.is_base64 = false;
        self
    }

    /// Sets a binary body, encoded in base64 as a gateway does.
    #[must_use]
    pub fn base64_body(mut self, body: &[u8]) -> Self {
        self.body = Some(STANDARD.encode(body));
        self.is_base64 = true;
        self
    }

    /// Returns the event as an HTTP API sends it.
    pub fn http_api(self) -> Value {
        let route = format!("{} {}", self.method, self.path());
        self.payload_2(&route, API_HOST)
    }

    /// Returns the event as a function URL sends it. It has no routes.
    pub fn function_url(self) -> Value {
        self.payload_2("$default", FUNCTION_HOST)
    }

    fn path(&self) -> String {
        format!("/functions/v1/{}", self.name)
    }

    fn payload_2(self, route: &str, host: &str) -> Value {
        let event = self.header("Host", host);
        let path = event.path();
        let headers: Vec<_> =
            event.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        let mut payload = json!({
            "version": "2.0",
            "routeKey": route,
            "rawPath": path,
            "rawQueryString": encoded(&event.query),
            "headers": joined(&headers),
            "requestContext": {
                "accountId": ACCOUNT,
                "apiId": host.split('.').next(),
                "domainName": host,
                "domainPrefix": host.split('.').next(),
                "http": {
                    "method": event.method,
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": SOURCE_IP,
                    "userAgent": USER_AGENT,
                },
                "requestId": "JKJaXmPLvHcESHA=",
                "routeKey": route,
                "stage": "$default",
                "time": TIME,
                "timeEpoch": TIME_EPOCH_MS,
            },
            "isBase64Encoded": event.is_base64,
        });
        // The format leaves out these two if they are empty.
        if !event.query.is_empty() {
            payload["queryStringParameters"] = joined(&event.query);
        }
        if let Some(body) = event.body {
            payload["body"] = body.into();
        }
        payload
    }
}

type Pairs = [(String, String)];

/// Joins the values of each name with commas.
fn joined(pairs: &Pairs) -> Value {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in pairs {
        groups.entry(name.clone()).or_default().push(value.as_str());
    }
    let fields = groups.into_iter().map(|(name, values)| (name, values.join(",").into()));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn encoded(query: &Pairs) -> String {
    let url = Url::parse_with_params("http://localhost", query);
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use lambda_http::RequestExt as _;
    use lambda_http::request::from_str;

    use super::*;

    fn event() -> Event {
        Event::post("wpp-status")
            .bearer("a.b.c")
            .query("session", "0000000000004 &=ы")
            .json(&json!({"force": true}))
    }

    #[test]
    fn lambda_http_reads_both_kinds_of_event_alike() {
        for payload in [event().http_api(), event().function_url()] {
            let request = from_str(&payload.to_string()).unwrap();
            assert_eq!(request.method(), "POST");
            assert_eq!(request.raw_http_path(), "/functions/v1/wpp-status");
            assert_eq!(request.query_string_parameters().first("session"), Some("0000000000004 &=ы"));
            assert_eq!(request.headers()["authorization"], "Bearer a.b.c");
            assert_eq!(request.headers()["content-type"], "application/json");
            assert_eq!(request.body().as_ref(), br#"{"force":true}"#);
        }
    }

    #[test]
    fn request_without_body_or_query_stays_empty() {
        let event = Event::options("wpp-qr");
        for payload in [event.clone().http_api(), event.function_url()] {
            let request = from_str(&payload.to_string()).unwrap();
            assert_eq!(request.method(), "OPTIONS");
            assert!(request.body().is_empty());
            assert!(request.query_string_parameters().is_empty());
        }
    }

    #[test]
    fn a_base64_body_arrives_decoded() {
        let event = Event::post("wpp-status").base64_body(&[0xff, 0, b'{']);
        for payload in [event.clone().http_api(), event.function_url()] {
            assert_eq!(payload["isBase64Encoded"], true);
            let request = from_str(&payload.to_string()).unwrap();
            assert_eq!(request.body().as_ref(), [0xff, 0, b'{']);
        }
    }

    #[test]
    fn a_repeated_header_is_joined() {
        let event = Event::get("wpp-qr").header("X-Two", "1").header("X-Two", "2");
        assert_eq!(from_str(&event.http_api().to_string()).unwrap().headers()["x-two"], "1,2");
    }
}
