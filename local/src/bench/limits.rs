//! The counts that must not grow, by the name of their figure: `local/limits.json`.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;

use super::figure::{Figure, Unit};
use crate::Result;
use crate::child::workspace;

/// How far above its limit a count of instructions may be, in percent. Hash seeds, the sizes in which answers arrive and another
/// machine's C library change the count.
const TOLERANCE: u64 = 10;

/// The architecture whose instructions are limited; on another one the counts differ.
const LIMITED_ARCH: &str = "x86_64";

type Limits = BTreeMap<String, u64>;

/// Fails with a sentence for each count that exceeds its limit.
pub fn check(figures: &[Figure]) -> Result<()> {
    let limits: Limits = serde_json::from_slice(&fs::read(file())?)?;
    let complaints = complaints(figures, &limits, ARCH);
    if complaints.is_empty() {
        println!("All within local/limits.json, instructions of {LIMITED_ARCH} within {TOLERANCE} %.");
        return Ok(());
    }
    let renew = "If that is meant, `RENEW=1 make bench` writes the new counts into local/limits.json.";
    Err(format!("{}\n{renew}", complaints.join("\n")).into())
}

/// Makes these counts the limits.
pub fn renew(figures: &[Figure]) -> Result<()> {
    if ARCH != LIMITED_ARCH {
        return Err(format!("the limits are of {LIMITED_ARCH}, and this is {ARCH}").into());
    }
    let limits: Limits = figures.iter().map(|figure| (figure.figure.clone(), count(figure))).collect();
    fs::write(file(), serde_json::to_string_pretty(&limits)? + "\n")?;
    println!("{} has these counts", file().display());
    Ok(())
}

fn file() -> PathBuf {
    workspace().join("local/limits.json")
}

/// Returns the count. The last three digits of instructions differ at each measurement.
fn count(figure: &Figure) -> u64 {
    match figure.unit {
        Unit::Instructions => (figure.measured / 1000.0).round() as u64 * 1000,
        _ => figure.measured as u64,
    }
}

fn complaints(figures: &[Figure], limits: &Limits, arch: &str) -> Vec<String> {
    let is_limited = |figure: &&Figure| figure.unit != Unit::Instructions || arch == LIMITED_ARCH;
    let complaint = |figure: &Figure| {
        let (name, count) = (&figure.figure, count(figure));
        let Some(limit) = limits.get(name) else {
            return Some(format!("{name}: {count}, and local/limits.json has no limit."));
        };
        let more = if figure.unit == Unit::Instructions { limit * TOLERANCE / 100 } else { 0 };
        (count > limit + more).then(|| format!("{name}: {count}, and the limit is {}.", limit + more))
    };
    figures.iter().filter(is_limited).filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints_about(requests: f64, instructions: f64, arch: &str) -> Vec<String> {
        let figures = [
            Figure::new("requests", Unit::Requests, requests),
            Figure::new("instructions", Unit::Instructions, instructions),
        ];
        let limits = [("requests", 2), ("instructions", 10_000)];
        let limits = limits.map(|(name, limit)| (name.to_owned(), limit)).into();
        complaints(&figures, &limits, arch)
    }

    #[test]
    fn one_request_above_limit_fails() {
        assert_eq!(complaints_about(2.0, 11_000.0, LIMITED_ARCH), [""; 0]);
        assert_eq!(
            complaints_about(3.0, 12_000.0, LIMITED_ARCH),
            ["requests: 3, and the limit is 2.", "instructions: 12000, and the limit is 11000."]
        );
    }

    #[test]
    fn instructions_of_another_architecture_have_no_limit() {
        assert_eq!(complaints_about(2.0, 12_000.0, "aarch64"), [""; 0]);
        assert_eq!(complaints_about(3.0, 12_000.0, "aarch64").len(), 1);
    }

    #[test]
    fn count_without_limit_fails() {
        let figures = [Figure::new("new", Unit::Requests, 1.0)];
        let expected = ["new: 1, and local/limits.json has no limit."];
        assert_eq!(complaints(&figures, &Limits::new(), LIMITED_ARCH), expected);
    }
}
