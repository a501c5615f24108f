//! Fakes of the two upstreams, for the tests of this crate and of the handlers. No release contains this module.

#![allow(clippy::unwrap_used, reason = "a test ends where its stand-in fails")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::App;
use crate::clock::UnixMs;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::http::request::RequestContext;
use crate::messages::Language;
use crate::secret::Secret;
use crate::secrets::{SecretValues, ServiceKey};
use crate::upstream::{Failure, Upstream};

/// The database's time in a [`TestApp`], in milliseconds since 1970.
pub const NOW: i64 = 1_800_000_000_000;

/// Longer than any TTL or interval in a handler, in milliseconds.
pub const LONG_AGO: i64 = 24 * 3_600_000;

const TOKEN_TTL: i64 = 3_600_000;

/// The session of a [`TestNumber`].
pub const SESSION: &str = "0000000000004";

/// The API key of a [`TestNumber`].
pub const API_KEY: &str = "wpp_key_00000150";

const WEBHOOK_BASE_URL: &str = "https://webhook.example";

/// An HTTP server that takes one request on each connection and answers from a script.
pub struct Server {
    /// Its address, without a path.
    pub url: String,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// The answers to requests whose first line contains the text; the last match wins.
    says: Vec<(String, Vec<u8>)>,
    /// The same, each for one request; the first match wins, before those of `says`.
    says_once: Vec<(String, Vec<u8>)>,
    heard: Vec<String>,
    requests: usize,
}

impl Server {
    /// Starts a server that answers every request with these bytes.
    pub async fn start(says: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { url: format!("http://{}", listener.local_addr().unwrap()), script: Arc::default() };
        server.says(says);
        let script = server.script.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                script.lock().unwrap().requests += 1;
                tokio::spawn(answer(connection, script.clone()));
            }
        });
        server
    }

    /// Answers every request with these bytes from now on, in place of all earlier answers.
    pub fn says(&self, what: impl Into<Vec<u8>>) {
        self.script.lock().unwrap().says = vec![(String::new(), what.into())];
    }

    /// Answers requests with this text in their path, in place of earlier answers.
    pub fn says_to(&self, path: &str, status: u16, body: &str) {
        self.script.lock().unwrap().says.push((path.to_owned(), reply(status, body).into()));
    }

    /// Answers one request with this text in its path, before the answers of [`Server::says_to`].
    pub fn says_once(&self, path: &str, status: u16, body: &str) {
        self.script.lock().unwrap().says_once.push((path.to_owned(), reply(status, body).into()));
    }

    /// Returns the requests since the last call of this method, unchanged.
    pub fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().heard)
    }

    /// Returns the number of connections so far.
    pub fn requests(&self) -> usize {
        self.script.lock().unwrap().requests
    }

    /// Makes one call by `upstream`, and returns how many requests it took.
    pub async fn call(&self, upstream: &Upstream, deadline: Deadline) -> (Result<u16, Failure>, usize) {
        let before = self.requests();
        let request = upstream.http().get(&self.url).build().unwrap();
        let outcome = upstream.send("test", request, Duration::MAX, deadline).await;
        (outcome.map(|reply| reply.status.as_u16()), self.requests() - before)
    }
}

impl Script {
    fn answer_to(&mut self, path: &str) -> Vec<u8> {
        let fits = |(part, _): &(String, Vec<u8>)| path.contains(part.as_str());
        if let Some(once) = self.says_once.iter().position(fits) {
            return self.says_once.remove(once).1;
        }
        self.says.iter().rev().find(|says| fits(says)).map(|(_, says)| says.clone()).unwrap_or_default()
    }
}

/// Returns a complete answer.
pub fn reply(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nretry-after: 7\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Sends the scripted answer. Keeps the connection open unless the answer is complete.
async fn answer(mut connection: TcpStream, script: Arc<Mutex<Script>>) {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let says = {
        let (mut script, request) = (script.lock().unwrap(), String::from_utf8_lossy(&request).into_owned());
        let path = request.lines().next().unwrap_or_default().to_owned();
        script.heard.push(request);
        script.answer_to(&path)
    };
    let _ = connection.write_all(&says).await;
    if !says.windows(17).any(|words| words == b"connection: close") {
        std::future::pending().await
    }
}

/// Whether the whole request has arrived, with its body.
fn is_whole(request: &[u8]) -> bool {
    let request = String::from_utf8_lossy(request);
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

/// An [`App`] whose database and platform are one [`Server`]. A request without a scripted answer is refused with a 400.
pub struct TestApp {
    /// The app.
    pub app: App,
    /// A request of a signed-in user.
    pub context: RequestContext,
    server: Server,
}

impl TestApp {
    /// Starts the server.
    pub async fn new() -> Self {
        Self::with_qr_wait(Duration::from_secs(3)).await
    }

    /// Starts the server, for an app with this `QR_WAIT_MS`.
    pub async fn with_qr_wait(qr_wait: Duration) -> Self {
        let server = Server::start(reply(400, "{}")).await;
        let source = |name: &str| match name {
            "WPP_BASE_URL" | "SUPABASE_URL" => Some(server.url.clone()),
            "WEBHOOK_BASE_URL" => Some(WEBHOOK_BASE_URL.to_owned()),
            _ => None,
        };
        let config = Config { qr_wait, ..Config::read(source).unwrap() };
        let secrets = SecretValues {
            wpp_secret: Some(Secret::new("wpp_secret")),
            service_key: ServiceKey::New(Secret::new("sb_secret_test")),
            jwt_secret: None,
        };
        let upstream = Upstream::new(config.upstream_timeout, &[]).unwrap();
        let context = RequestContext {
            user_id: Uuid::nil(),
            deadline: Deadline::within(config.request_budget),
            language: Language::English,
            qr_image: None,
        };
        Self { app: App::new(Arc::new(config), secrets, upstream), context, server }
    }

    /// Scripts the answer of an SQL function. `now_ms` is added if it is an object.
    pub fn database(&self, function: &str, answer: Value) {
        self.server.says_to(&rpc(function), 200, &dated(answer));
    }

    /// Scripts the answer of an SQL function for one call, before that of [`TestApp::database`].
    pub fn database_once(&self, function: &str, answer: Value) {
        self.server.says_once(&rpc(function), 200, &dated(answer));
    }

    /// Scripts the look-up of the number. `None` means that the organization has no such number.
    pub fn finds(&self, number: impl Into<Option<TestNumber>>) {
        let number = number.into().map(|number| number.row);
        self.database("wpp_find_number", json!({"organization_id": Uuid::nil(), "number": number}));
    }

    /// Scripts a creation by the request, for a number that has no row yet.
    pub fn begins_creation(&self) {
        let begun = json!({
            "outcome": "begun", "creation": Uuid::nil(), "organization_id": Uuid::nil(), "platform_id": "o",
            "number": null, "is_usable": false,
        });
        self.database("wpp_begin_creation", begun);
    }

    /// Scripts a successful refresh: the number gets this token.
    pub fn refreshes_token(&self, number: TestNumber, token: &str) {
        let refreshed = number.clone().with_setting("wppJwtToken", token);
        let refreshed = refreshed.with_setting("wppJwtExpiresAt", NOW + TOKEN_TTL).row;
        self.database("wpp_claim_refresh", json!({"outcome": "granted", "number": number.row}));
        self.platform("/auth/token", 200, json!({"token": token, "expiresIn": 3600}));
        self.database("wpp_save_token", json!({"outcome": "saved", "number": refreshed}));
    }

    /// Scripts the answer of the platform to paths with this text.
    pub fn platform(&self, path: &str, status: u16, answer: Value) {
        self.server.says_to(path, status, &answer.to_string());
    }

    /// Scripts the answer of the platform for one call, before that of [`TestApp::platform`].
    pub fn platform_once(&self, path: &str, status: u16, answer: Value) {
        self.server.says_once(path, status, &answer.to_string());
    }

    /// Returns the calls since the last call of this method, in order: the last part of each path, and the whole request.
    pub fn requests(&self) -> Vec<(String, String)> {
        let name = |request: &str| request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        self.server.heard().into_iter().map(|request| (name(&request), request)).collect()
    }

    /// Returns the last part of each called path since the last call of this method, in order.
    pub fn calls(&self) -> Vec<String> {
        self.requests().into_iter().map(|(name, _)| name).collect()
    }
}

fn rpc(function: &str) -> String {
    format!("/rest/v1/rpc/{function} ")
}

fn dated(mut answer: Value) -> String {
    if let Value::Object(fields) = &mut answer {
        fields.insert("now_ms".to_owned(), json!(NOW));
    }
    answer.to_string()
}

/// A number's row, as the SQL functions answer it.
#[derive(Clone)]
pub struct TestNumber {
    pub(crate) row: Value,
}

impl TestNumber {
    /// Makes a number with a valid token and a registered webhook. It has no snapshot, and its credentials are old.
    pub fn new() -> Self {
        Self {
            row: json!({
                "integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "snapshot": null,
                "settings": {
                    "wppApiKey": API_KEY, "wppAccountNumber": SESSION, "wppJwtToken": "old",
                    "wppJwtExpiresAt": NOW + TOKEN_TTL,
                },
                "credentials_saved_at_ms": NOW - LONG_AGO, "first_connected_at_ms": NOW - LONG_AGO,
                "webhook_url": format!("{WEBHOOK_BASE_URL}/functions/v1/wpp-webhook"),
                "newly_connected": false, "is_readable": true, "ignored": [],
            }),
        }
    }

    /// Makes a number whose credentials were saved just now. It has no token and no webhook yet.
    pub fn created() -> Self {
        Self::new()
            .without_token()
            .with("credentials_saved_at_ms", NOW)
            .with("first_connected_at_ms", Value::Null)
            .with("webhook_url", Value::Null)
    }

    /// Makes a number whose snapshot of this age says `connected`.
    pub fn connected(age_ms: i64) -> Self {
        Self::new().with("snapshot", snapshot("connected", None, age_ms))
    }

    /// Makes a number whose snapshot of this age has this QR code.
    pub fn qr_issued(qr: &str, age_ms: i64) -> Self {
        Self::new().with("snapshot", snapshot("qr_issued", Some(qr), age_ms))
    }

    /// Replaces a field of the row.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.row[field] = value.into();
        self
    }

    /// Replaces a key of the row's `settings`.
    #[must_use]
    pub fn with_setting(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.row["settings"][key] = value.into();
        self
    }

    /// Removes the token.
    #[must_use]
    pub fn without_token(self) -> Self {
        self.with_setting("wppJwtToken", Value::Null)
    }

    /// Ends the lifetime of the token.
    #[must_use]
    pub fn with_expired_token(self) -> Self {
        self.with_setting("wppJwtExpiresAt", NOW - 1)
    }

    /// Removes the session with its API key and token.
    #[must_use]
    pub fn without_credentials(self) -> Self {
        self.with("settings", json!({}))
    }

    /// Returns what `wpp_begin_creation` answers if there is nothing to create.
    pub fn existing(self) -> Value {
        json!({"outcome": "existing", "number": self.row})
    }

    /// Returns what `wpp_save_credentials` answers if it has saved them.
    pub fn saved(self) -> Value {
        json!({"outcome": "saved", "number": self.row})
    }
}

impl Default for TestNumber {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns a snapshot of this age. Its QR code, if any, has the same age.
pub fn snapshot(status: &str, qr: Option<&str>, age_ms: i64) -> Value {
    let at = UnixMs(NOW).minus(Duration::from_millis(age_ms.unsigned_abs()));
    json!({"status": status, "qr": qr, "qr_at_ms": qr.map(|_| at), "at_ms": at})
}
