//! What is known of a field name without reading it: most comparisons of names are of numbers.
//!
//! A head has a dozen lines and is asked for two dozen names, most of which it does not have. One word says so.

/// A number below 64 that is made of a name, the same in upper and in lower case. Names of different numbers differ; of those that
/// have the same, nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u8);

impl Mark {
    /// Of this name. For a name in the source it is made by the compiler.
    #[inline]
    #[must_use]
    pub const fn of(name: &[u8]) -> Self {
        let [first, ..] = name else {
            return Self(0);
        };
        // Found by trying: no two of the fields that browsers and servers send most have the same, nor has one that is asked for
        // and seldom there the same as one that nearly always is.
        let sum = 19 * (name.len() & 63)
            + 21 * (*first | 0x20) as usize
            + 3 * (name[name.len() - 1] | 0x20) as usize;
        #[expect(clippy::cast_possible_truncation, reason = "below 64")]
        Self((sum % 64) as u8)
    }
}

/// The marks of some names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u64);

impl Marks {
    /// Of these names.
    #[must_use]
    pub const fn of(names: &[&[u8]]) -> Self {
        let mut marks = Self(0);
        let mut at = 0;
        while at < names.len() {
            marks.add(Mark::of(names[at]));
            at += 1;
        }
        marks
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Adds one.
    #[inline]
    pub const fn add(&mut self, mark: Mark) {
        self.0 |= 1 << mark.0;
    }

    /// Whether a name with this mark may be among them; if not, it is not.
    #[inline]
    #[must_use]
    pub const fn may_have(self, mark: Mark) -> bool {
        self.0 & (1 << mark.0) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_makes_no_difference() {
        for name in [
            "Host",
            "TE",
            "X-Real-IP",
            "a",
            "_",
            "9",
            "Content-Length",
            "",
        ] {
            let lower = name.to_ascii_lowercase();
            let upper = name.to_ascii_uppercase();
            assert_eq!(
                Mark::of(lower.as_bytes()),
                Mark::of(upper.as_bytes()),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_usual_is_told_apart() {
        let usual: [&[u8]; 12] = [
            b"host",
            b"user-agent",
            b"accept",
            b"accept-language",
            b"accept-encoding",
            b"cookie",
            b"connection",
            b"referer",
            b"content-type",
            b"content-length",
            b"date",
            b"server",
        ];
        let seen = Marks::of(&usual);
        assert_eq!(seen.0.count_ones(), 12);
        for rare in [
            "expect",
            "upgrade",
            "transfer-encoding",
            "traceparent",
            "range",
        ] {
            assert!(!seen.may_have(Mark::of(rare.as_bytes())), "{rare}");
        }
        for name in usual {
            assert!(seen.may_have(Mark::of(name)));
        }
    }

    #[test]
    fn a_name_of_any_length_has_one() {
        let _ = Mark::of(&[0xff; 1 << 17]);
    }
}
