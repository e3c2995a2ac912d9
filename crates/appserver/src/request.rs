//! A request head as the proxy writes it.
//!
//! The proxy is the strict parser (RFC 9112); what arrives here is its own known-good serialisation: one request line, CRLF
//! line ends, no folding, no chunked content, and a `_stack` field that says who the client is. So this is a scanner and not
//! a parser: it finds the parts in one pass, allocates nothing per field, and calls everything else garbage.

use std::str;

use memchr::memchr;
use message::handoff::{
    CERTIFICATE, Certificate, GREETING, Handoff, REQUEST, SCRIPT, TARGET, USER,
};

use crate::content::Content;

/// Why a head is not one that our proxy writes. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// Not `METHOD target HTTP/1.1`.
    #[error("the request line is malformed")]
    RequestLine,
    /// A field line without a colon, without a name, or not ended by CRLF.
    #[error("a field line is malformed")]
    FieldLine,
    /// No `_stack` field, or one that cannot be read.
    #[error("the field _stack is missing or malformed")]
    Handoff,
    /// `Content-Length` is not one decimal number.
    #[error("Content-Length is not a number or is repeated")]
    ContentLength,
    /// The proxy never sends chunked content.
    #[error("Transfer-Encoding is never sent to a slot")]
    TransferEncoding,
    /// The head does not end within [`crate::serve::HEAD_LIMIT`].
    #[error("the head is longer than {} bytes", crate::serve::HEAD_LIMIT)]
    TooLong,
    /// Bytes follow the request before it was answered.
    #[error("bytes follow the request before it was answered")]
    Pipelined,
}

/// A place in the head.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, head: &[u8]) -> &[u8] {
        &head[self.start..self.end]
    }
}

/// Where the parts of a head are. Reused from request to request.
#[derive(Debug, Default)]
pub(crate) struct Index {
    method: Span,
    target: Span,
    handoff: Option<Span>,
    raw_target: Option<Span>,
    script: Option<Span>,
    user: Option<Span>,
    certificate: Option<Span>,
    greeting: Option<Span>,
    content_length: Option<u64>,
    fields: Vec<(Span, Span)>,
}

impl Index {
    /// Scans one whole head, its final empty line included.
    pub(crate) fn scan(&mut self, head: &[u8]) -> Result<(), Garbage> {
        self.handoff = None;
        self.raw_target = None;
        self.script = None;
        self.user = None;
        self.certificate = None;
        self.greeting = None;
        self.content_length = None;
        self.fields.clear();
        let mut at = self.scan_request_line(head)?;
        while &head[at..] != b"\r\n" {
            at = self.scan_field_line(head, at)?;
        }
        Ok(())
    }

    fn scan_request_line(&mut self, head: &[u8]) -> Result<usize, Garbage> {
        let end = line_end(head, 0).ok_or(Garbage::RequestLine)?;
        let line = &head[..end];
        let method = memchr(b' ', line).ok_or(Garbage::RequestLine)?;
        let rest = line
            .len()
            .checked_sub(b" HTTP/1.1".len())
            .filter(|&rest| rest > method + 1 && &line[rest..] == b" HTTP/1.1")
            .ok_or(Garbage::RequestLine)?;
        if method == 0 || memchr(b' ', &line[method + 1..rest]).is_some() {
            return Err(Garbage::RequestLine);
        }
        self.method = Span {
            start: 0,
            end: method,
        };
        self.target = Span {
            start: method + 1,
            end: rest,
        };
        Ok(end + 2)
    }

    fn scan_field_line(&mut self, head: &[u8], at: usize) -> Result<usize, Garbage> {
        let end = line_end(head, at).ok_or(Garbage::FieldLine)?;
        let colon = memchr(b':', &head[at..end]).ok_or(Garbage::FieldLine)? + at;
        if colon == at {
            return Err(Garbage::FieldLine);
        }
        let value = trim(head, colon + 1, end);
        let name = Span {
            start: at,
            end: colon,
        };
        self.keep(head, name, value)?;
        Ok(end + 2)
    }

    /// Sorts a field to its place: our own, framing, or the client's.
    fn keep(&mut self, head: &[u8], name: Span, value: Span) -> Result<(), Garbage> {
        let text = name.of(head);
        if text[0] == b'_' {
            // Only the proxy can have written these: a client's are never forwarded.
            if text == REQUEST.as_bytes() {
                self.handoff = Some(value);
            } else if text == TARGET.as_bytes() {
                self.raw_target = Some(value);
            } else if text == SCRIPT.as_bytes() {
                self.script = Some(value);
            } else if text == USER.as_bytes() {
                self.user = Some(value);
            } else if text == CERTIFICATE.as_bytes() {
                self.certificate = Some(value);
            } else if text == GREETING.as_bytes() {
                self.greeting = Some(value);
            }
            return Ok(());
        }
        if text.len() == 14 && text.eq_ignore_ascii_case(b"content-length") {
            if self.content_length.is_some() {
                return Err(Garbage::ContentLength);
            }
            self.content_length = Some(decimal(value.of(head)).ok_or(Garbage::ContentLength)?);
        } else if text.len() == 17 && text.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(Garbage::TransferEncoding);
        }
        self.fields.push((name, value));
        Ok(())
    }

    /// The build id of a greeting, if this is one.
    pub(crate) fn greeting<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        let greets = self.method.of(head) == b"OPTIONS" && self.target.of(head) == b"*";
        self.greeting.filter(|_| greets).map(|value| value.of(head))
    }

    /// How many bytes of content follow the head.
    pub(crate) fn content_length(&self) -> u64 {
        self.content_length.unwrap_or(0)
    }

    /// The request, borrowed from its head.
    pub(crate) fn request<'a>(
        &'a self,
        head: &'a [u8],
        content: Option<&'a Content>,
    ) -> Result<Request<'a>, Garbage> {
        let handoff = self
            .handoff
            .and_then(|value| Handoff::parse(value.of(head)));
        let target = self.target.of(head);
        let (path, query) = match memchr(b'?', target) {
            Some(mark) => (&target[..mark], &target[mark + 1..]),
            None => (target, &target[target.len()..]),
        };
        Ok(Request {
            head,
            index: self,
            handoff: handoff.ok_or(Garbage::Handoff)?,
            path,
            query,
            content,
        })
    }
}

/// One request. It borrows the slot's buffer, so it ends before the next one is read.
#[derive(Debug)]
pub struct Request<'a> {
    head: &'a [u8],
    index: &'a Index,
    handoff: Handoff<'a>,
    path: &'a [u8],
    query: &'a [u8],
    content: Option<&'a Content>,
}

impl<'a> Request<'a> {
    /// The method as sent.
    pub fn method(&self) -> &'a [u8] {
        self.index.method.of(self.head)
    }

    /// The path of the target, percent-encoded, without the query.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// What follows the first `?`; empty if nothing does.
    pub fn query(&self) -> &'a [u8] {
        self.query
    }

    /// The target exactly as the client sent it.
    pub fn raw_target(&self) -> &'a [u8] {
        self.index
            .raw_target
            .unwrap_or(self.index.target)
            .of(self.head)
    }

    /// How many bytes of the decoded path name the place at which the app is mounted: `SCRIPT_NAME` (PEP 3333).
    pub fn script_length(&self) -> usize {
        let length = self
            .index
            .script
            .and_then(|value| decimal(value.of(self.head)));
        length.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The user who has shown to be it, if any had to: `REMOTE_USER`.
    pub fn user(&self) -> Option<&'a [u8]> {
        self.index.user.map(|value| value.of(self.head))
    }

    /// What came of asking for a client's certificate: `None` where nobody asked, `Some(None)` where it showed none.
    pub fn certificate(&self) -> Option<Option<Certificate<'a>>> {
        let value = self.index.certificate?;
        Some(Certificate::parse(value.of(self.head)))
    }

    /// Who asks: the client, the scheme, the server's name and port, the request id.
    pub fn handoff(&self) -> &Handoff<'a> {
        &self.handoff
    }

    /// The client's fields in order, ours excluded; names as sent, values trimmed.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let head = self.head;
        self.index
            .fields
            .iter()
            .map(move |(name, value)| (name.of(head), value.of(head)))
    }

    /// The content; `None` if there is none.
    pub fn content(&self) -> Option<&'a Content> {
        self.content
    }

    /// Whether this is a HEAD request, whose response has no content.
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }
}

/// Where the line that starts at `at` ends: the place of its CRLF. A bare CR or LF is no line end, and no part of a line.
fn line_end(head: &[u8], at: usize) -> Option<usize> {
    let feed = memchr(b'\n', &head[at..])? + at;
    let end = feed
        .checked_sub(1)
        .filter(|&end| end >= at && head[end] == b'\r')?;
    Some(end)
}

fn trim(head: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && matches!(head[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(head[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Span { start, end }
}

/// `1*DIGIT` (RFC 9110 §8.6): no sign, no space, no overflow.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str = "_stack: 192.0.2.1 5000 https example.org 443 id\r\n";

    fn scan(head: &str) -> Result<Index, Garbage> {
        let mut index = Index::default();
        index.scan(head.as_bytes()).map(|()| index)
    }

    #[test]
    fn a_request_has_its_parts() {
        let head = format!(
            "POST /a%20b?c=d?e HTTP/1.1\r\n{WHO}_target: /x/../a%20b?c=d?e\r\n_script: 2\r\n_user: ann\r\nHost: example.org\r\nAccept:\t a \r\n\
             X-Empty:\r\nContent-Length: 12\r\n\r\n"
        );
        let index = scan(&head).unwrap();
        let request = index.request(head.as_bytes(), None).unwrap();
        assert_eq!(request.method(), b"POST");
        assert_eq!(request.path(), b"/a%20b");
        assert_eq!(request.query(), b"c=d?e");
        assert_eq!(request.raw_target(), b"/x/../a%20b?c=d?e");
        assert_eq!(request.script_length(), 2);
        assert_eq!(request.user(), Some(&b"ann"[..]));
        assert_eq!(request.handoff().client, "192.0.2.1");
        assert_eq!(index.content_length(), 12);
        assert_eq!(index.greeting(head.as_bytes()), None);
        let fields: Vec<_> = request.fields().collect();
        assert_eq!(
            fields,
            [
                (&b"Host"[..], &b"example.org"[..]),
                (b"Accept", b"a"),
                (b"X-Empty", b""),
                (b"Content-Length", b"12"),
            ]
        );
    }

    #[test]
    fn an_index_forgets_the_last_request() {
        let mut index = Index::default();
        let first = format!(
            "PUT /a HTTP/1.1\r\n{WHO}_target: /b\r\n_script: 1\r\n_user: ann\r\nX: y\r\nContent-Length: 1\r\n\r\n"
        );
        index.scan(first.as_bytes()).unwrap();
        let second = format!("GET /c HTTP/1.1\r\n{WHO}\r\n");
        index.scan(second.as_bytes()).unwrap();
        let request = index.request(second.as_bytes(), None).unwrap();
        assert_eq!(request.raw_target(), b"/c");
        assert_eq!(request.script_length(), 0);
        assert_eq!(request.user(), None);
        assert_eq!(request.query(), b"");
        assert_eq!(request.fields().count(), 0);
        assert_eq!(index.content_length(), 0);
    }

    #[test]
    fn what_the_proxy_never_writes_is_garbage() {
        for (head, garbage) in [
            ("\r\n", Garbage::RequestLine),
            ("GET\r\n\r\n", Garbage::RequestLine),
            ("GET /\r\n\r\n", Garbage::RequestLine),
            (" / HTTP/1.1\r\n\r\n", Garbage::RequestLine),
            ("GET  HTTP/1.1\r\n\r\n", Garbage::RequestLine),
            ("GET / HTTP/1.0\r\n\r\n", Garbage::RequestLine),
            ("GET /a b HTTP/1.1\r\n\r\n", Garbage::RequestLine),
            ("GET / HTTP/1.1\n\r\n", Garbage::RequestLine),
            ("GET / HTTP/1.1\r\nNo colon\r\n\r\n", Garbage::FieldLine),
            ("GET / HTTP/1.1\r\n: no name\r\n\r\n", Garbage::FieldLine),
            (
                "GET / HTTP/1.1\r\nBare: feed\nX: y\r\n\r\n",
                Garbage::FieldLine,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Garbage::TransferEncoding,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
                Garbage::ContentLength,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: \r\n\r\n",
                Garbage::ContentLength,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
                Garbage::ContentLength,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
                Garbage::ContentLength,
            ),
        ] {
            assert_eq!(scan(head).err(), Some(garbage), "{head:?}");
        }
        for who in [
            "",
            "_stack: \r\n",
            "_stack: a b c d e f\r\n",
            "_stack: a 1 http d 99999 f\r\n",
        ] {
            let head = format!("GET / HTTP/1.1\r\n{who}\r\n");
            let index = scan(&head).unwrap();
            assert_eq!(
                index.request(head.as_bytes(), None).err(),
                Some(Garbage::Handoff),
                "{head:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_the_scanner_panic(bytes: Vec<u8>, text in "[A-Z /:_\\r\\n\\-?a-z0-9.]{0,200}") {
            for head in [bytes.as_slice(), text.as_bytes()] {
                let head = [head, b"\r\n\r\n"].concat();
                let mut index = Index::default();
                if index.scan(&head).is_ok() {
                    let _ = index.request(&head, None);
                    let _ = index.greeting(&head);
                }
            }
        }
    }
}
