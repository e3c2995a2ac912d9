//! What the proxy and a slot tell each other beside plain HTTP/1.1, in fields whose names begin with `_`.
//!
//! Such a name never passes from a client to an app ([`crate::field::is_forwardable`]), nor from an app to a client, so nobody
//! outside can forge one.

use std::io::Write;

/// Proxy to slot, first field of every request: client address, client port, scheme, server name, server port, request id; one
/// space between, `-` for what is unknown.
pub const REQUEST: &str = "_stack";
/// Proxy to slot: the target as the client sent it, where the request line carries a normalised one.
pub const TARGET: &str = "_target";
/// Proxy to slot, where the app is mounted below a path: how many bytes of the decoded path are that path, without its last
/// slash. They become `SCRIPT_NAME` (PEP 3333).
pub const SCRIPT: &str = "_script";
/// Proxy to slot: the name of the user who has shown to be it; `REMOTE_USER` (RFC 3875 §4.1.11).
pub const USER: &str = "_user";
/// Proxy to slot, where the site asks for clients' certificates: what came of it ([`Certificate`]).
pub const CERTIFICATE: &str = "_certificate";
/// Proxy to slot in `OPTIONS *`: the build id. Slot to proxy in its 204: app, worker, slot; one space between.
pub const GREETING: &str = "_greeting";
/// Slot to proxy: why the worker's runtime, and not the app, made this response: `exception`, `protocol`.
pub const FAILURE: &str = "_failure";
/// Slot to proxy beside [`FAILURE`], where the site is served to who develops it: the traceback, as [`write_text`] writes it.
pub const TRACEBACK: &str = "_traceback";
/// Slot to proxy: the content is not here; it is `Content-Length` bytes, from this offset on, of the file whose descriptor comes
/// beside the head's first byte (`SCM_RIGHTS`, unix(7)).
pub const FILE: &str = "_file";

/// How the client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// As URLs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What an app's `environ` needs beside the request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handoff<'a> {
    /// The client's address; `-` when unknown.
    pub client: &'a str,
    /// Its port; 0 when unknown.
    pub client_port: u16,
    /// How it reached us.
    pub scheme: Scheme,
    /// The host it asked for; `-` when unknown.
    pub server_name: &'a str,
    /// The port it asked for.
    pub server_port: u16,
    /// The request's id.
    pub request_id: &'a str,
}

impl<'a> Handoff<'a> {
    /// Writes the field line, its CRLF included. No part may have a space or a control character; what comes from a
    /// [`Target`](crate::target::Target), an address or a request id has none.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(
            [self.client, self.server_name, self.request_id]
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic())),
            "a part that would be read as another: {self:?}"
        );
        for text in [REQUEST, ": ", self.client, " "] {
            out.extend_from_slice(text.as_bytes());
        }
        decimal(self.client_port, out);
        for text in [" ", self.scheme.as_str(), " ", self.server_name, " "] {
            out.extend_from_slice(text.as_bytes());
        }
        decimal(self.server_port, out);
        for text in [" ", self.request_id, "\r\n"] {
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Reads the field's value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = str::from_utf8(value).ok()?.split(' ');
        let handoff = Self {
            client: parts.next()?,
            client_port: parts.next()?.parse().ok()?,
            scheme: match parts.next()? {
                "http" => Scheme::Http,
                "https" => Scheme::Https,
                _ => return None,
            },
            server_name: parts.next()?,
            server_port: parts.next()?.parse().ok()?,
            request_id: parts.next()?,
        };
        parts.next().is_none().then_some(handoff)
    }
}

/// The most of a text that a field takes, in bytes before it is written; of a longer one the end, which says what is wrong.
pub const TEXT: usize = 12 * 1024;

/// Writes a text of several lines as a field's value: `%` and what is not visible ASCII as `%XX`.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    let mut from = text.len().saturating_sub(TEXT);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    for byte in text[from..].bytes() {
        match byte {
            b'%' | ..=b' ' | 0x7f.. => write!(out, "%{byte:02X}").expect("a Vec takes every write"),
            visible => out.push(visible),
        }
    }
}

/// Reads what [`write_text`] has written; what it would not have written is kept as it is.
#[must_use]
pub fn read_text(value: &[u8]) -> String {
    let mut text = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let code = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        text.push(code.unwrap_or(byte));
        rest = &after[if code.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Written by hand: this is on the way of every request, and the formatting machinery costs four times as much.
fn decimal(number: u16, out: &mut Vec<u8>) {
    let mut digits = [0; 5];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A client's certificate, which the proxy has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Whose it is, as RFC 4514 writes it.
    pub subject: &'a str,
    /// Who says so.
    pub issuer: &'a str,
    /// Its serial number, in hexadecimal digits.
    pub serial: &'a str,
    /// Its SHA-256, in hexadecimal digits.
    pub fingerprint: &'a str,
}

impl<'a> Certificate<'a> {
    /// Writes the field line, its CRLF included; `None` says that the client showed none. No part may have a tab or another
    /// control character; names as RFC 4514 writes them have none here.
    pub fn encode(certificate: Option<&Self>, out: &mut Vec<u8>) {
        let value = match certificate {
            None => NONE.to_owned(),
            Some(shown) => [
                SUCCESS,
                shown.subject,
                shown.issuer,
                shown.serial,
                shown.fingerprint,
            ]
            .join("\t"),
        };
        debug_assert!(!value.bytes().any(|byte| matches!(byte, b'\r' | b'\n')));
        write!(out, "{CERTIFICATE}: {value}\r\n").expect("a Vec takes every write");
    }

    /// Reads the field's value; `None` where the client showed no certificate.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = str::from_utf8(value).ok()?.split('\t');
        if parts.next()? != SUCCESS {
            return None;
        }
        let certificate = Self {
            subject: parts.next()?,
            issuer: parts.next()?,
            serial: parts.next()?,
            fingerprint: parts.next()?,
        };
        parts.next().is_none().then_some(certificate)
    }
}

/// What `SSL_CLIENT_VERIFY` says, as with Apache and nginx.
pub const SUCCESS: &str = "SUCCESS";
/// The same where there is no certificate.
pub const NONE: &str = "NONE";

/// What a slot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// The app.
    pub app: &'a str,
    /// The worker's number.
    pub worker: u32,
    /// The slot's number.
    pub slot: u16,
}

impl<'a> Greeting<'a> {
    /// Writes the field line, its CRLF included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { app, worker, slot } = self;
        write!(out, "{GREETING}: {app} {worker} {slot}\r\n").expect("a Vec takes every write");
    }

    /// Reads the field's value.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut parts = str::from_utf8(value).ok()?.split(' ');
        let app = parts.next()?;
        let worker = parts.next()?.parse().ok()?;
        let slot = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { app, worker, slot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let handoff = Handoff {
            client: "2001:db8::1",
            client_port: 5,
            scheme: Scheme::Https,
            server_name: "example.org",
            server_port: 443,
            request_id: "0123456789abcdef",
        };
        let mut line = Vec::new();
        handoff.encode(&mut line);
        assert_eq!(
            line,
            b"_stack: 2001:db8::1 5 https example.org 443 0123456789abcdef\r\n"
        );
        assert_eq!(Handoff::parse(&line[8..line.len() - 2]), Some(handoff));
        let greeting = Greeting {
            app: "web",
            worker: 1,
            slot: 3,
        };
        let mut line = Vec::new();
        greeting.encode(&mut line);
        assert_eq!(Greeting::parse(&line[11..line.len() - 2]), Some(greeting));
    }

    #[test]
    fn a_certificate_is_read_as_it_was_written() {
        let certificate = Certificate {
            subject: "",
            issuer: "CN=a\\, b,O=M\u{fc}ller\\ ",
            serial: "01",
            fingerprint: "AB",
        };
        let mut line = Vec::new();
        Certificate::encode(Some(&certificate), &mut line);
        let value = line["_certificate: ".len()..line.len() - 2].trim_ascii();
        assert_eq!(Certificate::parse(value), Some(certificate));
        line.clear();
        Certificate::encode(None, &mut line);
        assert_eq!(line, b"_certificate: NONE\r\n");
        for value in [
            "",
            "NONE",
            "SUCCESS",
            "SUCCESS\ta\tb\tc",
            "SUCCESS\ta\tb\tc\td\te",
        ] {
            assert_eq!(Certificate::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_text_of_lines_is_read_as_it_was_written() {
        for text in ["", "a b\r\n\tc: 100%41", "M\u{fc}ller \u{1f40d}\n", "%"] {
            let mut value = Vec::new();
            write_text(text, &mut value);
            assert!(value.iter().all(u8::is_ascii_graphic), "{value:?}");
            assert_eq!(read_text(&value), text);
        }
        assert_eq!(read_text(b"%zz%4%"), "%zz%4%", "not ours, and kept");
        let mut value = Vec::new();
        write_text(&("\u{fc}".repeat(TEXT) + "end"), &mut value);
        let read = read_text(&value);
        assert!(
            read.len() <= TEXT && read.ends_with("\u{fc}end"),
            "{}",
            read.len()
        );
    }

    #[test]
    fn every_port_is_written_in_full() {
        for port in 0..=u16::MAX {
            let mut out = Vec::new();
            decimal(port, &mut out);
            assert_eq!(out, port.to_string().into_bytes());
        }
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        for value in [
            "",
            "a",
            "a 1 http b 2",
            "a 1 http b 2 c d",
            "a x http b 2 c",
            "a 1 ftp b 2 c",
            "a  1 http b 2 c",
        ] {
            assert_eq!(Handoff::parse(value.as_bytes()), None, "{value:?}");
        }
        for value in [
            "",
            "web",
            "web 1",
            "web 1 2 3",
            "web x 1",
            "web 1 65536",
            "web -1 1",
        ] {
            assert_eq!(Greeting::parse(value.as_bytes()), None, "{value:?}");
        }
    }
}
