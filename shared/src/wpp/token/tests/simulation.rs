//! A fleet in simulated time: the functions' own client, with its protocol, pauses and timeouts, against the walk's model of the
//! database. All times come from tokio's paused clock and all random numbers from a seeded `fastrand`, so the same seed gives the
//! same hour. `make simulate` writes the results to `docs/`.

mod chart;
mod fleet;
mod report;
mod upstreams;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fleet::{Fleet, Outcome};

use crate::config::REQUEST_BUDGET;
use crate::error::Error;
use crate::wpp::api::PlatformError;

/// A fleet, and what happens to it.
#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    /// Each has one number.
    schools: usize,
    /// Each works on one request at a time.
    sandboxes: usize,
    length: Duration,
    /// Whether the database grants the lease to one request at a time, or to every request that asks.
    has_lease: bool,
    /// Whether the platform accepts only a number's newest token.
    newest_only: bool,
    /// The share of requests that freeze, or die with their sandbox.
    mishaps: f64,
    /// A third of the tokens end within the minute after this.
    wave: Duration,
    platform_outage: Range<Duration>,
    database_outage: Range<Duration>,
}

/// What was observed in the simulation.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    /// The number of `/auth/token` calls in each second.
    asked: Vec<u32>,
    /// How many tokens the platform issued.
    given: u64,
    /// How many of them were needless: the row had a fresh token, or was about to get one.
    needless: u64,
    requests: u64,
    /// How long the requests without an outage took, in milliseconds.
    took: Vec<u64>,
    /// How long these took to get a token, if they needed a new one.
    waited: Vec<u64>,
    /// The longest such wait while the row had a usable token.
    delayed: u64,
    failed: BTreeMap<&'static str, u64>,
    /// Requests that failed without an outage.
    failed_outside: u64,
    /// Requests that failed because they had no token, while the row had a usable one.
    wronged: u64,
    frozen: u64,
    died: u64,
    /// The most sandboxes that were busy at once.
    sandboxes: usize,
}

impl Scenario {
    /// Whether an outage or its after-effects (leases of requests that still wait) affected a request.
    fn has_outage(&self, time: &Range<Duration>) -> bool {
        [&self.platform_outage, &self.database_outage]
            .iter()
            .any(|outage| time.start < outage.end + REQUEST_BUDGET && outage.start <= time.end)
    }
}

impl Tally {
    fn ask(&mut self, at: Duration) {
        let second = usize::try_from(at.as_secs()).unwrap();
        self.asked.resize(self.asked.len().max(second + 1), 0);
        self.asked[second] += 1;
    }

    /// Returns the number of `/auth/token` calls.
    fn sent(&self) -> u64 {
        self.asked.iter().map(|asked| u64::from(*asked)).sum()
    }

    fn give(&mut self, is_needless: bool) {
        self.given += 1;
        self.needless += u64::from(is_needless);
    }

    fn fail(&mut self, why: &'static str, has_outage: bool) {
        *self.failed.entry(why).or_default() += 1;
        self.failed_outside += u64::from(!has_outage);
    }

    fn note(&mut self, scenario: &Scenario, time: Range<Duration>, outcome: Outcome) {
        let Outcome { answer, waited, had_token } = outcome;
        let has_outage = scenario.has_outage(&time);
        if !has_outage {
            self.took.push(millis(time.end - time.start));
            self.waited.extend(Some(millis(waited)).filter(|waited| *waited > 0));
        }
        if had_token {
            self.delayed = self.delayed.max(millis(waited));
        }
        let Err(error) = answer else { return };
        let (why, is_for_want_of_a_token) = match error {
            Error::Platform(error) if error.call == "auth/token" => ("the platform issued no token", true),
            Error::Platform(error) if error.why == PlatformError::TokenRejected => {
                ("the platform rejected both tokens", true)
            }
            Error::Platform(_) => ("the platform did not answer", false),
            Error::Database(_) => ("the database did not answer", true),
            _ => ("the request's time was over", true),
        };
        self.fail(why, has_outage);
        self.wronged += u64::from(is_for_want_of_a_token && had_token);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Returns half an hour of a small fleet. The only fault is that a third of the tokens expire at the same time.
fn calm() -> Scenario {
    Scenario {
        seed: 12,
        schools: 200,
        sandboxes: 40,
        length: minutes(30),
        has_lease: true,
        newest_only: false,
        mishaps: 0.0,
        wave: minutes(5),
        platform_outage: minutes(60)..minutes(60),
        database_outage: minutes(60)..minutes(60),
    }
}

/// Returns the same, but everything goes wrong.
fn rough() -> Scenario {
    Scenario {
        mishaps: 0.2,
        platform_outage: minutes(10)..minutes(13),
        database_outage: minutes(20)..minutes(21),
        ..calm()
    }
}

#[test]
fn a_fleet_fetches_each_expired_token_once() {
    let leased = Fleet::run(calm());
    assert_eq!((leased.needless, &leased.failed), (0, &BTreeMap::new()));
    assert!(leased.given > 100, "{} given", leased.given);
    assert_eq!(leased.sent(), leased.given);
    let free = Fleet::run(Scenario { has_lease: false, ..calm() });
    assert!(free.needless > 10, "{} needless", free.needless);
}

#[test]
fn no_fault_in_a_fleet_delays_a_request_for_long() {
    for newest_only in [false, true] {
        let tally = Fleet::run(Scenario { newest_only, ..rough() });
        let troubles = (tally.frozen, tally.died, &tally.failed);
        assert!(tally.frozen > 0 && tally.died > 0 && tally.failed.len() >= 3, "{troubles:?}");
        assert_eq!((tally.wronged, tally.failed_outside), (0, 0), "{troubles:?}");
        assert!(tally.delayed <= 1500, "{} ms with a token", tally.delayed);
        // Two holders may die one after the other.
        let longest = tally.took.iter().max().unwrap();
        assert!(*longest <= 17_000, "{longest} ms");
        // Some of the requests that died or froze had the lease.
        assert!(tally.needless < tally.given / 20, "{} of {}", tally.needless, tally.given);
    }
}

#[test]
fn same_seed_gives_the_same_hour() {
    let play = |seed| Fleet::run(Scenario { seed, length: minutes(15), ..rough() });
    assert_eq!(play(12), play(12));
    assert_ne!(play(12), play(13));
}

/// `make simulate`
#[test]
#[ignore = "a minute with optimized code"]
fn simulate() {
    let leased = Scenario {
        schools: 10_000,
        sandboxes: 1000,
        length: minutes(60),
        mishaps: 0.001,
        wave: minutes(10),
        platform_outage: minutes(25)..minutes(30),
        database_outage: minutes(45)..minutes(47),
        ..rough()
    };
    let free = Scenario { has_lease: false, ..leased.clone() };
    let newest_only = |scenario: &Scenario| Scenario { newest_only: true, ..scenario.clone() };
    let runs = [
        ("with the lease", leased.clone()),
        ("without it", free.clone()),
        ("with it, newest only", newest_only(&leased)),
        ("without it, newest only", newest_only(&free)),
    ];
    let tallies = std::thread::scope(|threads| {
        let started = runs.map(|(name, scenario)| (name, threads.spawn(|| Fleet::run(scenario))));
        started.map(|(name, run)| (name, run.join().unwrap()))
    });
    report::write(&leased, &tallies);
    for (name, tally) in tallies.iter().step_by(2) {
        assert_eq!((tally.wronged, tally.failed_outside), (0, 0), "{name}");
    }
}
