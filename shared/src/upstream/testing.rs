//! An upstream for tests: says one thing, however well or badly formed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Failure, Upstream};
use crate::deadline::Deadline;

/// An upstream that says the same thing to everybody, one request on each connection.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
    says: Arc<Mutex<Vec<u8>>>,
    heard: Arc<Mutex<String>>,
}

impl Server {
    pub(crate) async fn start(says: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            requests: Arc::default(),
            says: Arc::new(Mutex::new(says.into())),
            heard: Arc::default(),
        };
        let (requests, says, heard) = (server.requests.clone(), server.says.clone(), server.heard.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                requests.fetch_add(1, Ordering::Relaxed);
                let says = says.lock().unwrap().clone();
                tokio::spawn(answer(connection, says, heard.clone()));
            }
        });
        server
    }

    pub(crate) fn says(&self, what: impl Into<Vec<u8>>) {
        *self.says.lock().unwrap() = what.into();
    }

    /// The last request, as it came.
    pub(crate) fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// One call by `upstream`, and how many requests it took.
    pub(crate) async fn call(
        &self,
        upstream: &Upstream,
        deadline: Deadline,
    ) -> (Result<u16, Failure>, usize) {
        let before = self.requests();
        let request = upstream.http().get(&self.url).build().unwrap();
        let outcome = upstream.send(request, deadline).await.map(|reply| reply.status.as_u16());
        (outcome, self.requests() - before)
    }
}

/// Says what it has to say and, unless that is a whole answer, keeps the connection.
async fn answer(mut connection: TcpStream, says: Vec<u8>, heard: Arc<Mutex<String>>) {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    *heard.lock().unwrap() = String::from_utf8_lossy(&request).into_owned();
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
