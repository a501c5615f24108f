//! Controls an upstream: counts its requests, makes them fail, or stops them at a chosen point.
//!
//! Some faults close the connection, which only [`Server`](crate::server::Server) can do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::watch;

use crate::server::severed;

/// The endpoint name that stands for every endpoint.
const EVERY: &str = "*";

/// The size of one piece of a [`Fault::Huge`] body, in bytes.
const HUGE_PIECE: usize = 64 * 1024;

/// A way for an endpoint to misbehave.
///
/// In JSON: `"drop"`, `{"delay": {"ms": 500}}`, `{"status": {"status": 503}}`, `{"redirect": "http://..."}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Answers with this status, without doing the work.
    Status {
        /// The HTTP status.
        status: u16,
        /// The body; its content type is always JSON.
        #[serde(default)]
        body: String,
        /// The `Retry-After` header, in seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// Answers 200 with this body and the content type JSON, without doing the work.
    Body(String),
    /// Answers 200 with an HTML page, like a proxy, without doing the work.
    Html,
    /// Does the work, sends the `Content-Length` of the whole answer and half of it, and closes the connection.
    Truncated,
    /// Answers 200 with the beginning of a JSON object, of this many bytes, without doing the work.
    Huge {
        /// The length of the body.
        bytes: u64,
    },
    /// Waits, then works normally.
    Delay {
        /// The wait, in milliseconds.
        ms: u64,
    },
    /// Never answers, without doing the work.
    NoHeaders,
    /// Does the work, sends the headers and the first byte of the answer, and nothing more.
    StalledBody,
    /// Closes the connection without doing the work.
    Drop,
    /// Does the work and closes the connection without an answer.
    LostAnswer,
    /// Answers 307 with this location, without doing the work.
    Redirect(String),
}

/// The point at which a [`Hold`] stops a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// On arrival, before the work.
    Before,
    /// After the work, before the answer.
    After,
}

/// Sits in front of an upstream's endpoints: counts requests, and injects faults.
///
/// Clones share one state. As an endpoint's name, `"*"` means every endpoint.
#[derive(Clone, Debug, Default)]
pub struct FaultInjector {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, u64>,
    faults: Vec<Planned>,
    barriers: Vec<Arc<Barrier>>,
}

#[derive(Debug)]
struct Planned {
    endpoint: String,
    /// How many more requests get it; `None` for all of them.
    left: Option<u32>,
    fault: Fault,
}

#[derive(Debug)]
struct Barrier {
    endpoint: String,
    point: Point,
    /// How many requests it stops; later ones pass.
    limit: usize,
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

/// Keeps requests stopped at a [`Point`] until it is released or dropped.
#[derive(Debug)]
pub struct Hold {
    barrier: Arc<Barrier>,
}

impl FaultInjector {
    /// Counts the requests that arrived at `endpoint` since the last reset.
    pub fn count(&self, endpoint: &str) -> u64 {
        let state = self.state();
        if endpoint == EVERY {
            return state.counts.values().sum();
        }
        state.counts.get(endpoint).copied().unwrap_or_default()
    }

    /// Counts the requests since the last reset, by endpoint. Endpoints without a request are absent.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state().counts.clone()
    }

    /// Resets the counts.
    pub fn reset_counts(&self) {
        self.state().counts.clear();
    }

    /// Makes `endpoint` misbehave until [`FaultInjector::clear`], or until this is called for it again.
    ///
    /// Faults of [`FaultInjector::inject_times`] come first.
    pub fn inject(&self, endpoint: &str, fault: Fault) {
        let mut state = self.state();
        state.faults.retain(|planned| planned.left.is_some() || planned.endpoint != endpoint);
        state.plan(endpoint, None, fault);
    }

    /// Makes the next `times` requests to `endpoint` misbehave, after those already planned in this way.
    pub fn inject_times(&self, endpoint: &str, times: u32, fault: Fault) {
        self.state().plan(endpoint, Some(times), fault);
    }

    /// Removes all faults. Requests that already have one keep it.
    pub fn clear(&self) {
        self.state().faults.clear();
    }

    /// Stops requests to `endpoint` at `point` from now on.
    pub fn hold(&self, endpoint: &str, point: Point) -> Hold {
        self.hold_up_to(usize::MAX, endpoint, point)
    }

    /// Stops the next request to `endpoint` at `point`, and lets later ones pass.
    pub fn hold_one(&self, endpoint: &str, point: Point) -> Hold {
        self.hold_up_to(1, endpoint, point)
    }

    fn hold_up_to(&self, limit: usize, endpoint: &str, point: Point) -> Hold {
        let barrier = Arc::new(Barrier {
            endpoint: endpoint.to_owned(),
            point,
            limit,
            arrived: watch::Sender::new(0),
            open: watch::Sender::new(false),
        });
        self.state().barriers.push(barrier.clone());
        Hold { barrier }
    }

    /// Runs one request; `work` is the endpoint's handler.
    pub async fn pass<F>(&self, endpoint: &str, work: F) -> Response<Body>
    where
        F: Future<Output = Response<Body>> + Send,
    {
        let fault = self.state().arrive(endpoint);
        self.stop(endpoint, Point::Before).await;
        let response = match fault {
            Some(fault) => fault.answer(work).await,
            None => work.await,
        };
        self.stop(endpoint, Point::After).await;
        response
    }

    async fn stop(&self, endpoint: &str, point: Point) {
        let barriers = self.state().barriers_at(endpoint, point);
        for barrier in barriers {
            let mut open = barrier.open.subscribe();
            let is_stopped = |arrived: &mut usize| {
                let is_stopped = *arrived < barrier.limit;
                *arrived += usize::from(is_stopped);
                is_stopped
            };
            if !barrier.arrived.send_if_modified(is_stopped) {
                continue;
            }
            // This function owns the barrier, so its sender cannot be gone.
            let _ = open.wait_for(|open| *open).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn plan(&mut self, endpoint: &str, left: Option<u32>, fault: Fault) {
        self.faults.push(Planned { endpoint: endpoint.to_owned(), left, fault });
    }

    /// Counts a request and returns its fault. A fault of this endpoint comes before one of all; among those, one for a number of
    /// requests comes first.
    fn arrive(&mut self, endpoint: &str) -> Option<Fault> {
        *self.counts.entry(endpoint.to_owned()).or_default() += 1;
        self.faults.retain(|planned| planned.left != Some(0));
        let planned = self
            .faults
            .iter_mut()
            .filter(|planned| planned.endpoint == endpoint || planned.endpoint == EVERY)
            .min_by_key(|planned| (planned.endpoint == EVERY, planned.left.is_none()))?;
        if let Some(left) = &mut planned.left {
            *left -= 1;
        }
        Some(planned.fault.clone())
    }

    fn barriers_at(&mut self, endpoint: &str, point: Point) -> Vec<Arc<Barrier>> {
        self.barriers.retain(|barrier| !*barrier.open.borrow());
        self.barriers
            .iter()
            .filter(|barrier| barrier.endpoint == endpoint || barrier.endpoint == EVERY)
            .filter(|barrier| barrier.point == point)
            .cloned()
            .collect()
    }
}

impl Hold {
    /// Waits until `n` requests have stopped here, including requests that have given up since.
    pub async fn reached(&self, n: usize) {
        // This hold owns the barrier, so its sender cannot be gone.
        let _ = self.barrier.arrived.subscribe().wait_for(|arrived| *arrived >= n).await;
    }

    /// Releases the held requests, and lets all later ones through.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.barrier.open.send_replace(true);
    }
}

impl Fault {
    /// Makes a fault that answers with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::status_with(status, "")
    }

    /// Makes a fault that answers with this status and body.
    pub fn status_with(status: u16, body: &str) -> Self {
        Self::Status { status, body: body.to_owned(), retry_after_s: None }
    }

    async fn answer<F>(self, work: F) -> Response<Body>
    where
        F: Future<Output = Response<Body>> + Send,
    {
        match self {
            Self::Status { status, body, retry_after_s } => refused(status, body, retry_after_s),
            Self::Body(body) => json(StatusCode::OK, body),
            Self::Html => page(),
            Self::Truncated => truncated(work.await).await,
            Self::Huge { bytes } => huge(bytes),
            Self::Delay { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                work.await
            }
            Self::NoHeaders => pending().await,
            Self::StalledBody => stalled(work.await).await,
            Self::Drop => severed(),
            Self::LostAnswer => {
                work.await;
                severed()
            }
            Self::Redirect(location) => {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
            }
        }
    }
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn refused(status: u16, body: String, retry_after_s: Option<u64>) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn page() -> Response<Body> {
    let body =
        "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>Bad gateway</body></html>";
    ([(CONTENT_TYPE, "text/html")], body).into_response()
}

async fn truncated(response: Response<Body>) -> Response<Body> {
    let (mut parts, whole) = buffered(response).await;
    if whole.is_empty() {
        return severed();
    }
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let broken = stream::once(async {
        // The first half must be sent before the connection is closed.
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let body = stream::iter([Ok(half)]).chain(broken);
    Response::from_parts(parts, Body::from_stream(body))
}

async fn stalled(response: Response<Body>) -> Response<Body> {
    let (mut parts, whole) = buffered(response).await;
    let length = whole.len().max(2);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let first = whole.first().copied().unwrap_or(b'{');
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![first]))]).chain(stream::pending());
    Response::from_parts(parts, Body::from_stream(body))
}

async fn buffered(response: Response<Body>) -> (axum::http::response::Parts, Bytes) {
    let (parts, body) = response.into_parts();
    (parts, to_bytes(body, usize::MAX).await.unwrap_or_default())
}

fn huge(bytes: u64) -> Response<Body> {
    let opening = Bytes::from_static(br#"{"qr":""#);
    let piece = Bytes::from(vec![b'A'; HUGE_PIECE]);
    let body = stream::iter([opening]).chain(stream::repeat(piece)).scan(bytes, |left, piece| {
        let length = piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= length as u64;
        std::future::ready((length > 0).then(|| Ok::<_, Infallible>(piece.slice(..length))))
    });
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests;
