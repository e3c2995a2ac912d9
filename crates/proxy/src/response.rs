//! A response on its way to the client, before a connection gives it its framing.

use std::{cell::RefCell, sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::{
    compress::Encoded,
    failure::Failure,
    files::FileContent,
    origin::{live::Duplex, relay::Relay},
    put::{put, put_line},
    upstream::Tunnel,
};

/// What a connection writes. Framing fields (`Content-Length`, `Transfer-Encoding`, `Connection`) are not in `fields`: the
/// connection makes them from [`Content`], so they cannot disagree with what follows.
#[derive(Debug)]
pub(crate) struct Response {
    /// 200 to 599.
    pub(crate) status: u16,
    /// The field section.
    pub(crate) fields: FieldLines,
    /// What follows the head.
    pub(crate) content: Content,
}

/// What follows a response head.
#[derive(Debug)]
pub(crate) enum Content {
    /// Nothing, and nothing is said of a length: 204, 304.
    None,
    /// Nothing follows, but the length of what GET would get is told (HEAD).
    Head(Option<u64>),
    /// In memory.
    Bytes(Bytes),
    /// An open file.
    File(FileContent),
    /// Coming from an origin.
    Relay(Relay),
    /// The same, while the request goes on.
    Duplex(Box<Duplex>),
    /// One of these, in a coding.
    Encoded(Box<Encoded>),
    /// Whatever both sides make of it, after 101.
    Tunnel(Box<Tunnel>),
}

impl Content {
    /// The length, where it is known before the content has ended.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::None | Self::Encoded(_) | Self::Tunnel(_) | Self::Duplex(_) => None,
            Self::Head(length) => *length,
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.length()),
            Self::Relay(relay) => relay.length(),
        }
    }

    /// Whether sending it may take a while: the time of its first byte is then worth knowing.
    pub(crate) fn is_long(&self) -> bool {
        const LONG: u64 = 64 * 1024;
        match self {
            Self::None | Self::Head(_) | Self::Bytes(_) => false,
            _ => self.length().is_none_or(|length| length > LONG),
        }
    }

    /// The same for a client that asked for the head alone (RFC 9110 §9.3.2).
    pub(crate) fn without_content(self) -> Self {
        match self {
            Self::None => Self::None,
            other => Self::Head(other.length()),
        }
    }
}

impl Response {
    /// A response with no fields yet.
    pub(crate) fn new(status: u16, content: Content) -> Self {
        Self {
            status,
            fields: FieldLines::default(),
            content,
        }
    }

    /// The same with one field more. The value must be a valid field value.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push(name.as_bytes(), value.as_ref());
        self
    }
}

/// Content that is still coming.
pub(crate) trait Pieces: Send {
    /// The next piece; `None` after the last.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, Failure>>> + Send;

    /// The next piece if it is here already.
    fn next_now(&mut self) -> Option<Bytes> {
        None
    }

    /// After the last piece: what stands behind it, for who can be told (RFC 9110 §6.5).
    fn trailers(&mut self) -> Option<FieldLines> {
        None
    }
}

impl Pieces for Relay {
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, Failure>>> + Send {
        self.next()
    }

    fn next_now(&mut self) -> Option<Bytes> {
        self.next_now()
    }

    fn trailers(&mut self) -> Option<FieldLines> {
        self.trailers()
    }
}

impl Pieces for Encoded {
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, Failure>>> + Send {
        self.next()
    }
}

/// What a configuration changes in the fields of responses: `headers` of a site or a route.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    /// What goes, be it because something else comes.
    names: Vec<Box<[u8]>>,
    lines: FieldLines,
    /// What comes where nobody has said otherwise.
    cautions: &'static [(&'static [u8], &'static [u8])],
}

/// `security_headers`: no guessing of types, no frames of other sites, no paths to other sites. Each is what browsers will do by
/// themselves one day, and none needs to know the site; a content security policy does, and is written in `headers`.
const CAUTIONS: &[(&[u8], &[u8])] = &[
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"SAMEORIGIN"),
    (b"Referrer-Policy", b"strict-origin-when-cross-origin"),
];

impl Edits {
    /// `None` where nothing is changed.
    pub(crate) fn new(headers: &config::site::Headers, cautious: bool) -> Option<Self> {
        if headers.0.is_empty() && !cautious {
            return None;
        }
        let mut edits = Self {
            cautions: if cautious { CAUTIONS } else { &[] },
            ..Self::default()
        };
        for (name, value) in &headers.0 {
            edits.names.push(name.as_bytes().into());
            if let Some(value) = value {
                edits.lines.push(name.as_bytes(), value.as_bytes());
            }
        }
        Some(edits)
    }

    fn concern(&self, name: &[u8]) -> bool {
        self.names
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// A field section as HTTP/1.1 writes it, ready to be copied behind a status line.
///
/// Its beginning may be shared with other responses: what is the same for every response from a file is put together once.
#[derive(Clone, Default)]
pub(crate) struct FieldLines {
    shared: Bytes,
    own: Vec<u8>,
}

impl FieldLines {
    /// Room for about `bytes` of lines.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            shared: Bytes::new(),
            own: Vec::with_capacity(bytes),
        }
    }

    /// Begins with lines that are shared with others ([`Self::into_shared`]).
    pub(crate) fn beginning(shared: &Bytes) -> Self {
        Self {
            shared: shared.clone(),
            // Date, request id, server: what every response has of its own.
            own: Vec::with_capacity(128),
        }
    }

    /// All lines, to be shared.
    pub(crate) fn into_shared(self) -> Bytes {
        if self.shared.is_empty() {
            return self.own.into();
        }
        [&self.shared[..], &self.own].concat().into()
    }

    /// Adds a line. Names and values come from parsed heads, checked configuration or our own constants.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        put_line(&mut self.own, name, value);
    }

    /// Appends all lines, each with its CRLF.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        if !self.shared.is_empty() {
            put(out, &self.shared);
        }
        put(out, &self.own);
    }

    /// The value of the first line of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Keeps the lines of which this is true.
    pub(crate) fn retain(&mut self, keep: impl Fn(&[u8], &[u8]) -> bool) {
        if self.iter().all(|(name, value)| keep(name, value)) {
            return;
        }
        let mut kept = Self::with_capacity(self.shared.len() + self.own.len());
        for (name, value) in self.iter().filter(|(name, value)| keep(name, value)) {
            kept.push(name, value);
        }
        *self = kept;
    }

    /// Removes what is to go and adds what is to come.
    pub(crate) fn edit(&mut self, edits: &Edits) {
        self.retain(|name, _| !edits.concern(name));
        for (name, value) in edits.cautions {
            let said = self.iter().any(|(said, _)| said.eq_ignore_ascii_case(name));
            if !said && !edits.concern(name) {
                self.push(name, value);
            }
        }
        self.own.extend_from_slice(&edits.lines.own);
    }

    /// Name and value of each line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        lines(&self.shared).chain(lines(&self.own))
    }
}

/// Name and value of each line of a field section as HTTP/1.1 writes it.
pub(crate) fn lines(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let colon = memchr::memchr(b':', rest)?;
        let end = memchr::memmem::find(rest, b"\r\n").expect("each line was pushed with its CRLF");
        let line = (&rest[..colon], &rest[colon + 2..end]);
        rest = &rest[end + 2..];
        Some(line)
    })
}

impl std::fmt::Debug for FieldLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = Vec::new();
        self.write_to(&mut all);
        f.write_str(&String::from_utf8_lossy(&all))
    }
}

/// A time as fields have it (RFC 9110 §5.6.7); `None` of one that no such date can be: a file may be of any time, before 1970 and
/// behind the year 9999 as well.
pub(crate) fn http_date(time: SystemTime) -> Option<String> {
    const BEHIND: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < BEHIND).then(|| httpdate::fmt_http_date(time))
}

/// The value of `Date` (RFC 9110 §6.6.1) for `now`, formatted once a second on each thread.
pub(crate) fn date(now: SystemTime) -> Arc<str> {
    thread_local! {
        static LAST: RefCell<(u64, Arc<str>)> = RefCell::new((0, Arc::from("")));
    }
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|last| {
        if last.0 != second || last.1.is_empty() {
            *last = (second, Arc::from(httpdate::fmt_http_date(now)));
        }
        Arc::clone(&last.1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_and_removed() {
        let headers = config::site::Headers(vec![
            ("Server".into(), None),
            ("X-Frame-Options".into(), Some("DENY".into())),
        ]);
        let edits = Edits::new(&headers, false).expect("something is changed");
        for (before, after) in [
            (&[("A", "1")][..], "A: 1\r\nX-Frame-Options: DENY\r\n"),
            (
                &[("server", "x"), ("A", "1"), ("SERVER", "y")],
                "A: 1\r\nX-Frame-Options: DENY\r\n",
            ),
            (
                &[("x-frame-options", "SAMEORIGIN"), ("X-Frame", "kept")],
                "X-Frame: kept\r\nX-Frame-Options: DENY\r\n",
            ),
            (&[], "X-Frame-Options: DENY\r\n"),
        ] {
            let mut lines = FieldLines::default();
            for (name, value) in before {
                lines.push(name.as_bytes(), value.as_bytes());
            }
            lines.edit(&edits);
            assert_eq!(lines.into_shared(), after, "{before:?}");
        }
    }

    #[test]
    fn lines_are_read_back() {
        let mut lines = FieldLines::default();
        lines.push(b"A", b"1");
        lines.push(b"B", b"x: y");
        let mut lines = FieldLines::beginning(&lines.into_shared());
        lines.push(b"C", b"");
        let all = [(&b"A"[..], &b"1"[..]), (b"B", b"x: y"), (b"C", b"")];
        assert_eq!(lines.iter().collect::<Vec<_>>(), all);
        let mut out = Vec::new();
        lines.write_to(&mut out);
        assert_eq!(out, b"A: 1\r\nB: x: y\r\nC: \r\n");
        assert_eq!(lines.clone().into_shared(), out);
        lines.retain(|name, _| name != b"B");
        assert_eq!(lines.iter().collect::<Vec<_>>(), [all[0], all[2]]);
    }
}
