//! An HTTP server that can also close a connection without an answer, like a server that crashes.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::USER_AGENT;
use axum::http::{Request, Response, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::Result;

/// The pause after a failed `accept`.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Marks a response that must not be sent: its connection is closed instead.
#[derive(Clone)]
struct Severed;

/// Returns a response that [`Server`] never sends: it closes the connection instead.
pub fn severed() -> Response<Body> {
    let mut response = ().into_response();
    response.extensions_mut().insert(Severed);
    response
}

/// Adds a firewall in front of a router, as many servers have. It refuses clients without a `User-Agent`, with an HTML page.
pub fn behind_firewall(router: Router) -> Router {
    router.layer(from_fn(async |request: axum::extract::Request, next: Next| {
        if request.headers().contains_key(USER_AGENT) {
            return next.run(request).await;
        }
        let page = Html("<!DOCTYPE html><html><head><title>Access denied</title></head></html>");
        (StatusCode::FORBIDDEN, page).into_response()
    }))
}

/// A running HTTP/1.1 server on the loopback address. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    router: Router,
    state: Mutex<State>,
    shutdown: watch::Sender<End>,
}

#[derive(Debug)]
enum State {
    Accepting(JoinHandle<()>),
    /// The port is kept, so that no other process gets it. Every connection to it is refused.
    Refusing(Option<TcpSocket>),
}

impl State {
    fn take_reserved_socket(&mut self) -> Option<TcpSocket> {
        if let Self::Refusing(socket) = self { socket.take() } else { None }
    }
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At once, even in the middle of an answer.
    Now,
    /// After the current answer.
    AfterTheAnswer,
}

impl Server {
    /// Serves `router` on `127.0.0.1:port`; port 0 takes a free one.
    pub async fn start(port: u16, router: Router) -> Result<Self> {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], port)))
            .and_then(|socket| socket.listen(BACKLOG))
            .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}"))?;
        let address = listener.local_addr()?;
        let shutdown = watch::Sender::new(End::Now);
        let accepting = tokio::spawn(accept(listener, router.clone(), shutdown.subscribe()));
        Ok(Self { address, router, state: Mutex::new(State::Accepting(accepting)), shutdown })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `http://127.0.0.1:<port>`, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every open connection, including idle ones in a client's pool. Accepts new ones.
    pub fn disconnect(&self) {
        self.shutdown.send_replace(End::Now);
    }

    /// Refuses every connection from now on. Requests in progress are answered, then their connections are closed.
    pub async fn refuse(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if let State::Accepting(accepting) = &mut *state {
            // Before the listener is dropped, so that no other process gets the port in between.
            let socket = bind(self.address)?;
            accepting.abort();
            // The listener is closed when the task has ended; the cancellation is no error.
            let _ = accepting.await;
            *state = State::Refusing(Some(socket));
            self.shutdown.send_replace(End::AfterTheAnswer);
        }
        Ok(())
    }

    /// Accepts connections again.
    pub async fn accept(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        if let Some(socket) = state.take_reserved_socket() {
            let listener = socket.listen(BACKLOG)?;
            let accepting = accept(listener, self.router.clone(), self.shutdown.subscribe());
            *state = State::Accepting(tokio::spawn(accepting));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let State::Accepting(accepting) = self.state.get_mut() {
            accepting.abort();
        }
    }
}

/// Binds a socket to this port, even if another socket of this process has it.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, router: Router, shutdown: watch::Receiver<End>) {
    loop {
        // The usual failure is running out of file descriptors, which ends when a connection closes.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            continue;
        };
        tokio::spawn(serve(stream, router.clone(), shutdown.clone()));
    }
}

async fn serve(stream: TcpStream, router: Router, mut shutdown: watch::Receiver<End>) {
    shutdown.mark_unchanged();
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
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    loop {
        tokio::select! {
            // An error means that the connection is closed, by the client or on purpose.
            _ = connection.as_mut() => return,
            changed = shutdown.changed() => {
                if changed.is_err() || *shutdown.borrow_and_update() == End::Now {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
