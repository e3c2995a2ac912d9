//! Frames of HTTP/2 (RFC 9113 §4, §6): their heads, and what is the same wherever one is read.

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's head.
pub const HEAD: usize = 9;

/// The longest payload, unless both sides agree on more (`SETTINGS_MAX_FRAME_SIZE`, RFC 9113 §6.5.2). We never do: a longer
/// frame would only keep others waiting.
pub const LARGEST: usize = 16_384;

/// The largest window, and the largest stream (RFC 9113 §6.9.1, §5.1.1).
pub const MOST: u32 = (1 << 31) - 1;

/// What a window is until somebody says otherwise (RFC 9113 §6.9.2).
pub const WINDOW: u32 = 65_535;

/// Flags (RFC 9113 §6). One bit can mean different things in frames of different kinds.
pub mod flag {
    /// The last frame of its side of the stream.
    pub const END_STREAM: u8 = 0x1;
    /// An answer to SETTINGS or PING.
    pub const ACK: u8 = 0x1;
    /// The last frame of a field block.
    pub const END_HEADERS: u8 = 0x4;
    /// A length of padding comes first, and the padding last.
    pub const PADDED: u8 = 0x8;
    /// Five bytes about priority come first.
    pub const PRIORITY: u8 = 0x20;
}

/// What a frame is (RFC 9113 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are those of the RFC")]
pub enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// One that we do not know, and ignore (RFC 9113 §5.5).
    Other(u8),
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::ResetStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Other(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::ResetStream => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Other(other) => other,
        }
    }
}

/// Why a stream or a connection ends (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are those of the RFC")]
pub enum Code {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How long the payload is.
    pub length: usize,
    /// What it is.
    pub kind: Kind,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// Reads one.
    #[must_use]
    pub fn parse(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        Self {
            length: u32::from_be_bytes([0, *a, *b, *c]) as usize,
            kind: Kind::of(*kind),
            flags: *flags,
            // The highest bit is reserved, and ignored.
            stream: u32::from_be_bytes(*stream) & MOST,
        }
    }

    /// Writes it.
    ///
    /// # Panics
    /// When the length is 2²⁴ or more: cut, it would make the rest of the payload frames of their own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let [0, a, b, c] = length.to_be_bytes() else {
            panic!("no frame is as long: {self:?}");
        };
        let [d, e, f, g] = self.stream.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind.byte(), self.flags, d, e, f, g]);
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without padding; `None` where that is longer than the frame (RFC 9113 §6.1).
    #[must_use]
    pub fn unpadded<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        if !self.has(flag::PADDED) {
            return Some(payload);
        }
        let (&padding, rest) = payload.split_first()?;
        rest.get(..rest.len().checked_sub(usize::from(padding))?)
    }
}

/// A setting that we know (RFC 9113 §6.5.2, RFC 8441 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are those of the RFC")]
pub enum Setting {
    HeaderTableSize = 1,
    EnablePush = 2,
    MaxConcurrentStreams = 3,
    InitialWindowSize = 4,
    MaxFrameSize = 5,
    MaxHeaderListSize = 6,
    EnableConnectProtocol = 8,
}

impl Setting {
    /// The one of this number.
    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::HeaderTableSize,
            2 => Self::EnablePush,
            3 => Self::MaxConcurrentStreams,
            4 => Self::InitialWindowSize,
            5 => Self::MaxFrameSize,
            6 => Self::MaxHeaderListSize,
            8 => Self::EnableConnectProtocol,
            _ => return None,
        })
    }

    /// Writes it with a value.
    pub fn encode(self, value: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self as u16).to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Numbers and values in the payload of SETTINGS; `None` where its length is none of theirs.
pub fn settings(payload: &[u8]) -> Option<impl Iterator<Item = (u16, u32)>> {
    let (entries, rest) = payload.as_chunks::<6>();
    let entry = |&[a, b, c, d, e, f]: &[u8; 6]| {
        (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
    };
    rest.is_empty().then(|| entries.iter().map(entry))
}

/// A number of four bytes, without its reserved bit: what RST_STREAM and WINDOW_UPDATE carry.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?) & MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for kind in (0..=10).map(Kind::of) {
            let head = Head {
                length: 0x01_02_03,
                kind,
                flags: flag::PADDED | flag::ACK,
                stream: 0x7f_ff_ff_01,
            };
            let mut out = Vec::new();
            head.encode(&mut out);
            let mut bytes: [u8; HEAD] = out.try_into().unwrap();
            assert_eq!(Head::parse(&bytes), head);
            bytes[5] |= 0x80;
            assert_eq!(Head::parse(&bytes), head, "the reserved bit is ignored");
        }
    }

    #[test]
    fn padding() {
        let head = |flags| Head {
            length: 0,
            kind: Kind::Data,
            flags,
            stream: 1,
        };
        for (flags, payload, expected) in [
            (0, &b"\x05ab"[..], Some(&b"\x05ab"[..])),
            (flag::PADDED, b"\x00ab", Some(b"ab")),
            (flag::PADDED, b"\x01ab", Some(b"a")),
            (flag::PADDED, b"\x02ab", Some(b"")),
            (flag::PADDED, b"\x03ab", None),
            (flag::PADDED, b"", None),
        ] {
            assert_eq!(head(flags).unpadded(payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn settings_come_in_sixes() {
        let list = |payload| settings(payload).map(Iterator::collect::<Vec<_>>);
        assert_eq!(list(b""), Some(vec![]));
        assert_eq!(
            list(b"\0\x04\0\0\x01\0\0\x09\0\0\0\x01"),
            Some(vec![(4, 256), (9, 1)])
        );
        assert_eq!(list(b"\0\x04\0\0\x01"), None);
    }
}
