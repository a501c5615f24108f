//! Feeds arbitrary input to every parser of untrusted input. Nothing may panic, and what holds for valid input must hold for all input.
//!
//! `cargo test` runs the same few hundred cases each time. `FUZZ_SECONDS=60 cargo test -p shared fuzz` runs new ones for that long
//! per target.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::deadline::Deadline;

mod answers;
mod requests;
mod tokens;

/// Checks `test` with many generated values.
fn check<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { failure_persistence: None, ..Config::default() };
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let Some(seconds) = seconds else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        return TestRunner::new_with_rng(config, rng).run(&strategy, test).unwrap();
    };
    let (end, mut runner) = (Deadline::within(Duration::from_secs(seconds)), TestRunner::new(config));
    while !end.remaining().is_zero() {
        runner.run(&strategy, &test).unwrap();
    }
}

/// Runs async code; servers keep running in it.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Generates short texts, in all alphabets and with characters that break parsers.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9_.:@+-]{0,140}",
        r#"[ -~]{0,40}"#,
        Just("\u{0}".to_owned()),
        Just("9".repeat(400)),
    ]
}

/// Generates any number that JSON can write.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-10_i64..100_000).prop_map(Value::from),
        (1e-9..1e-2).prop_map(Value::from),
    ]
}

/// Generates any JSON.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
        number().prop_map(|number| number.to_string().into()),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(text(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Generates an object with some of these names, and any values.
fn object(names: &'static [&'static str]) -> impl Strategy<Value = Map<String, Value>> {
    let name = prop_oneof![4 => prop::sample::select(names).prop_map(str::to_owned), 1 => text()];
    prop::collection::vec((name, value()), 0..names.len() + 2).prop_map(|fields| fields.into_iter().collect())
}

/// Generates `good` with several random parts replaced.
fn mutated(good: Value) -> impl Strategy<Value = Value> {
    mutated_with(good, Just("9"))
}

/// Does the same as [`mutated`], with these words among the replacements.
fn mutated_with(good: Value, words: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Value> {
    let pointers = pointers(&good, String::new());
    let new = prop_oneof![value(), text().prop_map(Value::from), words.prop_map(Value::from)];
    let change = (prop::sample::select(pointers), new);
    prop::collection::vec(change, 0..4).prop_map(move |changes| {
        let mut event = good.clone();
        for (pointer, value) in changes {
            if let Some(place) = event.pointer_mut(&pointer) {
                *place = value;
            }
        }
        event
    })
}

/// Returns the pointers of all parts of a JSON value.
fn pointers(value: &Value, at: String) -> Vec<String> {
    let inner: Vec<_> = match value {
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), field)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, item)| (n.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    let below = inner.into_iter().flat_map(|(name, inner)| pointers(inner, format!("{at}/{name}")));
    std::iter::once(at.clone()).chain(below.collect::<Vec<_>>()).collect()
}
