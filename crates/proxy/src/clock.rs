//! The time of day, by the clock that was read anyway.
//!
//! A virtual machine reads a clock in some 30 ns, and a request would ask several times. So the time of day is reckoned from
//! the monotonic clock and a pair of both that is renewed each second: a step of the wall clock is followed a second later.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime},
};

/// How old a pair may be.
const RENEWED: Duration = Duration::from_secs(1);

/// The time of day at an instant of the last second or so.
pub(crate) fn wall(at: Instant) -> SystemTime {
    thread_local! {
        static PAIR: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    }
    let known = PAIR.get().filter(|(then, _)| {
        let age = at.checked_duration_since(*then);
        age.is_some_and(|age| age < RENEWED)
    });
    let (then, time) = known.unwrap_or_else(|| {
        let pair = (Instant::now(), SystemTime::now());
        PAIR.set(Some(pair));
        pair
    });
    match at.checked_duration_since(then) {
        Some(later) => time + later,
        None => time - then.duration_since(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_of_day() {
        for ago in [0, 1, 50, 5000] {
            let ago = Duration::from_millis(ago);
            let told = wall(Instant::now() - ago);
            let real = SystemTime::now() - ago;
            let off = told
                .duration_since(real)
                .or_else(|_| real.duration_since(told))
                .expect("one is later");
            assert!(off < Duration::from_millis(500), "{off:?}");
        }
    }
}
