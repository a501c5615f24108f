//! Pauses between attempts.

use std::time::Duration;

/// Pauses that double from the first to the longest. Each is drawn at random from its upper half. So requests that began to wait at
/// the same time retry at different times.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses from `first` on, none longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// Returns the next pause, cut to `at_most` if it would be longer.
    pub fn pause(&mut self, at_most: Duration) -> Duration {
        let pause = self.next.min(at_most);
        self.next = (self.next * 2).min(self.longest);
        pause.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        for _ in 0..100 {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(800));
            for (at_most, longest) in
                [6000, 6000, 6000, 6000, 6000, 6000, 200].into_iter().zip([50, 100, 200, 400, 800, 800, 200])
            {
                let pause = backoff.pause(Duration::from_millis(at_most));
                let longest = Duration::from_millis(longest);
                assert!((longest / 2..=longest).contains(&pause), "{pause:?} of {longest:?}");
            }
        }
    }

    #[test]
    fn simultaneous_requests_retry_at_different_times() {
        let pause = || Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).pause(Duration::MAX);
        let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| pause()).collect();
        assert!(pauses.len() > 50, "{} of 100 differ", pauses.len());
    }
}
