//! `local limits`: whether the functions ask more of their upstreams, or of the processor, than `local/limits.json` allows. Only what
//! is the same at each measurement is limited. `local limits renew` writes what is measured now.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bench::instructions::{self, KEPT_OF};
use crate::bench::warm::{Scene, Warm};
use crate::child::workspace;
use crate::{FUNCTIONS, Result};

/// How far above its limit a count of instructions may be, in percent. Hash seeds, the sizes in which answers arrive and another
/// machine's C library change the count.
const TOLERANCE: u64 = 10;

/// What is measured, and what is allowed, by the name of the request or of the function.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Upstream requests of a warm request.
    upstream_requests: BTreeMap<String, u64>,
    /// Instructions of a warm request.
    instructions: BTreeMap<String, u64>,
    /// Instructions of a start, up to the first question for an invocation.
    start_instructions: BTreeMap<String, u64>,
}

/// Measures, and fails with a sentence for each limit that is exceeded.
pub async fn check() -> Result<()> {
    let allowed: Limits = serde_json::from_slice(&fs::read(file())?)?;
    let measured = measure().await?;
    let complaints = measured.complaints(&allowed);
    println!("{}", serde_json::to_string_pretty(&measured)?);
    if !complaints.is_empty() {
        let renew = "If that is meant, `make bench RENEW=1` writes the new figures into local/limits.json.";
        return Err(format!("{}\n{renew}", complaints.join("\n")).into());
    }
    println!("All within local/limits.json, instructions within {TOLERANCE} %.");
    if ARCH != KEPT_OF {
        println!("Instructions were not counted: the limits are of {KEPT_OF}, and this is {ARCH}.");
    }
    Ok(())
}

/// Measures, and makes that the limits.
pub async fn renew() -> Result<()> {
    if ARCH != KEPT_OF {
        return Err(format!("the limits are of {KEPT_OF}, and this is {ARCH}").into());
    }
    let measured = measure().await?;
    fs::write(file(), serde_json::to_string_pretty(&measured)? + "\n")?;
    println!("{} has what was measured", file().display());
    Ok(())
}

fn file() -> PathBuf {
    workspace().join("local/limits.json")
}

async fn measure() -> Result<Limits> {
    let scene = Scene::start().await;
    let mut measured = Limits::default();
    for poll in Warm::ALL {
        let requests = poll.upstream_requests(&scene).await?;
        measured.upstream_requests.insert(poll.name().to_owned(), requests);
        if ARCH == KEPT_OF {
            let instructions = rounded(instructions::of_request(&scene, poll).await?);
            measured.instructions.insert(poll.name().to_owned(), instructions);
        }
    }
    if ARCH == KEPT_OF {
        for name in FUNCTIONS {
            let instructions = rounded(instructions::of_start(&scene, name).await?);
            measured.start_instructions.insert(name.to_owned(), instructions);
        }
    }
    Ok(measured)
}

/// Rounds to thousands. Except for the last one, they are the same at each measurement.
fn rounded(instructions: f64) -> u64 {
    (instructions / 1000.0).round() as u64 * 1000
}

impl Limits {
    /// Returns a sentence for each figure that is above its limit, or has no limit.
    fn complaints(&self, allowed: &Self) -> Vec<String> {
        [
            (&self.upstream_requests, &allowed.upstream_requests, "upstream requests of a warm request", 0),
            (&self.instructions, &allowed.instructions, "instructions of a warm request", TOLERANCE),
            (&self.start_instructions, &allowed.start_instructions, "instructions of a start", TOLERANCE),
        ]
        .into_iter()
        .flat_map(|(measured, allowed, what, tolerance)| {
            measured.iter().filter_map(move |(name, measured)| {
                let Some(limit) = allowed.get(name) else {
                    return Some(format!("{name}: {what}: {measured}, and local/limits.json has no limit."));
                };
                let is_over = *measured > limit + limit * tolerance / 100;
                is_over.then(|| {
                    format!("{name}: {what}: {measured}, and the limit is {limit}{}.", more(tolerance))
                })
            })
        })
        .collect()
    }
}

fn more(tolerance: u64) -> String {
    if tolerance == 0 { String::new() } else { format!(" and {tolerance} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: u64, instructions: u64, start: u64) -> Limits {
        let of = |value| BTreeMap::from([("wpp-qr".to_owned(), value)]);
        Limits {
            upstream_requests: of(requests),
            instructions: of(instructions),
            start_instructions: of(start),
        }
    }

    #[test]
    fn one_request_more_exceeds_a_limit() {
        let allowed = limits(2, 1000, 2000);
        for (measured, complaints) in [
            (limits(2, 1000, 2000), vec![]),
            (limits(1, 10, 20), vec![]),
            (limits(2, 1100, 2200), vec![]),
            (
                limits(3, 1000, 2000),
                vec!["wpp-qr: upstream requests of a warm request: 3, and the limit is 2."],
            ),
            (
                limits(2, 1101, 2201),
                vec![
                    "wpp-qr: instructions of a warm request: 1101, and the limit is 1000 and 10 %.",
                    "wpp-qr: instructions of a start: 2201, and the limit is 2000 and 10 %.",
                ],
            ),
        ] {
            assert_eq!(measured.complaints(&allowed), complaints);
        }
    }

    #[test]
    fn what_nobody_has_limited_is_not_let_through() {
        let complaints = limits(2, 1000, 2000).complaints(&Limits::default());
        assert_eq!(complaints.len(), 3);
        assert_eq!(
            complaints[0],
            "wpp-qr: upstream requests of a warm request: 2, and local/limits.json has no limit."
        );
    }

    #[test]
    fn the_file_has_a_limit_for_each_request_and_each_function() {
        let allowed: Limits = serde_json::from_slice(&fs::read(file()).unwrap()).unwrap();
        let names = |limits: &BTreeMap<String, u64>| limits.keys().cloned().collect::<Vec<_>>();
        let mut polls = Warm::ALL.map(|poll| poll.name().to_owned());
        polls.sort();
        assert_eq!(names(&allowed.upstream_requests), polls);
        assert_eq!(names(&allowed.instructions), polls);
        assert_eq!(names(&allowed.start_instructions), FUNCTIONS);
    }
}
