//! Message heads (RFC 9112 §2–§5): where one ends, and what it says.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    field::{self, Fields, TOKEN},
    refusal::Refusal,
    target,
};

/// How much of a head is accepted, in bytes and lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The first line, its CRLF included.
    pub line: usize,
    /// The whole head.
    pub head: usize,
    /// Field lines.
    pub fields: usize,
}

/// Finds the end of a head in a buffer that grows, without looking at a byte twice, and refuses as soon as it is certain that
/// no good head will come of it. However the bytes are split over calls, the answer is the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finder {
    /// Where the line begins whose end is looked for.
    line: usize,
    /// Up to where it has been looked for.
    seen: usize,
    /// Whether the first line is complete.
    in_fields: bool,
}

impl Finder {
    /// The length of the request head at the start of `buffer`, its empty line included; `None` until it is there. One empty
    /// line before the request line is part of it (RFC 9112 §2.2).
    ///
    /// # Errors
    /// When what came cannot be the beginning of a request.
    pub fn find(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let start = match buffer {
            // The content type of a handshake record (RFC 8446 §5.1).
            [0x16, ..] => return Err(Refusal::TlsOnPlainPort),
            [b'\n', ..] => return Err(Refusal::BareLineFeed),
            [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => 2,
            [b'\r', ..] => return Err(Refusal::BareCarriageReturn),
            _ => 0,
        };
        match buffer.get(start) {
            Some(&byte) if !TOKEN[usize::from(byte)] => Err(Refusal::RequestLine),
            Some(_) => self.find_end(buffer, start, limits),
            None => Ok(None),
        }
    }

    /// The same for a response head.
    ///
    /// # Errors
    /// When what came cannot be the beginning of a response.
    pub fn find_response(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, Refusal> {
        let start = buffer.len().min(HTTP.len());
        if buffer[..start] != HTTP[..start] {
            return Err(Refusal::StatusLine);
        }
        self.find_end(buffer, 0, limits)
    }

    fn find_end(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, Refusal> {
        self.line = self.line.max(start);
        self.seen = self.seen.max(start);
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.seen..]) {
            let end = self.seen + found + 1;
            self.check_length(end - start, limits)?;
            match end - self.line {
                1 => return Err(Refusal::BareLineFeed),
                _ if buffer[end - 2] != b'\r' => return Err(Refusal::BareLineFeed),
                2 => {
                    *self = Self::default();
                    return Ok(Some(end));
                }
                _ => {}
            }
            self.line = end;
            self.seen = end;
            self.in_fields = true;
        }
        self.seen = buffer.len();
        self.check_length(buffer.len() - start, limits)?;
        Ok(None)
    }

    /// The limit that was reached first is the one that is named.
    fn check_length(&self, length: usize, limits: &Limits) -> Result<(), Refusal> {
        if !self.in_fields && length > limits.line && limits.line <= limits.head {
            Err(Refusal::LineTooLong)
        } else if length > limits.head {
            Err(Refusal::HeadTooLong)
        } else {
            Ok(())
        }
    }
}

const HTTP: &[u8] = b"HTTP/1.";

/// The version of a message (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2; never read off an HTTP/1.1 connection.
    Http2,
}

impl Version {
    fn parse(text: &[u8]) -> Result<Self, Refusal> {
        match text {
            b"HTTP/1.1" => Ok(Self::Http11),
            b"HTTP/1.0" => Ok(Self::Http10),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Err(Refusal::Version)
            }
            _ => Err(Refusal::VersionSyntax),
        }
    }
}

/// A method (RFC 9110 §9); those that a server must know by name, and all others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are their meaning")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    Connect,
    /// Any other token.
    Other(Bytes),
}

impl Method {
    /// Reads a method; methods are case-sensitive (RFC 9110 §9.1).
    ///
    /// # Errors
    /// When it is not a token.
    pub fn parse(text: &Bytes) -> Result<Self, Refusal> {
        Self::known(text).map_or_else(|| Self::other(text.clone()), Ok)
    }

    /// The same for text that is not shared: only a method that no server knows is copied.
    ///
    /// # Errors
    /// When it is not a token.
    pub fn copied(text: &[u8]) -> Result<Self, Refusal> {
        Self::known(text).map_or_else(|| Self::other(Bytes::copy_from_slice(text)), Ok)
    }

    fn known(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"PATCH" => Self::Patch,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => return None,
        })
    }

    fn other(text: Bytes) -> Result<Self, Refusal> {
        if field::is_token(&text) {
            Ok(Self::Other(text))
        } else {
            Err(Refusal::Method)
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Other(token) => str::from_utf8(token).expect("a token is ASCII"),
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target as sent.
    pub target: Bytes,
    /// The version.
    pub version: Version,
    /// The field section.
    pub fields: Fields,
}

impl RequestHead {
    /// Parses a head that [`Finder::find`] has found.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(head: &Bytes, limits: &Limits) -> Result<Self, Refusal> {
        let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
        let (line, section) = split(head, start)?;
        let (method, target, version) =
            request_line(head, line.clone()).map_err(|refusal| blame(&head[line], refusal))?;
        let fields = Fields::parse(head.slice(section), limits.fields)?;
        Ok(Self {
            method,
            target,
            version,
            fields,
        })
    }

    /// Whether the client wants the connection to persist (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        keep_alive(self.version, &self.fields)
    }

    /// The protocol of the tunnel that an HTTP/2 request asks for (RFC 8441 §4), which has the form of an upgrade in here
    /// ([`crate::pseudo`]).
    #[must_use]
    pub fn tunnel(&self) -> Option<&[u8]> {
        match self.version {
            Version::Http2 => self.fields.get("upgrade"),
            _ => None,
        }
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The version.
    pub version: Version,
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase, which says nothing.
    pub reason: Bytes,
    /// The field section.
    pub fields: Fields,
}

impl ResponseHead {
    /// Parses a head that [`Finder::find_response`] has found. The space before an empty reason phrase may be missing, as
    /// many leave it out, and nothing else could be meant.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(head: Bytes, limits: &Limits) -> Result<Self, Refusal> {
        let (line, section) = split(&head, 0)?;
        let (version, status, reason) =
            status_line(&head, line.clone()).map_err(|refusal| blame(&head[line], refusal))?;
        let fields = Fields::parse(head.slice(section), limits.fields)?;
        Ok(Self {
            version,
            status,
            reason,
            fields,
        })
    }

    /// Whether the sender keeps the connection open (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        keep_alive(self.version, &self.fields)
    }
}

fn keep_alive(version: Version, fields: &Fields) -> bool {
    let mut keep = version != Version::Http10;
    for option in field::connection_options(fields) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep = keep || option.eq_ignore_ascii_case(b"keep-alive");
    }
    keep
}

/// `method SP request-target SP HTTP-version` (RFC 9112 §3).
fn request_line(head: &Bytes, place: Range<usize>) -> Result<(Method, Bytes, Version), Refusal> {
    let line = &head[place.clone()];
    let first = memchr::memchr(b' ', line).ok_or(Refusal::RequestLine)?;
    let last = memchr::memrchr(b' ', line).ok_or(Refusal::RequestLine)?;
    let method = match Method::known(&line[..first]) {
        Some(method) => method,
        None => Method::other(head.slice(place.start..place.start + first))?,
    };
    // A space in the target, or two around it, and parsers disagree where it ends (RFC 9112 §3.2): no form has one.
    let target = line.get(first + 1..last).unwrap_or_default();
    if target.is_empty() || memchr::memchr(b' ', target).is_some() {
        return Err(Refusal::RequestLine);
    }
    target::check_characters(target)?;
    let version = Version::parse(&line[last + 1..])?;
    Ok((method, head.slice_ref(target), version))
}

/// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 §4).
fn status_line(head: &Bytes, place: Range<usize>) -> Result<(Version, u16, Bytes), Refusal> {
    let line = &head[place];
    let (version, rest) = line.split_at_checked(8).ok_or(Refusal::StatusLine)?;
    let version = Version::parse(version)?;
    let (digits, reason) = match rest {
        [b' ', a, b, c] => ([a, b, c], &b""[..]),
        [b' ', a, b, c, b' ', reason @ ..] => ([a, b, c], reason),
        _ => return Err(Refusal::StatusLine),
    };
    if !digits.iter().all(|digit| digit.is_ascii_digit())
        || !reason.iter().all(|&byte| field::is_value(byte))
    {
        return Err(Refusal::StatusLine);
    }
    let status = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
    // RFC 9110 §15: other classes do not exist.
    if !(100..600).contains(&status) {
        return Err(Refusal::StatusLine);
    }
    Ok((version, status, head.slice_ref(reason)))
}

/// A CR in the first line breaks whatever it stands in; it is named, since that tells an attack from a typing error.
fn blame(line: &[u8], refusal: Refusal) -> Refusal {
    match memchr::memchr(b'\r', line) {
        Some(_) => Refusal::BareCarriageReturn,
        None => refusal,
    }
}

/// Where the first line is, without its CRLF, and the field section, without the empty line.
fn split(head: &[u8], start: usize) -> Result<(Range<usize>, Range<usize>), Refusal> {
    let feed = memchr::memchr(b'\n', &head[start..]).ok_or(Refusal::RequestLine)? + start;
    let line = start..feed.saturating_sub(1).max(start);
    let section = feed + 1..head.len().saturating_sub(2).max(feed + 1);
    if head[line.end..=feed] != *b"\r\n" || head[section.end..] != *b"\r\n" {
        return Err(Refusal::BareLineFeed);
    }
    Ok((line, section))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 64,
        head: 128,
        fields: 4,
    };

    fn at_once(input: &[u8]) -> Result<Option<usize>, Refusal> {
        Finder::default().find(input, &LIMITS)
    }

    /// The answer when the input comes in pieces; the length that was found must not depend on what follows it.
    fn in_pieces(input: &[u8], places: &[usize]) -> Result<Option<usize>, Refusal> {
        let mut finder = Finder::default();
        for &end in places.iter().chain([&input.len()]) {
            if let Some(length) = finder.find(&input[..end], &LIMITS)? {
                return Ok(Some(length));
            }
        }
        Ok(None)
    }

    #[test]
    fn the_end_of_a_head_over_all_split_points() {
        use Refusal::{
            BareCarriageReturn, BareLineFeed, HeadTooLong, LineTooLong, RequestLine, TlsOnPlainPort,
        };
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length - 16));
        let head =
            |length: usize| format!("G / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(length - 21));
        for (input, expected) in [
            (String::new(), Ok(None)),
            ("GET / HTTP/1.1\r\n\r\n".into(), Ok(Some(18))),
            ("GET / HTTP/1.1\r\n\r\nGET".into(), Ok(Some(18))),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\n\r\n".into(), Ok(Some(24))),
            ("\r\nGET / HTTP/1.1\r\n\r\n".into(), Ok(Some(20))),
            ("\r\n".into(), Ok(None)),
            ("\r".into(), Ok(None)),
            ("GET / HTTP/1.1\r\n\r".into(), Ok(None)),
            ("GET / HTTP/1.1\r\n".into(), Ok(None)),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n".into(), Err(RequestLine)),
            ("\rGET / HTTP/1.1\r\n\r\n".into(), Err(BareCarriageReturn)),
            ("\nGET / HTTP/1.1\r\n\r\n".into(), Err(BareLineFeed)),
            (" GET / HTTP/1.1\r\n\r\n".into(), Err(RequestLine)),
            ("\0".into(), Err(RequestLine)),
            ("\u{80}".into(), Err(RequestLine)),
            ("\u{16}\u{3}\u{1}".into(), Err(TlsOnPlainPort)),
            ("GET / HTTP/1.1\n\n".into(), Err(BareLineFeed)),
            ("GET / HTTP/1.1\r\n\n".into(), Err(BareLineFeed)),
            ("GET / HTTP/1.1\r\nA: b\n\r\n".into(), Err(BareLineFeed)),
            (line(64), Ok(None)),
            (line(64) + "\r\n", Ok(Some(66))),
            (line(65), Err(LineTooLong)),
            (line(65) + "\r\n", Err(LineTooLong)),
            ("x".repeat(65), Err(LineTooLong)),
            ("x".repeat(200) + "\n", Err(LineTooLong)),
            (head(128), Ok(Some(128))),
            (format!("\r\n{}", head(128)), Ok(Some(130))),
            (head(129), Err(HeadTooLong)),
            (head(129).replace("\r\n\r\n", "\n\r\n"), Err(BareLineFeed)),
            (head(400), Err(HeadTooLong)),
        ] {
            let input = input.as_bytes();
            let every: Vec<usize> = (0..input.len()).collect();
            assert_eq!(at_once(input), expected, "{input:?}");
            assert_eq!(
                in_pieces(input, &every),
                expected,
                "byte by byte: {input:?}"
            );
            for split in 0..input.len() {
                assert_eq!(
                    in_pieces(input, &[split]),
                    expected,
                    "split at {split}: {input:?}"
                );
            }
        }
    }

    #[test]
    fn a_finder_serves_the_next_head_too() {
        let mut finder = Finder::default();
        let heads = b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        assert_eq!(finder.find(heads, &LIMITS), Ok(Some(24)));
        assert_eq!(finder.find(&heads[24..30], &LIMITS), Ok(None));
        assert_eq!(finder.find(&heads[24..], &LIMITS), Ok(Some(19)));
    }

    #[test]
    fn a_limit_on_the_head_below_that_on_the_line() {
        let limits = Limits {
            line: 100,
            head: 50,
            fields: 1,
        };
        let input = [b'x'; 200];
        for length in [51, 99, 100, 101, 200] {
            let found = Finder::default().find(&input[..length], &limits);
            assert_eq!(found, Err(Refusal::HeadTooLong), "{length}");
        }
    }

    #[test]
    fn what_is_no_head_at_all() {
        for input in [
            "",
            "\r",
            "\n",
            "\r\n",
            "GET",
            "\r\n\r\n",
            "\r\n\n",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n\r",
            "G\n\r\n",
        ] {
            let head = Bytes::copy_from_slice(input.as_bytes());
            assert!(RequestHead::parse(&head, &LIMITS).is_err(), "{input:?}");
            assert!(ResponseHead::parse(head, &LIMITS).is_err(), "{input:?}");
        }
    }

    #[test]
    fn persistence() {
        for (version, fields, keeps) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: Close\r\n", false),
            ("1.1", "Connection: upgrade, close\r\n", false),
            (
                "1.1",
                "Connection: keep-alive\r\nConnection: close\r\n",
                false,
            ),
            ("1.1", "Connection: closed\r\n", true),
            ("1.1", "Connection: upgrade\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.0", "Connection: x, Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
            ("1.0", "Connection: close, keep-alive\r\n", false),
            ("1.0", "Keep-Alive: timeout=5\r\n", false),
        ] {
            let request = format!("GET / HTTP/{version}\r\n{fields}\r\n");
            let request = RequestHead::parse(&request.into(), &LIMITS).expect("good");
            assert_eq!(request.keep_alive(), keeps, "{version} {fields:?}");
            let response = format!("HTTP/{version} 200 OK\r\n{fields}\r\n");
            let response = ResponseHead::parse(response.into(), &LIMITS).expect("good");
            assert_eq!(response.keep_alive(), keeps, "{version} {fields:?}");
        }
    }

    #[test]
    fn methods() {
        for name in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
        ] {
            let method = Method::parse(&Bytes::from_static(name.as_bytes())).expect("a token");
            assert_eq!(method.as_str(), name);
            assert!(!matches!(method, Method::Other(_)), "{name}");
        }
        for name in ["get", "PROPFIND", "M-SEARCH", "X!#$%&'*+.^_`|~"] {
            let method = Method::parse(&Bytes::from_static(name.as_bytes())).expect("a token");
            assert_eq!(method, Method::Other(Bytes::from_static(name.as_bytes())));
            assert_eq!(method.as_bytes(), name.as_bytes());
        }
        for name in ["", "G T", "GET/", "(", "G\0", "\u{e4}"] {
            let method = Method::parse(&Bytes::from_static(name.as_bytes()));
            assert_eq!(method, Err(Refusal::Method), "{name:?}");
        }
    }
}
