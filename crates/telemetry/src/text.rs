//! Sizes, durations and foreign text as people read them.

use std::{fmt, io::Write as _, time::Duration};

/// A number of bytes: `812 B`, `1.4 KiB`, `16 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        // Tenths, so that no float is needed; they cannot overflow, being at most 1024 × 10.
        let mut unit = 0;
        let mut rest = self.0;
        while rest >= 1024 * 1024 {
            rest /= 1024;
            unit += 1;
        }
        f.pad(&tenths(rest * 10 / 1024, UNITS[unit]))
    }
}

/// A length of time: `850 µs`, `1.2 ms`, `12 s`, `3 min 20 s`, `2 days 1 h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(pub Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        let text = match micros {
            0..1_000 => format!("{micros} µs"),
            1_000..1_000_000 => tenths(micros / 100, "ms"),
            1_000_000..60_000_000 => tenths(micros / 100_000, "s"),
            60_000_000..3_600_000_000 => {
                let secs = self.0.as_secs();
                format!("{} min {} s", secs / 60, secs % 60)
            }
            3_600_000_000..172_800_000_000 => {
                let minutes = self.0.as_secs() / 60;
                format!("{} h {} min", minutes / 60, minutes % 60)
            }
            _ => {
                let hours = self.0.as_secs() / 3600;
                format!("{} days {} h", hours / 24, hours % 24)
            }
        };
        f.pad(&text)
    }
}

/// A decimal only where it says something: `1.4`, but `16` and `2`.
fn tenths(tenths: u64, unit: &str) -> String {
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole @ 0..10, tenth) => format!("{whole}.{tenth} {unit}"),
        (whole, _) => format!("{whole} {unit}"),
    }
}

/// Appends `bytes` so that nothing in them can act on a terminal or hide from the eye; returns how many characters
/// that were. What is not UTF-8 and every control becomes `\xHH`, characters that reorder or hide text `\u{…}`.
pub fn visible(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    if bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        out.extend_from_slice(bytes);
        return bytes.len();
    }
    let mut width = 0;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            width += visible_character(character, out);
        }
        for byte in chunk.invalid() {
            width += escape(format_args!("\\x{byte:02X}"), out);
        }
    }
    width
}

/// The same of a text of several lines, which stay lines; a tab is four spaces.
#[must_use]
pub fn visible_lines(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        if number > 0 {
            out.push(b'\n');
        }
        visible(line.replace('\t', "    ").as_bytes(), &mut out);
    }
    String::from_utf8(out).expect("`visible` writes UTF-8")
}

fn visible_character(character: char, out: &mut Vec<u8>) -> usize {
    match character {
        control if control.is_control() => {
            escape(format_args!("\\x{:02X}", u32::from(control)), out)
        }
        hidden if is_hidden(hidden) => escape(format_args!("\\u{{{:x}}}", u32::from(hidden)), out),
        plain => {
            out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
            1
        }
    }
}

/// Zero-width characters, line separators and the controls of bidirectional text (CVE-2021-42574).
pub(crate) fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

fn escape(text: fmt::Arguments<'_>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.write_fmt(text).expect("a Vec takes everything");
    out.len() - start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let rows = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1434, "1.4 KiB"),
            (10 * 1024 + 1000, "10 KiB"),
            (1024 * 1024 - 1, "1023 KiB"),
            (16 << 20, "16 MiB"),
            (u64::MAX, "15 EiB"),
        ];
        for (bytes, text) in rows {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}|", Size(5)), "     5 B|");
    }

    #[test]
    fn durations() {
        let rows = [
            (Duration::ZERO, "0 µs"),
            (Duration::from_micros(999), "999 µs"),
            (Duration::from_micros(1000), "1 ms"),
            (Duration::from_micros(1250), "1.2 ms"),
            (Duration::from_micros(15_800), "15 ms"),
            (Duration::from_millis(999), "999 ms"),
            (Duration::from_millis(1500), "1.5 s"),
            (Duration::from_secs(200), "3 min 20 s"),
            (Duration::from_secs(7260), "2 h 1 min"),
            (Duration::from_secs(172_799), "47 h 59 min"),
            (Duration::from_secs(176_400), "2 days 1 h"),
        ];
        for (duration, text) in rows {
            assert_eq!(Elapsed(duration).to_string(), text);
        }
        assert!(Elapsed(Duration::MAX).to_string().contains(" days "));
    }

    #[test]
    fn lines_stay_lines() {
        let rows = [
            ("", ""),
            ("one", "one"),
            ("one\n\ttwo\x1b[31m\n", "one\n    two\\x1B[31m"),
            ("a\r\n\nb\u{202e}", "a\n\nb\\u{202e}"),
        ];
        for (text, shown) in rows {
            assert_eq!(visible_lines(text), shown);
        }
    }

    #[test]
    fn nothing_acts_on_the_terminal() {
        let rows: [(&[u8], &str); 8] = [
            (b"/plain?a=b", "/plain?a=b"),
            (b"\x1b[2J\x07", r"\x1B[2J\x07"),
            (b"a\r\nb\tc", r"a\x0D\x0Ab\x09c"),
            ("é漢".as_bytes(), "é漢"),
            ("\u{9b}31m".as_bytes(), r"\x9B31m"),
            ("\u{202e}gpj".as_bytes(), r"\u{202e}gpj"),
            (b"\xff\xc3(", r"\xFF\xC3("),
            (b"\x7f", r"\x7F"),
        ];
        for (bytes, text) in rows {
            let mut out = Vec::new();
            let width = visible(bytes, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(width, text.chars().count());
        }
    }
}
