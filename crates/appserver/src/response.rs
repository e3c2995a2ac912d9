//! A response on its way from the application to the proxy: the head, its framing, the content.
//!
//! Framing is decided here once, when the head is fixed (RFC 9112 §6), and kept whatever the application does: content past
//! its Content-Length is cut off, too little of it closes the connection, so that no byte of one response can be taken for
//! another. What an application must not say (PEP 3333, "The start_response() callable") is a [`Misuse`].
//! Date and Server are the proxy's to add.

use std::{
    fmt,
    io::{self, IoSlice, Write as _},
    mem::{self, MaybeUninit},
    ops::Range,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::Arc,
};

use message::{
    field::{is_hop_by_hop, is_token, is_value},
    framing::chunk_head,
    handoff::{self, FAILURE, FILE, TRACEBACK},
};
use rustix::{
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg},
};

use crate::request::decimal;

/// What an application did that its side of WSGI and HTTP forbids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// Not three digits from 200 to 999, a space, and a reason without control characters.
    #[error(
        "the status {0:?} is not three digits (200 or more), a space and a reason phrase without control characters"
    )]
    Status(String),
    /// The name of a field is not a token (RFC 9110 §5.1).
    #[error("the field name {0:?} is not a token")]
    Name(String),
    /// Names that start with `_` are how we talk to the proxy.
    #[error("the field name {0:?} starts with an underscore; such names are reserved")]
    Reserved(String),
    /// A value with CR, LF, NUL or another control character.
    #[error("the value of the field {0:?} contains a control character")]
    Value(String),
    /// A hop-by-hop field: the connection is the server's business.
    #[error("the field {0:?} is hop-by-hop, which PEP 3333 leaves to the server; leave it out")]
    HopByHop(String),
    /// Content-Length is not a number, or there are two of them.
    #[error("Content-Length {0:?} is not one decimal number")]
    ContentLength(String),
    /// More content than its Content-Length.
    #[error(
        "the content is longer than its Content-Length of {declared}; what is past it was cut off"
    )]
    TooLong {
        /// The Content-Length.
        declared: u64,
    },
    /// Less content than its Content-Length.
    #[error("the content ended {missing} bytes before its Content-Length of {declared}")]
    TooShort {
        /// The Content-Length.
        declared: u64,
        /// How much was missing.
        missing: u64,
    },
}

/// Why the runtime, and not the application, makes a response; the proxy writes the page for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The application raised an exception.
    Exception,
    /// The application broke the protocol.
    Protocol,
}

impl Failure {
    /// As the proxy reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exception => "exception",
            Self::Protocol => "protocol",
        }
    }
}

/// Status and fields as the application gave them, checked and serialised.
#[derive(Clone, Debug, Default)]
pub struct Head {
    status: u16,
    text: Vec<u8>,
    content_length: Option<u64>,
}

impl Head {
    /// Starts over with a status such as `200 OK`.
    pub fn start(&mut self, status: &[u8]) -> Result<(), Misuse> {
        let (digits, reason) = status.split_at(status.len().min(3));
        let code = decimal(digits).filter(|&code| digits.len() == 3 && code >= 200);
        let fits =
            reason.is_empty() || (reason[0] == b' ' && reason.iter().all(|&byte| is_value(byte)));
        let Some(code) = code.filter(|_| fits) else {
            return Err(Misuse::Status(readable(status)));
        };
        self.status = u16::try_from(code).expect("three digits");
        self.content_length = None;
        self.text.clear();
        self.text.extend_from_slice(b"HTTP/1.1 ");
        self.text.extend_from_slice(status);
        // The space after the code is there even without a reason (RFC 9112 §4).
        self.text
            .extend_from_slice(if reason.is_empty() { b" \r\n" } else { b"\r\n" });
        Ok(())
    }

    /// Starts over with what is said before the answer (103, RFC 8297).
    pub fn hints(&mut self) {
        self.status = 103;
        self.content_length = None;
        self.text.clear();
        self.text.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
    }

    /// Adds a field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
        check_field(name, value)?;
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            // Kept aside: framing decides whether and where it is written.
            return match decimal(value.trim_ascii()) {
                Some(length) if self.content_length.is_none_or(|other| other == length) => {
                    self.content_length = Some(length);
                    Ok(())
                }
                _ => Err(Misuse::ContentLength(readable(value))),
            };
        }
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The Content-Length that the application gave.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }
}

fn check_field(name: &[u8], value: &[u8]) -> Result<(), Misuse> {
    if !is_token(name) {
        return Err(Misuse::Name(readable(name)));
    }
    if name[0] == b'_' {
        return Err(Misuse::Reserved(readable(name)));
    }
    if !value.iter().all(|&byte| is_value(byte)) {
        return Err(Misuse::Value(readable(name)));
    }
    // The shortest and the longest of them: most names need no comparison.
    if (2..=19).contains(&name.len()) && is_hop_by_hop(name) {
        return Err(Misuse::HopByHop(readable(name)));
    }
    Ok(())
}

fn readable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Where a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is fixed yet.
    Head,
    /// The head is fixed; content goes out in this framing.
    Content(Framing),
    /// Everything is in `out` or on the wire.
    Done,
}

/// How the end of the content is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is no content, whatever the application says: HEAD, 204, 304.
    None,
    /// So many bytes are still to come, of so many.
    Length { left: u64, declared: u64 },
    /// Chunked.
    Chunked,
}

/// One response and the connection it goes to.
pub struct Response {
    stream: Option<Arc<UnixStream>>,
    is_head: bool,
    phase: Phase,
    /// Framed and not yet on the wire.
    out: Vec<u8>,
    /// Whether any byte of it is on the wire; hints are none.
    sent: bool,
    /// Whether content was cut off.
    excess: bool,
    /// The connection cannot carry another response.
    close: bool,
    /// Why a write failed.
    error: Option<io::Error>,
}

/// Up to here content is copied behind the head, beyond it is written from where it lies.
pub const COPIED: usize = 16 * 1024;

impl Response {
    /// For the connection `stream`.
    pub(crate) fn new(stream: Arc<UnixStream>) -> Self {
        Self {
            stream: Some(stream),
            ..Self::detached()
        }
    }

    /// A response to nobody: what a handle kept past its request writes to.
    pub fn detached() -> Self {
        Self {
            stream: None,
            is_head: false,
            phase: Phase::Head,
            out: Vec::new(),
            sent: false,
            excess: false,
            close: false,
            error: None,
        }
    }

    /// Makes ready for the next request.
    pub(crate) fn reset(&mut self, is_head: bool) {
        self.is_head = is_head;
        self.phase = Phase::Head;
        self.out.clear();
        // One huge response must not keep its memory for the life of the connection.
        self.out.shrink_to(4 * COPIED);
        self.sent = false;
        self.excess = false;
    }

    /// Fixes the head. `total` is the length of the content if the application has already given all of it.
    pub fn begin(&mut self, head: &Head, total: Option<u64>) {
        debug_assert_eq!(self.phase, Phase::Head, "a head is fixed once");
        let forbidden = matches!(head.status, 204 | 304);
        self.out.extend_from_slice(&head.text);
        // A 204 must not say a length (RFC 9110 §8.6); a 304 and the answer to HEAD may say that of the content they spare.
        let length = match (head.status, head.content_length) {
            (204, _) => None,
            (304, given) => given,
            // Nothing was made for HEAD, which says nothing of what GET would get (RFC 9110 §9.3.2).
            (_, given) if self.is_head && total == Some(0) => given,
            (_, given) => given.or(total),
        };
        if let Some(length) = length {
            self.out.extend_from_slice(b"Content-Length: ");
            push_decimal(&mut self.out, length);
            self.out.extend_from_slice(b"\r\n");
        }
        let framing = match length {
            _ if forbidden || self.is_head => Framing::None,
            Some(length) => Framing::Length {
                left: length,
                declared: length,
            },
            None => {
                self.out
                    .extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Framing::Chunked
            }
        };
        self.out.extend_from_slice(b"\r\n");
        self.phase = Phase::Content(framing);
    }

    /// Hands this range of a file to the proxy, which reads it itself: the response is complete after this. Never waits.
    ///
    /// `false`: nothing was done, and the content must be sent in the ordinary way. That is so where there must be no content,
    /// and when the kernel takes no descriptor now (too many are on their way, or the file was closed).
    pub fn hand_over(&mut self, head: &Head, file: BorrowedFd<'_>, range: &Range<u64>) -> bool {
        let length = range.end - range.start;
        if self.phase != Phase::Head || matches!(head.status, 204 | 304) {
            return false;
        }
        if self.is_head {
            self.begin(head, Some(length));
            self.phase = Phase::Done;
            return true;
        }
        let Some(stream) = &self.stream else {
            return false;
        };
        self.out.extend_from_slice(&head.text);
        write!(
            self.out,
            "{FILE}: {}\r\nContent-Length: {length}\r\n\r\n",
            range.start
        )
        .expect("a Vec takes any write");
        match send_with(stream, &self.out, file) {
            Ok(count) => {
                self.out.drain(..count);
                self.sent = true;
                self.phase = Phase::Done;
                true
            }
            Err(_) => {
                self.out.clear();
                false
            }
        }
    }

    /// Sends what is said before the answer, as much as the connection takes at once; whether that was all. The rest waits for
    /// [`Response::flush`]. Does nothing once the head is fixed: nobody waits for hints any more.
    pub fn hint(&mut self, hints: &Head) -> bool {
        debug_assert_eq!(hints.status, 103, "it is no answer");
        if self.phase == Phase::Head {
            self.out.extend_from_slice(&hints.text);
            self.out.extend_from_slice(b"\r\n");
        }
        self.flush_without_wait()
    }

    /// Whether the head is fixed.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Head
    }

    /// Whether there can be no content: HEAD, 204, 304.
    pub fn has_no_content(&self) -> bool {
        self.phase == Phase::Content(Framing::None)
    }

    /// Whether the connection failed; nothing more can be sent.
    pub fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    /// How many bytes wait for [`Response::flush`].
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    /// Whether the application gave more than its Content-Length.
    pub fn has_excess(&self) -> bool {
        self.excess
    }

    /// Frames content behind what waits already, by copying.
    pub fn push(&mut self, data: &[u8]) {
        let data = &data[..self.admit(data.len())];
        if data.is_empty() {
            return;
        }
        let chunked = self.phase == Phase::Content(Framing::Chunked);
        if chunked {
            chunk_head(data.len(), &mut self.out);
        }
        self.out.extend_from_slice(data);
        if chunked {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Frames content and sends it with all that waits, without copying it. Waits for the connection.
    pub fn write(&mut self, data: &[u8]) {
        let data = &data[..self.admit(data.len())];
        if data.is_empty() {
            return self.flush();
        }
        let chunked = self.phase == Phase::Content(Framing::Chunked);
        if chunked {
            chunk_head(data.len(), &mut self.out);
        }
        let out = mem::take(&mut self.out);
        self.send_all(&[&out, data, if chunked { b"\r\n" } else { b"" }]);
        self.out = out;
        self.out.clear();
    }

    /// Sends what waits. Waits for the connection.
    pub fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let out = mem::take(&mut self.out);
        self.send_all(&[&out]);
        self.out = out;
        self.out.clear();
    }

    /// Sends of what waits as much as the connection takes at once; whether that was all.
    pub fn flush_without_wait(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        if self.error.is_some() {
            self.out.clear();
            return true;
        }
        let Some(stream) = &self.stream else {
            self.broke(over());
            return true;
        };
        match send(stream, &self.out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => {
                self.sent |= self.has_begun();
                self.out.drain(..count);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.broke(error.into()),
        }
        self.out.is_empty()
    }

    /// How much of `offered` the framing has room for, and takes it off.
    fn admit(&mut self, offered: usize) -> usize {
        match &mut self.phase {
            Phase::Content(Framing::Chunked) => offered,
            Phase::Content(Framing::Length { left, .. }) => {
                let room = usize::try_from(*left).map_or(offered, |left| left.min(offered));
                self.excess |= room < offered;
                *left -= room as u64;
                room
            }
            Phase::Content(Framing::None) => 0,
            Phase::Head | Phase::Done => {
                debug_assert!(false, "content outside of a response");
                0
            }
        }
    }

    /// Ends the content as its framing asks. Content that was too short is not ended: [`Response::fail`] is for that.
    pub fn end(&mut self) -> Result<(), Misuse> {
        let Phase::Content(framing) = self.phase else {
            return Ok(());
        };
        if let Framing::Length {
            left: missing @ 1..,
            declared,
        } = framing
        {
            return Err(Misuse::TooShort { declared, missing });
        }
        self.phase = Phase::Done;
        match framing {
            Framing::Chunked => self.out.extend_from_slice(b"0\r\n\r\n"),
            Framing::Length { declared, .. } if self.excess => {
                return Err(Misuse::TooLong { declared });
            }
            Framing::Length { .. } | Framing::None => {}
        }
        Ok(())
    }

    /// Gives a response up that is not complete: with a 500 while nothing is on the wire, else by cutting the connection, so
    /// that nobody takes what was sent for the whole.
    pub fn fail(&mut self, failure: Failure) {
        self.fail_with(failure, None);
    }

    /// The same, with a traceback for who develops the app.
    pub fn fail_with(&mut self, failure: Failure, traceback: Option<&str>) {
        if self.phase == Phase::Done {
            return;
        }
        self.phase = Phase::Done;
        self.out.clear();
        if self.sent {
            self.close = true;
            return;
        }
        write!(
            self.out,
            "HTTP/1.1 500 Internal Server Error\r\n{FAILURE}: {}\r\n",
            failure.as_str()
        )
        .expect("a Vec takes any write");
        if let Some(traceback) = traceback {
            self.out
                .extend_from_slice(format!("{TRACEBACK}: ").as_bytes());
            handoff::write_text(traceback, &mut self.out);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    /// A response of the loop itself.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.phase = Phase::Done;
        self.out.extend_from_slice(bytes);
    }

    /// Whether the connection must end after this response.
    pub(crate) fn must_close(&self) -> bool {
        self.close || self.error.is_some() || self.phase != Phase::Done
    }

    /// Why a write failed.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    fn broke(&mut self, error: io::Error) {
        self.error = Some(error);
        self.out.clear();
    }

    fn send_all(&mut self, parts: &[&[u8]]) {
        if self.error.is_some() {
            return;
        }
        let Some(stream) = &self.stream else {
            return self.broke(over());
        };
        self.sent |= self.has_begun();
        if let Err(error) = send_all(stream, parts) {
            self.broke(error);
        }
    }
}

/// For handles that were kept past their request.
fn over() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the request is over")
}

/// Sends every part in order, in as few calls as the kernel allows. Never raises SIGPIPE, whatever the application made of it.
fn send_all(stream: &UnixStream, parts: &[&[u8]]) -> io::Result<()> {
    if let [single] = parts {
        return send_single(stream, single);
    }
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match sendmsg(
            stream,
            rest,
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        ) {
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends as much of `bytes` as there is room for, and with its first byte a descriptor.
fn send_with(stream: &UnixStream, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file];
    let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(fits, "the space is for one");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let count = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(count)
}

fn send_single(stream: &UnixStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match send(stream, rest, SendFlags::NOSIGNAL) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Response")
            .field("phase", &self.phase)
            .field("waiting", &self.out.len())
            .field("sent", &self.sent)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn head(status: &str, fields: &[(&str, &str)]) -> Result<Head, Misuse> {
        let mut head = Head::default();
        head.start(status.as_bytes())?;
        for (name, value) in fields {
            head.field(name.as_bytes(), value.as_bytes())?;
        }
        Ok(head)
    }

    /// What is on the wire after `act`, and whether the connection must end.
    fn wire(is_head: bool, act: impl FnOnce(&mut Response)) -> (String, bool) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut response = Response::new(Arc::new(ours));
        response.reset(is_head);
        act(&mut response);
        response.flush();
        let close = response.must_close();
        drop(response);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        (text, close)
    }

    #[test]
    fn framing_is_decided_once() {
        let plain = [];
        let long = [("Content-Length", "3")];
        // Status, fields, is HEAD, length known, the head's end and the content.
        for (status, fields, is_head, total, expected) in [
            (
                "200 OK",
                &plain[..],
                false,
                Some(3),
                "Content-Length: 3\r\n\r\nabc",
            ),
            (
                "200 OK",
                &plain,
                false,
                None,
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            ("200 OK", &long, false, None, "Content-Length: 3\r\n\r\nabc"),
            ("200 OK", &long, true, None, "Content-Length: 3\r\n\r\n"),
            ("200 OK", &plain, true, Some(3), "Content-Length: 3\r\n\r\n"),
            ("200 OK", &plain, true, None, "\r\n"),
            ("200 OK", &plain, true, Some(0), "\r\n"),
            ("204 No Content", &long, false, Some(3), "\r\n"),
            (
                "304 Not Modified",
                &long,
                false,
                Some(3),
                "Content-Length: 3\r\n\r\n",
            ),
            ("304 Not Modified", &plain, false, Some(3), "\r\n"),
        ] {
            let head = head(status, fields).unwrap();
            let (text, close) = wire(is_head, |response| {
                response.begin(&head, total);
                response.push(b"abc");
                response.end().unwrap();
            });
            assert_eq!(
                text,
                format!("HTTP/1.1 {status}\r\n{expected}"),
                "{status} {fields:?} {is_head} {total:?}"
            );
            assert!(!close);
        }
    }

    #[test]
    fn copied_and_uncopied_content_are_the_same() {
        let head = head("200 OK", &[]).unwrap();
        let pushed = wire(false, |response| {
            response.begin(&head, None);
            response.push(b"one");
            response.push(b"");
            response.push(b"two");
            response.end().unwrap();
        });
        let written = wire(false, |response| {
            response.begin(&head, None);
            response.write(b"one");
            response.write(b"");
            response.write(b"two");
            response.end().unwrap();
        });
        assert_eq!(pushed, written);
    }

    #[test]
    fn content_never_leaves_its_frame() {
        let head = head("200 OK", &[("Content-Length", "4")]).unwrap();
        let (text, close) = wire(false, |response| {
            response.begin(&head, Some(9));
            response.push(b"abc");
            response.write(b"def");
            response.push(b"ghi");
            assert!(response.has_excess());
            assert_eq!(response.end(), Err(Misuse::TooLong { declared: 4 }));
            response.fail(Failure::Protocol);
        });
        assert_eq!(
            (text.as_str(), close),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", false)
        );
        let (text, close) = wire(false, |response| {
            response.begin(&head, None);
            response.push(b"abc");
            response.flush();
            assert_eq!(
                response.end(),
                Err(Misuse::TooShort {
                    declared: 4,
                    missing: 1
                })
            );
            response.fail(Failure::Protocol);
        });
        assert_eq!(
            (text.as_str(), close),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", true)
        );
    }

    #[test]
    fn a_failure_before_the_first_byte_is_a_500() {
        let head = head("200 OK", &[]).unwrap();
        let (text, close) = wire(false, |response| {
            response.begin(&head, None);
            response.push(b"abc");
            response.fail(Failure::Exception);
        });
        let expected = "HTTP/1.1 500 Internal Server Error\r\n_failure: exception\r\nContent-Length: 0\r\n\r\n";
        assert_eq!((text.as_str(), close), (expected, false));
    }

    #[test]
    fn hints_are_no_part_of_the_response() {
        let mut hints = Head::default();
        hints.hints();
        hints.field(b"Link", b"</a>").unwrap();
        let (text, close) = wire(false, |response| {
            assert!(response.hint(&hints));
            response.fail(Failure::Exception);
        });
        let expected = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 500 Internal Server Error\r\n_failure: exception\r\nContent-Length: 0\r\n\r\n";
        assert_eq!((text.as_str(), close), (expected, false));
        let head = head("200 OK", &[]).unwrap();
        let (text, close) = wire(false, |response| {
            response.begin(&head, Some(0));
            assert!(response.hint(&hints), "too late");
            response.end().unwrap();
        });
        assert_eq!(
            (text.as_str(), close),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
        );
    }

    #[test]
    fn a_response_that_nobody_finished_ends_the_connection() {
        assert_eq!(wire(false, |_| {}), (String::new(), true));
    }

    #[test]
    fn statuses_and_fields_are_checked() {
        for status in [
            "",
            "2",
            "20",
            "2000",
            "199 No",
            "103 Early",
            "abc",
            "200OK",
            "200 a\r\nb",
            "200 \0",
            "+20 OK",
        ] {
            assert_eq!(
                head(status, &[]).unwrap_err(),
                Misuse::Status(status.to_owned())
            );
        }
        for status in ["200 OK", "200 ", "999 Odd", "404 caf\u{e9}"] {
            assert!(head(status, &[]).is_ok(), "{status}");
        }
        let name = |name: &str| name.to_owned();
        for (field, value, misuse) in [
            ("", "x", Misuse::Name(name(""))),
            ("a b", "x", Misuse::Name(name("a b"))),
            ("a:", "x", Misuse::Name(name("a:"))),
            ("_stack", "x", Misuse::Reserved(name("_stack"))),
            ("X", "a\rb", Misuse::Value(name("X"))),
            ("X", "a\nb", Misuse::Value(name("X"))),
            ("X", "a\0b", Misuse::Value(name("X"))),
            ("X", "a\x7fb", Misuse::Value(name("X"))),
            (
                "transfer-ENCODING",
                "chunked",
                Misuse::HopByHop(name("transfer-ENCODING")),
            ),
            ("TE", "x", Misuse::HopByHop(name("TE"))),
            ("Content-Length", "-1", Misuse::ContentLength(name("-1"))),
            (
                "Content-Length",
                "1, 1",
                Misuse::ContentLength(name("1, 1")),
            ),
        ] {
            assert_eq!(
                head("200 OK", &[(field, value)]).unwrap_err(),
                misuse,
                "{field:?}: {value:?}"
            );
        }
        let twice = head(
            "200 OK",
            &[("Content-Length", "1"), ("content-length", "2")],
        );
        assert_eq!(twice.unwrap_err(), Misuse::ContentLength(name("2")));
        assert!(head("200 OK", &[("X_Y", "a\tb")]).is_ok());
    }

    #[test]
    fn numbers_are_written_as_decimals() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
