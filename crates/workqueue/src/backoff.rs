//! How long to wait after a failure.

use std::time::Duration;

/// Delays between attempts, doubling from one failure to the next (client-go:
/// `util/workqueue/default_rate_limiters.go`, `ItemExponentialFailureRateLimiter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure. Not zero, or it never grows.
    pub first: Duration,
    /// No delay is longer.
    pub last: Duration,
}

impl Backoff {
    /// Delays from `first`, doubling, to `last`.
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last }
    }

    /// The same delay after every failure.
    pub const fn constant(delay: Duration) -> Self {
        Self::new(delay, delay)
    }

    /// The delay after a failure that `earlier` failures in a row came before.
    pub fn delay(self, earlier: u32) -> Duration {
        // Shifted out, or longer than a Duration can be: the longest.
        let doubled = 1_u32.checked_shl(earlier).map(|factor| self.first.saturating_mul(factor));
        doubled.unwrap_or(self.last).min(self.last)
    }
}

/// `delay` without `shorten` thousandths of it.
pub(crate) fn shortened(delay: Duration, shorten: u32) -> Duration {
    delay - delay.saturating_mul(shorten.min(1_000)) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_the_first_to_the_last() {
        let ms = Duration::from_millis;
        let backoff = Backoff::new(ms(50), ms(1_000));
        for (earlier, delay) in
            [(0, 50), (1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (31, 1_000), (32, 1_000)]
        {
            assert_eq!(backoff.delay(earlier), ms(delay), "after {earlier} earlier failures");
        }
        assert_eq!(backoff.delay(u32::MAX), ms(1_000));
        assert_eq!(Backoff::constant(ms(5)).delay(0), ms(5));
        assert_eq!(Backoff::constant(ms(5)).delay(7), ms(5));
        let wide = Backoff::new(Duration::from_nanos(1), Duration::MAX);
        assert!((0..60).all(|n| wide.delay(n) < wide.delay(n + 1) || wide.delay(n) == wide.last));
    }

    #[test]
    fn jitter_takes_off_thousandths() {
        let second = Duration::from_secs(1);
        for (shorten, millis) in [(0, 1_000), (1, 999), (250, 750), (1_000, 0), (u32::MAX, 0)] {
            assert_eq!(shortened(second, shorten), Duration::from_millis(millis), "{shorten}");
        }
        assert!(shortened(Duration::MAX, 250) <= Duration::MAX);
    }
}
