//! The local time as text, made once a second for each thread.
//!
//! Looking up the time zone and formatting a date costs about a microsecond, which is more than the rest of an access
//! record. Records of one second share it.

use std::{
    cell::RefCell,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};

/// The zone of the machine (`TZ`, else `/etc/localtime`) when it was first asked for; UTC where there is none.
static ZONE: LazyLock<TimeZone> = LazyLock::new(TimeZone::system);

/// One second in every form that is written.
pub(crate) struct Second {
    since_epoch: u64,
    /// `24/Nov/2025:14:03:22 +0100`: nginx's `$time_local`.
    pub(crate) common: String,
    /// `14:03:22`.
    pub(crate) clock: String,
    /// `2025-11-24T14:03:22`, the first part of RFC 3339; a fraction may follow.
    pub(crate) date_time: String,
    /// `+01:00`, the last part of RFC 3339.
    pub(crate) offset: String,
}

impl Second {
    fn new(since_epoch: u64, zone: &TimeZone) -> Self {
        let timestamp = i64::try_from(since_epoch)
            .ok()
            .and_then(|second| Timestamp::from_second(second).ok())
            // A clock beyond the year 9999 is broken; the record is still worth writing.
            .unwrap_or(Timestamp::MAX);
        let zoned = timestamp.to_zoned_datetime(zone.clone());
        Self {
            since_epoch,
            common: zoned.strftime("%d/%b/%Y:%H:%M:%S %z").to_string(),
            clock: zoned.strftime("%H:%M:%S").to_string(),
            date_time: zoned.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            offset: zoned.strftime("%:z").to_string(),
        }
    }
}

thread_local! {
    static LAST: RefCell<Option<Second>> = const { RefCell::new(None) };
}

/// Calls `write` with the second that `time` lies in, and the microseconds since its start.
pub(crate) fn at<R>(time: SystemTime, write: impl FnOnce(&Second, u32) -> R) -> R {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    LAST.with_borrow_mut(|last| {
        let second = match last.take() {
            Some(second) if second.since_epoch == since_epoch.as_secs() => last.insert(second),
            _ => last.insert(Second::new(since_epoch.as_secs(), &ZONE)),
        };
        write(second, since_epoch.subsec_micros())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_in_several_zones() {
        let rows = [
            (
                0,
                "UTC",
                "01/Jan/1970:00:00:00 +0000",
                "00:00:00",
                "1970-01-01T00:00:00",
                "+00:00",
            ),
            (
                1_764_000_000,
                "EST5EDT",
                "24/Nov/2025:11:00:00 -0500",
                "11:00:00",
                "2025-11-24T11:00:00",
                "-05:00",
            ),
            (
                1_764_000_000,
                "IST-5:30",
                "24/Nov/2025:21:30:00 +0530",
                "21:30:00",
                "2025-11-24T21:30:00",
                "+05:30",
            ),
        ];
        for (second, zone, common, clock, date_time, offset) in rows {
            let second = Second::new(
                second,
                &TimeZone::posix(zone)
                    .or_else(|_| TimeZone::get(zone))
                    .unwrap(),
            );
            assert_eq!(
                (
                    &*second.common,
                    &*second.clock,
                    &*second.date_time,
                    &*second.offset
                ),
                (common, clock, date_time, offset)
            );
        }
    }

    #[test]
    fn a_broken_clock_still_gives_a_time() {
        assert!(
            Second::new(u64::MAX, &TimeZone::UTC)
                .common
                .ends_with("+0000")
        );
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(
            at(before, |second, micros| (second.since_epoch, micros)),
            (0, 0)
        );
    }

    #[test]
    fn the_cache_follows_the_clock() {
        let time =
            |secs, micros| UNIX_EPOCH + Duration::from_secs(secs) + Duration::from_micros(micros);
        let ask = |time| at(time, |second, micros| (second.clock.clone(), micros));
        let first = ask(time(100, 5));
        assert_eq!(ask(time(100, 7)), (first.0.clone(), 7));
        assert_ne!(ask(time(101, 0)).0, first.0);
        assert_eq!(ask(time(100, 5)), first);
    }
}
