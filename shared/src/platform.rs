//! The WPP Platform's HTTP API, one method per call. Knows nothing of the database.

use std::time::Duration;

use lambda_http::http::Method;
use reqwest::{Request, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::token::Token;
use crate::upstream::{Failure, Limits, Reply, Upstream};

/// The longest word for a state that is passed on.
const WORD_LIMIT: usize = 64;

/// Why a call brought nothing of use. Carries no text of the platform's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PlatformError {
    /// 401 for a call with a number's token.
    #[error("token rejected")]
    TokenRejected,
    /// 401 or 403 from `/auth/token`: the API key is not active yet, or dead.
    #[error("API key refused")]
    KeyRefused,
    /// 401 or 403 for our own secret.
    #[error("WPP_SECRET refused")]
    SecretRefused,
    /// 404: no such session.
    #[error("session unknown")]
    UnknownSession,
    /// 429, and when to come back.
    #[error("rate limited")]
    Busy(Option<Duration>),
    /// Any other 4xx, and one that is not the platform's own.
    #[error("refused with status {0}")]
    Refused(u16),
    /// 5xx, or no connection.
    #[error("unavailable")]
    Unavailable,
    /// No whole answer in time.
    #[error("timed out")]
    TimedOut,
    /// An answer that is not what the platform promises: HTML, a redirect, wrong types, far too long.
    #[error("unreadable answer")]
    BadAnswer,
}

impl From<Failure> for PlatformError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connection => Self::Unavailable,
            Failure::TimedOut => Self::TimedOut,
            Failure::TooLarge => Self::BadAnswer,
        }
    }
}

/// A client on the platform, as `create` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The key that fetches tokens.
    pub api_key: Secret,
    /// The session: the number in every path.
    pub session: String,
}

/// What the platform says of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What starting a session brought at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The QR, if it is there already.
    pub qr: Option<String>,
    /// The session's state, if it was told.
    pub status: Option<Status>,
}

/// The platform behind a base URL. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Platform {
    base: Url,
    upstream: Upstream,
    timeout: Duration,
}

impl Platform {
    /// A platform at `base`; one attempt at a call takes `timeout` at most.
    pub fn new(base: Url, upstream: Upstream, timeout: Duration) -> Self {
        Self { base, upstream, timeout }
    }

    /// `POST /api/integrations/wpp/create`: the client for an id, made or found. The same id names the same session.
    ///
    /// # Errors
    /// [`PlatformError::SecretRefused`], or what failed.
    pub async fn create(
        &self,
        secret: &Secret,
        id: &str,
        deadline: Deadline,
    ) -> Result<Credentials, PlatformError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            organization_id: &'a str,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Given {
            api_key: String,
            session: String,
        }
        let request = self.post(
            &["api", "integrations", "wpp", "create"],
            Some(secret),
            &Body { organization_id: id },
        )?;
        let given: Given = parse(&self.send_as(request, PlatformError::SecretRefused, deadline).await?)?;
        if given.api_key.is_empty() || given.session.is_empty() {
            return Err(PlatformError::BadAnswer);
        }
        Ok(Credentials { api_key: Secret::new(given.api_key), session: given.session })
    }

    /// `POST /auth/token`: a token for a key. `now` is when it was asked for.
    ///
    /// # Errors
    /// [`PlatformError::KeyRefused`], or what failed.
    pub async fn token(
        &self,
        api_key: &Secret,
        now: UnixMs,
        deadline: Deadline,
    ) -> Result<Token, PlatformError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            api_key: &'a Secret,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Given {
            token: Secret,
            expires_in: Option<Value>,
        }
        let request = self.post(&["auth", "token"], None, &Body { api_key })?;
        let given: Given = parse(&self.send_as(request, PlatformError::KeyRefused, deadline).await?)?;
        if given.token.expose().is_empty() {
            return Err(PlatformError::BadAnswer);
        }
        Ok(Token::issued(given.token, given.expires_in.as_ref(), now))
    }

    /// `GET /api/accounts/{session}/status`.
    ///
    /// # Errors
    /// What failed.
    pub async fn status(
        &self,
        session: &str,
        jwt: &Secret,
        deadline: Deadline,
    ) -> Result<Status, PlatformError> {
        #[derive(Deserialize)]
        struct Given {
            status: String,
        }
        let request = self.request(Method::GET, &["api", "accounts", session, "status"], Some(jwt), None)?;
        let given: Given = parse(&self.send(request, deadline).await?)?;
        Ok(Status::of(&given.status))
    }

    /// `GET /api/accounts/{session}/qr`: the QR as the platform gives it (pairing text, data URL or bare base64), or
    /// nothing while it is not ready.
    ///
    /// # Errors
    /// What failed.
    pub async fn qr(
        &self,
        session: &str,
        jwt: &Secret,
        deadline: Deadline,
    ) -> Result<Option<String>, PlatformError> {
        let request = self.request(Method::GET, &["api", "accounts", session, "qr"], Some(jwt), None)?;
        qr_in(&parse(&self.send(request, deadline).await?)?)
    }

    /// `POST /api/accounts/start`: brings a session up; harmless where it is up.
    ///
    /// # Errors
    /// What failed.
    pub async fn start(
        &self,
        session: &str,
        jwt: &Secret,
        deadline: Deadline,
    ) -> Result<Started, PlatformError> {
        #[derive(Serialize)]
        struct Body<'a> {
            number: &'a str,
        }
        let request = self.post(&["api", "accounts", "start"], Some(jwt), &Body { number: session })?;
        let given: Value = parse(&self.send(request, deadline).await?)?;
        let word = given.get("status").or_else(|| given.get("state")).and_then(Value::as_str);
        Ok(Started { qr: qr_in(&given)?, status: word.map(Status::of) })
    }

    /// `POST /internal/session/{session}/webhook`: where the platform reports to.
    ///
    /// # Errors
    /// What failed.
    pub async fn set_webhook(
        &self,
        session: &str,
        url: &str,
        jwt: &Secret,
        deadline: Deadline,
    ) -> Result<(), PlatformError> {
        #[derive(Serialize)]
        struct Body<'a> {
            url: &'a str,
        }
        let request = self.post(&["internal", "session", session, "webhook"], Some(jwt), &Body { url })?;
        self.send(request, deadline).await.map(drop)
    }

    fn post(
        &self,
        path: &[&str],
        bearer: Option<&Secret>,
        body: &impl Serialize,
    ) -> Result<Request, PlatformError> {
        let body = serde_json::to_vec(body).map_err(|_| PlatformError::BadAnswer)?;
        self.request(Method::POST, path, bearer, Some(body))
    }

    /// Every path segment is percent-encoded: a session is foreign text.
    fn request(
        &self,
        method: Method,
        path: &[&str],
        bearer: Option<&Secret>,
        body: Option<Vec<u8>>,
    ) -> Result<Request, PlatformError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.upstream.http().request(method, url);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer.expose());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        // Only a bearer that cannot be a header value fails here: a token that nobody can have issued for use.
        request.build().map_err(|_| PlatformError::TokenRejected)
    }

    /// A call with a number's token.
    async fn send(&self, request: Request, deadline: Deadline) -> Result<Reply, PlatformError> {
        let reply = self.exchange(request, deadline).await?;
        match reply.status.as_u16() {
            401 => Err(PlatformError::TokenRejected),
            404 if says_so(&reply) => Err(PlatformError::UnknownSession),
            _ => accepted(reply),
        }
    }

    /// A call with another credential, and what it means that this is refused.
    async fn send_as(
        &self,
        request: Request,
        refused: PlatformError,
        deadline: Deadline,
    ) -> Result<Reply, PlatformError> {
        let reply = self.exchange(request, deadline).await?;
        match reply.status.as_u16() {
            401 | 403 if is_the_platforms(&reply) => Err(refused),
            _ => accepted(reply),
        }
    }

    async fn exchange(&self, request: Request, deadline: Deadline) -> Result<Reply, PlatformError> {
        Ok(self.upstream.send(request, Limits { timeout: self.timeout, deadline }).await?)
    }
}

/// Whether a refusal is the platform's own. A proxy's page says nothing of a key or a session, which a person would be
/// told to give up, nor that the platform has refused anything.
fn is_the_platforms(reply: &Reply) -> bool {
    reply.body.trim_ascii().is_empty() || says_so(reply)
}

/// Whether the platform gives a reason: only that tells an unknown session from an address where nothing is.
fn says_so(reply: &Reply) -> bool {
    parse::<Value>(reply).is_ok_and(|body| body.is_object())
}

fn accepted(reply: Reply) -> Result<Reply, PlatformError> {
    match reply.status.as_u16() {
        200..=299 => Ok(reply),
        408 => Err(PlatformError::TimedOut),
        429 => Err(PlatformError::Busy(reply.retry_after)),
        status @ 400..=499 if is_the_platforms(&reply) => Err(PlatformError::Refused(status)),
        500..=599 => Err(PlatformError::Unavailable),
        _ => Err(PlatformError::BadAnswer),
    }
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
    match places.into_iter().find(|value| !value.is_null()) {
        None => Ok(None),
        Some(Value::String(qr)) => Ok(Some(qr.clone()).filter(|qr| !qr.is_empty())),
        Some(_) => Err(PlatformError::BadAnswer),
    }
}
