//! How long to wait before the next attempt to reach the manager.

use std::time::Duration;

/// Upper end of the first wait.
const BASE: Duration = Duration::from_millis(500);
/// Upper end of every later wait: doubling stops here.
const CAP: Duration = Duration::from_secs(15);

/// Exponential backoff with full jitter: each wait is drawn evenly from zero to an end that doubles, so that shards
/// that lost their manager at one moment come back spread over the whole time.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Draws the wait after one more failure.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let end = BASE.saturating_mul(2_u32.saturating_pow(self.failures)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        end.mul_f64(fastrand::f64())
    }

    /// The manager refused: there is no hurry.
    pub(crate) fn saturate(&mut self) {
        self.failures = u32::MAX;
    }

    /// The manager took a frame.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits_after(failures: u32) -> Vec<Duration> {
        (0..1_000).map(|_| Backoff { failures }.next_wait()).collect()
    }

    #[test]
    fn a_thousand_reporters_come_back_evenly_over_the_whole_wait() {
        for (failures, end) in [(0, BASE), (2, BASE * 4), (5, CAP), (u32::MAX, CAP)] {
            let mut tenths = [0; 10];
            for wait in waits_after(failures) {
                assert!(wait < end, "{wait:?} after {failures} failures");
                tenths[(wait.as_secs_f64() / end.as_secs_f64() * 10.0) as usize] += 1;
            }
            // 100 expected each; 40 is six standard deviations away.
            assert!(tenths.iter().all(|count| (40..160).contains(count)), "{tenths:?}");
        }
    }

    #[test]
    fn waits_grow_to_the_cap_and_begin_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..40 {
            assert!(backoff.next_wait() <= CAP);
        }
        backoff.reset();
        assert!(backoff.next_wait() < BASE);
        backoff.saturate();
        assert!((0..100).any(|_| backoff.next_wait() > CAP / 2));
    }
}
