//! Where a message's content ends (RFC 9112 §6, §7): decided once, as a value.

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    field::{self, Fields},
    head::{RequestHead, ResponseHead, Version},
    refusal::Refusal,
};

/// How the length of content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, to the last one.
    Chunked,
    /// To the end of the connection; responses alone.
    UntilClose,
}

/// The framing of a request (RFC 9112 §6.3).
///
/// # Errors
/// When it is given twice, or in a way that another recipient might read differently.
pub fn of_request(head: &RequestHead) -> Result<Body, Refusal> {
    Ok(of_fields(&head.fields, head.version)?.unwrap_or(Body::None))
}

/// The framing of a response (RFC 9112 §6.3).
///
/// # Errors
/// As [`of_request`].
pub fn of_response(head: &ResponseHead, request_was_head: bool) -> Result<Body, Refusal> {
    let stated = of_fields(&head.fields, head.version)?;
    if request_was_head || matches!(head.status, 100..200 | 204 | 304) {
        return Ok(Body::None);
    }
    Ok(stated.unwrap_or(Body::UntilClose))
}

fn of_fields(fields: &Fields, version: Version) -> Result<Option<Body>, Refusal> {
    let (mut lengths, mut codings) = (0, 0);
    let (mut length, mut coding) = (&b""[..], &b""[..]);
    for value in fields.all("content-length") {
        (lengths, length) = (lengths + 1, value);
    }
    for value in fields.all("transfer-encoding") {
        (codings, coding) = (codings + 1, value);
    }
    match (lengths, codings) {
        (0, 0) => Ok(None),
        (1, 0) => decimal(length).map(|length| Some(Body::Length(length))),
        (_, 0) => Err(Refusal::RepeatedContentLength),
        (1.., _) => Err(Refusal::ContentLengthAndTransferEncoding),
        _ if version == Version::Http10 => Err(Refusal::TransferEncodingInHttp10),
        (_, 1) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Body::Chunked)),
        _ => Err(Refusal::TransferCoding),
    }
}

/// One decimal number: no sign, no list, no overflow.
fn decimal(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    let text = str::from_utf8(value).map_err(|_| Refusal::ContentLength)?;
    text.parse().map_err(|_| Refusal::ContentLength)
}

/// What of chunked content a buffer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Content, never empty.
    Data(Bytes),
    /// Nothing yet.
    NeedMore,
    /// The last chunk and the trailers have been taken.
    End,
}

/// Decodes chunked content (RFC 9112 §7.1) as it comes. Extensions and trailers are checked, bounded and dropped.
///
/// Trailers are dropped because nothing behind us asks for them, and a trailer that is merged into the head could change
/// what was decided by it (RFC 9110 §6.5.1).
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Bytes of trailers so far.
    trailers: usize,
    /// Trailer lines so far.
    trailer_lines: usize,
    /// Where in the buffer the search for a line's end goes on.
    seen: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
    /// What was found cannot be read any further, whatever follows.
    Broken(Refusal),
}

/// Longest size line, and most bytes of extensions in one message: nobody uses them but attackers (CVE-2023-39326).
const SIZE_LINE: usize = 256;
const EXTENSIONS: usize = 16 * 1024;

/// Most bytes of trailers, and most lines: they are read only to be dropped.
const TRAILERS: usize = 8 * 1024;
const TRAILER_LINES: usize = 32;

impl Default for Chunked {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunked {
    /// At the start of content.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Size,
            extensions: 0,
            trailers: 0,
            trailer_lines: 0,
            seen: 0,
        }
    }

    /// Takes the next piece out of `buffer`. Between two calls the caller may only append to what is left in it.
    ///
    /// # Errors
    /// When the chunks are malformed; every later call says the same.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, Refusal> {
        loop {
            let step = match self.state {
                State::End => return Ok(Piece::End),
                State::Broken(refusal) => return Err(refusal),
                State::Data(_) if buffer.is_empty() => return Ok(Piece::NeedMore),
                State::Data(left) => return Ok(self.data(left, buffer)),
                State::Size => self.size_line(buffer),
                State::DataEnd => Self::data_end(buffer),
                State::Trailers => self.trailer_line(buffer),
            };
            match step {
                Ok(Some(next)) => self.state = next,
                Ok(None) => return Ok(Piece::NeedMore),
                Err(refusal) => self.state = State::Broken(refusal),
            }
        }
    }

    fn data(&mut self, left: u64, buffer: &mut BytesMut) -> Piece {
        let take = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let left = left - take as u64;
        self.state = match left {
            0 => State::DataEnd,
            left => State::Data(left),
        };
        Piece::Data(buffer.split_to(take).freeze())
    }

    fn data_end(buffer: &mut BytesMut) -> Result<Option<State>, Refusal> {
        match buffer[..] {
            [b'\r', b'\n', ..] => {
                buffer.advance(2);
                Ok(Some(State::Size))
            }
            [] | [b'\r'] => Ok(None),
            [b'\r', ..] => Err(Refusal::BareCarriageReturn),
            [b'\n', ..] => Err(Refusal::BareLineFeed),
            // More content than the size line said.
            _ => Err(Refusal::Chunk),
        }
    }

    /// A size line: `1*HEXDIG [ chunk-ext ] CRLF`.
    fn size_line(&mut self, buffer: &mut BytesMut) -> Result<Option<State>, Refusal> {
        let Some(end) = self.line_end(buffer, SIZE_LINE)? else {
            return Ok(None);
        };
        let line = &buffer[..end];
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let size = hexadecimal(&line[..digits])?;
        self.extension(&line[digits..])?;
        buffer.advance(end + 2);
        Ok(Some(match size {
            0 => State::Trailers,
            size => State::Data(size),
        }))
    }

    fn extension(&mut self, extension: &[u8]) -> Result<(), Refusal> {
        match extension {
            [] => return Ok(()),
            // Only `;` may follow: white space here has been read differently by different parsers (CVE-2025-55315).
            [b';', text @ ..] if text.iter().all(|&byte| field::is_value(byte)) => {}
            _ => return Err(Refusal::Chunk),
        }
        self.extensions += extension.len();
        if self.extensions > EXTENSIONS {
            return Err(Refusal::ChunkOverhead);
        }
        Ok(())
    }

    /// A trailer line, or the empty line that ends the content.
    fn trailer_line(&mut self, buffer: &mut BytesMut) -> Result<Option<State>, Refusal> {
        let Some(end) = self.line_end(buffer, TRAILERS - self.trailers)? else {
            return Ok(None);
        };
        if end == 0 {
            buffer.advance(2);
            return Ok(Some(State::End));
        }
        field::parse_line(&buffer[..end + 2], 0)?;
        buffer.advance(end + 2);
        self.trailer_lines += 1;
        self.trailers = TRAILERS.min(self.trailers + end + 2);
        if self.trailer_lines > TRAILER_LINES {
            return Err(Refusal::ChunkOverhead);
        }
        Ok(Some(State::Trailers))
    }

    /// How long the line at the start of the buffer is without its CRLF; `None` if that is not there yet.
    fn line_end(&mut self, buffer: &[u8], longest: usize) -> Result<Option<usize>, Refusal> {
        let found = memchr::memchr2(b'\n', b'\r', &buffer[self.seen..]);
        let end = found.map_or(buffer.len(), |found| self.seen + found);
        if end > longest {
            return Err(Refusal::ChunkOverhead);
        }
        match buffer[end..] {
            [] | [b'\r'] => {
                self.seen = end;
                Ok(None)
            }
            [b'\r', b'\n', ..] => {
                self.seen = 0;
                Ok(Some(end))
            }
            [b'\n', ..] => Err(Refusal::BareLineFeed),
            _ => Err(Refusal::BareCarriageReturn),
        }
    }
}

/// `1*HEXDIG` without overflow. More than sixteen digits are no honest size, be it for leading zeros.
fn hexadecimal(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || digits.len() > 16 {
        return Err(Refusal::Chunk);
    }
    Ok(digits.iter().fold(0, |sum, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        sum << 4 | u64::from(value)
    }))
}

/// Writes the size line of a chunk of `length` bytes, which is not 0.
pub fn chunk_head(length: usize, out: &mut Vec<u8>) {
    let mut digits = [0; size_of::<usize>() * 2];
    let mut rest = length;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All content, and how it ended; the input comes in the given pieces.
    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Result<Option<usize>, Refusal>) {
        let (mut chunked, mut buffer, mut content) = (Chunked::new(), BytesMut::new(), Vec::new());
        let mut ended = false;
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !ended {
                match chunked.decode(&mut buffer) {
                    Ok(Piece::Data(data)) => {
                        assert!(!data.is_empty(), "Data is never empty");
                        content.extend_from_slice(&data);
                    }
                    Ok(Piece::NeedMore) => break,
                    Ok(Piece::End) => ended = true,
                    Err(refusal) => {
                        assert_eq!(chunked.decode(&mut buffer), Err(refusal), "it stays broken");
                        return (content, Err(refusal));
                    }
                }
            }
        }
        (content, Ok(ended.then_some(buffer.len())))
    }

    #[test]
    fn content() {
        for (input, expected, left) in [
            ("0\r\n\r\n", "", Some(0)),
            ("1\r\nx\r\n0\r\n\r\n", "x", Some(0)),
            (
                "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET",
                "hello world",
                Some(3),
            ),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789", Some(0)),
            ("a\r\n0123456789\r\n000\r\n\r\n", "0123456789", Some(0)),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", Some(0)),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", Some(0)),
            ("1;a\r\nx\r\n0;b=\"c d\"\r\n\r\n", "x", Some(0)),
            ("1;\ta = b\r\nx\r\n0\r\n\r\n", "x", Some(0)),
            ("0\r\nA: b\r\nC:\r\n\r\n", "", Some(0)),
            ("0\r\nContent-Length: 5\r\n\r\nhello", "", Some(5)),
            ("", "", None),
            ("5", "", None),
            ("5\r", "", None),
            ("5\r\nhel", "hel", None),
            ("5\r\nhello\r", "hello", None),
            ("0\r\n", "", None),
            ("0\r\nA: b\r\n", "", None),
            ("0\r\n\r", "", None),
            ("ffffffffffffffff\r\nx", "x", None),
        ] {
            let found = decode(&[input.as_bytes()]);
            assert_eq!(found, (expected.as_bytes().to_vec(), Ok(left)), "{input:?}");
        }
    }

    #[test]
    fn refused() {
        use Refusal::{
            BareCarriageReturn, BareLineFeed, Chunk, ChunkOverhead, FieldName, FieldValue,
        };
        let long = |length: usize| "x".repeat(length);
        let long_extension = format!("1;{}\r\n", long(SIZE_LINE));
        let extensions = format!("1;{}\r\nx\r\n", long(200)).repeat(EXTENSIONS / 200 + 1);
        let long_trailer = format!("0\r\nA: {}\r\n\r\n", long(TRAILERS));
        let trailers = format!("0\r\n{}\r\n", format!("A: {}\r\n", long(1000)).repeat(9));
        // The bound is reached by the CRLF of a line: what is left must not wrap round.
        let exact = format!("0\r\nA:{}\r\nA: b\r\n", long(TRAILERS - 2));
        let many = format!("0\r\n{}\r\n", "A:\r\n".repeat(TRAILER_LINES + 1));
        for (input, refusal) in [
            ("\r\n", Chunk),
            ("x\r\n", Chunk),
            ("0x1\r\nx\r\n", Chunk),
            ("+1\r\nx\r\n", Chunk),
            ("-1\r\nx\r\n", Chunk),
            (" 1\r\nx\r\n", Chunk),
            ("1 \r\nx\r\n", Chunk),
            ("1 ;a\r\nx\r\n", Chunk),
            ("1\t\r\nx\r\n", Chunk),
            ("1,a\r\nx\r\n", Chunk),
            ("1_0\r\nx\r\n", Chunk),
            (";a\r\n", Chunk),
            ("1;a\0\r\nx\r\n", Chunk),
            ("1;a\u{7f}\r\nx\r\n", Chunk),
            ("10000000000000000\r\n", Chunk),
            ("00000000000000001\r\n", Chunk),
            ("fffffffffffffffff\r\n", Chunk),
            ("1\nx\n0\n\n", BareLineFeed),
            ("1;a\nx\r\n", BareLineFeed),
            ("1\rx\r\n", BareCarriageReturn),
            ("1;a\rb\r\nx\r\n", BareCarriageReturn),
            ("1\r\r\nx\r\n", BareCarriageReturn),
            ("1\r\nx\n0\r\n\r\n", BareLineFeed),
            ("1\r\nx\r0\r\n\r\n", BareCarriageReturn),
            ("1\r\nxy\r\n0\r\n\r\n", Chunk),
            ("1\r\nx0\r\n\r\n", Chunk),
            ("0\r\n\n", BareLineFeed),
            ("0\r\n\rx", BareCarriageReturn),
            ("0\r\nA: b\n\r\n", BareLineFeed),
            ("0\r\nA: b\rc\r\n\r\n", BareCarriageReturn),
            ("0\r\nA\r\n\r\n", FieldName),
            ("0\r\n: b\r\n\r\n", FieldName),
            ("0\r\nA : b\r\n\r\n", Refusal::SpaceBeforeColon),
            ("0\r\nA: b\r\n c\r\n\r\n", Refusal::ObsFold),
            ("0\r\nA: \0\r\n\r\n", FieldValue),
            (&long_extension, ChunkOverhead),
            (&extensions, ChunkOverhead),
            (&long_trailer, ChunkOverhead),
            (&trailers, ChunkOverhead),
            (&exact, ChunkOverhead),
            (&many, ChunkOverhead),
        ] {
            assert_eq!(decode(&[input.as_bytes()]).1, Err(refusal), "{input:.40?}");
            let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
            assert_eq!(decode(&bytes).1, Err(refusal), "byte by byte: {input:.40?}");
        }
    }

    #[test]
    fn what_chunk_head_writes_is_read() {
        for length in [1, 9, 10, 15, 16, 255, 4096, 65_535, 1 << 20] {
            let mut wire = Vec::new();
            chunk_head(length, &mut wire);
            assert_eq!(wire, format!("{length:x}\r\n").into_bytes());
            wire.resize(wire.len() + length, b'x');
            wire.extend_from_slice(b"\r\n0\r\n\r\n");
            assert_eq!(decode(&[&wire]), (vec![b'x'; length], Ok(Some(0))));
        }
        let mut last = Vec::new();
        chunk_head(usize::MAX, &mut last);
        assert_eq!(last, b"ffffffffffffffff\r\n");
    }

    /// What resembles chunks: good ones, and pieces of everything that is checked.
    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(|content| {
                let mut chunk = format!("{:x}\r\n", content.len()).into_bytes();
                chunk.extend_from_slice(&content);
                chunk.extend_from_slice(b"\r\n");
                chunk
            }),
            1 => "[0-9a-f;x \r\n]{0,6}".prop_map(String::into_bytes),
            1 => Just(b"0\r\n\r\n".to_vec()),
            1 => Just(b"0\r\nA: b\r\n\r\n".to_vec()),
        ];
        proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn byte_by_byte_is_the_same_as_at_once(wire in wire()) {
            let bytes: Vec<&[u8]> = wire.chunks(1).collect();
            prop_assert_eq!(decode(&[&wire]), decode(&bytes));
        }

        #[test]
        fn any_split_is_the_same_as_at_once(wire in wire(), splits in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5)) {
            let mut places: Vec<usize> = splits.iter().map(|split| split.index(wire.len() + 1)).collect();
            places.sort_unstable();
            places.push(wire.len());
            let mut start = 0;
            let pieces: Vec<&[u8]> = places.iter().map(|&end| {
                let piece = &wire[start..end];
                start = end;
                piece
            }).collect();
            prop_assert_eq!(decode(&[&wire]), decode(&pieces));
        }

        #[test]
        fn random_bytes_never_panic(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (content, _) = decode(&[&wire]);
            prop_assert!(content.len() <= wire.len());
        }
    }
}
