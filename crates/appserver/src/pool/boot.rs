//! Whether an app's workers can start at all, as far as is known.
//!
//! When one cannot (the import fails, it dies or is late), the others wait: one at a time tries again, with a wait that
//! grows, until one is ready. A traceback is worth telling once.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use supervisor::backoff::Backoff;

/// Whether workers can start at all.
#[derive(Debug, Default)]
pub(super) enum Boot {
    /// As far as is known they can: seats are filled at once.
    #[default]
    Works,
    /// The last one could not: one at a time, and not before this time.
    Fails {
        until: Instant,
        failures: Backoff,
        /// Digests of the last tracebacks that were told, the newest first.
        told: VecDeque<u64>,
    },
}

/// Workers of one app fail in few ways; an app whose every traceback is new (a time, an address) must not fill our memory.
const TOLD_MAX: usize = 16;

impl Boot {
    /// One could not start. Returns whether its traceback is worth telling.
    pub(super) fn failed(&mut self, now: Instant, traceback: &str) -> bool {
        if let Self::Works = self {
            *self = Self::Fails {
                until: now,
                failures: Backoff::new(),
                told: VecDeque::new(),
            };
        }
        let Self::Fails {
            until,
            failures,
            told,
        } = self
        else {
            return false;
        };
        // Those who were started together fail together, and are one failure.
        if *until <= now {
            *until = failures.died(now);
        }
        let mut digest = DefaultHasher::new();
        traceback.hash(&mut digest);
        let digest = digest.finish();
        let is_new = !traceback.is_empty() && !told.contains(&digest);
        if is_new {
            told.truncate(TOLD_MAX - 1);
            told.push_front(digest);
        }
        is_new
    }

    /// When the next one may try; `None`: at once.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Works => None,
            Self::Fails { until, .. } => Some(*until),
        }
    }
}
