//! Content codings (RFC 9110 §8.4.1, §12.5.3): which of them a client takes, and which it likes best.

use crate::field::{Fields, list};

/// A coding that content can be sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstandard,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstandard, Self::Gzip];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The ending of the name of a file that holds another in this coding.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstandard => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// What a client says of codings: a weight in thousandths for each, 0 for what it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    codings: [u16; Coding::ALL.len()],
    identity: u16,
}

/// The weight of what is named without one.
const FULL: u16 = 1000;

impl Accepted {
    /// A client that says nothing: RFC 9110 §12.5.3 would allow us any coding then, but who says nothing is a script that
    /// decodes none.
    pub const NOTHING: Self = Self {
        codings: [0; Coding::ALL.len()],
        identity: FULL,
    };

    /// Reads all lines of `Accept-Encoding`.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let mut said = Said::default();
        let mut any = false;
        for line in fields.all("accept-encoding") {
            any = true;
            list(line).for_each(|member| said.hear(member));
        }
        if !any {
            return Self::NOTHING;
        }
        let rest = said.rest.unwrap_or(0);
        Self {
            codings: said.codings.map(|weight| weight.unwrap_or(rest)),
            // Without a coding is how it may always come, unless it is excluded, or everything is that is not named.
            identity: said.identity.or(said.rest).unwrap_or(1),
        }
    }

    /// The client's favourite among these, and of those that it likes the same the first. `None`: it would rather have it
    /// without, or takes none of them.
    #[must_use]
    pub fn favourite(&self, offered: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best = None;
        for coding in offered {
            let weight = self.weight(coding);
            if weight > best.map_or(0, |best| self.weight(best)) {
                best = Some(coding);
            }
        }
        best.filter(|best| self.weight(*best) >= self.identity)
    }

    fn weight(&self, coding: Coding) -> u16 {
        self.codings[coding as usize]
    }
}

#[derive(Default)]
struct Said {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    /// What `*` says of everything that is not named.
    rest: Option<u16>,
}

impl Said {
    fn hear(&mut self, member: &[u8]) {
        let (name, weight) = match memchr::memchr(b';', member) {
            None => (member, Some(FULL)),
            Some(at) => (member[..at].trim_ascii_end(), weight(&member[at + 1..])),
        };
        // A weight that cannot be read is no wish to go by.
        let Some(weight) = weight else { return };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // `x-gzip` is the same (RFC 9110 §8.4.1.3).
        let coding = Coding::ALL
            .into_iter()
            .find(|coding| is(coding.as_str()) || *coding == Coding::Gzip && is("x-gzip"));
        if let Some(coding) = coding {
            self.codings[coding as usize] = Some(weight);
        } else if is("identity") {
            self.identity = Some(weight);
        } else if name == b"*" {
            self.rest = Some(weight);
        }
    }
}

/// `q=0.8` (RFC 9110 §12.4.2), in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let parameter = parameter.trim_ascii();
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))?;
    match value {
        [b'1'] | [b'1', b'.'] => Some(FULL),
        [b'1', b'.', zeros @ ..]
            if zeros.len() <= 3 && zeros.iter().all(|digit| *digit == b'0') =>
        {
            Some(FULL)
        }
        [b'0'] | [b'0', b'.'] => Some(0),
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let add = |sum, place| sum * 10 + u16::from(digits.get(place).unwrap_or(&b'0') - b'0');
            Some((0..3).fold(0, add))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [Coding; 3] = Coding::ALL;

    fn favourite(value: &str) -> Option<&'static str> {
        let fields = Fields::from_pairs([(&b"Accept-Encoding"[..], value.as_bytes())]);
        Accepted::of(&fields).favourite(OURS).map(Coding::as_str)
    }

    #[test]
    fn the_client_decides_and_we_break_ties() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip, deflate, zstd", Some("zstd")),
            ("gzip", Some("gzip")),
            ("GZip", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("gzip;q=1.0, br;q=0.5", Some("gzip")),
            ("gzip;q=0.5, br;q=0.9, zstd;q=0.901", Some("zstd")),
            ("gzip ; q=0.8 , br ; q=0.8", Some("br")),
            ("br;q=0, gzip", Some("gzip")),
            ("br;q=0.000, gzip;q=0.001", Some("gzip")),
            ("*", Some("br")),
            ("*, br;q=0", Some("zstd")),
            ("*;q=0", None),
            ("*;q=0, gzip", Some("gzip")),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.4", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("identity;q=1, *;q=0", None),
            ("identity;q=0, gzip;q=0.1", Some("gzip")),
            ("deflate, compress", None),
            ("", None),
            ("gzip;q=2", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=-1", None),
            ("gzip;level=9", None),
            ("gzip;q=1.000", Some("gzip")),
            ("brotli", None),
        ] {
            assert_eq!(favourite(value), expected, "{value:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [
            (&b"Accept-Encoding"[..], &b"gzip"[..]),
            (b"accept-encoding", b"br;q=0.1"),
        ];
        let accepted = Accepted::of(&Fields::from_pairs(lines));
        assert_eq!(accepted.favourite(OURS), Some(Coding::Gzip));
        assert_eq!(accepted.favourite([Coding::Brotli]), Some(Coding::Brotli));
    }

    #[test]
    fn who_says_nothing_gets_it_plain() {
        assert_eq!(Accepted::of(&Fields::default()), Accepted::NOTHING);
        assert_eq!(Accepted::NOTHING.favourite(OURS), None);
    }
}
