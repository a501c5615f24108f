//! What reaches the log: a line of JSON for each request, and one for whatever is said in between.

pub(crate) mod line;

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::panic::{PanicHookInfo, set_hook};
use std::process::ExitCode;

use lambda_runtime::tracing::subscriber::filter::LevelFilter;
use lambda_runtime::tracing::subscriber::fmt::MakeWriter;
use lambda_runtime::tracing::subscriber::layer::Context;
use lambda_runtime::tracing::subscriber::prelude::*;
use lambda_runtime::tracing::subscriber::{Layer, registry};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};

use crate::clock;
use crate::record;

/// Writes what is said to standard output, from the level that `AWS_LAMBDA_LOG_LEVEL` names, else `RUST_LOG`; `info` by
/// default, and at most: nothing below it is compiled in. The line of a request is always written, since the metrics are in it.
pub(crate) fn init() {
    let asked = env::var("AWS_LAMBDA_LOG_LEVEL").or_else(|_| env::var("RUST_LOG"));
    let level = asked.ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    registry().with(level).with(Lines(io::stdout)).init();
    set_hook(Box::new(report));
}

/// Writes the line of a request.
pub(crate) fn write(line: &str) {
    write_line(&mut io::stdout(), line);
}

/// In one piece: other requests write here too. Where nobody reads the log, there is nobody to tell.
fn write_line(to: &mut impl Write, line: &str) {
    let _ = to.write_all(format!("{line}\n").as_bytes());
}

/// How the process ends, and one line of the log that says why if it should not.
pub(crate) fn exit_code(outcome: Result<(), lambda_runtime::Error>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    tracing::error!(%error, "the function ended");
    ExitCode::FAILURE
}

/// Where a panic happened, and never its message: that of a slice or an `unwrap` quotes the data at hand.
fn report(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panicked");
}

/// Writes each event as a line of JSON, and no span.
struct Lines<W>(W);

/// What was said besides: a warning, a panic, a start that failed.
#[derive(Serialize)]
struct Said {
    timestamp: Option<String>,
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(flatten)]
    fields: Fields,
}

/// An event's fields, the message among them.
#[derive(Default, Serialize)]
struct Fields(Map<String, Value>);

impl<S: Subscriber, W: for<'a> MakeWriter<'a> + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let said = Said {
            timestamp: clock::now().to_rfc3339(),
            level: event.metadata().level().as_str(),
            request_id: record::request_id(),
            fields,
        };
        write_line(&mut self.0.make_writer(), &serde_json::to_string(&said).unwrap_or_default());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, take_hook};

    use serde_json::json;

    use super::testing::Page;
    use super::*;
    use crate::record::Record;
    use crate::record::trace::Trace;

    #[test]
    fn details_are_told_by_nobody_whatever_level_is_asked_for() {
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

    #[tokio::test]
    async fn what_is_said_is_a_line_of_json_with_the_time_and_the_request_and_without_spans() {
        let page = Page::at(LevelFilter::INFO);
        let said = async {
            let _span = tracing::info_span!("a span", canary = 1).entered();
            tracing::warn!(error = %"timed out", tries = 3, late = true, "the webhook\ncould not be registered");
        };
        Record::new("r-1".to_owned(), Trace::default()).keep(said).await;
        tracing::error!("the function ended");
        let lines: Vec<Value> = page.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [mut warning, error] = <[Value; 2]>::try_from(lines).unwrap();
        let timestamp = warning.as_object_mut().unwrap().remove("timestamp").unwrap();
        let timestamp = timestamp.as_str().unwrap();
        assert!(
            timestamp.len() == 24 && timestamp.ends_with('Z') && timestamp[19..].starts_with('.'),
            "{timestamp}"
        );
        let expected = json!({
            "level": "WARN", "request_id": "r-1", "message": "the webhook\ncould not be registered",
            "error": "timed out", "tries": 3, "late": true,
        });
        assert_eq!(warning, expected);
        assert_eq!((&error["level"], error.get("request_id")), (&json!("ERROR"), None));
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
