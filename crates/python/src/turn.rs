//! Turns at the GIL, so that a slot with short requests does not shut the others out.
//!
//! CPython's GIL goes to whoever asks first when it is free. A slot that has just let it go is awake and asks again within
//! microseconds, long before one that slept for it has been scheduled; the sleeper then waits for another switch interval
//! (5 ms), and again. That is good for throughput, because a change of threads costs about as much as a small request, and bad
//! for the request that waits. So barging is allowed, for [`LONGEST`]: then a slot that finds others waiting lets one of
//! them go first. Threads of the app's own do not ask here and are not held up.
//!
//! The switch interval (`sys.getswitchinterval`) stays what it is: it bounds how long a thread computes that does not let go
//! by itself, which a slot that barges does after each request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pyo3::prelude::*;
use rustix::thread::futex::{self, Flags, Timespec};

/// How long one slot goes first while others wait. A tenth of the switch interval: some requests of a fast app, or one of a
/// usual one.
const LONGEST: Duration = Duration::from_micros(500);

/// If nobody takes the turn that was left to them: a thread of the app's own may have it.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// What the slots of a worker share.
#[derive(Debug, Default)]
struct Turns {
    /// Slots that want the GIL and do not have it yet.
    waiting: AtomicU32,
    /// How often one of them got it, wrapping.
    granted: AtomicU32,
    /// Slots that let another go first.
    yielding: AtomicU32,
}

/// A slot's place in it. A clone is another slot's.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    /// Since when this slot goes first while others wait.
    first_since: Option<Instant>,
}

impl Clone for Turn {
    fn clone(&self) -> Self {
        Self {
            turns: Arc::clone(&self.turns),
            first_since: None,
        }
    }
}

impl Turn {
    /// Runs `act` with the GIL.
    pub(crate) fn attach<R>(&mut self, act: impl FnOnce(Python<'_>) -> R) -> R {
        // Counts and no more: none of them guards any memory.
        if self.turns.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_since = None;
        } else {
            self.consider_the_others();
        }
        let turns = &*self.turns;
        Python::attach(|py| {
            turns.waiting.fetch_sub(1, Ordering::Relaxed);
            turns.granted.fetch_add(1, Ordering::SeqCst);
            if turns.yielding.load(Ordering::SeqCst) > 0 {
                // One that is not woken in time goes on by itself.
                let _ = futex::wake(&turns.granted, Flags::PRIVATE, u32::MAX);
            }
            act(py)
        })
    }

    fn consider_the_others(&mut self) {
        let since = *self.first_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LONGEST {
            return;
        }
        self.first_since = None;
        let turns = &*self.turns;
        let granted = turns.granted.load(Ordering::SeqCst);
        turns.yielding.fetch_add(1, Ordering::SeqCst);
        // However it ends, it has been long enough.
        let _ = futex::wait(&turns.granted, Flags::PRIVATE, granted, Some(&PATIENCE));
        turns.yielding.fetch_sub(1, Ordering::SeqCst);
    }
}
