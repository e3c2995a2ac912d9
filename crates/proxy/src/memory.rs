//! Memory goes back to the system after a rush.
//!
//! An allocator keeps what a thread has freed with that thread, and looks at it again when the thread allocates. After a rush
//! threads rest, and would hold for ever what only the rush has needed. So when much less is in use than was, each is asked to
//! give back what it has, and does as it comes to rest: what is still in use then is worth the look.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

use crate::server::Server;

/// What gives back what the calling thread has and does not use.
pub type GiveBack = fn();

/// How often it is looked whether the rush is over.
const LOOK: Duration = Duration::from_secs(2);

/// For how many looks after it threads are asked. One may sleep through the first, and those that wait for disks leave ten
/// seconds after their last work, and leave what they had behind.
const ASKS: u32 = 8;

/// A connection at work, roughly, beside what is counted.
const CONNECTION: u64 = 16 * 1024;

/// Less than this is not worth it.
const LEAST: u64 = 1024 * 1024;

/// Asks threads for what they have.
#[derive(Debug)]
pub(crate) struct Tide {
    give_back: GiveBack,
    /// How often they have been asked.
    asked: AtomicU64,
}

impl Tide {
    /// Nobody is asked yet.
    pub(crate) fn new(give_back: GiveBack) -> Arc<Self> {
        Arc::new(Self {
            give_back,
            asked: AtomicU64::new(0),
        })
    }

    /// A thread of the runtime is about to rest.
    pub(crate) fn rest(&self) {
        thread_local! {
            static GIVEN: Cell<u64> = const { Cell::new(0) };
        }
        let asked = self.asked.load(Ordering::Relaxed);
        if GIVEN.replace(asked) != asked {
            (self.give_back)();
        }
    }

    /// Watches what is in use, for as long as the runtime lives.
    pub(crate) async fn watch(self: Arc<Self>, server: Arc<Server>) {
        let threads = Handle::current().metrics().num_workers();
        let mut most = Most::default();
        let mut asks = 0;
        loop {
            sleep(LOOK).await;
            if most.is_over(server.held()) {
                asks = ASKS;
            }
            if asks > 0 {
                asks -= 1;
                self.asked.fetch_add(1, Ordering::Relaxed);
                // Whoever sleeps is woken by work.
                for _ in 0..threads * 2 {
                    tokio::spawn(tokio::task::yield_now());
                }
            }
        }
    }
}

impl Server {
    /// About how much is in use for clients.
    fn held(&self) -> u64 {
        let connections = u64::try_from(self.door.inside()).unwrap_or(u64::MAX);
        connections.saturating_mul(CONNECTION) + self.budget.memory.used()
    }
}

/// The most that has been in use.
#[derive(Debug, Default)]
struct Most(u64);

impl Most {
    /// Whether it is less than half of the most; that is the most from then on.
    fn is_over(&mut self, held: u64) -> bool {
        let over = held < self.0 / 2 && self.0 - held >= LEAST;
        if over || held > self.0 {
            self.0 = held;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_over_when_half_of_it_is_gone_and_again_when_half_of_that_is() {
        const MIB: u64 = 1024 * 1024;
        let mut most = Most::default();
        let looks = [3, 20, 11, 9, 9, 5, 4, 3, 1, 0, 0].map(|held| most.is_over(held * MIB));
        let over: Vec<usize> = (0..looks.len()).filter(|at| looks[*at]).collect();
        // 9 of 20, 4 of 9, 1 of 4, none of 1.
        assert_eq!(over, [3, 6, 8, 9]);
    }
}
