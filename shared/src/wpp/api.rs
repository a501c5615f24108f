//! The WPP Platform's HTTP API, one method per call. Does not use the database.

use std::time::Duration;

use http::{Method, StatusCode, header};
use reqwest::{Request, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::upstream::{CallError, Content, Failure, Reply, Upstream};
use crate::wpp::refresh::TokenSource;
use crate::wpp::token::Token;

/// The longest status word that is passed on, in characters.
const WORD_LIMIT: usize = 64;

/// The longest name of a session, in bytes; real ones have 13 digits.
const SESSION_LIMIT: usize = 128;

/// The longest API key, token and QR that are accepted, in bytes. Real ones have about 50 bytes, about 500 bytes, and up to 20 KiB
/// (a QR as an image).
const API_KEY_LIMIT: usize = 512;
const TOKEN_LIMIT: usize = 8 * 1024;
const QR_LIMIT: usize = 64 * 1024;

/// Why a platform call failed. Never contains text from the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PlatformError {
    /// 401 for a call with a number's token.
    #[error("token rejected")]
    TokenRejected,
    /// 401 or 403 from `/auth/token`, or no API key: it has probably been revoked.
    #[error("API key refused")]
    KeyRefused,
    /// The same for an API key so new that it may not be active yet.
    #[error("new API key not active yet")]
    KeyNotActive,
    /// 401 or 403 for `WPP_SECRET`, or none is set.
    #[error("WPP_SECRET refused")]
    SecretRefused,
    /// A 404 from the platform itself: no such session.
    #[error("session unknown")]
    UnknownSession,
    /// 429, with the `Retry-After` if there was one.
    #[error("rate limited")]
    Busy(Option<Duration>),
    /// Any other 4xx for a call with a number's token: it concerns that number.
    #[error("number refused with status {0}")]
    NumberRefused(u16),
    /// Any other 4xx for a call that is the same for all numbers: `create` or `/auth/token`.
    #[error("refused with status {0}")]
    Refused(u16),
    /// 5xx, no connection, or a refusal that did not come from the platform itself.
    #[error("unavailable")]
    Unavailable,
    /// No complete answer in time, or a 408.
    #[error("timed out")]
    TimedOut,
    /// A success without what the platform promises: HTML, a redirect, a value of the wrong type, too long or with control characters.
    #[error("unreadable answer")]
    BadAnswer,
}

/// The result of a platform call; an error names the call.
pub type PlatformResult<T> = Result<T, CallError<PlatformError>>;

impl From<Failure> for PlatformError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connection | Failure::Untrusted => Self::Unavailable,
            Failure::TimedOut => Self::TimedOut,
            Failure::TooLarge => Self::BadAnswer,
        }
    }
}

/// What the platform's `create` returns: the credentials of one number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The API key that fetches tokens.
    pub api_key: Secret,
    /// The name of the session, which every later call about the number carries.
    pub session: String,
}

/// The state of a session, as the platform reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// A phone is connected.
    Connected,
    /// The session is starting.
    Starting,
    /// The linked phone or the session is offline.
    Offline,
    /// A QR must be scanned. Unknown status words also count as this.
    QrRequired,
    /// WhatsApp asks for a passkey, which only the phone's owner can give, in WhatsApp itself.
    PasskeyRequired,
    /// The platform knows no such session.
    Lost,
}

/// A session's state, and the platform's word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state that the word means.
    pub state: SessionState,
    /// The word itself, cut to 64 characters; empty if the platform does not know the session.
    pub word: String,
}

impl Status {
    fn of(word: &str) -> Self {
        let word: String = word.trim().chars().take(WORD_LIMIT).collect();
        let state = match word.to_lowercase().as_str() {
            "connected" | "ready" => SessionState::Connected,
            "starting" | "pending" => SessionState::Starting,
            "offline" | "disconnected" => SessionState::Offline,
            "passkey_required" | "passkey_confirmation_required" => SessionState::PasskeyRequired,
            _ => SessionState::QrRequired,
        };
        Self { state, word }
    }
}

/// What a call about one session needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAuth {
    /// The session, for the path.
    pub session: String,
    /// The number's token, sent as the bearer token.
    pub jwt: Secret,
}

/// A client of the platform's API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WppApi {
    base: Url,
    upstream: Upstream,
}

/// The credential that a call sends, and that a 401 refuses.
#[derive(Clone, Copy)]
enum Auth<'a> {
    /// `WPP_SECRET`, as the bearer.
    Secret(&'a Secret),
    /// An API key, in the body.
    ApiKey,
    /// A number's token, as the bearer.
    Token(&'a Secret),
}

impl WppApi {
    /// Returns a client of the platform at `base`.
    pub fn new(base: Url, upstream: Upstream) -> Self {
        Self { base, upstream }
    }

    /// Creates a client for an id, or finds it: `POST /api/integrations/wpp/create`. The same id gets the same session.
    pub async fn create_client(
        &self,
        secret: &Secret,
        id: &str,
        deadline: Deadline,
    ) -> PlatformResult<Credentials> {
        let (auth, path) = (Auth::Secret(secret), ["api", "integrations", "wpp", "create"]);
        self.call(
            ("create", Duration::from_secs(8)),
            auth,
            &path,
            Some(json!({"organizationId": id})),
            deadline,
            |reply| {
                accepted(auth, reply)?;
                let given: Credentials = parse(reply)?;
                if !is_session(&given.session) {
                    return Err(PlatformError::BadAnswer);
                }
                Ok(Credentials {
                    api_key: Secret::new(bounded(given.api_key.expose(), API_KEY_LIMIT)?),
                    ..given
                })
            },
        )
        .await
    }

    /// Gets a token for an API key, the first one and every later one: `POST /auth/token`. `now` is the time of the request, by the
    /// database's clock.
    pub async fn get_initial_token(
        &self,
        api_key: &Secret,
        now: UnixMs,
        deadline: Deadline,
    ) -> PlatformResult<Token> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Given {
            token: Secret,
            expires_in: Option<Value>,
        }
        let (auth, body) = (Auth::ApiKey, json!({"apiKey": api_key}));
        self.call(
            ("auth/token", Duration::from_secs(8)),
            auth,
            &["auth", "token"],
            Some(body),
            deadline,
            |reply| {
                accepted(auth, reply)?;
                let given: Given = parse(reply)?;
                let token = Secret::new(bounded(given.token.expose(), TOKEN_LIMIT)?);
                Ok(Token::issued(token, given.expires_in.as_ref(), now))
            },
        )
        .await
    }

    /// Asks for the session's status: `GET /api/accounts/{session}/status`.
    pub async fn status(
        &self,
        SessionAuth { session, jwt }: SessionAuth,
        deadline: Deadline,
    ) -> PlatformResult<Status> {
        let (auth, path) = (Auth::Token(&jwt), ["api", "accounts", &session, "status"]);
        self.call(("status", Duration::from_secs(8)), auth, &path, None, deadline, |reply| {
            accepted(auth, reply)?;
            parse::<Value>(reply)?["status"].as_str().map(Status::of).ok_or(PlatformError::BadAnswer)
        })
        .await
    }

    /// Asks for the QR: `GET /api/accounts/{session}/qr`. Returns it as the platform gives it (pairing text, data URL or bare
    /// base64). Returns `None` if there is no QR: for the first seconds of a session, while a phone is connected, and on a 404. Use
    /// the status to find out whether the session exists.
    pub async fn qr(
        &self,
        SessionAuth { session, jwt }: SessionAuth,
        deadline: Deadline,
    ) -> PlatformResult<Option<String>> {
        let (auth, path) = (Auth::Token(&jwt), ["api", "accounts", &session, "qr"]);
        self.call(("qr", Duration::from_secs(8)), auth, &path, None, deadline, |reply| {
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            accepted(auth, reply)?;
            qr_in(&parse(reply)?)
        })
        .await
    }

    /// Starts a session: `POST /api/accounts/start`. It is safe to repeat while the session is running.
    /// Returns its status and its QR, if the answer has them.
    pub async fn start(
        &self,
        SessionAuth { session, jwt }: SessionAuth,
        deadline: Deadline,
    ) -> PlatformResult<(Option<Status>, Option<String>)> {
        let (auth, path) = (Auth::Token(&jwt), ["api", "accounts", "start"]);
        self.call(
            ("start", Duration::from_secs(8)),
            auth,
            &path,
            Some(json!({"number": session})),
            deadline,
            |reply| {
                if is_running_already(reply) {
                    return Ok((None, None));
                }
                accepted_with_any_body(auth, reply)?;
                let given: Value = parse(reply).unwrap_or_default();
                let word = ["status", "state"].into_iter().find_map(|key| given[key].as_str());
                Ok((word.map(Status::of), qr_in(&given).unwrap_or_default()))
            },
        )
        .await
    }

    /// Sets the URL that the platform reports to: `POST /internal/session/{session}/webhook`.
    pub async fn set_webhook(
        &self,
        SessionAuth { session, jwt }: SessionAuth,
        url: &str,
        deadline: Deadline,
    ) -> PlatformResult<()> {
        let (auth, path) = (Auth::Token(&jwt), ["internal", "session", &session, "webhook"]);
        self.call(
            ("webhook", Duration::from_secs(2)),
            auth,
            &path,
            Some(json!({"url": url})),
            deadline,
            |reply| {
                accepted_with_any_body(auth, reply).map_err(|why| match why {
                    // A 404 of the webhook does not mean that the session is unknown.
                    PlatformError::UnknownSession => PlatformError::NumberRefused(404),
                    why => why,
                })
            },
        )
        .await
    }

    /// Makes a call, a `POST` if it has a body, and reads its answer. `timeout` is the longest that one attempt may take;
    /// `UPSTREAM_TIMEOUT_MS` can shorten it but not lengthen it.
    async fn call<T>(
        &self,
        (call, timeout): (&'static str, Duration),
        auth: Auth<'_>,
        path: &[&str],
        body: Option<Value>,
        deadline: Deadline,
        read: impl FnOnce(&Reply) -> Result<T, PlatformError>,
    ) -> PlatformResult<T> {
        let answer = async {
            let request = self.request(auth, path, body)?;
            read(&self.upstream.send(call, request, timeout, deadline).await?)
        };
        answer.await.map_err(|why| CallError { call, why })
    }

    /// Makes a request. Every path segment is percent-encoded, because a session is untrusted text. `Url` would resolve a segment
    /// of dots even if it is encoded once, so it is encoded twice, and the platform answers that there is no such session.
    fn request(&self, auth: Auth<'_>, path: &[&str], body: Option<Value>) -> Result<Request, PlatformError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.iter().map(|segment| match *segment {
                "." => "%2E",
                ".." => "%2E%2E",
                segment => segment,
            }));
        }
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = self.upstream.http().request(method, url);
        if let Auth::Secret(bearer) | Auth::Token(bearer) = auth {
            request = request.bearer_auth(bearer.expose());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        // Only a bearer that cannot be a header value fails here: the platform cannot have issued such a token.
        request.build().map_err(|_| PlatformError::TokenRejected)
    }
}

impl TokenSource for WppApi {
    async fn fetch_token(&self, api_key: &Secret, now: UnixMs, deadline: Deadline) -> PlatformResult<Token> {
        self.get_initial_token(api_key, now, deadline).await
    }
}

/// Accepts a 2xx, and returns any other status as the error that it means for a call with this credential. The platform answers with
/// JSON, plain text or an empty body, and its 404 is a JSON object. Any other answer comes from something in front of the platform, so
/// it does not count as a refusal of the credential or the number.
fn accepted(auth: Auth<'_>, reply: &Reply) -> Result<(), PlatformError> {
    if reply.status.is_success() {
        return Ok(());
    }
    Err(match (reply.status.as_u16(), reply.content(), auth) {
        (408, ..) => PlatformError::TimedOut,
        (429, ..) => PlatformError::Busy(reply.retry_after),
        (500..=599, ..) | (400..=499, Content::Foreign, _) => PlatformError::Unavailable,
        (404, Content::Object(_), Auth::Token(_)) => PlatformError::UnknownSession,
        (404, Content::OtherJson | Content::Text | Content::Empty, _) => PlatformError::Unavailable,
        (401, _, Auth::Token(_)) => PlatformError::TokenRejected,
        (401 | 403, _, Auth::ApiKey) => PlatformError::KeyRefused,
        (401 | 403, _, Auth::Secret(_)) => PlatformError::SecretRefused,
        (status @ 400..=499, _, Auth::Token(_)) => PlatformError::NumberRefused(status),
        (status @ 400..=499, ..) => PlatformError::Refused(status),
        _ => PlatformError::BadAnswer,
    })
}

/// Accepts any 2xx, unless something in front of the platform wrote its body.
fn accepted_with_any_body(auth: Auth<'_>, reply: &Reply) -> Result<(), PlatformError> {
    accepted(auth, reply)?;
    if reply.content() == Content::Foreign { Err(PlatformError::BadAnswer) } else { Ok(()) }
}

/// Whether the platform refuses to start a session because it is already running.
fn is_running_already(reply: &Reply) -> bool {
    let says_already = || String::from_utf8_lossy(&reply.body).to_lowercase().contains("already");
    let is_running = match reply.status.as_u16() {
        409 => true,
        400 | 403 | 422 | 500 => says_already(),
        _ => false,
    };
    is_running && reply.content() != Content::Foreign
}

/// Whether a text is a valid name of a session: it has only characters that are safe in a path.
pub fn is_session(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+@:".contains(c);
    (1..=SESSION_LIMIT).contains(&text.len()) && text.chars().all(is_plain) && !matches!(text, "." | "..")
}

/// Trims a text from the platform. Fails if it is empty, too long or has control characters.
fn bounded(text: &str, limit: usize) -> Result<String, PlatformError> {
    let text = text.trim();
    let is_good = (1..=limit).contains(&text.len()) && !text.chars().any(char::is_control);
    is_good.then(|| text.to_owned()).ok_or(PlatformError::BadAnswer)
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<T, PlatformError> {
    serde_json::from_slice(&reply.body).map_err(|_| PlatformError::BadAnswer)
}

/// Finds the QR in one of the four fields that versions of the platform use.
fn qr_in(answer: &Value) -> Result<Option<String>, PlatformError> {
    if !answer.is_object() {
        return Err(PlatformError::BadAnswer);
    }
    let places = [&answer["qr"], &answer["qrCode"], &answer["qrcode"], &answer["data"]["qr"]];
    match places.into_iter().find(|value| !value.is_null() && *value != "") {
        None => Ok(None),
        Some(Value::String(qr)) => bounded(qr, QR_LIMIT).map(Some),
        Some(_) => Err(PlatformError::BadAnswer),
    }
}

#[cfg(test)]
mod tests;
