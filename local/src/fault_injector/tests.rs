use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use reqwest::{Client, Error, Response};

use super::*;
use crate::http::client;
use crate::server::Server;

const BODY: &str = r#"{"status":"connected"}"#;

struct Upstream {
    faults: FaultInjector,
    work_done: Arc<AtomicU64>,
    server: Server,
    client: Client,
}

impl Upstream {
    async fn start() -> Self {
        let faults = FaultInjector::default();
        let work_done = Arc::new(AtomicU64::new(0));
        let router = Router::new()
            .route(
                "/{endpoint}",
                get(|Path(endpoint): Path<String>, State((faults, work_done)): State<Works>| async move {
                    faults
                        .pass(&endpoint, async {
                            work_done.fetch_add(1, Ordering::SeqCst);
                            json(StatusCode::OK, BODY.to_owned())
                        })
                        .await
                }),
            )
            .with_state((faults.clone(), work_done.clone()));
        let server = Server::start(0, router).await.unwrap();
        let client = client().unwrap();
        Self { faults, work_done, server, client }
    }

    async fn ask(&self, endpoint: &str) -> Result<Response, Error> {
        let url = format!("{}/{endpoint}", self.server.url());
        self.client.get(url).send().await
    }

    /// Sends a request with a short timeout, for answers that never arrive.
    async fn ask_briefly(&self, endpoint: &str) -> Result<Response, Error> {
        let url = format!("{}/{endpoint}", self.server.url());
        self.client.get(url).timeout(Duration::from_millis(200)).send().await
    }

    fn work_done(&self) -> u64 {
        self.work_done.load(Ordering::SeqCst)
    }
}

type Works = (FaultInjector, Arc<AtomicU64>);

#[tokio::test]
async fn requests_are_counted_by_endpoint_until_reset() {
    let upstream = Upstream::start().await;
    for endpoint in ["a", "b", "a"] {
        assert_eq!(upstream.ask(endpoint).await.unwrap().text().await.unwrap(), BODY);
    }
    assert_eq!(
        (upstream.faults.count("a"), upstream.faults.count("c"), upstream.faults.count("*")),
        (2, 0, 3)
    );
    assert_eq!(upstream.faults.counts(), BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]));
    upstream.faults.reset_counts();
    assert!(upstream.faults.counts().is_empty());
}

#[tokio::test]
async fn fault_that_answers_at_once_skips_the_handler() {
    let upstream = Upstream::start().await;
    let cases = [
        (
            Fault::Status { status: 503, body: "{}".to_owned(), retry_after_s: Some(2) },
            503,
            "application/json",
            "{}",
        ),
        (Fault::Body("[".to_owned()), 200, "application/json", "["),
        (Fault::Html, 200, "text/html", "<!DOCTYPE html>"),
        (Fault::Redirect("http://localhost/".to_owned()), 307, "", ""),
        (Fault::Huge { bytes: 200_000 }, 200, "application/json", r#"{"qr":"AAA"#),
    ];
    for (fault, status, kind, opening) in cases {
        upstream.faults.inject_times("a", 1, fault.clone());
        let response = upstream.ask("a").await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{fault:?}");
        let header =
            |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        assert_eq!(header(CONTENT_TYPE), kind);
        match &fault {
            Fault::Status { .. } => assert_eq!(header(RETRY_AFTER), "2"),
            Fault::Redirect(location) => assert_eq!(&header(LOCATION), location),
            _ => {}
        }
        let huge = matches!(fault, Fault::Huge { .. });
        let body = response.text().await.unwrap();
        assert!(body.starts_with(opening), "{body}");
        assert!(!huge || body.len() == 200_000);
    }
    assert_eq!(upstream.work_done(), 0);
    assert_eq!(upstream.ask("a").await.unwrap().text().await.unwrap(), BODY);
}

#[tokio::test]
async fn lost_answer_runs_the_handler_and_drop_does_not() {
    let upstream = Upstream::start().await;
    for (fault, work_done) in [(Fault::Drop, 0), (Fault::LostAnswer, 1)] {
        upstream.faults.inject_times("a", 1, fault);
        let error = upstream.ask("a").await.unwrap_err();
        assert!(error.is_request() && !error.is_timeout() && !error.is_connect(), "{error:?}");
        assert_eq!(upstream.work_done(), work_done);
    }
    assert_eq!(upstream.faults.count("a"), 2);
}

#[tokio::test]
async fn truncated_answer_is_shorter_than_its_content_length() {
    let upstream = Upstream::start().await;
    upstream.faults.inject("a", Fault::Truncated);
    let mut response = upstream.ask("a").await.unwrap();
    assert_eq!(response.content_length(), Some(BODY.len() as u64));
    assert_eq!(response.chunk().await.unwrap().unwrap(), BODY.as_bytes()[..BODY.len() / 2]);
    let error = response.chunk().await.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    assert_eq!(upstream.work_done(), 1);
}

#[tokio::test]
async fn stalled_answers_stop_before_or_within_the_answer() {
    let upstream = Upstream::start().await;
    upstream.faults.inject_times("a", 1, Fault::NoHeaders);
    assert!(upstream.ask_briefly("a").await.unwrap_err().is_timeout());
    assert_eq!(upstream.work_done(), 0);
    upstream.faults.inject_times("a", 1, Fault::StalledBody);
    let mut response = upstream.ask_briefly("a").await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), BODY.as_bytes()[..1]);
    assert!(response.chunk().await.unwrap_err().is_timeout());
    upstream.faults.inject_times("a", 1, Fault::Delay { ms: 1 });
    assert_eq!(upstream.ask("a").await.unwrap().text().await.unwrap(), BODY);
}

#[tokio::test]
async fn counted_faults_come_before_lasting_ones() {
    let upstream = Upstream::start().await;
    let status = |status| Fault::Status { status, body: String::new(), retry_after_s: None };
    upstream.faults.inject("*", status(500));
    upstream.faults.inject("a", status(400));
    upstream.faults.inject("a", status(401));
    upstream.faults.inject_times("a", 2, status(402));
    upstream.faults.inject_times("a", 1, status(403));
    let mut seen = Vec::new();
    for endpoint in ["a", "b", "a", "a", "a", "a"] {
        seen.push(upstream.ask(endpoint).await.unwrap().status().as_u16());
    }
    assert_eq!(seen, [402, 500, 402, 403, 401, 401]);
    upstream.faults.clear();
    assert_eq!(upstream.ask("a").await.unwrap().status(), 200);
}

#[tokio::test]
async fn held_requests_wait_until_they_are_released() {
    let upstream = Upstream::start().await;
    for (point, work_done) in [(Point::Before, 0), (Point::After, 4)] {
        let hold = upstream.faults.hold("a", point);
        let held = async {
            hold.reached(2).await;
            assert_eq!(upstream.work_done(), work_done);
            assert_eq!(upstream.ask("b").await.unwrap().status(), 200);
            hold.release();
        };
        let (first, second, ()) = tokio::join!(upstream.ask("a"), upstream.ask("a"), held);
        assert_eq!((first.unwrap().status(), second.unwrap().status()), (StatusCode::OK, StatusCode::OK));
        assert_eq!(upstream.ask("a").await.unwrap().status(), 200);
        upstream.work_done.fetch_sub(2, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn disconnected_or_dropped_server_closes_connections() {
    let upstream = Upstream::start().await;
    upstream.faults.inject("a", Fault::NoHeaders);
    let hold = upstream.faults.hold("a", Point::Before);
    let disconnect = async {
        hold.reached(1).await;
        upstream.server.disconnect();
    };
    let (answer, ()) = tokio::join!(upstream.ask("a"), disconnect);
    assert!(answer.unwrap_err().is_request());
    assert_eq!(upstream.ask("b").await.unwrap().status(), 200);
    let url = upstream.server.url();
    drop(upstream.server);
    assert!(upstream.client.get(url).send().await.is_err());
}

#[tokio::test]
async fn hold_one_stops_only_the_first_request() {
    let upstream = Upstream::start().await;
    let hold = upstream.faults.hold_one("a", Point::Before);
    let second = async {
        hold.reached(1).await;
        assert_eq!(upstream.ask("a").await.unwrap().status(), 200);
        hold.release();
    };
    let (first, ()) = tokio::join!(upstream.ask("a"), second);
    assert_eq!(first.unwrap().status(), 200);
}

#[test]
fn faults_have_readable_json() {
    let read = |json: &str| serde_json::from_str::<Fault>(json).unwrap();
    assert_eq!(read(r#""lost_answer""#), Fault::LostAnswer);
    assert_eq!(read(r#"{"delay": {"ms": 5}}"#), Fault::Delay { ms: 5 });
    assert_eq!(read(r#"{"redirect": "/"}"#), Fault::Redirect("/".to_owned()));
    let status = Fault::Status { status: 503, body: String::new(), retry_after_s: None };
    assert_eq!(read(r#"{"status": {"status": 503}}"#), status);
}
