//! How long things take, as counts of times up to each bound.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The bounds, in microseconds: three in a decade from a file out of memory to an app's `timeout`. What is longer is counted
/// behind the last.
pub const BOUNDS: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Counts of times.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Of times up to each bound and past the one before; the last is for those past all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Adds what another one has counted.
    pub fn add(&self, other: &Observed) {
        for (ours, theirs) in self.counts.iter().zip(&other.counts) {
            ours.fetch_add(*theirs, Ordering::Relaxed);
        }
        self.sum.fetch_add(other.sum, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn observed(&self) -> Observed {
        Observed {
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// As [`BOUNDS`], and one more; empty where nothing was counted.
    pub counts: Vec<u64>,
    /// Microseconds.
    pub sum: u64,
}

impl Observed {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (one, two) in self.counts.iter_mut().zip(&other.counts) {
            *one += two;
        }
        self.sum += other.sum;
    }

    /// What has come since an earlier look.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.counts.iter().enumerate();
        Self {
            counts: counts
                .map(|(at, count)| {
                    count.saturating_sub(before.counts.get(at).copied().unwrap_or_default())
                })
                .collect(),
            sum: self.sum.saturating_sub(before.sum),
        }
    }

    /// The time that this share of them (0.5, 0.99) took at most, by a straight line between the bounds; `None` of nothing.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate, of fewer than 2⁵² requests"
        )]
        let wanted = share * count as f64;
        let mut before = 0.0;
        for (at, counted) in self.counts.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let counted = *counted as f64;
            if counted > 0.0 && before + counted >= wanted {
                let low = at.checked_sub(1).map_or(0, |below| BOUNDS[below]);
                // Nothing is known of those past the last bound but that.
                let high = BOUNDS.get(at).copied().unwrap_or(low);
                let part = ((wanted - before) / counted).clamp(0.0, 1.0);
                let width = Duration::from_micros(high - low).mul_f64(part);
                return Some(Duration::from_micros(low) + width);
            }
            before += counted;
        }
        BOUNDS.last().copied().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: &[u64]) -> Observed {
        let histogram = Histogram::default();
        for micros in times {
            histogram.observe(Duration::from_micros(*micros));
        }
        histogram.observed()
    }

    #[test]
    fn times_are_counted_below_their_bound() {
        let observed = of(&[0, 100, 101, 250, 30_000_000, 30_000_001]);
        assert_eq!(observed.counts[..3], [2, 2, 0]);
        assert_eq!(observed.counts[16..], [1, 1]);
        assert_eq!((observed.count(), observed.sum), (6, 60_000_452));
    }

    #[test]
    fn shares_are_estimated() {
        assert_eq!(Observed::default().quantile(0.5), None);
        let mut times = vec![600; 99];
        times.push(90_000);
        let observed = of(&times);
        let half = observed.quantile(0.5).unwrap();
        assert!(
            (Duration::from_micros(500)..Duration::from_micros(1000)).contains(&half),
            "{half:?}"
        );
        let most = observed.quantile(0.999).unwrap();
        assert!(
            (Duration::from_micros(50_000)..=Duration::from_micros(100_000)).contains(&most),
            "{most:?}"
        );
        assert_eq!(
            of(&[60_000_000]).quantile(0.5),
            Some(Duration::from_secs(30))
        );
    }

    #[test]
    fn an_interval_is_what_came_in_between() {
        let before = of(&[50, 5_000]);
        let mut now = before.clone();
        now.add(&of(&[50]));
        assert_eq!(now.since(&before), of(&[50]));
        assert_eq!(now.since(&Observed::default()), now);
    }
}
