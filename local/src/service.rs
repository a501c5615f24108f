//! A child process that listens on a port: started, waited for, stopped and started again.

use std::net::TcpListener;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;

use crate::Result;
use crate::child::{Child, Output};

/// How long a program may take to answer, including a database's recovery after a crash.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How often to check a program that is starting.
const START_POLL: Duration = Duration::from_millis(10);

/// How often to try another port if another process takes one first.
const START_TRIES: usize = 5;

/// How many ports to try: far more than needed while some are free.
const PORT_TRIES: usize = 1000;

/// Below the range that systems use for outgoing connections. So none of these can occupy the port of a server that is being restarted.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How to run a program that listens.
pub trait Program {
    /// Its name in messages.
    const NAME: &str;

    /// Returns the command, made with [`supervised`](crate::child::supervised), that makes it listen on `127.0.0.1:port`.
    fn command(&self, port: u16) -> Command;

    /// Returns whether this service answers at the port, and not another process.
    fn answers(&self, port: u16) -> impl Future<Output = bool> + Send;
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Service<P> {
    /// Declared before the program, so that the process ends before the program's data is dropped.
    child: Mutex<Option<Child>>,
    program: P,
    port: u16,
    output: Output,
}

impl<P: Program> Service<P> {
    /// Starts `program` on `127.0.0.1:port`, 0 for a free one, and waits until it answers.
    pub async fn run(program: P, port: u16, output: Output) -> Result<Self> {
        let mut service = Self { child: Mutex::new(None), program, port, output };
        for left in (0..START_TRIES).rev() {
            if port == 0 {
                service.port = free_port()?;
            }
            match service.restart().await {
                // The port was taken in between.
                Err(_) if port == 0 && left > 0 && !is_free(service.port) => {}
                started => return started.map(|()| service),
            }
        }
        Ok(service)
    }

    /// Returns the program that runs it.
    pub fn program(&self) -> &P {
        &self.program
    }

    /// Returns the port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it; its port is kept for [`Service::restart`].
    pub async fn stop(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.stop().await?;
        }
        Ok(())
    }

    /// Stops it if it is running, starts it on the same port and waits until it answers.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        let child = Child::spawn(P::NAME, self.program.command(self.port), &self.output)?;
        *self.child.lock().await = Some(self.ready(child).await?);
        Ok(())
    }

    /// Returns one line about why it ended, or `None` if it is running or was stopped.
    pub async fn failure(&self) -> Option<String> {
        let mut child = self.child.lock().await;
        let child = child.as_mut()?;
        child.ended().map(|_| child.exit_report())
    }

    /// Returns its output since its last start.
    pub async fn logs(&self) -> String {
        self.child.lock().await.as_ref().map(Child::logs).unwrap_or_default()
    }

    async fn ready(&self, mut child: Child) -> Result<Child> {
        let answer = async {
            while !self.program.answers(self.port).await {
                if child.ended().is_some() {
                    return Err(child.exit_report().into());
                }
                tokio::time::sleep(START_POLL).await;
            }
            Ok(())
        };
        match tokio::time::timeout(START_PATIENCE, answer).await {
            Ok(answer) => answer.map(|()| child),
            Err(_) => Err(format!("no answer yet: {}", child.exit_report()).into()),
        }
    }
}

/// Returns a port of the loopback address that is not in use.
pub fn free_port() -> Result<u16> {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(PORT_TRIES);
    ports.find(|port| is_free(*port)).ok_or_else(|| "every port of 127.0.0.1 is in use".into())
}

/// Whether a server could listen on this port of the loopback address now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
