//! One record for each exchange: what it says, how it is written, and the sink that writes it without holding up
//! whoever served the exchange.
//!
//! A record never has a part in the exchange: it is built when everything has happened, also for requests that were
//! refused before they were understood. What a client sent is redacted on its way into the sink, whatever the format.

mod combined;
pub(crate) mod json;
mod pattern;
mod pretty;
mod redact;
mod sink;

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::{
    pattern::{NAMES, Pattern, PatternError},
    redact::Redaction,
    sink::Log,
};

/// The fields of a request, for a format that asks for one.
pub trait Fields {
    /// The first value of the field with this name, in lower case.
    fn field(&self, name: &str) -> Option<&[u8]>;
}

/// What happened in one exchange. Text that came from the client is bytes, as sent: a format must be safe with any.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// When the first byte of the request head came.
    pub time: SystemTime,
    /// From then until the last byte of the response was handed to the kernel.
    pub duration: Duration,
    /// The client's address without port; `unix` for a Unix socket, `-` where unknown.
    pub client: &'a [u8],
    /// The authenticated user, else `-`.
    pub user: &'a str,
    /// The method; empty when the request line was not understood.
    pub method: &'a str,
    /// The request target as sent; the offending line when the request line was not understood.
    pub target: &'a [u8],
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`; empty when the request line was not understood.
    pub protocol: &'a str,
    /// The host that the request was for; empty where unknown.
    pub host: &'a [u8],
    /// The status of the final response; 499 when the client left before there was one.
    pub status: u16,
    /// Bytes of the request's content.
    pub bytes_in: u64,
    /// Bytes of the response's content that were sent.
    pub bytes_out: u64,
    /// The `Referer` field.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` field.
    pub user_agent: Option<&'a [u8]>,
    /// The id that the app saw and the response carries.
    pub request_id: &'a [u8],
    /// What answered: `app web`, `files`, `redirect`, `respond`, or `-`.
    pub route: &'a str,
    /// The slot that answered: `web·1/2`.
    pub worker: Option<&'a (dyn Display + Sync)>,
    /// How long the request waited for a slot.
    pub queue: Option<Duration>,
    /// From the request's last byte into the slot until the response head.
    pub app_time: Option<Duration>,
    /// Until the first byte of the response, where that was well before the last one.
    pub first_byte: Option<Duration>,
    /// The TLS version: `TLSv1.3`.
    pub tls: Option<&'a str>,
    /// Why it failed, as one word: `queue-timeout`, `client-left`, `app-died`.
    pub cause: Option<&'a str>,
    /// Why it failed, for people.
    pub detail: Option<&'a str>,
    /// The trace id of a valid `traceparent` (W3C Trace Context): 32 hexadecimal digits.
    pub trace_id: Option<&'a (dyn Display + Sync)>,
    /// The request's other fields.
    pub fields: Option<&'a (dyn Fields + Sync)>,
}

impl Record<'_> {
    /// Logs carry the time of writing, so that their lines are in order.
    fn end(&self) -> SystemTime {
        self.time.checked_add(self.duration).unwrap_or(self.time)
    }

    fn is_understood(&self) -> bool {
        !self.method.is_empty()
    }
}

/// How a record looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// For eyes.
    Pretty {
        /// Whether status classes are coloured.
        colour: bool,
    },
    /// Byte for byte nginx's `combined`, which fail2ban and GoAccess read.
    Combined,
    /// One JSON object a line.
    Json,
    /// The user's own.
    Own(Arc<Pattern>),
}

impl Format {
    /// Appends one line.
    pub fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Pretty { colour } => pretty::write(record, *colour, out),
            Self::Combined => combined::write(record, out),
            Self::Json => json::write(record, out),
            Self::Own(pattern) => pattern.write(record, out),
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// 2025-11-24 16:00:00 UTC, and a quarter of a second more.
    pub(crate) fn example() -> Record<'static> {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_764_000_000_250),
            duration: Duration::from_micros(1_234),
            client: b"192.0.2.7",
            user: "-",
            method: "GET",
            target: b"/path?q=1",
            protocol: "HTTP/1.1",
            host: b"example.org",
            status: 200,
            bytes_in: 0,
            bytes_out: 1_434,
            referer: None,
            user_agent: Some(b"curl/8.14.1"),
            request_id: b"0198f3a2",
            route: "app hello",
            worker: Some(&"hello·1/2"),
            queue: Some(Duration::from_micros(15)),
            app_time: Some(Duration::from_micros(1_100)),
            first_byte: None,
            tls: Some("TLSv1.3"),
            cause: None,
            detail: None,
            trace_id: None,
            fields: None,
        }
    }

    pub(crate) fn written(format: Format, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        format.write(record, &mut out);
        let line = String::from_utf8(out).expect("every format is UTF-8");
        assert_eq!(
            line.find('\n'),
            Some(line.len() - 1),
            "{line:?} is one line"
        );
        line.trim_end().to_owned()
    }
}
