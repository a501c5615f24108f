//! What reaches the log: a line of JSON for each request, and one for whatever is said in between.

pub(crate) mod line;

use std::env;
use std::io::{self, Write};
use std::panic::{PanicHookInfo, set_hook};
use std::process::ExitCode;

use lambda_http::tracing::subscriber::filter::LevelFilter;
use lambda_http::tracing::subscriber::fmt::{self, MakeWriter};
use lambda_http::tracing::subscriber::util::SubscriberInitExt;
use tracing::Subscriber;

/// Writes the log to standard output, from the level that `AWS_LAMBDA_LOG_LEVEL` or `RUST_LOG` names. The default is `info`, which is
/// also the most, since nothing below it is compiled in. The line of a request is always written: the metrics are in it.
pub(crate) fn init() {
    let level = env::var("AWS_LAMBDA_LOG_LEVEL").or_else(|_| env::var("RUST_LOG"));
    let level = level.ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    subscriber(level, io::stdout).init();
    set_hook(Box::new(report));
}

/// Writes each event as one flat JSON object.
fn subscriber<W>(level: LevelFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_target(false)
        .with_max_level(level)
        .with_writer(writer)
        .finish()
}

/// Writes the line of a request.
pub(crate) fn write(line: &str) {
    // In one piece, since other requests write here too. If the log cannot be written, there is no other place for a report.
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Returns how the process ends. Logs one line that says why, if it should not end.
pub(crate) fn exit_code(outcome: Result<(), lambda_runtime::Error>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    tracing::error!(%error, "the function ended");
    ExitCode::FAILURE
}

/// Logs the place of a panic without its message, which may quote data.
fn report(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panicked");
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, take_hook};

    use serde_json::{Value, json};

    use super::testing::Page;
    use super::*;

    #[test]
    fn libraries_log_no_details_at_any_level() {
        let said = |level| {
            let page = Page::at(level);
            tracing::trace!("a detail");
            tracing::debug!("a detail");
            tracing::info!("news");
            ["a detail", "news"].map(|what| page.text().matches(what).count())
        };
        assert_eq!(said(LevelFilter::TRACE), [0, 1]);
        assert_eq!(said(LevelFilter::INFO), [0, 1]);
        assert_eq!(said(LevelFilter::ERROR), [0, 0]);
    }

    #[test]
    fn a_warning_is_a_flat_line_of_json_with_the_request_id() {
        let page = Page::at(LevelFilter::INFO);
        let span = tracing::info_span!("Lambda runtime invoke", requestId = "r-1");
        span.in_scope(|| tracing::warn!(error = %"timed out", tries = 3, late = true, "the webhook\nfailed"));
        tracing::error!("the function ended");
        let lines: Vec<Value> = page.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [mut warning, error] = <[Value; 2]>::try_from(lines).unwrap();
        let timestamp = warning.as_object_mut().unwrap().remove("timestamp").unwrap();
        let timestamp = timestamp.as_str().unwrap();
        assert!(timestamp.ends_with('Z') && timestamp[19..].starts_with('.'), "{timestamp}");
        let expected = json!({
            "level": "WARN", "message": "the webhook\nfailed", "error": "timed out", "tries": 3, "late": true,
            "span": {"name": "Lambda runtime invoke", "requestId": "r-1"},
        });
        assert_eq!(warning, expected);
        assert_eq!((&error["level"], error.get("span")), (&json!("ERROR"), None));
    }

    #[test]
    fn panic_is_logged_by_place_without_message() {
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
