//! Captures a thread's log lines in a test.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lambda_http::tracing::subscriber::filter::LevelFilter;
use lambda_http::tracing::subscriber::registry;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

/// Captures what the current thread logs until it is dropped.
pub(crate) struct Page {
    text: Text,
    _guard: DefaultGuard,
    /// Keeps a second dispatcher alive. With only one, `tracing` caches a callsite's interest for the whole process, so a callsite
    /// first hit on another thread would stay disabled here too.
    _second: Dispatch,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Page {
    /// Starts capturing with the functions' own subscriber at this level.
    pub(crate) fn at(level: LevelFilter) -> Self {
        let text = Text::default();
        let writer = text.clone();
        let lines = super::subscriber(level, move || writer.clone());
        let second = Dispatch::new(registry());
        Self { text, _second: second, _guard: tracing::subscriber::set_default(lines) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
