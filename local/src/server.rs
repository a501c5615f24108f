//! An HTTP server that can also do what servers do when they fail: close a connection without an answer.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Result;

/// The wait after a connection that could not be accepted.
const RESPITE: Duration = Duration::from_millis(10);

/// Marks a response that must not be sent: its connection is closed instead.
#[derive(Clone)]
struct Severed;

/// A response that [`Server`] never sends; it closes the connection in its place.
pub fn severed() -> Response<Body> {
    let mut response = ().into_response();
    response.extensions_mut().insert(Severed);
    response
}

/// A running HTTP/1.1 server on the loopback address. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    connections: watch::Sender<()>,
}

impl Server {
    /// Serves `router` on `127.0.0.1:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// Names the port when it cannot be had.
    pub async fn start(port: u16, router: Router) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))?;
        let address = listener.local_addr()?;
        let connections = watch::Sender::new(());
        let accepting = tokio::spawn(accept(listener, router, connections.subscribe()));
        Ok(Self { address, accepting, connections })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every open connection, idle ones in a client's pool included; new ones are welcome.
    pub fn disconnect(&self) {
        self.connections.send_replace(());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, router: Router, connections: watch::Receiver<()>) {
    loop {
        // Running out of file descriptors is the usual failure; it passes when a connection ends.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RESPITE).await;
            continue;
        };
        tokio::spawn(serve(stream, router.clone(), connections.clone()));
    }
}

async fn serve(stream: TcpStream, router: Router, mut connections: watch::Receiver<()>) {
    connections.mark_unchanged();
    let service = TowerToHyperService::new(router);
    let answer = service_fn(|request: Request<Incoming>| {
        let response = service.call(request);
        async {
            let response = match response.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<Severed>().is_some() {
                return Err("the connection is closed on purpose");
            }
            Ok(response)
        }
    });
    // An error here is a connection that broke, by the client's doing or by ours: nobody is left to tell.
    tokio::select! {
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer) => {}
        _ = connections.changed() => {}
    }
}
