//! For eyes: `14:03:22  GET  /path  200  1.2 ms  1.4 KiB  hello·1/2`, in columns, and for failures the cause and the
//! request id. No byte of a client reaches the terminal as anything but text.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use super::Record;
use crate::{
    clock,
    text::{Elapsed, Size, visible},
};

/// Columns of the target in a terminal of 80: what the other columns leave.
const TARGET_WIDTH: usize = 30;
/// Where a longer target is cut. Somebody who wants it whole reads another format.
const TARGET_MAX: usize = 160;

const DIM: Style = Style::new().dimmed();

pub(super) fn write(record: &Record<'_>, colour: bool, out: &mut Vec<u8>) {
    let style = |style: Style| if colour { style } else { Style::new() };
    let (dim, status) = (style(DIM), style(status_style(record.status)));
    clock::at(record.end(), |second, _| {
        append(out, format_args!("{dim}{}{dim:#}  ", second.clock))
    });
    pad(4, out, |out| visible(method(record).as_bytes(), out));
    out.extend_from_slice(b"  ");
    pad(TARGET_WIDTH, out, |out| target(record.target, out));
    append(
        out,
        format_args!("  {status}{:03}{status:#}", record.status),
    );
    append(
        out,
        format_args!(
            "  {:>7}  {dim}{:>8}{dim:#}  ",
            Elapsed(record.duration),
            Size(record.bytes_out)
        ),
    );
    append(out, format_args!("{dim}"));
    answered_by(record, out);
    append(out, format_args!("{dim:#}"));
    if record.status >= 400 {
        failure(record, status, dim, out);
    }
}

fn failure(record: &Record<'_>, status: Style, dim: Style, out: &mut Vec<u8>) {
    if let Some(cause) = record.cause {
        append(out, format_args!("  {status}"));
        visible(cause.as_bytes(), out);
        append(out, format_args!("{status:#}"));
    }
    if let Some(detail) = record.detail {
        out.extend_from_slice(if record.cause.is_some() { b": " } else { b"  " });
        visible(detail.as_bytes(), out);
    }
    append(out, format_args!("  {dim}id "));
    visible(record.request_id, out);
    append(out, format_args!("{dim:#}"));
}

fn method<'a>(record: &Record<'a>) -> &'a str {
    if record.is_understood() {
        record.method
    } else {
        "-"
    }
}

fn target(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    match bytes {
        [] => visible(b"-", out),
        long if long.len() > TARGET_MAX => {
            let width = visible(&long[..TARGET_MAX], out);
            out.extend_from_slice("…".as_bytes());
            width + 1
        }
        short => visible(short, out),
    }
}

/// The slot, or what answered in its place.
fn answered_by(record: &Record<'_>, out: &mut Vec<u8>) {
    match record.worker {
        Some(worker) => visible(worker.to_string().as_bytes(), out),
        None => visible(record.route.as_bytes(), out),
    };
}

fn status_style(status: u16) -> Style {
    let colour = match status {
        200..300 => AnsiColor::Green,
        300..400 => AnsiColor::Cyan,
        400..500 => AnsiColor::Yellow,
        500..600 => AnsiColor::Red,
        _ => AnsiColor::Magenta,
    };
    colour.on_default()
}

/// Fills up to `width` characters after what `write` says it wrote.
fn pad(width: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> usize) {
    let written = write(out);
    out.resize(out.len() + width.saturating_sub(written), b' ');
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Format,
            tests::{example, written},
        },
        *,
    };

    fn clock_of(record: &Record<'_>) -> String {
        clock::at(record.end(), |second, _| second.clock.clone())
    }

    #[test]
    fn lines_for_eyes() {
        let base = example();
        let rows = [
            (
                base,
                "T  GET   /path?q=1                       200   1.2 ms   1.4 KiB  hello·1/2",
            ),
            (
                Record {
                    status: 304,
                    bytes_out: 0,
                    worker: None,
                    route: "files",
                    target: b"/a",
                    ..base
                },
                "T  GET   /a                              304   1.2 ms       0 B  files",
            ),
            (
                Record {
                    status: 503,
                    cause: Some("queue-timeout"),
                    detail: Some("waited 15 s"),
                    worker: None,
                    ..base
                },
                "T  GET   /path?q=1                       503   1.2 ms   1.4 KiB  app hello  queue-timeout: waited 15 s  id 0198f3a2",
            ),
            (
                Record {
                    status: 404,
                    ..base
                },
                "T  GET   /path?q=1                       404   1.2 ms   1.4 KiB  hello·1/2  id 0198f3a2",
            ),
            (
                Record {
                    method: "",
                    target: b"\x1b]0;x\x07",
                    status: 400,
                    detail: Some("a\x1b[m"),
                    worker: None,
                    route: "-",
                    ..base
                },
                "T  -     \\x1B]0;x\\x07                    400   1.2 ms   1.4 KiB  -  a\\x1B[m  id 0198f3a2",
            ),
            (
                Record {
                    method: "OPTIONS",
                    target: "/é\u{202e}\u{9b}".as_bytes(),
                    ..base
                },
                "T  OPTIONS  /é\\u{202e}\\x9B                  200   1.2 ms   1.4 KiB  hello·1/2",
            ),
        ];
        for (record, expected) in rows {
            let expected = expected.replacen('T', &clock_of(&record), 1);
            assert_eq!(written(Format::Pretty { colour: false }, &record), expected);
        }
    }

    #[test]
    fn colour_follows_the_class_of_the_status() {
        for (status, code) in [
            (200, "32"),
            (301, "36"),
            (404, "33"),
            (502, "31"),
            (101, "35"),
        ] {
            let line = written(
                Format::Pretty { colour: true },
                &Record {
                    status,
                    ..example()
                },
            );
            assert!(
                line.contains(&format!("\x1b[{code}m{status}\x1b[0m")),
                "{line:?}"
            );
        }
    }

    #[test]
    fn hostile_bytes_add_no_control_and_no_line() {
        let all: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let text: String = ('\0'..'\u{300}').collect();
        let record = Record {
            method: &text,
            target: &all,
            request_id: text.as_bytes(),
            detail: Some(&text),
            cause: Some(&text),
            worker: Some(&text),
            status: 500,
            ..example()
        };
        let line = written(Format::Pretty { colour: false }, &record);
        assert!(!line.chars().any(char::is_control));
    }
}
