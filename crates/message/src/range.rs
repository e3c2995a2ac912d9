//! Range requests (RFC 9110 §14): which parts of a representation are wanted.
//!
//! A range costs us more than it costs the client, so their number is bounded and they must not overlap (CVE-2011-3192,
//! CVE-2017-7529: many overlapping ranges of one small file).

use std::{ops::Range, time::SystemTime};

use crate::{
    condition::{Validators, whole_seconds},
    field::{Fields, list},
    head::Method,
};

/// Most ranges of one request. Past it the whole representation is the answer, which §14.2 allows.
pub const MOST: usize = 16;

/// What a request asks of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no Range, one that is not understood, or one whose If-Range no longer holds.
    Whole,
    /// These parts: one at least, in the order asked for, none overlapping another; each is not empty and inside the length.
    Parts(Vec<Range<u64>>),
    /// Parts that are not there (416).
    Unsatisfiable,
}

/// Decides what is wanted of a representation of `length` bytes. Preconditions have been evaluated before
/// ([`crate::condition::evaluate`]), as §13.2.2 has it.
#[must_use]
pub fn wanted(
    method: &Method,
    fields: &Fields,
    validators: &Validators<'_>,
    length: u64,
) -> Wanted {
    if *method != Method::Get {
        return Wanted::Whole;
    }
    let mut lines = fields.all("range");
    let (Some(value), None) = (lines.next(), lines.next()) else {
        return Wanted::Whole;
    };
    if !if_range_holds(fields, validators) {
        return Wanted::Whole;
    }
    let Some(specs) = value
        .get(..6)
        .filter(|unit| unit.eq_ignore_ascii_case(b"bytes="))
        .map(|_| &value[6..])
    else {
        return Wanted::Whole;
    };
    parts(specs, length)
}

fn parts(specs: &[u8], length: u64) -> Wanted {
    // A set of ranges has one at least. And of nothing there are no parts; but some clients ask for parts of everything, and all of
    // nothing is what they can deal with, as other servers have it.
    if list(specs).next().is_none() || length == 0 {
        return Wanted::Whole;
    }
    let mut found: Vec<Range<u64>> = Vec::new();
    for (index, spec) in list(specs).enumerate() {
        if index == MOST {
            return Wanted::Whole;
        }
        match part(spec, length) {
            None => return Wanted::Whole,
            Some(part) if part.is_empty() => {}
            Some(part) => {
                let overlaps =
                    |other: &Range<u64>| part.start < other.end && other.start < part.end;
                if found.iter().any(overlaps) {
                    return Wanted::Unsatisfiable;
                }
                found.push(part);
            }
        }
    }
    if found.is_empty() {
        Wanted::Unsatisfiable
    } else {
        Wanted::Parts(found)
    }
}

/// `first-last`, `first-` or `-suffix` (§14.1.2). `None`: malformed. Empty: not satisfiable.
fn part(spec: &[u8], length: u64) -> Option<Range<u64>> {
    let dash = memchr::memchr(b'-', spec)?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (first, last) {
        (b"", suffix) => {
            let suffix = number(suffix)?;
            Some(length.saturating_sub(suffix)..length)
        }
        (first, b"") => {
            let first = number(first)?;
            Some(first.min(length)..length)
        }
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            Some(first.min(length)..last.saturating_add(1).min(length))
        }
    }
}

/// A decimal number; one that is too large to hold is larger than every length.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

/// If-Range (§13.1.5): an entity tag that matches strongly, or the very date of Last-Modified.
fn if_range_holds(fields: &Fields, validators: &Validators<'_>) -> bool {
    let Some(value) = fields.get("if-range") else {
        return true;
    };
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return !validators.etag.starts_with("W/") && value == validators.etag.as_bytes();
    }
    let date = str::from_utf8(value)
        .ok()
        .and_then(|text| httpdate::parse_http_date(text).ok());
    // A date is a strong validator only if nothing has changed it since (§8.8.2.2): a file that was just written may be again.
    let settled = |modified: SystemTime| {
        SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age.as_secs() >= 1)
    };
    match (date, validators.modified) {
        (Some(date), Some(modified)) => whole_seconds(modified) == date && settled(modified),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ETAG: &str = "\"v1\"";
    const DATE: &str = "Mon, 24 Nov 2025 16:00:00 GMT";

    fn asked(method: &Method, fields: &[(&str, &str)], length: u64) -> Wanted {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_750);
        let pairs = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let validators = Validators {
            etag: ETAG,
            modified: Some(modified),
        };
        wanted(method, &Fields::from_pairs(pairs), &validators, length)
    }

    fn of_ten(range: &str) -> Wanted {
        asked(&Method::Get, &[("Range", range)], 10)
    }

    #[test]
    fn ranges() {
        let parts = |parts: &[(u64, u64)]| {
            Wanted::Parts(parts.iter().map(|(start, end)| *start..*end).collect())
        };
        for (range, expected) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("bytes=0-9", parts(&[(0, 10)])),
            ("bytes=0-", parts(&[(0, 10)])),
            ("bytes=3-5", parts(&[(3, 6)])),
            ("bytes=9-", parts(&[(9, 10)])),
            ("bytes=9-100", parts(&[(9, 10)])),
            ("bytes=-1", parts(&[(9, 10)])),
            ("bytes=-10", parts(&[(0, 10)])),
            ("bytes=-11", parts(&[(0, 10)])),
            ("BYTES=0-1", parts(&[(0, 2)])),
            ("bytes=0-1,3-4", parts(&[(0, 2), (3, 5)])),
            ("bytes= 3-4 , 0-1 ,", parts(&[(3, 5), (0, 2)])),
            ("bytes=0-1,2-3", parts(&[(0, 2), (2, 4)])),
            ("bytes=0-1,50-", parts(&[(0, 2)])),
            ("bytes=0-99999999999999999999999", parts(&[(0, 10)])),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-20", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=0-5,3-7", Wanted::Unsatisfiable),
            ("bytes=0-,-1", Wanted::Unsatisfiable),
            ("bytes=", Wanted::Whole),
            ("bytes= , ,", Wanted::Whole),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=0-1;2-3", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(of_ten(range), expected, "{range}");
        }
    }

    #[test]
    fn too_many_are_not_worth_it() {
        let ranges = |count: usize| {
            let all: Vec<String> = (0..count)
                .map(|index| format!("{0}-{0}", index * 2))
                .collect();
            let value = format!("bytes={}", all.join(","));
            asked(&Method::Get, &[("Range", &value)], 1000)
        };
        assert!(matches!(ranges(MOST), Wanted::Parts(parts) if parts.len() == MOST));
        assert_eq!(ranges(MOST + 1), Wanted::Whole);
    }

    #[test]
    fn nothing_is_not_divided() {
        for range in ["bytes=0-", "bytes=-5", "bytes=3-4", "bytes=0-0,5-"] {
            let wanted = asked(&Method::Get, &[("Range", range)], 0);
            assert_eq!(wanted, Wanted::Whole, "{range}");
        }
    }

    #[test]
    fn only_get_and_only_if_nothing_changed() {
        let range = ("Range", "bytes=0-1");
        let some = Wanted::Parts(std::iter::once(0..2).collect());
        for (fields, expected) in [
            (&[range][..], &some),
            (&[range, ("If-Range", ETAG)], &some),
            (&[range, ("If-Range", DATE)], &some),
            (&[range, ("If-Range", "\"v2\"")], &Wanted::Whole),
            (&[range, ("If-Range", "W/\"v1\"")], &Wanted::Whole),
            (
                &[range, ("If-Range", "Mon, 24 Nov 2025 16:00:01 GMT")],
                &Wanted::Whole,
            ),
            (&[range, ("If-Range", "nonsense")], &Wanted::Whole),
            (&[range, range], &Wanted::Whole),
        ] {
            assert_eq!(asked(&Method::Get, fields, 10), *expected, "{fields:?}");
        }
        assert_eq!(asked(&Method::Head, &[range], 10), Wanted::Whole);
        assert_eq!(asked(&Method::Post, &[range], 10), Wanted::Whole);
    }
}
