//! Trace context: which trace a request belongs to, and under which part of it (W3C Trace Context, `traceparent`).
//!
//! <https://www.w3.org/TR/trace-context/>. `tracestate` belongs to others: it is passed on with a context that is, and goes with one
//! that is begun anew.

use crate::{digits::hexadecimal as digits, field::Fields};

/// The flag of a trace that somebody records (§3.2.2.5.1).
const SAMPLED: u8 = 1;

/// The flag of a trace whose id is random (Level 2 §3.2.2.5.2).
const RANDOM: u8 = 2;

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    trace: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

impl Context {
    /// What the fields say. Several are as good as none: whose is meant cannot be known.
    #[must_use]
    pub fn of(fields: &Fields) -> Option<Self> {
        let mut all = fields.all("traceparent");
        let context = Self::parse(all.next()?)?;
        all.next().is_none().then_some(context)
    }

    /// `VERSION-TRACE-PARENT-FLAGS` in lower-case hexadecimal, neither id all zeros (§3.2). A later version may have more behind it,
    /// and its first four parts are read as ours (§3.2.4).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let [version] = hexadecimal::<1>(&known[..2])?;
        let separated = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let trace = hexadecimal::<16>(&known[3..35])?;
        let parent = hexadecimal::<8>(&known[36..52])?;
        let [flags] = hexadecimal::<1>(&known[53..])?;
        let named = trace != [0; 16] && parent != [0; 8];
        (separated && ends && named).then_some(Self {
            trace,
            parent,
            flags: flags & (SAMPLED | RANDOM),
        })
    }

    /// A trace that begins here. `trace` and `span` are random; zeros name nothing, and become ones.
    #[must_use]
    pub fn begin(trace: u128, span: u64) -> Self {
        Self {
            trace: trace.max(1).to_be_bytes(),
            parent: span.max(1).to_be_bytes(),
            flags: RANDOM,
        }
    }

    /// The same trace below another span, recorded or not.
    #[must_use]
    pub fn below(self, span: u64, sampled: bool) -> Self {
        Self {
            trace: self.trace,
            parent: span.max(1).to_be_bytes(),
            flags: self.flags & !SAMPLED | u8::from(sampled),
        }
    }

    /// Whether whoever came before records it.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace, in 32 digits.
    #[must_use]
    pub fn trace_id(self) -> TraceId {
        let mut text = [0; 32];
        let number = u128::from_be_bytes(self.trace);
        let (halves, _) = text.as_chunks_mut::<16>();
        #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
        let numbers = [(number >> 64) as u64, number as u64];
        for (half, number) in halves.iter_mut().zip(numbers) {
            *half = digits(number);
        }
        TraceId(text)
    }

    /// The span that this is below.
    #[must_use]
    pub fn parent(self) -> u64 {
        u64::from_be_bytes(self.parent)
    }

    /// The value of `traceparent`, in the version that we know (§3.2.4).
    #[must_use]
    pub fn encode(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace_id().0);
        text[36..52].copy_from_slice(&digits(self.parent()));
        text[53..].copy_from_slice(&digits(self.flags.into())[14..]);
        text
    }
}

/// How long a `traceparent` of version 00 is.
const LENGTH: usize = 55;

/// A trace's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// The digits.
    ///
    /// # Panics
    /// Never: they are ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

impl std::fmt::Debug for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn hexadecimal<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower case only (§3.2.1).
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn only_a_valid_field_names_a_trace() {
        let valid = format!("00-{TRACE}-{PARENT}-01");
        for (text, goes_on_as) in [
            (valid.clone(), Some(valid.clone())),
            (
                format!("00-{TRACE}-{PARENT}-ff"),
                Some(format!("00-{TRACE}-{PARENT}-03")),
            ),
            (format!("01-{TRACE}-{PARENT}-01"), Some(valid.clone())),
            (format!("cc-{TRACE}-{PARENT}-01-more"), Some(valid.clone())),
            (format!("cc-{TRACE}-{PARENT}-01more"), None),
            (format!("{valid}-"), None),
            (format!("ff-{TRACE}-{PARENT}-01"), None),
            (valid.to_uppercase(), None),
            (valid.replace(TRACE, &"0".repeat(32)), None),
            (valid.replace(PARENT, &"0".repeat(16)), None),
            (valid.replace('-', "_"), None),
            (valid.replace('4', "g"), None),
            (valid[1..].to_owned(), None),
            (format!(" {valid}"), None),
            (String::new(), None),
        ] {
            let read = Context::parse(text.as_bytes());
            let written = read.map(|context| context.encode().to_vec());
            assert_eq!(
                written,
                goes_on_as.map(String::into_bytes),
                "{text}: {read:?}"
            );
        }
    }

    #[test]
    fn two_fields_are_as_good_as_none() {
        let value = format!("00-{TRACE}-{PARENT}-01");
        let fields = |values: &[&str]| {
            Fields::from_pairs(
                values
                    .iter()
                    .map(|value| (&b"Traceparent"[..], value.as_bytes())),
            )
        };
        let one = Context::of(&fields(&[&value])).expect("it is valid");
        assert_eq!(one.trace_id().as_str(), TRACE);
        assert_eq!(one.parent(), 0x00f0_67aa_0ba9_02b7);
        assert!(one.is_sampled());
        assert_eq!(Context::of(&fields(&[&value, &value])), None);
        assert_eq!(Context::of(&fields(&[])), None);
    }

    #[test]
    fn one_that_begins_here_is_valid_whatever_chance_gives() {
        for (trace, span) in [(0, 0), (1, 1), (u128::MAX, u64::MAX)] {
            let context = Context::begin(trace, span);
            assert_eq!(Context::parse(&context.encode()), Some(context));
            assert!(!context.is_sampled());
            let below = context.below(7, true);
            assert_eq!(below.trace_id(), context.trace_id());
            assert_eq!((below.parent(), below.is_sampled()), (7, true));
        }
    }
}
