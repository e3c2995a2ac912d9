//! Field sections (RFC 9110 §5): lines in order of arrival, as ranges of the buffer they came in.

use bytes::Bytes;

use crate::{
    mark::{Mark, Marks},
    refusal::Refusal,
};

/// A field section. Cheap to make: one allocation, however many lines.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    buffer: Bytes,
    lines: Vec<Line>,
    marks: Marks,
}

/// A field line.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The name as sent.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
    /// The name's.
    pub mark: Mark,
    /// Whether the name may be passed on ([`is_forwardable`]).
    pub is_forwardable: bool,
}

/// Where a line's name and value stand in the buffer. A head is far below 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
    mark: Mark,
    is_forwardable: bool,
}

impl Fields {
    /// Parses lines, each with its CRLF, up to the end of `section` (the empty line not included).
    pub(crate) fn parse(section: Bytes, most: usize) -> Result<Self, Refusal> {
        if u32::try_from(section.len()).is_err() {
            return Err(Refusal::HeadTooLong);
        }
        let mut lines = Vec::with_capacity(16);
        let mut marks = Marks::default();
        let mut at = 0;
        while at < section.len() {
            if lines.len() == most {
                return Err(Refusal::TooManyFields);
            }
            let (line, next) = parse_line(&section, at)?;
            at = next;
            marks.add(line.mark);
            lines.push(line);
        }
        Ok(Self {
            buffer: section,
            lines,
            marks,
        })
    }

    /// A section from pairs, as they are.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut collected = Collected::default();
        for (name, value) in pairs {
            collected.push(name, value);
        }
        collected.finish()
    }

    /// A value of this section as a slice that shares its memory.
    pub(crate) fn share(&self, value: &[u8]) -> Bytes {
        self.buffer.slice_ref(value)
    }

    /// Line by line, in the order of arrival.
    #[inline]
    pub fn lines(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| Field {
            name: self.name(line),
            value: self.value(line),
            mark: line.mark,
            is_forwardable: line.is_forwardable,
        })
    }

    /// Name and value of each line.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines
            .iter()
            .map(|line| (self.name(line), self.value(line)))
    }

    fn is_named(&self, line: &Line, mark: Mark, name: &str) -> bool {
        line.mark == mark && self.name(line).eq_ignore_ascii_case(name.as_bytes())
    }

    fn name(&self, line: &Line) -> &[u8] {
        &self.buffer[line.name as usize..line.name_end as usize]
    }

    fn value(&self, line: &Line) -> &[u8] {
        &self.buffer[line.value as usize..line.value_end as usize]
    }

    /// The values of all lines of this name.
    #[inline]
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let mark = Mark::of(name.as_bytes());
        let lines = match self.marks.may_have(mark) {
            true => &self.lines[..],
            false => &[],
        };
        lines
            .iter()
            .filter(move |line| self.is_named(line, mark, name))
            .map(|line| self.value(line))
    }

    /// The value of the first line of this name.
    #[inline]
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mark = Mark::of(name.as_bytes());
        match self.marks.may_have(mark) {
            true => self.find(mark, name),
            false => None,
        }
    }

    // Once for all who ask: they are many, and what is fetched for one is there for the next.
    #[inline(never)]
    fn find(&self, mark: Mark, name: &str) -> Option<&[u8]> {
        self.lines
            .iter()
            .find(|line| self.is_named(line, mark, name))
            .map(|line| self.value(line))
    }

    /// Whether there is a line of this name.
    #[inline]
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// A section that comes field by field, as HTTP/2 delivers it.
#[derive(Debug, Default)]
pub struct Collected {
    buffer: Vec<u8>,
    lines: Vec<Line>,
    marks: Marks,
}

impl Collected {
    /// Adds a line as it is.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.lines.capacity() == 0 {
            // Nearly every head whole.
            self.buffer.reserve(512);
            self.lines.reserve(16);
        }
        let start = place(self.buffer.len());
        self.buffer.extend_from_slice(name);
        let name_end = place(self.buffer.len());
        self.buffer.extend_from_slice(value);
        let mark = Mark::of(name);
        self.marks.add(mark);
        self.lines.push(Line {
            name: start,
            name_end,
            value: name_end,
            value_end: place(self.buffer.len()),
            mark,
            is_forwardable: is_forwardable(name),
        });
    }

    /// The section.
    #[must_use]
    pub fn finish(self) -> Fields {
        Fields {
            buffer: self.buffer.into(),
            lines: self.lines,
            marks: self.marks,
        }
    }
}

/// Whether a line may be a field of HTTP/2: its name is a token in lower case, its value has no control character or white space
/// around it (RFC 9113 §8.2.1), and it does not speak of a connection (RFC 9113 §8.2.2).
///
/// # Errors
/// The rule that it breaks.
pub fn check_http2(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err(Refusal::FieldName);
    }
    if value_length(value) < value.len() || is_space(value.first()) || is_space(value.last()) {
        return Err(Refusal::FieldValue);
    }
    if is_of_connection(name) && !(name == b"te" && value == b"trailers") {
        return Err(Refusal::ConnectionField);
    }
    Ok(())
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("a head is far below 4 GiB")
}

/// The line that begins at `at`, and where the next one does.
pub(crate) fn parse_line(section: &[u8], at: usize) -> Result<(Line, usize), Refusal> {
    let rest = &section[at..];
    if matches!(rest.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::ObsFold);
    }
    let (name, is_forwardable) = name_length(rest);
    match rest.get(name) {
        Some(b':') if name > 0 => {}
        Some(b' ' | b'\t') if name > 0 => return Err(Refusal::SpaceBeforeColon),
        _ => return Err(Refusal::FieldName),
    }
    let mut value = name + 1;
    while matches!(rest.get(value), Some(b' ' | b'\t')) {
        value += 1;
    }
    let mut end = value + value_length(&rest[value..]);
    let next = match rest[end..] {
        [b'\r', b'\n', ..] => at + end + 2,
        [b'\r', ..] => return Err(Refusal::BareCarriageReturn),
        [b'\n', ..] => return Err(Refusal::BareLineFeed),
        _ => return Err(Refusal::FieldValue),
    };
    while end > value && matches!(rest[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    let to = |index: usize| place(at + index);
    let line = Line {
        name: place(at),
        name_end: to(name),
        value: to(value),
        value_end: to(end),
        mark: Mark::of(&rest[..name]),
        is_forwardable,
    };
    Ok((line, next))
}

/// How many bytes at the start of `text` may stand in a name, and whether that name may be passed on.
fn name_length(text: &[u8]) -> (usize, bool) {
    let mut all = FORWARDED;
    let mut length = 0;
    for byte in text {
        let kind = NAME[usize::from(*byte)];
        if kind == 0 {
            break;
        }
        all &= kind;
        length += 1;
    }
    (length, all == FORWARDED)
}

/// How many bytes at the start of `text` may stand in a value. Eight at a time as long as none of them is suspicious: most of
/// a head is values (cookies, user agents).
fn value_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let mut plain = 0;
    for word in text.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // A byte below 0x20 borrows from its highest bit, unless that was set; DEL becomes zero, which borrows from 1.
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let without_del = word ^ (ONES * 0x7f);
        let del = without_del.wrapping_sub(ONES) & !without_del & HIGH;
        if control | del != 0 {
            // What is borrowed is borrowed from those behind: the first is the one that it seems.
            plain += (control | del).trailing_zeros() as usize / 8;
            break;
        }
        plain += 8;
    }
    // The end of the line, a tab, or a text that is shorter than a word.
    let rest = &text[plain..];
    plain + rest.iter().take_while(|&&byte| is_value(byte)).count()
}

/// What [`NAME`] says of a character of a token.
const TOKEN_ONLY: u8 = 1;

/// What it says of one that may stand in a name that is passed on.
const FORWARDED: u8 = TOKEN_ONLY | 2;

/// What each byte is to a name.
const NAME: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte is below 256")]
        let character = byte as u8;
        table[byte] = match TOKEN[byte] {
            false => 0,
            true if character.is_ascii_alphanumeric() || character == b'-' => FORWARDED,
            true => TOKEN_ONLY,
        };
        byte += 1;
    }
    table
};

/// Characters of a token (RFC 9110 §5.6.2).
pub(crate) const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte is below 256")]
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether this is a token.
#[inline]
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// Characters of a field value (RFC 9110 §5.5): visible ones, space, tab and obs-text.
#[inline]
#[must_use]
pub fn is_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// Whether a name may be passed on: letters, digits and hyphens alone. `X_Forwarded_For` and `X-Forwarded-For` are one key in
/// CGI's variables (RFC 3875 §4.1.18), so a name with `_` could pose as one that we set.
#[must_use]
pub fn is_forwardable(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| NAME[usize::from(*byte)] == FORWARDED)
}

/// Whether a field speaks of one connection and is never passed on (RFC 9110 §7.6.1), or of a proxy's own affairs (RFC 9110
/// §11.7, PEP 3333 by way of RFC 2616 §13.5.1). `Proxy` is among them, since CGI would make it `HTTP_PROXY` (httpoxy,
/// CVE-2016-5385), and `Close`, a name that is only reserved so that `Connection: close` lists no field (RFC 9110 §18.4).
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.may_have(Mark::of(name)) && is_among(name, &OF_ONE_HOP)
}

const OF_ONE_HOP: [&[u8]; 11] = [
    b"te",
    b"proxy",
    b"close",
    b"trailer",
    b"upgrade",
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"proxy-authenticate",
    b"proxy-authorization",
];

/// The marks of what [`is_hop_by_hop`] knows.
pub const HOP_BY_HOP: Marks = Marks::of(&OF_ONE_HOP);

/// Whether a name is one of these, in upper or lower case.
#[must_use]
pub fn is_among(name: &[u8], known: &[&[u8]]) -> bool {
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// What HTTP/2 has no use for, since its frames say it (RFC 9113 §8.2.2).
fn is_of_connection(name: &[u8]) -> bool {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 => is(b"te"),
        7 => is(b"upgrade"),
        10 => is(b"connection") || is(b"keep-alive"),
        16 => is(b"proxy-connection"),
        17 => is(b"transfer-encoding"),
        _ => false,
    }
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), without white space and empty ones.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Whether a comma-separated list has this token.
#[must_use]
pub fn list_contains(value: &[u8], token: &str) -> bool {
    list(value).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// What `Connection` lists, over all its lines (RFC 9110 §7.6.1).
pub fn connection_options(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields.all("connection").flat_map(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, expected) in [
            ("A: b\r\n", Ok(("A", "b"))),
            ("A:b\r\n", Ok(("A", "b"))),
            ("A: \t b c \t\r\n", Ok(("A", "b c"))),
            ("A:\r\n", Ok(("A", ""))),
            ("A: \r\n", Ok(("A", ""))),
            ("!#$%&'*+-.^_`|~09: x\r\n", Ok(("!#$%&'*+-.^_`|~09", "x"))),
            ("A : b\r\n", Err(Refusal::SpaceBeforeColon)),
            ("A\t: b\r\n", Err(Refusal::SpaceBeforeColon)),
            (" A: b\r\n", Err(Refusal::ObsFold)),
            ("\tA: b\r\n", Err(Refusal::ObsFold)),
            (": b\r\n", Err(Refusal::FieldName)),
            ("A\r\n", Err(Refusal::FieldName)),
            ("A(b): c\r\n", Err(Refusal::FieldName)),
            ("\u{e4}: c\r\n", Err(Refusal::FieldName)),
            ("A: b\u{0}\r\n", Err(Refusal::FieldValue)),
            ("A: b\u{1}c\r\n", Err(Refusal::FieldValue)),
            ("A: b\u{7f}\r\n", Err(Refusal::FieldValue)),
            ("A: b\rc\r\n", Err(Refusal::BareCarriageReturn)),
            ("A: b\nC: d\r\n", Err(Refusal::BareLineFeed)),
        ] {
            let fields = Fields::parse(Bytes::copy_from_slice(line.as_bytes()), 100);
            let found = fields.as_ref().map_err(|refusal| *refusal).map(|fields| {
                let (name, value) = fields.iter().next().expect("one line");
                (
                    str::from_utf8(name).expect("text"),
                    str::from_utf8(value).expect("text"),
                )
            });
            assert_eq!(found, expected, "{line:?}");
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_value() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=255 {
                    let mut value = vec![b'x'; length];
                    value[at] = byte;
                    let expected = if is_value(byte) { length } else { at };
                    assert_eq!(
                        value_length(&value),
                        expected,
                        "{byte:#04x} at {at} of {length}"
                    );
                    // Bytes with the highest bit set must not hide a control character beside them.
                    value.fill(0xff);
                    value[at] = byte;
                    assert_eq!(
                        value_length(&value),
                        expected,
                        "{byte:#04x} at {at} among 0xff"
                    );
                }
            }
        }
    }

    #[test]
    fn what_http2_may_not_carry() {
        for (name, value, refusal) in [
            ("a", "b", None),
            ("a", "", None),
            ("a", "b\tc d", None),
            ("te", "trailers", None),
            ("", "b", Some(Refusal::FieldName)),
            ("a b", "c", Some(Refusal::FieldName)),
            ("Cookie", "c", Some(Refusal::FieldName)),
            ("a:", "c", Some(Refusal::FieldName)),
            ("a\r\nb", "c", Some(Refusal::FieldName)),
            ("a", "b\r\nc: d", Some(Refusal::FieldValue)),
            ("a", "b\nc", Some(Refusal::FieldValue)),
            ("a", "b\0", Some(Refusal::FieldValue)),
            ("a", " b", Some(Refusal::FieldValue)),
            ("a", "b\t", Some(Refusal::FieldValue)),
            ("connection", "close", Some(Refusal::ConnectionField)),
            ("keep-alive", "timeout=5", Some(Refusal::ConnectionField)),
            ("proxy-connection", "close", Some(Refusal::ConnectionField)),
            (
                "transfer-encoding",
                "chunked",
                Some(Refusal::ConnectionField),
            ),
            ("upgrade", "websocket", Some(Refusal::ConnectionField)),
            ("te", "gzip", Some(Refusal::ConnectionField)),
        ] {
            let checked = check_http2(name.as_bytes(), value.as_bytes());
            assert_eq!(checked.err(), refusal, "{name}: {value:?}");
        }
    }

    #[test]
    fn each_is_found_and_no_other() {
        let names = [
            "Host",
            "te",
            "X-Real-IP",
            "x_a",
            "COOKIE",
            "Accept",
            "Via",
            "ETag",
        ];
        for one in names {
            let text = format!("{one}: 1\r\n{one}x: 2\r\n{}: 3\r\n", one.to_uppercase());
            let parsed = Fields::parse(text.into(), 3).expect("valid");
            let collected = Fields::from_pairs(parsed.iter());
            for fields in [parsed, collected] {
                for name in names {
                    let values: Vec<&[u8]> = fields.all(name).collect();
                    let first = fields.get(name);
                    if name == one {
                        assert_eq!(
                            (first, &values[..]),
                            (Some(&b"1"[..]), &[&b"1"[..], b"3"][..])
                        );
                    } else {
                        assert_eq!((first, values.len()), (None, 0), "{name} in {one}");
                    }
                }
            }
        }
    }

    #[test]
    fn obs_text_is_a_value() {
        let fields = Fields::parse(Bytes::from_static(b"A: \xe4\xff\r\n"), 1).expect("allowed");
        assert_eq!(fields.get("a"), Some(&b"\xe4\xff"[..]));
    }

    #[test]
    fn names_that_pass() {
        for (name, passes) in [
            ("X-Forwarded-For", true),
            ("X_Forwarded_For", false),
            ("A.b", false),
            ("_stack", false),
            ("", false),
        ] {
            assert_eq!(is_forwardable(name.as_bytes()), passes, "{name}");
            if name.is_empty() {
                continue;
            }
            let came = Fields::parse(Bytes::from(format!("{name}: x\r\n")), 1).expect("a token");
            let told = Fields::from_pairs([(name.as_bytes(), &b"x"[..])]);
            for fields in [came, told] {
                let line = fields.lines().next().expect("one line");
                assert_eq!(line.is_forwardable, passes, "{name}");
            }
        }
        for name in [
            "TE",
            "Connection",
            "keep-alive",
            "Upgrade",
            "Proxy",
            "Transfer-Encoding",
            "Trailer",
        ] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(HOP_BY_HOP.may_have(Mark::of(name.as_bytes())), "{name}");
        }
        assert!(!is_hop_by_hop(b"Cookie"));
    }

    #[test]
    fn lists() {
        let fields = Fields::from_pairs([
            (&b"Connection"[..], &b"close, X-A ,,"[..]),
            (b"connection", b"x-b"),
        ]);
        let options: Vec<_> = connection_options(&fields).collect();
        assert_eq!(options, [&b"close"[..], b"X-A", b"x-b"]);
        assert!(list_contains(b"gzip , Chunked", "chunked"));
        assert!(!list_contains(b"gzip;chunked", "chunked"));
    }
}
