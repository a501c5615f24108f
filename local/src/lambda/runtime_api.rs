//! The Lambda Runtime API: functions get invocations from it and report their results.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use uuid::Uuid;

use super::{Answer, Ended, REGION};

/// How long to wait for an invocation: longer than any function may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The invocations of one sandbox.
pub(super) struct RuntimeApi {
    arrivals: mpsc::UnboundedSender<Invocation>,
    queue: Mutex<mpsc::UnboundedReceiver<Invocation>>,
    asked: watch::Sender<bool>,
    state: Lock<Invocations>,
    traced: bool,
}

#[derive(Default)]
struct Invocations {
    waiting: HashMap<String, oneshot::Sender<Ended>>,
    init_error: Option<Value>,
    /// The process has ended, so waiting for it is useless.
    closed: bool,
}

struct Invocation {
    id: String,
    deadline_unix_ms: i64,
    event: Value,
}

impl RuntimeApi {
    /// Makes a runtime API. If it is `traced`, each invocation has its own X-Ray trace.
    pub fn new(traced: bool) -> Self {
        let (arrivals, queue) = mpsc::unbounded_channel();
        let (asked, state) = (watch::Sender::new(false), Lock::default());
        Self { arrivals, queue: Mutex::new(queue), asked, state, traced }
    }

    /// Queues an invocation and waits for its end.
    pub async fn invoke(&self, event: Value, deadline_unix_ms: i64) -> Ended {
        let id = Uuid::new_v4().to_string();
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.state();
            if state.closed {
                return Ended::Died;
            }
            state.waiting.insert(id.clone(), tell);
        }
        let invocation = Invocation { id: id.clone(), deadline_unix_ms, event };
        // This function holds the receiver, so this cannot fail.
        let _ = self.arrivals.send(invocation);
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Ended::Died,
            Err(_) => {
                self.state().waiting.remove(&id);
                Ended::Failed(timed_out(&id))
            }
        }
    }

    /// Waits until the function has asked for an invocation.
    pub async fn asked(&self) {
        // This value holds the sender, so it cannot be gone.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }

    pub fn init_error(&self) -> Option<Value> {
        self.state().init_error.clone()
    }

    /// Tells all waiting callers that no answer will come.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
    }

    /// Reports how an invocation ended. Returns `false` if no caller waits for it.
    fn tell(&self, id: &str, ended: Ended) -> bool {
        let waiting = self.state().waiting.remove(id);
        waiting.is_some_and(|tell| tell.send(ended).is_ok())
    }

    fn state(&self) -> MutexGuard<'_, Invocations> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timed_out(id: &str) -> Value {
    json!({
        "errorType": "Sandbox.Timedout",
        "errorMessage": format!("RequestId: {id} Error: Task timed out after {} seconds", PATIENCE.as_secs()),
    })
}

/// Serves the API over HTTP.
pub(super) fn routes(api: Arc<RuntimeApi>) -> Router {
    let runtime = Router::new()
        .route("/invocation/next", get(next))
        .route("/invocation/{id}/response", post(response))
        .route("/invocation/{id}/error", post(error))
        .route("/init/error", post(init_error));
    Router::new().nest("/2018-06-01/runtime", runtime).with_state(api)
}

async fn next(State(api): State<Arc<RuntimeApi>>) -> Response {
    api.asked.send_replace(true);
    // Simultaneous requests queue for the lock, and each takes one invocation.
    let Some(invocation) = api.queue.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    let headers = [
        ("lambda-runtime-aws-request-id", invocation.id),
        ("lambda-runtime-deadline-ms", invocation.deadline_unix_ms.to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            format!("arn:aws:lambda:{REGION}:123456789012:function:sandbox"),
        ),
    ];
    let trace = api.traced.then(|| [("lambda-runtime-trace-id", trace_id())]);
    (headers, trace, Json(invocation.event)).into_response()
}

/// Makes an id in X-Ray's format.
fn trace_id() -> String {
    let (time, id, parent) = (fastrand::u32(..), fastrand::u64(1..), fastrand::u64(1..));
    format!("Root=1-{time:08x}-{id:024x};Parent={parent:016x};Sampled=0")
}

async fn response(State(api): State<Arc<RuntimeApi>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    let answer = serde_json::from_slice(&body).ok().and_then(Answer::read);
    let ended = answer.map_or_else(|| Ended::Failed(no_answer(&body)), Ended::Answered);
    accepted(api.tell(&id, ended))
}

fn no_answer(body: &[u8]) -> Value {
    json!({
        "errorType": "Sandbox.NoHttpAnswer",
        "errorMessage": String::from_utf8_lossy(body),
    })
}

async fn error(State(api): State<Arc<RuntimeApi>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    accepted(api.tell(&id, Ended::Failed(report(&body))))
}

async fn init_error(State(api): State<Arc<RuntimeApi>>, body: Bytes) -> StatusCode {
    api.state().init_error = Some(report(&body));
    StatusCode::ACCEPTED
}

fn report(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
}

fn accepted(known: bool) -> StatusCode {
    if known { StatusCode::ACCEPTED } else { StatusCode::GONE }
}
