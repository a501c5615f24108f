use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::request_log::noted;
use crate::testing::Server;

fn whole(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n{headers}\r\n{{}}")
}

/// The timeout of one attempt.
const ATTEMPT: Duration = Duration::from_secs(8);

fn deadline() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

fn upstream() -> Upstream {
    Upstream::new(Duration::from_secs(20), &[]).unwrap()
}

/// Makes a client with very little time for an attempt.
fn hasty() -> Upstream {
    Upstream::new(Duration::from_millis(500), &[]).unwrap()
}

#[test]
fn content_is_detected_from_the_body() {
    let content = |body: &[u8]| {
        let (status, body) = (StatusCode::OK, body.to_vec());
        Reply { status, body, retry_after: None }.content()
    };
    let object = json!({"code": "PGRST301"}).as_object().unwrap().clone();
    for (body, expected) in [
        (&br#" {"code":"PGRST301"} "#[..], Content::Object(object)),
        (b"{}", Content::Object(Map::new())),
        (b"[]", Content::OtherJson),
        (b"null", Content::OtherJson),
        (b"\"Unauthorized\"", Content::OtherJson),
        (b"", Content::Empty),
        (b" \r\n", Content::Empty),
        (b"\xef\xbb\xbf", Content::Empty),
        (b"Unauthorized", Content::Text),
        (b"404 page not found\n", Content::Text),
        (b"{\"cut off\":", Content::Text),
        (b"<!DOCTYPE html><html></html>", Content::Foreign),
        (b"\xef\xbb\xbf<html>", Content::Foreign),
        (b"<?xml version='1.0'?>", Content::Foreign),
        (b"\x1f\x8b\x08\xff", Content::Foreign),
        (b"error code: 1010", Content::Foreign),
        (b"RBAC: access denied", Content::Foreign),
        (b"The error code: 1010", Content::Text),
    ] {
        assert_eq!(content(body), expected, "{}", String::from_utf8_lossy(body));
    }
}

#[tokio::test]
async fn a_refusal_by_a_gateway_is_retried() {
    let server = Server::start("").await;
    for status in [200, 204, 301, 307, 400, 401, 403, 404, 408, 409, 429, 500, 501, 505, 519, 525, 599] {
        server.says(whole(status, ""));
        assert_eq!(server.call(&upstream(), deadline()).await, (Ok(status), 1));
    }
    for status in [502, 503, 504, 520, 522, 524] {
        server.says(whole(status, ""));
        assert_eq!(server.call(&upstream(), deadline()).await, (Ok(status), ATTEMPTS));
    }
    for broken in ["connection: close", "HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{"] {
        server.says(broken);
        let outcome = server.call(&upstream(), deadline()).await;
        assert_eq!(outcome, (Err(Failure::Connection), ATTEMPTS), "{broken}");
    }
}

#[tokio::test]
async fn successful_answers_refill_the_retry_budget() {
    let server = Server::start(whole(503, "")).await;
    let upstream = upstream();
    let mut requests = Vec::new();
    for _ in 0..8 {
        requests.push(server.call(&upstream, deadline()).await.1);
    }
    assert_eq!(requests, [3, 3, 3, 3, 3, 1, 1, 1]);
    server.says(whole(200, ""));
    assert_eq!(server.call(&upstream, deadline()).await, (Ok(200), 1));
    server.says(whole(503, ""));
    assert_eq!(server.call(&upstream, deadline()).await, (Ok(503), 2));
    server.says(whole(200, ""));
    for _ in 0..=RETRY_BUDGET {
        server.call(&upstream, deadline()).await.0.unwrap();
    }
    assert_eq!(upstream.retry_budget.retries.load(Ordering::Relaxed), RETRY_BUDGET);
}

#[tokio::test]
async fn timeouts_earn_no_retries() {
    let server = Server::start("HTTP/1.1 200 X\r\n").await;
    let upstream = hasty();
    upstream.retry_budget.retries.store(0, Ordering::Relaxed);
    assert_eq!(server.call(&upstream, deadline()).await, (Err(Failure::TimedOut), 1));
    server.says(whole(503, ""));
    assert_eq!(server.call(&upstream, deadline()).await, (Ok(503), 1));
}

#[tokio::test]
async fn dead_pooled_connections_are_retried() {
    let server = Server::start("connection: close").await;
    let upstream = upstream();
    upstream.retry_budget.retries.store(0, Ordering::Relaxed);
    assert_eq!(server.call(&upstream, deadline()).await.1, ATTEMPTS);
    assert_eq!(server.call(&upstream, deadline()).await.1, 1);
    // After an answer, the pool has a connection again, but only for that host.
    assert_eq!(server.call(&upstream.for_another_host(), deadline()).await.1, ATTEMPTS);
    server.says(whole(200, ""));
    server.call(&upstream, deadline()).await.0.unwrap();
    upstream.retry_budget.retries.store(0, Ordering::Relaxed);
    server.says("connection: close");
    assert_eq!(server.call(&upstream, deadline()).await.1, ATTEMPTS);
}

#[tokio::test]
async fn a_host_that_keeps_failing_is_asked_once_per_request() {
    let server = Server::start("connection: close").await;
    let upstream = upstream();
    let mut requests = Vec::new();
    for _ in 0..8 {
        requests.push(server.call(&upstream, deadline()).await.1);
    }
    assert_eq!(requests, [3, 3, 3, 3, 3, 3, 1, 1]);
}

#[tokio::test]
async fn only_a_short_retry_after_is_waited_for() {
    let server = Server::start(whole(503, "retry-after: 1\r\n")).await;
    let (upstream, deadline) = (upstream(), deadline());
    let mend = async {
        while server.heard().is_empty() {
            tokio::task::yield_now().await;
        }
        server.says(whole(200, ""));
    };
    let (outcome, ()) = tokio::join!(server.call(&upstream, deadline), mend);
    assert_eq!(outcome, (Ok(200), 2));
    assert!(deadline.remaining() < Duration::from_secs(19), "it was not waited for");

    server.says(whole(503, "retry-after: 3\r\n"));
    assert_eq!(server.call(&upstream, deadline).await, (Ok(503), 1));
    let request = upstream.http().get(&server.url).build().unwrap();
    let reply = upstream.send("test", request, ATTEMPT, deadline).await.unwrap();
    assert_eq!(reply.retry_after, Some(Duration::from_secs(3)));
}

/// Returns the pause that the headers ask for, in seconds.
fn asked(headers: &[(header::HeaderName, &str)]) -> Option<u64> {
    let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
    retry_after(&HeaderMap::from_iter(headers)).map(|asked| asked.as_secs())
}

#[test]
fn retry_after_is_read_up_to_an_hour() {
    let by = |retry_after| asked(&[(header::RETRY_AFTER, retry_after)]);
    for (value, seconds) in
        [("0", 0), (" 7 ", 7), ("3600", 3600), ("3601", 3600), ("99999999999999999999", 3600)]
    {
        assert_eq!(by(value), Some(seconds), "{value}");
    }
    for nonsense in ["-1", "1.5", "+1", "soon", "2030-01-01T00:00:00Z", ""] {
        assert_eq!(by(nonsense), None, "{nonsense}");
    }
    assert_eq!(by("Fri, 31 Dec 1999 23:59:59 GMT"), Some(0));
    assert_eq!(by("Tue, 31 Dec 2999 23:59:59 GMT"), Some(3600));

    let date = (header::DATE, "Fri, 31 Dec 1999 23:59:29 GMT");
    for (value, seconds) in [
        ("Fri, 31 Dec 1999 23:59:59 GMT", 30),
        ("Friday, 31-Dec-99 23:59:59 GMT", 30),
        ("Fri Dec 31 23:59:59 1999", 30),
        ("Fri, 31 Dec 1999 23:59:00 GMT", 0),
        ("Sat, 01 Jan 2000 23:59:59 GMT", 3600),
    ] {
        assert_eq!(asked(&[date.clone(), (header::RETRY_AFTER, value)]), Some(seconds), "{value}");
    }
    // By this machine's clock.
    let soon = httpdate::fmt_http_date(clock::now().plus(Duration::from_secs(60)).into());
    assert!((55..=60).contains(&by(&soon).unwrap()));
}

#[tokio::test]
async fn a_timeout_is_not_retried() {
    let upstream = hasty();
    let server = Server::start("HTTP/1.1 200 X\r\ncontent-length: 9\r\n").await;
    let deadline = deadline();
    assert_eq!(server.call(&upstream, deadline).await, (Err(Failure::TimedOut), 1));
    assert!(!deadline.remaining().is_zero(), "an attempt took all the time");
    server.says("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{");
    assert_eq!(server.call(&upstream, deadline).await, (Err(Failure::TimedOut), 1));

    // If the queue for connections of one host is full, calls to it wait.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let _first = TcpStream::connect(address).await.unwrap();
    let request = upstream.http().get(format!("http://{address}")).build().unwrap();
    assert_eq!(upstream.send("test", request, ATTEMPT, deadline).await.unwrap_err(), Failure::TimedOut);
}

#[tokio::test]
async fn answer_is_read_up_to_the_limit() {
    let server = Server::start("").await;
    for (length, expected) in [(BODY_LIMIT, Ok(200)), (BODY_LIMIT + 1, Err(Failure::TooLarge))] {
        let body = "x".repeat(length);
        server.says(format!("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"));
        assert_eq!(server.call(&upstream(), deadline()).await, (expected, 1));
        server.says(format!("HTTP/1.1 200 X\r\nconnection: close\r\n\r\n{body}"));
        assert_eq!(server.call(&upstream(), deadline()).await, (expected, 1));
    }
}

#[tokio::test]
async fn every_request_has_the_user_agent() {
    let server = Server::start(whole(200, "")).await;
    server.call(&upstream(), deadline()).await.0.unwrap();
    let request = server.heard().remove(0);
    assert!(request.contains(&format!("user-agent: wpp-functions/{VERSION}\r\n")), "{request}");
}

#[tokio::test]
async fn call_is_logged_once_with_all_attempts() {
    let server = Server::start(whole(503, "")).await;
    let upstream = upstream();
    let broken = async {
        server.call(&upstream, deadline()).await.0.unwrap();
        server.says("connection: close");
        server.call(&upstream, deadline()).await.0.unwrap_err();
    };
    let ((), record) = noted(broken).await;
    let noted: Vec<_> = record.calls.iter().map(|call| (call.name, &call.status, call.attempts)).collect();
    let failed = CallStatus::Failed("connection failed".to_owned());
    assert_eq!(noted, [("test", &CallStatus::Http(503), 3), ("test", &failed, 3)]);
    // At least the pauses between the attempts.
    assert!(record.calls.iter().all(|call| call.ms >= 150), "{:?}", record.calls);
}
