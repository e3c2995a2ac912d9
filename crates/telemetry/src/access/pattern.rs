//! A format of the user's own: text with `$name` where something of the record goes.
//!
//! Values are written as the combined format writes them, so that no client can end a line, a quote or a column; what is
//! missing is `-`. It has no conditions and no other tricks: whoever needs those reads JSON.

use std::{fmt, io::Write as _, ops::Range, time::Duration};

use super::{Record, combined::escape};
use crate::clock;

/// Every name that can follow `$`, and what stands there then. The documentation has the same table.
pub const NAMES: [(&str, &str); 29] = [
    (
        "time",
        "when it ended, as nginx writes it: `24/Nov/2025:14:03:22 +0100`",
    ),
    ("time_iso", "when it began, RFC 3339 with microseconds"),
    (
        "time_unix",
        "when it began, in seconds since 1970, with milliseconds",
    ),
    (
        "request_id",
        "the id that the app saw and the response carries",
    ),
    ("client", "the client's address"),
    ("user", "the authenticated user"),
    ("host", "the Host that was asked for"),
    ("method", "the method"),
    ("target", "the target as it was sent, redacted"),
    ("path", "the part of it before `?`"),
    ("query", "the part of it after `?`, redacted"),
    ("protocol", "`HTTP/1.1`"),
    (
        "request",
        "method, target and protocol, or what was sent in their place",
    ),
    ("status", "the status"),
    ("bytes_in", "bytes of the request's content"),
    (
        "bytes_out",
        "bytes of the response's content that were sent",
    ),
    ("total", "all of it, in seconds with microseconds"),
    ("queue", "the wait for a slot, in seconds"),
    ("app_time", "until the app's response began, in seconds"),
    ("first_byte", "until our response began, in seconds"),
    (
        "route",
        "what answered: `app web`, `files`, `redirect`, `respond`",
    ),
    ("slot", "the slot that answered: `web·1/2`"),
    ("tls", "the TLS version"),
    ("cause", "why it failed, as one word"),
    ("detail", "why it failed, for people"),
    ("referer", "the Referer field, redacted"),
    ("user_agent", "the User-Agent field"),
    (
        "trace_id",
        "the trace (W3C Trace Context) that the request belongs to, the client's or a new one; `-` where neither an app nor another server may answer",
    ),
    ("pid", "the process id of the proxy"),
];

/// A request field is `$http_` and its name, as with nginx: `$http_x_forwarded_for`.
const FIELD: &str = "http_";

/// A format that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The place of a name in [`NAMES`].
    Name(&'static str),
    /// A request field, by its name.
    Field(String),
}

/// Why a format cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PatternError {
    /// What is wrong, as a place in the format.
    pub place: Range<usize>,
    /// The name that is not known; empty where there is none.
    pub name: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            f.write_str("a name must follow `$`; `$$` is a dollar")
        } else {
            write!(f, "nothing is called `${}`", self.name)
        }
    }
}

impl Pattern {
    /// Reads a format.
    ///
    /// # Errors
    /// On a `$` with no name behind it that is known.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            push_text(&rest[..at], &mut parts);
            let start = text.len() - rest.len() + at;
            let after = &rest[at + 1..];
            if let Some(dollar) = after.strip_prefix('$') {
                push_text("$", &mut parts);
                rest = dollar;
                continue;
            }
            let (name, behind) = name(after);
            let Some(part) = part(name) else {
                let end = text.len() - behind.len();
                return Err(PatternError {
                    place: start..end,
                    name: name.to_owned(),
                });
            };
            parts.push(part);
            rest = behind;
        }
        push_text(rest, &mut parts);
        Ok(Self(parts))
    }

    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Name(name) => value(name, record, out),
                Part::Field(name) => {
                    let field = record.fields.and_then(|fields| fields.field(name));
                    optional(field, out);
                }
            }
        }
    }
}

/// A line of a log is one line, whatever the format says.
fn push_text(text: &str, parts: &mut Vec<Part>) {
    let text = text.replace(['\n', '\r'], " ");
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.push_str(&text),
        _ => parts.push(Part::Text(text)),
    }
}

/// `name` or `{name}`, and what is behind it.
fn name(after: &str) -> (&str, &str) {
    if let Some(braced) = after.strip_prefix('{')
        && let Some((name, behind)) = braced.split_once('}')
    {
        return (name, behind);
    }
    let end = after
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(after.len());
    after.split_at(end)
}

fn part(name: &str) -> Option<Part> {
    if let Some(field) = name.strip_prefix(FIELD).filter(|field| !field.is_empty()) {
        return Some(Part::Field(field.replace('_', "-").to_ascii_lowercase()));
    }
    let known = NAMES.iter().find(|(known, _)| *known == name)?;
    Some(Part::Name(known.0))
}

fn value(name: &str, record: &Record<'_>, out: &mut Vec<u8>) {
    match name {
        "time" | "time_iso" | "time_unix" => time(name, record, out),
        "bytes_in" => append(out, format_args!("{}", record.bytes_in)),
        "bytes_out" => append(out, format_args!("{}", record.bytes_out)),
        "status" => append(out, format_args!("{}", record.status)),
        "total" => seconds(Some(record.duration), out),
        "queue" => seconds(record.queue, out),
        "app_time" => seconds(record.app_time, out),
        "first_byte" => seconds(Some(record.first_byte.unwrap_or(record.duration)), out),
        "pid" => append(out, format_args!("{}", std::process::id())),
        "request" => super::combined::request(record, out),
        "slot" => displayed(record.worker, out),
        "trace_id" => displayed(record.trace_id, out),
        _ => optional(text(name, record), out),
    }
}

fn text<'a>(name: &str, record: &Record<'a>) -> Option<&'a [u8]> {
    let question = record.target.iter().position(|byte| *byte == b'?');
    let (path, query) = record
        .target
        .split_at(question.unwrap_or(record.target.len()));
    match name {
        "request_id" => Some(record.request_id),
        "client" => Some(record.client),
        "user" => Some(record.user.as_bytes()),
        "host" => Some(record.host),
        "method" => Some(record.method.as_bytes()),
        "target" => Some(record.target),
        "path" => Some(path),
        "query" => query.get(1..),
        "protocol" => Some(record.protocol.as_bytes()),
        "route" => Some(record.route.as_bytes()),
        "tls" => record.tls.map(str::as_bytes),
        "cause" => record.cause.map(str::as_bytes),
        "detail" => record.detail.map(str::as_bytes),
        "referer" => record.referer,
        "user_agent" => record.user_agent,
        _ => None,
    }
    .filter(|value| !value.is_empty())
}

fn time(name: &str, record: &Record<'_>, out: &mut Vec<u8>) {
    match name {
        "time" => clock::at(record.end(), |second, _| {
            out.extend_from_slice(second.common.as_bytes());
        }),
        "time_iso" => clock::at(record.time, |second, micros| {
            append(
                out,
                format_args!("{}.{micros:06}{}", second.date_time, second.offset),
            );
        }),
        _ => {
            let since = record.time.duration_since(std::time::UNIX_EPOCH);
            let since = since.unwrap_or_default();
            append(
                out,
                format_args!("{}.{:03}", since.as_secs(), since.subsec_millis()),
            );
        }
    }
}

fn seconds(duration: Option<Duration>, out: &mut Vec<u8>) {
    match duration {
        Some(duration) => append(
            out,
            format_args!("{}.{:06}", duration.as_secs(), duration.subsec_micros()),
        ),
        None => out.push(b'-'),
    }
}

/// What is ours, and no client's, stays as it is, such as the dot of `web·1/2`.
fn displayed(value: Option<&(dyn fmt::Display + Sync)>, out: &mut Vec<u8>) {
    match value {
        Some(value) => append(out, format_args!("{value}")),
        None => out.push(b'-'),
    }
}

fn optional(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(value) => escape(value, out),
        None => out.push(b'-'),
    }
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::{super::tests::example, *};

    fn written(pattern: &str, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        Pattern::parse(pattern).unwrap().write(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_become_values() {
        let record = example();
        for (pattern, expected) in [
            ("$client - $status", "192.0.2.7 - 200"),
            ("${method}$path?$query", "GET/path?q=1"),
            ("$$5 $cause$tls", "$5 -TLSv1.3"),
            (
                "\"$request\" $total $queue",
                "\"GET /path?q=1 HTTP/1.1\" 0.001234 0.000015",
            ),
            (
                "$slot $route|$user_agent",
                "hello·1/2 app hello|curl/8.14.1",
            ),
            ("$time_unix", "1764000000.250"),
            ("$http_x_none a\nb", "- a b"),
        ] {
            assert_eq!(written(pattern, &record), expected, "{pattern}");
        }
    }

    #[test]
    fn every_name_is_written() {
        let record = Record {
            user: "ann",
            cause: Some("c"),
            detail: Some("d"),
            referer: Some(b"r"),
            trace_id: Some(&"t"),
            host: b"h",
            ..example()
        };
        for (name, _) in NAMES {
            let text = written(&format!("${name}"), &record);
            assert!(!text.is_empty() && text != "-", "${name} is {text:?}");
        }
    }

    #[test]
    fn no_client_ends_a_line_or_a_column() {
        let record = Record {
            target: b"/\"\n\x1b\xff",
            ..example()
        };
        assert_eq!(written("\"$target\"", &record), r#""/\x22\x0A\x1B\xFF""#);
    }

    #[test]
    fn what_is_not_known_has_its_place() {
        let error = Pattern::parse("a $clint b").unwrap_err();
        assert_eq!((error.place, error.name.as_str()), (2..8, "clint"));
        let error = Pattern::parse("5 $ b").unwrap_err();
        assert_eq!((error.place, error.name.as_str()), (2..3, ""));
        assert!(Pattern::parse("${http_}").is_err());
    }
}
