//! When to act: for a certificate and its failures so far, the next moment. Figures in, a moment out; no clock, no chance.
//!
//! Where one of many moments would do, `share` chooses, a number from 0 to below 1 that stays the same for a certificate: many
//! servers then ask at many times, and a restart changes nothing.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then.
    pub not_before: SystemTime,
    /// To then.
    pub not_after: SystemTime,
}

impl Validity {
    /// How long it is valid.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        let lifetime = self.not_after.duration_since(self.not_before);
        lifetime.unwrap_or_default()
    }
}

/// When the authority would like a certificate to be renewed (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From then.
    pub start: SystemTime,
    /// To then.
    pub end: SystemTime,
}

/// Why there is no certificate yet; each has its own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The authority could not be reached, or is out of order: asking costs nobody anything.
    Unreachable,
    /// The authority says no, mostly because it does not find us. Each attempt counts: of Let's Encrypt five an hour.
    Refused,
    /// The authority says: too many, or not now.
    Limited,
    /// We cannot keep what we would get, or not answer for it.
    Here,
}

/// Failures since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// Why the last one failed.
    pub kind: Kind,
    /// When that was.
    pub last: SystemTime,
    /// Before when the authority does not want to be asked (`Retry-After`).
    pub not_before: Option<SystemTime>,
}

/// Waits after failures; the last one is for all further ones.
fn waits(kind: Kind) -> &'static [Duration] {
    const SECOND: Duration = Duration::from_secs(1);
    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }
    const UNREACHABLE: [Duration; 8] = [
        SECOND,
        seconds(5),
        seconds(15),
        seconds(60),
        seconds(300),
        seconds(900),
        seconds(1800),
        seconds(3600),
    ];
    // Two challenges may be tried at once, and both count.
    const REFUSED: [Duration; 6] = [
        seconds(600),
        seconds(3600),
        seconds(2 * 3600),
        seconds(4 * 3600),
        seconds(12 * 3600),
        seconds(24 * 3600),
    ];
    const LIMITED: [Duration; 4] = [
        seconds(3600),
        seconds(3 * 3600),
        seconds(12 * 3600),
        seconds(24 * 3600),
    ];
    const HERE: [Duration; 5] = [
        seconds(10),
        seconds(60),
        seconds(300),
        seconds(900),
        seconds(3600),
    ];
    match kind {
        Kind::Unreachable => &UNREACHABLE,
        Kind::Refused => &REFUSED,
        Kind::Limited => &LIMITED,
        Kind::Here => &HERE,
    }
}

/// When to order a certificate. It may be a moment that has passed: at once, then.
///
/// `validity` is that of the certificate that there is, if it names all that it should, and `got` when we have got it.
#[must_use]
pub fn order_at(
    now: SystemTime,
    validity: Option<Validity>,
    got: Option<SystemTime>,
    window: Option<Window>,
    failures: Option<Failures>,
    share: f64,
) -> SystemTime {
    let wanted = match validity {
        None => now,
        Some(validity) => {
            let wanted = renew_at(validity, window, share);
            // An authority that would like every certificate to be renewed at once is not asked again and again.
            let pause = Duration::from_secs(6 * 3600).min(validity.lifetime() / 12);
            got.map_or(wanted, |got| wanted.max(got + pause))
        }
    };
    match failures {
        None => wanted,
        Some(failures) => {
            let lifetime = validity.map(|validity| validity.lifetime());
            wanted.max(again_at(failures, lifetime, share))
        }
    }
}

/// When to renew a certificate that nothing is wrong with: within the authority's window, where there is one, else after
/// two thirds of its life; in any case before the last eighth of it.
fn renew_at(validity: Validity, window: Option<Window>, share: f64) -> SystemTime {
    let lifetime = validity.lifetime();
    let latest = validity.not_after - lifetime / 8;
    let usual = || {
        // A fiftieth earlier at most: 43 h of 90 days, 3 h of six.
        validity.not_before + lifetime * 2 / 3 - part(lifetime / 50, share)
    };
    let wanted = match window {
        // One that ends before it begins is no window.
        Some(Window { start, end }) if start < end => {
            let length = end.duration_since(start).unwrap_or_default();
            start + part(length, share)
        }
        _ => usual(),
    };
    wanted.min(latest)
}

/// When to try again after failures. Never later than what a certificate that lives shortly can wait for, unless the authority
/// says so.
fn again_at(failures: Failures, lifetime: Option<Duration>, share: f64) -> SystemTime {
    let waits = waits(failures.kind);
    let step = usize::try_from(failures.count.saturating_sub(1)).unwrap_or(usize::MAX);
    let wait = waits[step.min(waits.len() - 1)];
    let wait = match lifetime {
        Some(lifetime) => wait.min(lifetime / 12),
        None => wait,
    };
    // Up to a quarter later.
    let again = failures.last + wait + part(wait / 4, share);
    failures.not_before.map_or(again, |not_before| {
        // All whom it has told the same time would come at once.
        again.max(not_before + part(Duration::from_secs(60), share))
    })
}

fn part(of: Duration, share: f64) -> Duration {
    of.mul_f64(share.clamp(0.0, 1.0))
}

/// When to ask the authority for its window again, which has said to ask after `after` (RFC 9773 §4.3.2: not sooner than a minute,
/// not later than a day).
#[must_use]
pub fn ask_window_at(now: SystemTime, after: Duration) -> SystemTime {
    now + after.clamp(Duration::from_secs(60), Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn validity(from: u64, to: u64) -> Option<Validity> {
        Some(Validity {
            not_before: at(from),
            not_after: at(to),
        })
    }

    fn window(from: u64, to: u64) -> Option<Window> {
        Some(Window {
            start: at(from),
            end: at(to),
        })
    }

    fn failed(count: u32, kind: Kind, last: u64, not_before: Option<u64>) -> Option<Failures> {
        Some(Failures {
            count,
            kind,
            last: at(last),
            not_before: not_before.map(at),
        })
    }

    #[test]
    fn when_to_order() {
        let ninety = validity(0, 90 * DAY);
        let six = validity(0, 6 * DAY);
        let cases = [
            ("nothing is there", None, None, None, None, 0.0, 1000 * DAY),
            ("two thirds", ninety, Some(0), None, None, 0.0, 60 * DAY),
            (
                "a little earlier",
                ninety,
                None,
                None,
                None,
                0.5,
                60 * DAY - 90 * DAY / 100,
            ),
            (
                "two thirds of six days",
                six,
                Some(HOUR),
                None,
                None,
                0.0,
                4 * DAY,
            ),
            (
                "the authority's word",
                ninety,
                None,
                window(50 * DAY, 52 * DAY),
                None,
                0.5,
                51 * DAY,
            ),
            (
                "its word is: now",
                ninety,
                Some(0),
                window(DAY, 2 * DAY),
                None,
                0.0,
                DAY,
            ),
            (
                "now, of one just got",
                ninety,
                Some(DAY),
                window(DAY, 2 * DAY),
                None,
                0.0,
                DAY + 6 * HOUR,
            ),
            (
                "too late",
                ninety,
                None,
                window(89 * DAY, 100 * DAY),
                None,
                0.5,
                90 * DAY - 90 * DAY / 8,
            ),
            (
                "no window",
                ninety,
                None,
                window(52 * DAY, 50 * DAY),
                None,
                0.0,
                60 * DAY,
            ),
            (
                "failed",
                None,
                None,
                None,
                failed(1, Kind::Refused, 500, None),
                0.0,
                1000 * DAY,
            ),
        ];
        for (what, validity, got, window, failures, share, expected) in cases {
            let got = got.map(at);
            let due = order_at(at(1000 * DAY), validity, got, window, failures, share);
            assert_eq!(due, at(expected), "{what}");
        }
    }

    #[test]
    fn when_to_try_again() {
        let last = 1000 * DAY;
        let ninety = validity(last - 70 * DAY, last + 20 * DAY);
        let six = validity(last - 5 * DAY, last + DAY);
        let cases = [
            (
                "unreachable",
                None,
                failed(1, Kind::Unreachable, last, None),
                0.0,
                1,
            ),
            (
                "for long",
                None,
                failed(100, Kind::Unreachable, last, None),
                0.0,
                HOUR,
            ),
            (
                "with chance",
                None,
                failed(100, Kind::Unreachable, last, None),
                0.8,
                HOUR + 12 * MINUTE,
            ),
            (
                "refused",
                None,
                failed(1, Kind::Refused, last, None),
                0.0,
                10 * MINUTE,
            ),
            (
                "refused twice",
                None,
                failed(2, Kind::Refused, last, None),
                0.0,
                HOUR,
            ),
            (
                "always refused",
                ninety,
                failed(9, Kind::Refused, last, None),
                0.0,
                DAY,
            ),
            (
                "a short life",
                six,
                failed(9, Kind::Refused, last, None),
                0.0,
                12 * HOUR,
            ),
            (
                "too many, and no word when",
                None,
                failed(1, Kind::Limited, last, None),
                0.0,
                HOUR,
            ),
            (
                "too many",
                None,
                failed(1, Kind::Limited, last, Some(last + 2 * DAY)),
                0.0,
                2 * DAY,
            ),
            (
                "even of a short life",
                six,
                failed(1, Kind::Limited, last, Some(last + 2 * DAY)),
                0.0,
                2 * DAY,
            ),
            (
                "sooner than we would",
                None,
                failed(9, Kind::Refused, last, Some(last + 5)),
                0.0,
                DAY,
            ),
            (
                "a full disk",
                None,
                failed(2, Kind::Here, last, None),
                0.0,
                MINUTE,
            ),
        ];
        for (what, validity, failures, share, expected) in cases {
            let due = order_at(at(last), validity, None, None, failures, share);
            assert_eq!(due, at(last + expected), "{what}");
        }
    }

    #[test]
    fn refusals_stay_below_five_an_hour() {
        // Each may be two, one for each kind of challenge.
        let mut now = 0;
        let mut attempts = vec![0];
        for count in 1..20 {
            let due = order_at(
                at(now),
                None,
                None,
                None,
                failed(count, Kind::Refused, now, None),
                0.0,
            );
            now = due.duration_since(UNIX_EPOCH).unwrap().as_secs();
            attempts.push(now);
        }
        for start in &attempts {
            let within = attempts
                .iter()
                .filter(|at| (*start..start + HOUR).contains(at));
            assert!(within.count() * 2 < 5, "{attempts:?}");
        }
    }

    #[test]
    fn windows_are_asked_for_within_bounds() {
        let cases = [(0, MINUTE), (6 * HOUR, 6 * HOUR), (9 * DAY, DAY)];
        for (after, expected) in cases {
            let due = ask_window_at(at(0), Duration::from_secs(after));
            assert_eq!(due, at(expected));
        }
    }

    proptest! {
        #[test]
        fn what_is_valid_is_renewed_while_it_is(
            from in 0..DAY,
            lifetime in MINUTE..400 * DAY,
            start in 0..500 * DAY,
            length in 0..500 * DAY,
            share in 0.0..1.0,
        ) {
            let validity = validity(from, from + lifetime);
            for window in [None, window(start, start + length)] {
                let due = order_at(at(from), validity, Some(at(from)), window, None, share);
                prop_assert!(due <= at(from + lifetime - lifetime / 8));
            }
        }

        #[test]
        fn no_failure_is_forgotten(count in 1..u32::MAX, share in 0.0..1.0, last in DAY..1000 * DAY) {
            for kind in [Kind::Unreachable, Kind::Refused, Kind::Limited, Kind::Here] {
                let due = order_at(at(0), None, None, None, failed(count, kind, last, None), share);
                prop_assert!(due > at(last) && due <= at(last + 30 * HOUR));
            }
        }
    }
}
