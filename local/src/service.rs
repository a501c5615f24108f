//! A child process that listens on a port: started, waited for, stopped and started again.

use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;

use crate::Result;
use crate::child::{Child, Output};
use crate::ports;

/// How long a program may take to answer; a database's recovery after a crash included.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How often a program that is starting is asked.
const START_POLL: Duration = Duration::from_millis(10);

/// How many ports to try when somebody else gets to them first.
const PORT_TRIES: usize = 5;

/// How to run a program that listens.
pub(crate) trait Program {
    /// What messages call it.
    const NAME: &str;

    /// The command, made with [`supervised`](crate::child::supervised), that has it listen on `127.0.0.1:port`.
    fn command(&self, port: u16) -> Command;

    /// Whether it answers there; not whether somebody else does.
    async fn answers(&self, port: u16) -> bool;
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Service<P> {
    program: P,
    port: u16,
    output: Output,
    child: Mutex<Option<Child>>,
}

impl<P: Program> Service<P> {
    /// Starts `program` on `127.0.0.1:port`, 0 for a free one, and waits until it answers.
    pub(crate) async fn start(program: P, port: u16, output: Output) -> Result<Self> {
        let mut service = Self { program, port, output, child: Mutex::new(None) };
        for left in (0..PORT_TRIES).rev() {
            if port == 0 {
                service.port = ports::free()?;
            }
            match service.restart().await {
                // A free port did not stay free.
                Err(_) if port == 0 && left > 0 && !ports::is_free(service.port) => {}
                started => return started.map(|()| service),
            }
        }
        Ok(service)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it; its port stays for [`Service::restart`].
    pub(crate) async fn stop(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.stop().await?;
        }
        Ok(())
    }

    /// Stops it if it runs, starts it on the same port and waits until it answers.
    pub(crate) async fn restart(&self) -> Result<()> {
        let mut running = self.child.lock().await;
        if let Some(mut child) = running.take() {
            child.stop().await?;
        }
        let child = Child::spawn(P::NAME, self.program.command(self.port), &self.output)?;
        *running = Some(self.ready(child).await?);
        Ok(())
    }

    /// One line on why it ended, or nothing if it runs or was stopped.
    pub(crate) async fn failure(&self) -> Option<String> {
        let mut child = self.child.lock().await;
        let child = child.as_mut()?;
        child.ended().map(|_| child.exit_report())
    }

    /// What it has written since it was started last.
    pub(crate) async fn logs(&self) -> String {
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
