//! An upstream for tests: says one thing, however well or badly formed, or one for each path.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Failure, Upstream};
use crate::deadline::Deadline;

/// An upstream that takes one request on each connection.
pub(crate) struct Server {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// What is said to a request whose first line has this in it; the last that fits counts.
    says: Vec<(String, Vec<u8>)>,
    heard: Vec<String>,
    requests: usize,
}

impl Server {
    pub(crate) async fn start(says: impl Into<Vec<u8>>) -> Self {
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

    /// To everybody.
    pub(crate) fn says(&self, what: impl Into<Vec<u8>>) {
        self.script.lock().unwrap().says = vec![(String::new(), what.into())];
    }

    /// To requests with this in their path: a whole answer.
    pub(crate) fn says_to(&self, path: &str, status: u16, body: &str) {
        self.script.lock().unwrap().says.push((path.to_owned(), reply(status, body).into()));
    }

    /// The requests that came since this was last called, as they came.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().heard)
    }

    pub(crate) fn requests(&self) -> usize {
        self.script.lock().unwrap().requests
    }

    /// One call by `upstream`, and how many requests it took.
    pub(crate) async fn call(
        &self,
        upstream: &Upstream,
        deadline: Deadline,
    ) -> (Result<u16, Failure>, usize) {
        let before = self.requests();
        let request = upstream.http().get(&self.url).build().unwrap();
        let outcome = upstream.send("test", request, deadline).await.map(|reply| reply.status.as_u16());
        (outcome, self.requests() - before)
    }
}

/// A whole answer.
pub(crate) fn reply(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nretry-after: 7\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Says what it has to say and, unless that is a whole answer, keeps the connection.
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
        let says = script.says.iter().rev().find(|(part, _)| path.contains(part));
        says.map(|(_, says)| says.clone()).unwrap_or_default()
    };
    let _ = connection.write_all(&says).await;
    if !says.windows(17).any(|words| words == b"connection: close") {
        std::future::pending().await
    }
}

/// Whether a request has come with all of its body.
fn is_whole(request: &[u8]) -> bool {
    let request = String::from_utf8_lossy(request);
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
