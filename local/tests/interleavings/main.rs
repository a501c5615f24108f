//! Random interleavings against the real SQL. A failing case is shrunk, and its seed is printed. `PROPTEST_RNG_SEED=<seed>` repeats
//! the same cases, and `PROPTEST_CASES=<number>` runs more of them.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

#[path = "../../../shared/src/wpp/protocol/tests/model.rs"]
mod model;
mod requests;
mod sql;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

/// Runs the cases one after another in a separate runtime. A case fails if it panics.
fn replayable<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let run = |case| {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(case)));
        outcome.map_err(|panic| TestCaseError::fail(message(&*panic)))
    };
    match TestRunner::new(config).run(&strategy, run) {
        Ok(()) => println!("seed {seed}"),
        Err(TestError::Fail(reason, case)) => panic!("PROPTEST_RNG_SEED={seed}\n{reason}\n{case:#?}"),
        Err(TestError::Abort(reason)) => panic!("PROPTEST_RNG_SEED={seed}\n{reason}"),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
