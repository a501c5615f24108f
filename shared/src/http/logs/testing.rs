//! A log for tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use lambda_http::tracing::subscriber::filter::LevelFilter;
use lambda_http::tracing::subscriber::registry;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

/// What this thread logs while it is there.
pub(crate) struct Page {
    text: Text,
    _guard: DefaultGuard,
    /// While there is one subscriber, a line that another thread writes first is off for all.
    _second: Dispatch,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Page {
    /// Logs as the product does at this level.
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
