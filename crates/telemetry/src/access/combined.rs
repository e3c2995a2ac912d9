//! The combined format, byte for byte as nginx writes it:
//! `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`.

use super::Record;
use crate::clock;

pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    // nginx's name for the other end of a Unix socket.
    let client = match record.client {
        b"unix" => b"unix:",
        client => client,
    };
    escape(client, out);
    put(b" - ", out);
    escape(record.user.as_bytes(), out);
    put(b" [", out);
    clock::at(record.end(), |second, _| put(second.common.as_bytes(), out));
    put(b"] \"", out);
    request(record, out);
    let mut digits = itoa::Buffer::new();
    let status = digits.format(record.status);
    // What never became a response has the status 0, which nginx writes in three digits too.
    put(&b"\" 000"[..5 - status.len().min(3)], out);
    put(status.as_bytes(), out);
    put(b" ", out);
    put(digits.format(record.bytes_out).as_bytes(), out);
    put(b" \"", out);
    field(record.referer, out);
    put(b"\" \"", out);
    field(record.user_agent, out);
    put(b"\"", out);
}

pub(super) fn request(record: &Record<'_>, out: &mut Vec<u8>) {
    if record.is_understood() {
        escape(record.method.as_bytes(), out);
        put(b" ", out);
        escape(record.target, out);
        put(b" ", out);
        escape(record.protocol.as_bytes(), out);
    } else if record.target.is_empty() {
        put(b"-", out);
    } else {
        escape(record.target, out);
    }
}

/// nginx writes `-` for a field that was not sent, and nothing for one that was sent empty.
fn field(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(value) => escape(value, out),
        None => put(b"-", out),
    }
}

/// Once for all that a line is made of: copies of this take more of the first cache than the call costs.
#[inline(never)]
fn put(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
}

/// `ngx_http_log_escape`: `"`, `\`, controls, DEL and everything from 0x80 become `\xHH`, in capitals.
#[inline(never)]
pub(super) fn escape(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // Nearly always all of it.
    let (plain, rest) = value.split_at(plain_length(value));
    put(plain, out);
    for byte in rest {
        if !is_plain(*byte) {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]);
            out.extend_from_slice(&[b'\\', b'x', high, low]);
        } else {
            out.push(*byte);
        }
    }
}

fn is_plain(byte: u8) -> bool {
    !matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff)
}

/// How many bytes at the start need no escape. Eight at a time as long as all eight are such: a line is mostly that.
fn plain_length(value: &[u8]) -> usize {
    let (words, rest) = value.as_chunks::<8>();
    let plain = words.iter().take_while(|word| is_all_plain(**word));
    let plain = plain.count() * 8;
    // The last eight: what is looked at a second time is plain already.
    let last = value.last_chunk::<8>();
    if plain + rest.len() == value.len() && last.is_some_and(|last| is_all_plain(*last)) {
        return value.len();
    }
    let rest = value[plain..].iter();
    plain + rest.take_while(|byte| is_plain(**byte)).count()
}

fn is_all_plain(word: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(word);
    // A byte that equals `one` becomes zero, and borrows from its highest bit when 1 is taken from it.
    let is = |one: u8| (word ^ (ONES * u64::from(one))).wrapping_sub(ONES);
    // One below 0x20 borrows as well. What is borrowed by a neighbour is a false alarm, and never the other way round.
    let odd = word.wrapping_sub(ONES * 0x20) | is(b'"') | is(b'\\') | is(0x7f);
    (odd | word) & HIGH == 0
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

    /// Each byte at each place of a word and behind it.
    #[test]
    fn what_is_escaped_does_not_depend_on_where_it_stands() {
        for length in 1..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    for other in [b'a', b' ', b'~', b'#', b'!', b'[', b']'] {
                        let mut value = vec![other; length];
                        value[place] = byte;
                        let mut expected = vec![other; place];
                        match byte {
                            b' ' | b'!' | b'#'..=b'[' | b']'..=b'~' => expected.push(byte),
                            _ => expected.extend(format!("\\x{byte:02X}").bytes()),
                        }
                        expected.resize(expected.len() + length - place - 1, other);
                        let mut out = Vec::new();
                        escape(&value, &mut out);
                        assert_eq!(out, expected, "{byte} at {place} of {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn lines_as_nginx_writes_them() {
        let base = example();
        let rows = [
            (
                base,
                r#"192.0.2.7 - - [T] "GET /path?q=1 HTTP/1.1" 200 1434 "-" "curl/8.14.1""#,
            ),
            (
                Record {
                    protocol: "HTTP/2.0",
                    user: "ann",
                    referer: Some(b"https://a/"),
                    user_agent: None,
                    ..base
                },
                r#"192.0.2.7 - ann [T] "GET /path?q=1 HTTP/2.0" 200 1434 "https://a/" "-""#,
            ),
            (
                Record {
                    client: b"unix",
                    referer: Some(b""),
                    user_agent: Some(b""),
                    status: 499,
                    bytes_out: 0,
                    ..base
                },
                r#"unix: - - [T] "GET /path?q=1 HTTP/1.1" 499 0 "" """#,
            ),
            (
                Record {
                    target: b"/\"\\\xc3\xa9",
                    user_agent: Some(b"a\x00\t\x1b\x7f\xff~ "),
                    ..base
                },
                r#"192.0.2.7 - - [T] "GET /\x22\x5C\xC3\xA9 HTTP/1.1" 200 1434 "-" "a\x00\x09\x1B\x7F\xFF~ ""#,
            ),
            (
                Record {
                    method: "",
                    target: b"\x16\x03\x01",
                    protocol: "",
                    status: 400,
                    bytes_out: 9,
                    ..base
                },
                r#"192.0.2.7 - - [T] "\x16\x03\x01" 400 9 "-" "curl/8.14.1""#,
            ),
            (
                Record {
                    method: "",
                    target: b"",
                    protocol: "",
                    status: 408,
                    bytes_out: 0,
                    user_agent: None,
                    ..base
                },
                r#"192.0.2.7 - - [T] "-" 408 0 "-" "-""#,
            ),
        ];
        for (record, expected) in rows {
            let time = clock::at(record.end(), |second, _| second.common.clone());
            assert_eq!(
                written(Format::Combined, &record),
                expected.replacen('T', &time, 1)
            );
        }
    }
}
