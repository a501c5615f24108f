//! The time that a request has left.

use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::clock::UnixMs;

/// Subtracted from the invocation's deadline, so that the function answers before Lambda returns a 502.
const MARGIN: Duration = Duration::from_millis(500);

/// Subtracted from a wait, to leave time for the answer.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// The moment by which work must have ended, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the moment this long from now.
    #[allow(clippy::disallowed_methods, reason = "the one reading of the monotonic clock")]
    pub fn within(budget: Duration) -> Self {
        Self(Instant::now() + budget)
    }

    /// Returns the budget, or less if the invocation ends earlier. The invocation's deadline (milliseconds since 1970) counts only
    /// if it is in the future: `cargo lambda watch` sends 600000, ten minutes after 1970.
    pub(crate) fn of_invocation(deadline_ms: u64, now: UnixMs, budget: Duration) -> Self {
        let left = now.until(UnixMs(i64::try_from(deadline_ms).unwrap_or(i64::MAX)));
        Self::within(if left.is_zero() { budget } else { budget.min(left.saturating_sub(MARGIN)) })
    }

    /// Returns this deadline, or `limit` from now if that is sooner.
    pub fn at_most(self, limit: Duration) -> Self {
        Self(self.0.min(Self::within(limit).0))
    }

    /// Returns the deadline for a wait before the answer.
    pub fn for_a_wait(self) -> Self {
        self.at_most(self.remaining().saturating_sub(ANSWER_TIME))
    }

    /// Returns the time that is left; zero after the deadline.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Self::within(Duration::ZERO).0)
    }

    /// Runs `work` until it ends. Drops it when the time has run out.
    pub(crate) async fn bound<F: Future>(self, work: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout_at(self.0, work).await
    }

    /// Sleeps for `pause`, but not past this deadline. Returns whether the whole pause fit.
    pub async fn sleep(self, pause: Duration) -> bool {
        let fits = pause < self.remaining();
        tokio::time::sleep(pause.min(self.remaining())).await;
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(25);

    #[tokio::test(start_paused = true)]
    async fn the_invocations_deadline_cuts_the_budget_and_leaves_a_margin() {
        let deadline = Deadline::of_invocation(110_000, UnixMs(100_000), BUDGET);
        assert_eq!(deadline.remaining(), Duration::from_millis(9_500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_means_unknown() {
        let deadline = Deadline::of_invocation(600_000, UnixMs(1_795_000_000_000), BUDGET);
        assert_eq!(deadline.remaining(), BUDGET);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_is_cut_off() {
        let late = Deadline::within(BUDGET).bound(tokio::time::sleep(BUDGET * 2)).await;
        assert!(late.is_err());
        assert_eq!(Deadline::within(BUDGET).bound(async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn pause_must_end_before_the_deadline() {
        for (pause, fits) in [(24_999, true), (25_000, false), (60_000, false)] {
            let deadline = Deadline::within(BUDGET);
            assert_eq!(deadline.sleep(Duration::from_millis(pause)).await, fits, "{pause}");
            assert_eq!(deadline.remaining().is_zero(), !fits, "{pause}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wait_leaves_half_a_second_for_the_answer() {
        assert_eq!(Deadline::within(BUDGET).for_a_wait().remaining(), Duration::from_millis(24_500));
        assert!(Deadline::within(Duration::from_millis(400)).for_a_wait().remaining().is_zero());
    }
}
