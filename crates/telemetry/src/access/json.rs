//! One JSON object a line (RFC 8259), for any bytes.
//!
//! Bytes that are not UTF-8 are written as the four characters `\xHH`, so that a reader sees what was sent. Members
//! that say nothing (no referer, no worker, no cause) are left out. Times are milliseconds, with microseconds behind
//! the point.

use std::{fmt::Display, io::Write as _, time::Duration};

use super::Record;
use crate::{clock, text::is_hidden};

pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock::at(record.time, |second, micros| {
        append(
            out,
            format_args!("{}.{micros:06}{}\"", second.date_time, second.offset),
        );
    });
    string("client", record.client, out);
    if record.user != "-" {
        string("user", record.user.as_bytes(), out);
    }
    string("method", record.method.as_bytes(), out);
    string("target", record.target, out);
    string("protocol", record.protocol.as_bytes(), out);
    string("host", record.host, out);
    append(
        out,
        format_args!(
            ",\"status\":{},\"bytes_in\":{},\"bytes_out\":{}",
            record.status, record.bytes_in, record.bytes_out
        ),
    );
    milliseconds("duration_ms", record.duration, out);
    if let Some(first_byte) = record.first_byte {
        milliseconds("first_byte_ms", first_byte, out);
    }
    optional("referer", record.referer, out);
    optional("user_agent", record.user_agent, out);
    string("request_id", record.request_id, out);
    string("route", record.route.as_bytes(), out);
    served_by(record, out);
    optional("tls", record.tls.map(str::as_bytes), out);
    if let Some(trace) = record.trace_id {
        displayed("trace_id", trace, out);
    }
    optional("cause", record.cause.map(str::as_bytes), out);
    optional("detail", record.detail.map(str::as_bytes), out);
    out.push(b'}');
}

fn served_by(record: &Record<'_>, out: &mut Vec<u8>) {
    if let Some(worker) = record.worker {
        displayed("worker", worker, out);
    }
    if let Some(queue) = record.queue {
        milliseconds("queue_ms", queue, out);
    }
    if let Some(app_time) = record.app_time {
        milliseconds("app_ms", app_time, out);
    }
}

fn optional(name: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        string(name, value, out);
    }
}

fn displayed(name: &str, value: &dyn Display, out: &mut Vec<u8>) {
    string(name, value.to_string().as_bytes(), out);
}

/// `,"name":"value"`.
pub(crate) fn string(name: &str, value: &[u8], out: &mut Vec<u8>) {
    member(name, out);
    out.push(b'"');
    if value
        .iter()
        .all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\'))
    {
        out.extend_from_slice(value);
    } else {
        escape(value, out);
    }
    out.push(b'"');
}

/// The name of the next member; the object never begins with one of these.
fn member(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn escape(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                // JSON asks for those below 0x20 only; the others would act on a terminal that shows the log, or on the
                // eye of who reads it.
                acting if acting.is_control() || is_hidden(acting) => {
                    for unit in acting.encode_utf16(&mut [0; 2]) {
                        append(out, format_args!("\\u{unit:04x}"));
                    }
                }
                plain => out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            append(out, format_args!("\\\\x{byte:02X}"));
        }
    }
}

fn milliseconds(name: &str, duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    member(name, out);
    append(out, format_args!("{}.{:03}", micros / 1000, micros % 1000));
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::{
            Format,
            tests::{example, written},
        },
        *,
    };

    fn parsed(record: &Record<'_>) -> Value {
        let line = written(Format::Json, record);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn a_plain_record() {
        let record = example();
        let mut value = parsed(&record);
        let time = value.as_object_mut().unwrap().remove("time").unwrap();
        let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
        assert_eq!(time.as_millisecond(), 1_764_000_000_250);
        let expected = json!({
            "client": "192.0.2.7", "method": "GET", "target": "/path?q=1", "protocol": "HTTP/1.1",
            "host": "example.org", "status": 200, "bytes_in": 0, "bytes_out": 1434, "duration_ms": 1.234,
            "user_agent": "curl/8.14.1", "request_id": "0198f3a2", "route": "app hello", "worker": "hello·1/2",
            "queue_ms": 0.015, "app_ms": 1.1, "tls": "TLSv1.3",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn any_bytes_are_valid_json() {
        let rows: [(&[u8], &str); 8] = [
            (b"/a\"b\\c", "/a\"b\\c"),
            (b"\x00\n\x1b", "\0\n\x1b"),
            ("é漢\u{2028}".as_bytes(), "é漢\u{2028}"),
            (b"\xff/\xc3(", r"\xFF/\xC3("),
            (b"\xed\xa0\x80", r"\xED\xA0\x80"),
            ("\u{9b}\u{7f}".as_bytes(), "\u{9b}\u{7f}"),
            (
                "\u{202e}gnp.exe\u{e0041}".as_bytes(),
                "\u{202e}gnp.exe\u{e0041}",
            ),
            (b"", ""),
        ];
        for (bytes, text) in rows {
            let record = Record {
                target: bytes,
                referer: Some(bytes),
                user_agent: Some(bytes),
                ..example()
            };
            let value = parsed(&record);
            for member in ["target", "referer", "user_agent"] {
                assert_eq!(value[member], text, "{bytes:?}");
            }
            let acts = |character: char| character.is_control() || is_hidden(character);
            assert!(!written(Format::Json, &record).chars().any(acts));
        }
        let all: Vec<u8> = (0..=255).collect();
        parsed(&Record {
            target: &all,
            host: &all,
            ..example()
        });
    }

    #[test]
    fn failures_name_their_cause() {
        let value = parsed(&Record {
            user: "ann",
            status: 503,
            cause: Some("queue-timeout"),
            detail: Some("no slot of app \"web\"\nwithin 15 s"),
            ..example()
        });
        assert_eq!(value["user"], "ann");
        assert_eq!(value["cause"], "queue-timeout");
        assert_eq!(value["detail"], "no slot of app \"web\"\nwithin 15 s");
    }
}
