//! A response on its way to the client, before a connection gives it its framing.

use std::{cell::RefCell, sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::{files::FileContent, origin::relay::Relay};

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
    /// Coming from a slot.
    Relay(Relay),
}

impl Content {
    /// The length, where it is known before the content has ended.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Head(length) => *length,
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.length()),
            Self::Relay(relay) => relay.length(),
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

/// What a configuration changes in the fields of responses: `headers` of a site or a route.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    /// What goes, be it because something else comes.
    names: Vec<Box<[u8]>>,
    lines: FieldLines,
}

impl Edits {
    pub(crate) fn new(headers: &config::site::Headers) -> Self {
        let mut edits = Self::default();
        for (name, value) in &headers.0 {
            edits.names.push(name.as_bytes().into());
            if let Some(value) = value {
                edits.lines.push(name.as_bytes(), value.as_bytes());
            }
        }
        edits
    }

    fn concern(&self, name: &[u8]) -> bool {
        self.names
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// A field section as HTTP/1.1 writes it, ready to be copied behind a status line.
#[derive(Clone, Default)]
pub(crate) struct FieldLines(Vec<u8>);

impl FieldLines {
    /// Room for about `bytes` of lines.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a line. Names and values come from parsed heads, checked configuration or our own constants.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }

    /// All lines, each with its CRLF.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Removes what is to go and adds what is to come.
    pub(crate) fn edit(&mut self, edits: &Edits) {
        if self.iter().any(|(name, _)| edits.concern(name)) {
            let mut kept = Self::with_capacity(self.0.len() + edits.lines.0.len());
            for (name, value) in self.iter().filter(|(name, _)| !edits.concern(name)) {
                kept.push(name, value);
            }
            *self = kept;
        }
        self.0.extend_from_slice(&edits.lines.0);
    }

    /// Name and value of each line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let colon = memchr::memchr(b':', rest)?;
            let end =
                memchr::memmem::find(rest, b"\r\n").expect("each line was pushed with its CRLF");
            let line = (&rest[..colon], &rest[colon + 2..end]);
            rest = &rest[end + 2..];
            Some(line)
        })
    }
}

impl std::fmt::Debug for FieldLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
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
        let edits = Edits::new(&config::site::Headers(vec![
            ("Server".into(), None),
            ("X-Frame-Options".into(), Some("DENY".into())),
        ]));
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
            assert_eq!(lines.as_bytes(), after.as_bytes(), "{before:?}");
        }
    }

    #[test]
    fn lines_are_read_back() {
        let mut lines = FieldLines::default();
        lines.push(b"A", b"1");
        lines.push(b"B", b"x: y");
        lines.push(b"C", b"");
        let read: Vec<_> = lines.iter().collect();
        assert_eq!(read, [(&b"A"[..], &b"1"[..]), (b"B", b"x: y"), (b"C", b"")]);
    }
}
