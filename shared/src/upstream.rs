//! Every request that the functions send to another system, under one set of limits.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use reqwest::{Client, Request};
use rustls::pki_types::TrustAnchor;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Map, Value};

use crate::VERSION;
use crate::backoff::Backoff;
use crate::clock;
use crate::deadline::Deadline;
use crate::request_log::{self, CallGuard, CallStatus};

/// The timeout for resolving a name and connecting: a fraction of any call's timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Idle connections kept for each host. A thawed sandbox may find all of them dead: with one fewer than
/// [`ATTEMPTS`], the last attempt is on a new connection.
const IDLE_CONNECTIONS: u32 = 2;

/// How long an unused connection is kept: longer than the time between two polls, and shorter than most gateways keep it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// If a peer does not even acknowledge what was sent, it is gone: the connection is closed, and the next call opens a new one.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often one call is tried, including the first attempt.
const ATTEMPTS: usize = 3;

/// The pauses before the second attempt and before the third.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// If a host asks for a longer pause, the error is passed on to the caller: waiting would hold the sandbox.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(2);

/// The longest `Retry-After` that is passed on: no outage is known to last longer, and callers may obey it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The retry budget of a sandbox for one host. A failing host is soon asked once per request instead of three times.
const RETRY_BUDGET: u32 = 10;

/// The largest answer that is read; a QR as an image has about 20 KiB.
const BODY_LIMIT: usize = 1 << 20;

/// A complete answer.
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body; empty if it was left out.
    pub body: Vec<u8>,
    /// `Retry-After`, an hour at most.
    pub retry_after: Option<Duration>,
}

/// The kind of an answer's body. It shows who answered: the API itself, or a gateway, proxy or firewall in front of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A JSON object.
    Object(Map<String, Value>),
    /// Any other JSON.
    OtherJson,
    /// Plain text.
    Text,
    /// Nothing, or only whitespace.
    Empty,
    /// An HTML page, a firewall's line of text, or bytes that are not text. No API that the functions call answers like this.
    Foreign,
}

/// The beginnings of the texts of firewalls that answer without a page: Cloudflare and Envoy.
const FIREWALLS: [&str; 2] = ["error code: ", "RBAC: access denied"];

impl Reply {
    /// Returns the kind of the body. Ignores `Content-Type`, because frameworks also send plain text as `text/html`.
    pub fn content(&self) -> Content {
        let Ok(text) = str::from_utf8(&self.body) else { return Content::Foreign };
        match text.trim_start_matches('\u{feff}').trim() {
            "" => Content::Empty,
            text if text.starts_with('<') || FIREWALLS.iter().any(|it| text.starts_with(it)) => {
                Content::Foreign
            }
            text => match serde_json::from_str(text) {
                Ok(Value::Object(fields)) => Content::Object(fields),
                Ok(_) => Content::OtherJson,
                Err(_) => Content::Text,
            },
        }
    }
}

/// Why there is no complete answer. Never contains the upstream's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke before the answer was complete.
    #[error("connection failed")]
    Connection,
    /// Its certificate is not signed by a trusted authority.
    #[error("certificate not trusted")]
    Untrusted,
    /// No complete answer in time.
    #[error("timed out")]
    TimedOut,
    /// The answer is larger than any answer should be.
    #[error("answer too large")]
    TooLarge,
}

/// A call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{call}: {why}")]
pub struct CallError<E> {
    /// The call's name.
    pub call: &'static str,
    /// Why it failed.
    pub why: E,
}

impl<E: fmt::Display> fmt::Debug for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The HTTP client, with the sandbox's retry budget for one host.
#[derive(Clone, Debug)]
pub struct Upstream {
    http: Client,
    /// The timeout of one attempt, from connecting to the last byte.
    timeout: Duration,
    retry_budget: Arc<RetryBudget>,
}

#[derive(Debug)]
struct RetryBudget {
    /// The remaining retries for the host.
    retries: AtomicU32,
    /// The pooled connections that may have died while the sandbox was frozen. Retries on them cost the host nothing.
    stale: AtomicU32,
}

impl RetryBudget {
    fn new() -> Arc<Self> {
        let (retries, stale) = (AtomicU32::new(RETRY_BUDGET), AtomicU32::new(IDLE_CONNECTIONS));
        Arc::new(Self { retries, stale })
    }

    /// Whether a call with this outcome may be repeated.
    fn try_withdraw(&self, outcome: &Result<Reply, Failure>) -> bool {
        let take = |from: &AtomicU32| {
            from.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        };
        outcome.is_err() && take(&self.stale) || take(&self.retries)
    }

    /// Notes that the host has answered.
    fn deposit(&self, outcome: &Reply) {
        self.stale.store(IDLE_CONNECTIONS, Ordering::Relaxed);
        if !is_transient(outcome.status) {
            let refill = |left| (left < RETRY_BUDGET).then_some(left + 1);
            let _ = self.retries.try_update(Ordering::Relaxed, Ordering::Relaxed, refill);
        }
    }
}

impl Upstream {
    /// Builds the client, once for a sandbox. It trusts the public authorities and `extra_roots`. No input makes it fail.
    pub fn new(
        timeout: Duration,
        extra_roots: &[TrustAnchor<'static>],
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self { http: client(extra_roots)?, timeout, retry_budget: RetryBudget::new() })
    }

    /// Returns the same client for another host, with its own retry budget.
    #[must_use]
    pub(crate) fn for_another_host(&self) -> Self {
        Self { retry_budget: RetryBudget::new(), ..self.clone() }
    }

    /// Returns the HTTP client, for code that builds its own requests.
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Sends a request and reads the complete answer. Every call that is sent from here is safe to repeat, because it carries an id
    /// or is idempotent by nature. So connection errors, 502, 503, 504 and Cloudflare's own statuses are retried while time and
    /// budget last. The call is logged under this name.
    pub async fn send(
        &self,
        name: &'static str,
        request: Request,
        timeout: Duration,
        deadline: Deadline,
    ) -> Result<Reply, Failure> {
        let mut call = request_log::call(name, deadline);
        let outcome = self.send_with_retries(request, timeout, deadline, &mut call).await;
        call.status = match &outcome {
            Ok(reply) => CallStatus::Http(reply.status.as_u16()),
            Err(failure) => CallStatus::Failed(failure.to_string()),
        };
        outcome
    }

    async fn send_with_retries(
        &self,
        request: Request,
        timeout: Duration,
        deadline: Deadline,
        call: &mut CallGuard,
    ) -> Result<Reply, Failure> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        for _ in 1..ATTEMPTS {
            let Some(attempt) = request.try_clone() else { break };
            call.attempts += 1;
            let outcome = self.send_once(attempt, timeout, deadline).await;
            let asked = asked_pause(&outcome);
            let pause = asked.saturating_add(backoff.pause(LONGEST_PAUSE));
            if !is_retryable(&outcome)
                || asked > LONGEST_ASKED_PAUSE
                || pause >= deadline.remaining()
                || !self.retry_budget.try_withdraw(&outcome)
            {
                return outcome;
            }
            deadline.sleep(pause).await;
        }
        call.attempts += 1;
        self.send_once(request, timeout, deadline).await
    }

    async fn send_once(
        &self,
        request: Request,
        timeout: Duration,
        deadline: Deadline,
    ) -> Result<Reply, Failure> {
        let whole = deadline.at_most(timeout.min(self.timeout)).bound(self.exchange(request)).await;
        let reply = whole.unwrap_or(Err(Failure::TimedOut))?;
        self.retry_budget.deposit(&reply);
        Ok(reply)
    }

    async fn exchange(&self, request: Request) -> Result<Reply, Failure> {
        let mut response = self.http.execute(request).await.map_err(failure)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(Failure::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status: response.status(), retry_after: retry_after(response.headers()), body })
    }
}

impl fmt::Debug for Reply {
    /// Leaves out the body, which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

fn client(extra_roots: &[TrustAnchor<'static>]) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let roots = RootCertStore { roots: [webpki_roots::TLS_SERVER_ROOTS, extra_roots].concat() };
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        // Firewalls refuse requests without a `User-Agent`.
        .user_agent(format!("wpp-functions/{VERSION}"))
        // A variable such as HTTP_PROXY is meant for other programs.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // It would keep a copy of each request. [`Upstream::send`] repeats what it may.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS as usize)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_user_timeout(SILENCE_TIMEOUT)
        .build()?)
}

/// Whether the next attempt may succeed. Not after a timeout, which used up the time for a retry.
fn is_retryable(outcome: &Result<Reply, Failure>) -> bool {
    match outcome {
        Ok(reply) => is_transient(reply.status),
        Err(failure) => *failure == Failure::Connection,
    }
}

/// Whether a gateway uses this status to report that the server behind it does not answer. Cloudflare, which is in front of
/// Supabase, has its own statuses for this.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504 | 520..=524)
}

fn asked_pause(outcome: &Result<Reply, Failure>) -> Duration {
    outcome.as_ref().ok().and_then(|reply| reply.retry_after).unwrap_or_default()
}

/// Reads `Retry-After`, which is in seconds or a date. A date is compared with the answer's `Date`, if it has one, because clocks
/// may differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(header::RETRY_AFTER).filter(|value| !value.is_empty())?;
    let asked = if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that overflows is more than an hour.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = |text| httpdate::parse_http_date(text).ok();
        let now = text(header::DATE).and_then(date).unwrap_or_else(|| clock::now().into());
        date(value)?.duration_since(now).unwrap_or_default()
    };
    Some(asked.min(LONGEST_RETRY_AFTER))
}

fn failure(error: reqwest::Error) -> Failure {
    if error.is_timeout() {
        Failure::TimedOut
    } else if is_untrusted(&error) {
        Failure::Untrusted
    } else {
        Failure::Connection
    }
}

fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let is_it = matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)));
    // An `io::Error` does not report its inner error as its source.
    let inside =
        error.downcast_ref().and_then(io::Error::get_ref).map(|inside| inside as &(dyn Error + 'static));
    is_it || inside.or(error.source()).is_some_and(is_untrusted)
}

#[cfg(test)]
mod tests;
