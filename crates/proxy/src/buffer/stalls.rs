//! Responses that hold their origin up: neither memory nor disk takes more of them, so the client's speed is the origin's.
//!
//! A slot that waits for a client does nothing for others, so such slots are bounded: half of the pool's. Where there would
//! be more, the client that has taken the least in its time is cut, and the log says so. One that waits for less than a moment
//! is not counted: a fast client with a large response makes its origin wait all the time, a little.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use telemetry::{panics, text::Elapsed};
use tokio::time::{Instant, sleep_until};

use super::pipe::Shared;

/// How long the client must have been the slower one.
const GRACE: Duration = Duration::from_secs(1);

/// The stalled responses of one pool.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// Whose they are, for the log: `app web`.
    label: Arc<str>,
    slots: AtomicUsize,
    held: Mutex<Vec<Held>>,
}

#[derive(Debug)]
struct Held {
    response: Arc<Shared>,
    since: Instant,
}

impl Held {
    /// Whether it has lasted for long enough.
    fn counts(&self, now: Instant) -> bool {
        now - self.since >= GRACE
    }
}

/// A response that is one of them until this is dropped.
#[derive(Debug)]
pub(crate) struct Stalled {
    stalls: Arc<Stalls>,
    response: Arc<Shared>,
    since: Instant,
}

impl Stalls {
    /// None yet.
    pub(crate) fn new(label: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            label,
            slots: AtomicUsize::new(0),
            held: Mutex::default(),
        })
    }

    /// How many slots the pool has now.
    pub(crate) fn set_slots(&self, slots: usize) {
        self.slots.store(slots, Ordering::Relaxed);
    }

    /// How many there are, but for those of this moment.
    pub(crate) fn count(&self) -> u64 {
        let now = Instant::now();
        let held = self.lock();
        held.iter().filter(|one| one.counts(now)).count() as u64
    }

    /// One more.
    pub(super) fn enter(self: &Arc<Self>, response: &Arc<Shared>) -> Stalled {
        let since = Instant::now();
        self.lock().push(Held {
            response: Arc::clone(response),
            since,
        });
        Stalled {
            stalls: Arc::clone(self),
            response: Arc::clone(response),
            since,
        }
    }

    /// Cuts the slowest readers until half of the slots are left for others.
    pub(super) fn relieve(&self) {
        let slots = self.slots.load(Ordering::Relaxed);
        let most = (slots / 2).max(1);
        while let Some((count, slowest)) = self.slowest_beyond(most) {
            let (taken, seconds) = slowest.progress();
            tracing::warn!(
                "{}: {count} of {slots} slots wait for clients that read slowly, more than half; the slowest of them is cut: \
                 request {}, whose client took {taken} bytes in {}",
                self.label,
                slowest.id(),
                Elapsed(Duration::from_secs_f64(seconds)),
            );
            slowest.cut();
        }
    }

    fn slowest_beyond(&self, most: usize) -> Option<(usize, Arc<Shared>)> {
        let mut held = self.lock();
        let now = Instant::now();
        let slow = held.iter().enumerate().filter(|(_, one)| one.counts(now));
        let count = slow.clone().count();
        if count <= most {
            return None;
        }
        let speed = |one: &Held| {
            let (taken, seconds) = one.response.progress();
            taken as f64 / seconds.max(0.001)
        };
        let (at, _) = slow.min_by(|(_, one), (_, other)| speed(one).total_cmp(&speed(other)))?;
        Some((count, held.swap_remove(at).response))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        panics::lock(&self.held)
    }
}

impl Stalled {
    /// Resolves when it has lasted for long enough to count.
    pub(super) async fn grace(&self) {
        sleep_until(self.since + GRACE).await;
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let mut held = self.stalls.lock();
        held.retain(|one| !Arc::ptr_eq(&one.response, &self.response));
    }
}
