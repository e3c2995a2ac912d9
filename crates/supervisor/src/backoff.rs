//! How long to wait before something that died is started again.
//!
//! The first wait is 100 ms, so that a single crash is hardly seen; each further death doubles it up to 30 s, so that a
//! crash loop costs next to nothing. Ten seconds of life end the series. Sans-IO: the caller says what time it is.

use std::time::{Duration, Instant};

/// The wait after the first death.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A life this long was a success.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// The series of deaths of one thing that is kept alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    longest: Duration,
    /// The wait after the last death; `None` before the first of a series.
    last: Option<Duration>,
    /// Since when it is up.
    up: Option<Instant>,
}

impl Backoff {
    /// No death yet.
    #[must_use]
    pub fn new() -> Self {
        Self::up_to(LONGEST)
    }

    /// No death yet, and no wait longer than this.
    #[must_use]
    pub fn up_to(longest: Duration) -> Self {
        Self {
            longest,
            last: None,
            up: None,
        }
    }

    /// It does its work from now on.
    pub fn up(&mut self, now: Instant) {
        self.up = Some(now);
    }

    /// It died, or did not come up. Returns when to start it again.
    pub fn died(&mut self, now: Instant) -> Instant {
        let lived = self
            .up
            .take()
            .map(|since| now.saturating_duration_since(since));
        if lived.is_some_and(|lived| lived >= LONG_LIFE) {
            self.last = None;
        }
        let wait = self.last.map_or(FIRST, |last| (last * 2).min(self.longest));
        self.last = Some(wait);
        now + wait
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_thirty_seconds() {
        let now = Instant::now();
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..11)
            .map(|_| backoff.died(now).duration_since(now).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
    }

    #[test]
    fn only_a_long_life_ends_the_series() {
        let start = Instant::now();
        // (how long it was up before this death; `None`: never came up) → wait in ms
        let deaths = [
            (None, 100),
            (Some(0), 200),
            (Some(9_999), 400),
            (Some(10_000), 100),
            (None, 200),
            (Some(60_000), 100),
        ];
        let mut backoff = Backoff::new();
        let mut now = start;
        for (index, (lived, expected)) in deaths.into_iter().enumerate() {
            if let Some(lived) = lived {
                backoff.up(now);
                now += Duration::from_millis(lived);
            }
            let again = backoff.died(now);
            assert_eq!((again - now).as_millis(), expected, "death {index}");
            now = again;
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_shorter_than_the_first_nor_longer_than_the_longest(
            lives in proptest::collection::vec(proptest::option::of(0u64..20_000), 0..64),
        ) {
            let mut now = Instant::now();
            let mut backoff = Backoff::new();
            for lived in lives {
                if let Some(lived) = lived {
                    backoff.up(now);
                    now += Duration::from_millis(lived);
                }
                let again = backoff.died(now);
                prop_assert!((FIRST..=LONGEST).contains(&(again - now)));
                now = again;
            }
        }
    }
}
