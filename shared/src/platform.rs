//! The WPP Platform's HTTP API, one method per call. Knows nothing of the database.

use std::time::Duration;

use http::{Method, header};
use reqwest::{Request, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::token::Token;
use crate::upstream::{CallError, Content, Failure, Reply, Upstream};

/// The longest word for a state that is passed on.
const WORD_LIMIT: usize = 64;

/// Why a call brought nothing of use. Carries no text of the platform's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PlatformError {
    /// 401 for a call with a number's token.
    #[error("token rejected")]
    TokenRejected,
    /// 401 or 403 from `/auth/token`: the API key is dead, for what we know.
    #[error("API key refused")]
    KeyRefused,
    /// The same, for a key so new that it may not be active yet.
    #[error("new API key not taken yet")]
    KeyNotActive,
    /// 401 or 403 for our own secret.
    #[error("WPP_SECRET refused")]
    SecretRefused,
    /// 404, in the platform's own words: no such session.
    #[error("session unknown")]
    UnknownSession,
    /// 429, and when to come back.
    #[error("rate limited")]
    Busy(Option<Duration>),
    /// Any other 4xx.
    #[error("refused with status {0}")]
    Refused(u16),
    /// 5xx, no connection, or a refusal that is not the platform's own.
    #[error("unavailable")]
    Unavailable,
    /// No whole answer in time.
    #[error("timed out")]
    TimedOut,
    /// An answer that is not what the platform promises: HTML, a redirect, wrong types, far too long.
    #[error("unreadable answer")]
    BadAnswer,
}

/// What a call brought, or which call failed and why.
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

/// A client on the platform, as `create` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The key that fetches tokens.
    pub api_key: Secret,
    /// The session: the number in every path.
    pub session: String,
}

/// What the platform says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// A phone is linked.
    Connected,
    /// The session is coming up.
    Starting,
    /// The linked phone, or the session, is away.
    Offline,
    /// A QR is to be scanned; also what a word that we don't know means.
    QrRequired,
    /// WhatsApp asks for a passkey, which only the phone's owner can give, in WhatsApp itself.
    PasskeyRequired,
    /// The platform knows no such session.
    Lost,
}

/// The platform's word for a session's state, beside what we take it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What we take it for.
    pub state: SessionState,
    /// The word itself; empty where there was none.
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

/// What a call for a session needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAuth {
    /// The number in the path.
    pub session: String,
    /// The bearer.
    pub jwt: Secret,
}

/// The platform behind a base URL. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Platform {
    base: Url,
    upstream: Upstream,
}

/// What a call shows the platform, and so whose refusal a 401 is.
#[derive(Clone, Copy)]
enum Auth<'a> {
    /// `WPP_SECRET`, as the bearer.
    Secret(&'a Secret),
    /// An API key, in the body.
    ApiKey,
    /// A number's token, as the bearer.
    Token(&'a Secret),
}

impl Platform {
    /// A platform at `base`.
    pub fn new(base: Url, upstream: Upstream) -> Self {
        Self { base, upstream }
    }

    /// `POST /api/integrations/wpp/create`: the client for an id, made or found. The same id names the same session.
    pub async fn create(&self, secret: &Secret, id: &str, deadline: Deadline) -> PlatformResult<Credentials> {
        let (path, body) = (["api", "integrations", "wpp", "create"], json!({"organizationId": id}));
        self.call("create", Auth::Secret(secret), &path, Some(body), deadline, |reply| {
            let given: Credentials = parse(reply)?;
            let is_whole = !given.api_key.expose().is_empty() && !given.session.is_empty();
            is_whole.then_some(given).ok_or(PlatformError::BadAnswer)
        })
        .await
    }

    /// `POST /auth/token`: a token for a key. `now` is when it was asked for.
    pub async fn token(&self, api_key: &Secret, now: UnixMs, deadline: Deadline) -> PlatformResult<Token> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Given {
            token: Secret,
            expires_in: Option<Value>,
        }
        let body = json!({"apiKey": api_key});
        self.call("auth/token", Auth::ApiKey, &["auth", "token"], Some(body), deadline, |reply| {
            let given: Given = parse(reply)?;
            if given.token.expose().is_empty() {
                return Err(PlatformError::BadAnswer);
            }
            Ok(Token::issued(given.token, given.expires_in.as_ref(), now))
        })
        .await
    }

    /// `GET /api/accounts/{session}/status`.
    pub async fn status(&self, auth: SessionAuth, deadline: Deadline) -> PlatformResult<Status> {
        let path = ["api", "accounts", &auth.session, "status"];
        self.call("status", Auth::Token(&auth.jwt), &path, None, deadline, |reply| {
            parse::<Value>(reply)?["status"].as_str().map(Status::of).ok_or(PlatformError::BadAnswer)
        })
        .await
    }

    /// `GET /api/accounts/{session}/qr`: the QR as the platform gives it (pairing text, data URL or bare base64), or
    /// nothing while it is not ready.
    pub async fn qr(&self, auth: SessionAuth, deadline: Deadline) -> PlatformResult<Option<String>> {
        let path = ["api", "accounts", &auth.session, "qr"];
        self.call("qr", Auth::Token(&auth.jwt), &path, None, deadline, |reply| qr_in(&parse(reply)?)).await
    }

    /// `POST /api/accounts/start`: brings a session up; harmless where it is up. Answers its status and its QR, as far as
    /// the platform has them at once.
    pub async fn start(
        &self,
        auth: SessionAuth,
        deadline: Deadline,
    ) -> PlatformResult<(Option<Status>, Option<String>)> {
        let (path, body) = (["api", "accounts", "start"], json!({"number": auth.session}));
        self.call("start", Auth::Token(&auth.jwt), &path, Some(body), deadline, |reply| {
            let given: Value = parse(reply)?;
            let word = ["status", "state"].into_iter().find_map(|key| given[key].as_str());
            Ok((word.map(Status::of), qr_in(&given)?))
        })
        .await
    }

    /// `POST /internal/session/{session}/webhook`: where the platform reports to.
    pub async fn set_webhook(&self, auth: SessionAuth, url: &str, deadline: Deadline) -> PlatformResult<()> {
        let (path, body) = (["internal", "session", &auth.session, "webhook"], json!({"url": url}));
        self.call("webhook", Auth::Token(&auth.jwt), &path, Some(body), deadline, |_| Ok(())).await
    }

    /// Makes a call, a `POST` where it has a body, and reads its answer.
    async fn call<T>(
        &self,
        call: &'static str,
        auth: Auth<'_>,
        path: &[&str],
        body: Option<Value>,
        deadline: Deadline,
        read: impl FnOnce(&Reply) -> Result<T, PlatformError>,
    ) -> PlatformResult<T> {
        let answer = async {
            let request = self.request(auth, path, body)?;
            let reply = self.upstream.send(call, request, deadline).await?;
            accepted(auth, &reply)?;
            read(&reply)
        };
        answer.await.map_err(|why| CallError { call, why })
    }

    /// Every path segment is percent-encoded: a session is foreign text.
    fn request(&self, auth: Auth<'_>, path: &[&str], body: Option<Value>) -> Result<Request, PlatformError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = self.upstream.http().request(method, url);
        if let Auth::Secret(bearer) | Auth::Token(bearer) = auth {
            request = request.bearer_auth(bearer.expose());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        // Only a bearer that cannot be a header value fails here: a token that nobody can have issued for use.
        request.build().map_err(|_| PlatformError::TokenRejected)
    }
}

/// Returns what the status of an answer means for a call with this credential. The platform speaks JSON, plain text or
/// nothing; of an address where nothing is, it speaks a JSON object. What says anything else stands before the platform: a
/// person must give up neither key nor number for that.
fn accepted(auth: Auth<'_>, reply: &Reply) -> Result<(), PlatformError> {
    if reply.status.is_success() {
        return Ok(());
    }
    Err(match (reply.status.as_u16(), reply.content(), auth) {
        (408, ..) => PlatformError::TimedOut,
        (429, ..) => PlatformError::Busy(reply.retry_after),
        (500..=599, ..) | (400..=499, Content::Html, _) => PlatformError::Unavailable,
        (404, Content::Object(_), Auth::Token(_)) => PlatformError::UnknownSession,
        (404, Content::OtherJson | Content::Text | Content::Empty, _) => PlatformError::Unavailable,
        (401, _, Auth::Token(_)) => PlatformError::TokenRejected,
        (401 | 403, _, Auth::ApiKey) => PlatformError::KeyRefused,
        (401 | 403, _, Auth::Secret(_)) => PlatformError::SecretRefused,
        (status @ 400..=499, ..) => PlatformError::Refused(status),
        _ => PlatformError::BadAnswer,
    })
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<T, PlatformError> {
    serde_json::from_slice(&reply.body).map_err(|_| PlatformError::BadAnswer)
}

/// The QR in any of the four places where builds of the platform put it.
fn qr_in(answer: &Value) -> Result<Option<String>, PlatformError> {
    if !answer.is_object() {
        return Err(PlatformError::BadAnswer);
    }
    let places = [&answer["qr"], &answer["qrCode"], &answer["qrcode"], &answer["data"]["qr"]];
    match places.into_iter().find(|value| !value.is_null() && *value != "") {
        None => Ok(None),
        Some(Value::String(qr)) => Ok(Some(qr.clone())),
        Some(_) => Err(PlatformError::BadAnswer),
    }
}

#[cfg(test)]
mod tests;
