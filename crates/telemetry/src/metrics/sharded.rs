//! Cells that many threads count in at once.
//!
//! A cell that all threads add to moves from one core's cache to the other's with each request. Here each thread has a copy
//! of its own to add to, and only whoever wants to know the sum looks at all of them.

use std::{
    cell::Cell,
    num::NonZero,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

/// More copies would not help: threads that share one meet rarely.
const MOST: usize = 16;

/// A copy on cache lines of its own (two, because processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// A copy of `T` for each thread, as far as there are cores.
#[derive(Debug)]
pub struct Sharded<T> {
    copies: Box<[Apart<T>]>,
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let copies = cores.next_power_of_two().min(MOST);
        Self {
            copies: (0..copies).map(|_| Apart::default()).collect(),
        }
    }
}

impl<T> Sharded<T> {
    /// This thread's copy.
    pub fn mine(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let mine = MINE.get().unwrap_or_else(|| {
            let mine = NEXT.fetch_add(1, Ordering::Relaxed);
            MINE.set(Some(mine));
            mine
        });
        // A power of two.
        &self.copies[mine & (self.copies.len() - 1)].0
    }

    /// All copies.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.copies.iter().map(|copy| &copy.0)
    }
}

/// A count.
#[derive(Debug, Default)]
pub struct Counter(Sharded<AtomicU64>);

impl Counter {
    /// One more.
    pub fn add(&self, count: u64) {
        self.0.mine().fetch_add(count, Ordering::Relaxed);
    }

    /// All of it.
    pub fn get(&self) -> u64 {
        self.0.all().map(|copy| copy.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_threads_count_is_lost() {
        let counter = Counter::default();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.get(), 80_000);
        assert!(counter.0.copies.len().is_power_of_two());
    }
}
