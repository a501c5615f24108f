//! What reaches the log: lines of our own crates, and of the others only what they say without being asked for details.

use std::env;
use std::panic::{PanicHookInfo, set_hook};
use std::process::ExitCode;

use lambda_runtime::tracing::subscriber::filter::{LevelFilter, Targets};
use lambda_runtime::tracing::subscriber::prelude::*;
use lambda_runtime::tracing::subscriber::{fmt, registry};

/// How the names of our crates begin.
const OURS: [&str; 2] = ["shared", "wpp_"];

/// Writes the log to standard output as Lambda's own variables say: `AWS_LAMBDA_LOG_LEVEL`, else `RUST_LOG` (a level,
/// `info` by default) and `AWS_LAMBDA_LOG_FORMAT`.
pub fn init() {
    let asked = env::var("AWS_LAMBDA_LOG_LEVEL").or_else(|_| env::var("RUST_LOG"));
    let level = asked.ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let json = env::var("AWS_LAMBDA_LOG_FORMAT").is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    let lines = fmt::layer().with_target(false).without_time();
    let lines = if json { lines.json().boxed() } else { lines.with_ansi(false).boxed() };
    registry().with(lines.with_filter(filter(level))).init();
    set_hook(Box::new(report));
}

/// How the process ends, and one line of the log that says why if it should not.
pub fn exit_code(outcome: Result<(), lambda_runtime::Error>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    tracing::error!(%error, "the function ended");
    ExitCode::FAILURE
}

/// `level` for our own crates. The others stop at `info`: below it the runtime writes whole events, tokens and all.
fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::INFO)).with_targets(OURS.map(|ours| (ours, level)))
}

/// Where a panic happened, and never its message: that of a slice or an `unwrap` quotes the data at hand.
fn report(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panicked");
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::panic::{catch_unwind, take_hook};
    use std::sync::{Arc, Mutex};

    use tracing::subscriber;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        /// What `work` logs when `level` is asked for.
        fn of(level: LevelFilter, work: impl FnOnce()) -> String {
            let page = Self::default();
            let writer = page.clone();
            let lines = fmt::layer().with_writer(move || writer.clone()).with_filter(filter(level));
            subscriber::with_default(registry().with(lines), work);
            String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn details_are_told_by_our_own_crates_alone() {
        let everybody = || {
            tracing::trace!(target: "shared::token::client", "our detail");
            tracing::trace!(target: "wpp_qr", "our detail");
            tracing::trace!(target: "lambda_runtime::layers", "their detail");
            tracing::debug!(target: "hyper_util::client", "their detail");
            tracing::info!(target: "lambda_runtime", "their news");
        };
        let said = |level| {
            let page = Page::of(level, everybody);
            ["our detail", "their detail", "their news"].map(|what| page.matches(what).count())
        };
        assert_eq!(said(LevelFilter::TRACE), [2, 0, 1]);
        assert_eq!(said(LevelFilter::INFO), [0, 0, 1]);
        assert_eq!(said(LevelFilter::ERROR), [0, 0, 0]);
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_not_by_its_words() {
        let page = Page::of(LevelFilter::INFO, || {
            let usual = take_hook();
            set_hook(Box::new(report));
            let panicked = catch_unwind(|| String::from("é canary")[1..].len());
            set_hook(usual);
            assert!(panicked.is_err());
        });
        assert!(page.contains("panicked") && page.contains(file!()), "{page}");
        assert!(!page.contains("canary"), "{page}");
    }
}
