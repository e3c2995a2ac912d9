//! An open file, and when its pieces were last seen in the page cache.
//!
//! To ask the kernel for each piece before it is sent costs some ninety calls for 10 MiB. What was there a moment ago, and has been
//! sent since, is the last thing that the kernel gives up; so it is not asked again for a second.

use std::{
    fs::File,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// For how long what was in the page cache is taken to be there.
const TRUSTED: Duration = Duration::from_secs(1);

/// What is remembered as one.
const PIECE: u64 = 1024 * 1024;

/// So many pieces of a file are remembered, 16 KiB of marks; what is behind them is always asked for.
const MOST: u64 = 4096;

/// An open file.
#[derive(Debug)]
pub(super) struct Source {
    /// The file itself.
    pub(super) file: File,
    length: u64,
    /// Until when each piece is trusted, in milliseconds from [`now`]'s beginning. There are none before the first is seen.
    until: OnceLock<Box<[AtomicU32]>>,
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Source {
    /// Nothing is known of it. `length` is its length in bytes, or what is sent of it.
    pub(super) fn new(file: File, length: u64) -> Self {
        Self {
            file,
            length,
            until: OnceLock::new(),
        }
    }

    /// Whether all of the range was in the page cache a moment ago.
    pub(super) fn was_warm(&self, range: &Range<u64>) -> bool {
        let Some(until) = self.until.get() else {
            return false;
        };
        let now = now();
        let pieces = range.start / PIECE..range.end.div_ceil(PIECE);
        pieces.into_iter().all(|piece| {
            let until = usize::try_from(piece).ok().and_then(|at| until.get(at));
            // Half of all numbers are later than any: the clock starts again after 49 days.
            until.is_some_and(|until| {
                let left = until.load(Ordering::Relaxed).wrapping_sub(now);
                (1..=millis(TRUSTED)).contains(&left)
            })
        })
    }

    /// All of the range is in the page cache. Remembered of the pieces that it has whole, the file's last being shorter.
    pub(super) fn is_warm(&self, range: &Range<u64>) {
        let until = self.until.get_or_init(|| {
            let pieces = self.length.div_ceil(PIECE).min(MOST);
            (0..pieces).map(|_| AtomicU32::new(0)).collect()
        });
        let first = range.start.div_ceil(PIECE);
        let behind = if range.end >= self.length {
            range.end.div_ceil(PIECE)
        } else {
            range.end / PIECE
        };
        let later = now().wrapping_add(millis(TRUSTED));
        for piece in first..behind {
            let place = usize::try_from(piece).ok().and_then(|at| until.get(at));
            if let Some(place) = place {
                place.store(later, Ordering::Relaxed);
            }
        }
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Milliseconds, from a second after some moment that is the same for all.
fn now() -> u32 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = *BEGAN.get_or_init(Instant::now);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only differences are looked at"
    )]
    let elapsed = began.elapsed().as_millis() as u32;
    elapsed.wrapping_add(2 * millis(TRUSTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = PIECE;

    fn source(length: u64) -> Source {
        Source::new(tempfile::tempfile().expect("a temporary file"), length)
    }

    #[test]
    fn what_was_seen_whole_is_trusted_and_nothing_beside_it() {
        let source = source(10 * MIB + 5);
        assert!(!source.was_warm(&(0..MIB)));
        source.is_warm(&(0..2 * MIB));
        assert!(source.was_warm(&(0..2 * MIB)));
        assert!(source.was_warm(&(7..MIB + 7)), "ranges inside as well");
        assert!(!source.was_warm(&(0..2 * MIB + 1)));
        source.is_warm(&(4 * MIB + 1..6 * MIB - 1));
        assert!(!source.was_warm(&(5 * MIB..5 * MIB + 1)), "half seen");
        source.is_warm(&(10 * MIB..10 * MIB + 5));
        assert!(
            source.was_warm(&(10 * MIB..10 * MIB + 5)),
            "the last is short"
        );
    }

    #[test]
    fn what_is_too_far_behind_is_asked_for_each_time() {
        let source = source((MOST + 2) * MIB);
        source.is_warm(&(0..(MOST + 1) * MIB));
        assert!(source.was_warm(&((MOST - 1) * MIB..MOST * MIB)));
        assert!(!source.was_warm(&(MOST * MIB..(MOST + 1) * MIB)));
        assert_eq!(
            source.until.get().map(|until| until.len() as u64),
            Some(MOST)
        );
    }
}
