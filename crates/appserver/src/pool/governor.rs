//! How many workers the load asks for: `workers = "1..8"`.
//!
//! A queue is the only sure sign that there are too few: a worker more is wanted when somebody has waited noticeably, and
//! again a second later. That there are too many is seen by slots: when one worker less would have had room for the busiest
//! moment of two minutes, with a quarter to spare, it may go. Growing is fast and shrinking is slow, because a start costs a
//! second of CPU and a visitor who waits costs a visitor. Sans-IO: it knows neither a clock nor a process.

use std::time::{Duration, Instant};

/// What the proxy saw of an app since its last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The longest that any request has waited in the queue.
    pub waited: Duration,
    /// The most slots that were busy at once.
    pub busy: u32,
}

/// A wait that a visitor notices: with it a page is no longer "at once" (100 ms).
const NOTICEABLE: Duration = Duration::from_millis(100);

/// Reports in a row with such a wait. One alone may be a burst that is over before a worker could have started.
const PRESSED: u32 = 2;

/// How long there must have been room for one worker less.
const CALM: Duration = Duration::from_secs(120);

/// What is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// One more.
    Grow,
    /// One less.
    Shrink,
}

/// What it remembers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Governor {
    pressed: u32,
    calm_since: Option<Instant>,
}

impl Governor {
    /// Judges a report; `workers` of `threads` slots each are ready.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        load: Load,
        workers: usize,
        threads: u16,
    ) -> Option<Change> {
        if load.waited >= NOTICEABLE {
            self.calm_since = None;
            self.pressed += 1;
            if self.pressed >= PRESSED {
                self.pressed = 0;
                return Some(Change::Grow);
            }
            return None;
        }
        self.pressed = 0;
        let fewer = workers.saturating_sub(1) * usize::from(threads);
        if load.busy as usize * 4 > fewer * 3 {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(since) < CALM {
            return None;
        }
        self.calm_since = None;
        Some(Change::Shrink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(millis: u64, busy: u32) -> Load {
        Load {
            waited: Duration::from_millis(millis),
            busy,
        }
    }

    #[test]
    fn two_noticeable_waits_in_a_row_are_a_worker_more() {
        let now = Instant::now();
        let mut governor = Governor::default();
        let told: Vec<_> = [100, 99, 100, 5000, 100, 0]
            .map(|waited| governor.judge(now, load(waited, 4), 1, 4))
            .into();
        let grow = Some(Change::Grow);
        assert_eq!(told, [None, None, None, grow, None, None]);
    }

    #[test]
    fn two_minutes_with_room_to_spare_are_a_worker_less() {
        let start = Instant::now();
        let mut governor = Governor::default();
        let mut at = |seconds, busy| {
            let now = start + Duration::from_secs(seconds);
            governor.judge(now, load(0, busy), 3, 4)
        };
        // Two workers have 8 slots; 6 of them leave a quarter.
        assert_eq!(at(0, 6), None);
        assert_eq!(at(119, 6), None);
        assert_eq!(at(120, 7), None, "the last second was too busy");
        assert_eq!(at(121, 0), None);
        assert_eq!(at(240, 0), None);
        assert_eq!(at(241, 0), Some(Change::Shrink));
        assert_eq!(at(242, 0), None, "the next one takes as long");
        assert_eq!(at(362, 0), Some(Change::Shrink));
    }

    #[test]
    fn the_last_worker_is_never_calm_while_it_works() {
        let start = Instant::now();
        let mut governor = Governor::default();
        for seconds in 0..1000 {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(governor.judge(now, load(0, 1), 1, 4), None);
        }
    }
}
