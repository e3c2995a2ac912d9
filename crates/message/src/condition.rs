//! Conditional requests (RFC 9110 §13): whether to answer, by the validators of what would be sent.

use std::time::{Duration, SystemTime};

use crate::{field::Fields, head::Method};

/// What tells one state of a resource from another (RFC 9110 §8.8).
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The entity tag with its quotes, and `W/` if it is weak.
    pub etag: &'a str,
    /// When it was last changed.
    pub modified: Option<SystemTime>,
}

/// What the preconditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since in the order of RFC 9110 §13.2.2. If-Range is
/// not among them: it decides about ranges alone.
#[must_use]
pub fn evaluate(method: &Method, fields: &Fields, validators: &Validators<'_>) -> Verdict {
    // §13.2.1: these select or change no representation, so conditions on one are ignored.
    if matches!(method, Method::Options | Method::Trace | Method::Connect) {
        return Verdict::Proceed;
    }
    if fields.contains("if-match") {
        if !any_matches(fields, "if-match", |tag| strongly(tag, validators.etag)) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some(date) = date(fields, "if-unmodified-since")
        && validators
            .modified
            .is_some_and(|modified| whole_seconds(modified) > date)
    {
        return Verdict::PreconditionFailed;
    }
    let reads = matches!(method, Method::Get | Method::Head);
    if fields.contains("if-none-match") {
        return match any_matches(fields, "if-none-match", |tag| weakly(tag, validators.etag)) {
            true if reads => Verdict::NotModified,
            true => Verdict::PreconditionFailed,
            false => Verdict::Proceed,
        };
    }
    if reads
        && let Some(date) = date(fields, "if-modified-since")
        && validators
            .modified
            .is_some_and(|modified| whole_seconds(modified) <= date)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a list of entity tags, over all lines of the field, has one that matches; `*` matches whatever there is.
fn any_matches(fields: &Fields, name: &str, matches: impl Fn(&[u8]) -> bool) -> bool {
    fields
        .all(name)
        .any(|value| value == b"*" || tags(value).any(&matches))
}

/// The members of a list of entity tags. A comma may stand inside a tag (RFC 9110 §8.8.3), so the quotes decide. What is no
/// tag is passed over to the next comma; it matches nothing, since a validator has quotes.
fn tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let start = rest
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let tag = &rest[start..];
        let open = if tag.starts_with(b"W/") { 2 } else { 0 };
        let end = match tag.get(open..) {
            Some([b'"', opaque @ ..]) => {
                memchr::memchr(b'"', opaque).map(|length| open + length + 2)
            }
            _ => memchr::memchr(b',', tag),
        };
        let (tag, after) = tag.split_at(end.unwrap_or(tag.len()));
        rest = after;
        Some(tag)
    })
}

/// RFC 9110 §8.8.3.2: neither is weak, and they are the same.
fn strongly(tag: &[u8], etag: &str) -> bool {
    !tag.starts_with(b"W/") && tag == etag.as_bytes()
}

/// RFC 9110 §8.8.3.2: the same, weak or not.
fn weakly(tag: &[u8], etag: &str) -> bool {
    fn opaque(tag: &[u8]) -> &[u8] {
        tag.strip_prefix(b"W/").unwrap_or(tag)
    }
    opaque(tag) == opaque(etag.as_bytes())
}

/// What is not exactly one date makes the condition as if it were not there (RFC 9110 §13.1.3, §13.1.4).
fn date(fields: &Fields, name: &str) -> Option<SystemTime> {
    let mut lines = fields.all(name);
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    httpdate::parse_http_date(str::from_utf8(line).ok()?).ok()
}

/// HTTP's dates have no fractions, the file system's do.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"a,b\"";
    const BEFORE: &str = "Mon, 24 Nov 2025 15:59:59 GMT";
    const SAME: &str = "Mon, 24 Nov 2025 16:00:00 GMT";
    const AFTER: &str = "Mon, 24 Nov 2025 16:00:01 GMT";

    fn verdict(method: &Method, fields: &[(&str, &str)]) -> Verdict {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_750);
        let fields = Fields::from_pairs(
            fields
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        evaluate(
            method,
            &fields,
            &Validators {
                etag: ETAG,
                modified: Some(modified),
            },
        )
    }

    #[test]
    fn each_cell_of_the_order_of_precedence() {
        use Verdict::{NotModified, PreconditionFailed, Proceed};
        for (fields, get, put) in [
            (&[][..], Proceed, Proceed),
            (&[("If-Match", "*")], Proceed, Proceed),
            (&[("If-Match", ETAG)], Proceed, Proceed),
            (&[("If-Match", "\"x\", \"a,b\"")], Proceed, Proceed),
            (
                &[("If-Match", "\"x\"")],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Match", "W/\"a,b\"")],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Match", "\"a"), ("If-Match", "b\"")],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Unmodified-Since", BEFORE)],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (&[("If-Unmodified-Since", SAME)], Proceed, Proceed),
            (&[("If-Unmodified-Since", AFTER)], Proceed, Proceed),
            (&[("If-Unmodified-Since", "yesterday")], Proceed, Proceed),
            (
                &[
                    ("If-Unmodified-Since", BEFORE),
                    ("If-Unmodified-Since", BEFORE),
                ],
                Proceed,
                Proceed,
            ),
            (&[("If-Match", "")], PreconditionFailed, PreconditionFailed),
            (
                &[("If-Match", "a,b")],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (&[("If-Match", "x\"a,b\", \"a,b\"")], Proceed, Proceed),
            (
                &[("If-Match", "\"x\""), ("If-Match", ETAG)],
                Proceed,
                Proceed,
            ),
            (
                &[("If-Match", "\"x\",\"a,b")],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Match", "\"x\""), ("If-Unmodified-Since", AFTER)],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Unmodified-Since", BEFORE), ("If-None-Match", ETAG)],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Unmodified-Since", AFTER), ("If-None-Match", ETAG)],
                NotModified,
                PreconditionFailed,
            ),
            (
                &[("If-Unmodified-Since", AFTER), ("If-None-Match", "\"x\"")],
                Proceed,
                Proceed,
            ),
            (
                &[("If-Match", ETAG), ("If-None-Match", "\"x\"")],
                Proceed,
                Proceed,
            ),
            (
                &[("If-Match", ETAG), ("If-Modified-Since", SAME)],
                NotModified,
                Proceed,
            ),
            (
                &[("If-Match", "\"x\""), ("If-Modified-Since", SAME)],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-None-Match", ETAG), ("If-Modified-Since", BEFORE)],
                NotModified,
                PreconditionFailed,
            ),
            (
                &[("If-None-Match", "nonsense"), ("If-Modified-Since", AFTER)],
                Proceed,
                Proceed,
            ),
            (
                &[("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)],
                Proceed,
                Proceed,
            ),
            (
                &[("If-Modified-Since", "Monday, 24-Nov-25 16:00:00 GMT")],
                NotModified,
                Proceed,
            ),
            (
                &[("If-Modified-Since", "Mon Nov 24 16:00:00 2025")],
                NotModified,
                Proceed,
            ),
            (
                &[("If-Match", ETAG), ("If-Unmodified-Since", BEFORE)],
                Proceed,
                Proceed,
            ),
            (&[("If-None-Match", "*")], NotModified, PreconditionFailed),
            (&[("If-None-Match", ETAG)], NotModified, PreconditionFailed),
            (
                &[("If-None-Match", "W/\"a,b\"")],
                NotModified,
                PreconditionFailed,
            ),
            (
                &[("If-None-Match", "\"x\" , W/\"a,b\"")],
                NotModified,
                PreconditionFailed,
            ),
            (&[("If-None-Match", "\"x\"")], Proceed, Proceed),
            (
                &[("If-None-Match", "\"x\""), ("If-Modified-Since", AFTER)],
                Proceed,
                Proceed,
            ),
            (&[("If-Modified-Since", BEFORE)], Proceed, Proceed),
            (&[("If-Modified-Since", SAME)], NotModified, Proceed),
            (&[("If-Modified-Since", AFTER)], NotModified, Proceed),
            (&[("If-Modified-Since", "tomorrow")], Proceed, Proceed),
            (
                &[("If-Match", ETAG), ("If-None-Match", ETAG)],
                NotModified,
                PreconditionFailed,
            ),
            (
                &[("If-Match", "\"x\""), ("If-None-Match", ETAG)],
                PreconditionFailed,
                PreconditionFailed,
            ),
            (
                &[("If-Unmodified-Since", AFTER), ("If-Modified-Since", AFTER)],
                NotModified,
                Proceed,
            ),
        ] {
            assert_eq!(verdict(&Method::Get, fields), get, "GET {fields:?}");
            assert_eq!(verdict(&Method::Head, fields), get, "HEAD {fields:?}");
            assert_eq!(verdict(&Method::Put, fields), put, "PUT {fields:?}");
            for ignores in [Method::Options, Method::Trace, Method::Connect] {
                assert_eq!(verdict(&ignores, fields), Proceed, "{ignores:?} {fields:?}");
            }
        }
    }

    /// The steps of §13.2.2 as they are written there; `None`: the field is not there, or does not count.
    fn step_by_step(
        reads: bool,
        if_match: Option<bool>,
        if_unmodified_since: Option<bool>,
        if_none_match: Option<bool>,
        if_modified_since: Option<bool>,
    ) -> Verdict {
        let first = if_match.or(if_unmodified_since);
        if first == Some(false) {
            return Verdict::PreconditionFailed;
        }
        match if_none_match {
            Some(true) => return Verdict::Proceed,
            Some(false) if reads => return Verdict::NotModified,
            Some(false) => return Verdict::PreconditionFailed,
            None => {}
        }
        match if_modified_since {
            Some(false) if reads => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }

    #[test]
    fn all_of_them_together() {
        type Cells = &'static [(Option<&'static str>, Option<bool>)];
        const IF_MATCH: Cells = &[
            (None, None),
            (Some(ETAG), Some(true)),
            (Some("\"x\""), Some(false)),
        ];
        const IF_UNMODIFIED_SINCE: Cells = &[
            (None, None),
            (Some(SAME), Some(true)),
            (Some(BEFORE), Some(false)),
            (Some("never"), None),
        ];
        const IF_NONE_MATCH: Cells = &[
            (None, None),
            (Some("\"x\""), Some(true)),
            (Some(ETAG), Some(false)),
        ];
        const IF_MODIFIED_SINCE: Cells = &[
            (None, None),
            (Some(BEFORE), Some(true)),
            (Some(SAME), Some(false)),
            (Some("never"), None),
        ];
        let mut cells = 0;
        for (one, is_one) in IF_MATCH {
            for (two, is_two) in IF_UNMODIFIED_SINCE {
                for (three, is_three) in IF_NONE_MATCH {
                    for (four, is_four) in IF_MODIFIED_SINCE {
                        let all = [
                            ("If-Match", one),
                            ("If-Unmodified-Since", two),
                            ("If-None-Match", three),
                            ("If-Modified-Since", four),
                        ];
                        let there = all
                            .iter()
                            .filter_map(|(name, value)| Some((*name, (**value)?)));
                        let fields: Vec<(&str, &str)> = there.collect();
                        for (method, reads) in [(Method::Get, true), (Method::Put, false)] {
                            let expected =
                                step_by_step(reads, *is_one, *is_two, *is_three, *is_four);
                            assert_eq!(
                                verdict(&method, &fields),
                                expected,
                                "{method:?} {fields:?}"
                            );
                            cells += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(cells, 3 * 4 * 3 * 4 * 2);
    }

    #[test]
    fn without_a_date_conditions_on_it_are_ignored() {
        let validators = Validators {
            etag: ETAG,
            modified: None,
        };
        for name in ["If-Modified-Since", "If-Unmodified-Since"] {
            let fields = Fields::from_pairs([(name.as_bytes(), BEFORE.as_bytes())]);
            assert_eq!(
                evaluate(&Method::Get, &fields, &validators),
                Verdict::Proceed,
                "{name}"
            );
        }
    }

    #[test]
    fn a_weak_validator_never_matches_strongly() {
        let validators = Validators {
            etag: "W/\"a\"",
            modified: None,
        };
        for (name, value, expected) in [
            ("If-Match", "W/\"a\"", Verdict::PreconditionFailed),
            ("If-Match", "\"a\"", Verdict::PreconditionFailed),
            ("If-Match", "*", Verdict::Proceed),
            ("If-None-Match", "\"a\"", Verdict::NotModified),
            ("If-None-Match", "W/\"a\"", Verdict::NotModified),
            ("If-None-Match", "w/\"a\"", Verdict::Proceed),
        ] {
            let fields = Fields::from_pairs([(name.as_bytes(), value.as_bytes())]);
            assert_eq!(
                evaluate(&Method::Get, &fields, &validators),
                expected,
                "{name}: {value}"
            );
        }
    }
}
