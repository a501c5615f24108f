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
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, take_hook};

    use super::testing::Page;
    use super::*;

    #[test]
    fn details_are_told_by_our_own_crates_alone() {
        let said = |level| {
            let page = Page::at(level);
            tracing::trace!(target: "shared::token::client", "our detail");
            tracing::trace!(target: "wpp_qr", "our detail");
            tracing::trace!(target: "lambda_runtime::layers", "their detail");
            tracing::debug!(target: "hyper_util::client", "their detail");
            tracing::info!(target: "lambda_runtime", "their news");
            ["our detail", "their detail", "their news"].map(|what| page.text().matches(what).count())
        };
        assert_eq!(said(LevelFilter::TRACE), [2, 0, 1]);
        assert_eq!(said(LevelFilter::INFO), [0, 0, 1]);
        assert_eq!(said(LevelFilter::ERROR), [0, 0, 0]);
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_not_by_its_words() {
        let page = Page::at(LevelFilter::INFO);
        let usual = take_hook();
        set_hook(Box::new(report));
        let panicked = catch_unwind(|| String::from("é canary")[1..].len());
        set_hook(usual);
        assert!(panicked.is_err());
        let page = page.text();
        assert!(page.contains("panicked") && page.contains(file!()), "{page}");
        assert!(!page.contains("canary"), "{page}");
    }

    #[test]
    fn a_function_that_cannot_start_says_why_in_one_line() {
        let page = Page::at(LevelFilter::ERROR);
        assert_eq!(exit_code(Ok(())), ExitCode::SUCCESS);
        assert_eq!(page.text(), "");
        assert_eq!(exit_code(Err("WPP_SECRET is not set".into())), ExitCode::FAILURE);
        let page = page.text();
        assert!(page.lines().count() == 1 && page.contains("WPP_SECRET is not set"), "{page}");
    }
}
