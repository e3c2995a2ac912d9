//! Durations (`"30s"`) and sizes (`"16MiB"`) as the configuration writes them.
//!
//! One whole number and one unit, no space: a figure that could be read in two ways (`"16M"`, `30`) is refused.

use std::time::Duration;

use crate::error::Mistake;

/// Reads a duration: `250ms`, `30s`, `5m`, `1h`, `7d`, `1y` (365 days).
///
/// # Errors
/// Says what is wrong with the text, and what may have been meant.
pub fn parse_duration(text: &str) -> Result<Duration, Mistake> {
    let (number, unit) = split(text);
    let Some((_, millis)) = TIME.iter().find(|(name, _)| *name == unit) else {
        return Err(not_a_duration(text));
    };
    let Ok(number) = number.parse::<u64>() else {
        return Err(if number.is_empty() {
            not_a_duration(text)
        } else {
            too_large(text)
        });
    };
    let millis = number.checked_mul(*millis).ok_or_else(|| too_large(text))?;
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: `512`, `64KiB`, `16MiB`, `1GiB`, `1GB`.
///
/// # Errors
/// Says what is wrong with the text, and what may have been meant.
pub fn parse_size(text: &str) -> Result<u64, Mistake> {
    let (number, unit) = split(text);
    let Some((_, bytes)) = SIZE.iter().find(|(name, _)| *name == unit) else {
        return Err(not_a_size(text));
    };
    let Ok(number) = number.parse::<u64>() else {
        return Err(if number.is_empty() {
            not_a_size(text)
        } else {
            too_large(text)
        });
    };
    number.checked_mul(*bytes).ok_or_else(|| too_large(text))
}

/// A duration as [`parse_duration`] reads it, in the largest unit that needs no fraction.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &TIME)
}

/// A size as [`parse_size`] reads it, in the largest binary unit that needs no fraction.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE[..5])
}

const TIME: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    // Not a calendar's year: RFC 9111's age is seconds.
    ("y", 31_536_000_000),
];

const SIZE: [(&str, u64); 10] = [
    ("", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// How people write units elsewhere, in lower case, and what we call them.
const OTHER_TIME: [(&str, &str, u64); 19] = [
    ("msec", "ms", 1),
    ("millis", "ms", 1),
    ("milliseconds", "ms", 1),
    ("sec", "s", 1),
    ("secs", "s", 1),
    ("second", "s", 1),
    ("seconds", "s", 1),
    ("min", "m", 1),
    ("mins", "m", 1),
    ("minute", "m", 1),
    ("minutes", "m", 1),
    ("hour", "h", 1),
    ("hours", "h", 1),
    ("day", "d", 1),
    ("days", "d", 1),
    ("w", "d", 7),
    ("weeks", "d", 7),
    ("year", "y", 1),
    ("years", "y", 1),
];

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor))
        .unwrap_or(&units[0]);
    // Zero needs a unit too, and "0s" reads better than "0ms".
    if amount == 0 && units[0].0 == "ms" {
        return "0s".to_owned();
    }
    format!("{}{name}", amount / factor)
}

fn not_a_duration(text: &str) -> Mistake {
    let hint = match suggest_duration(text) {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None => {
            "write a whole number and a unit (ms, s, m, h, d or y), such as `\"30s\"`".to_owned()
        }
    };
    Mistake::new(format!("{text:?} is not a duration")).hint(hint)
}

fn suggest_duration(text: &str) -> Option<String> {
    let tidy: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect::<String>()
        .to_lowercase();
    let (number, unit) = split(&tidy);
    let count: u64 = number.parse().ok()?;
    if unit.is_empty() {
        return Some(format!("{count}s"));
    }
    if TIME.iter().any(|(name, _)| *name == unit) {
        return Some(format!("{count}{unit}"));
    }
    if let Some((_, ours, factor)) = OTHER_TIME.iter().find(|(name, ..)| *name == unit) {
        return Some(format!("{}{ours}", count.checked_mul(*factor)?));
    }
    compound(&tidy).map(show_duration)
}

/// `1m30s`, which some tools write.
fn compound(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    while !text.is_empty() {
        let (_, after) = split(text);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (part, rest) = text.split_at(text.len() - after.len() + letters);
        let (number, unit) = split(part);
        let (_, millis) = TIME.iter().find(|(name, _)| *name == unit)?;
        let millis = number.parse::<u64>().ok()?.checked_mul(*millis)?;
        total = total.checked_add(Duration::from_millis(millis))?;
        text = rest;
    }
    Some(total)
}

fn not_a_size(text: &str) -> Mistake {
    let hint = match suggest_size(text) {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None => "write a whole number of bytes, or one with a unit (KiB, MiB, GiB, KB, MB, GB), such as `\"16MiB\"`".to_owned(),
    };
    Mistake::new(format!("{text:?} is not a size")).hint(hint)
}

fn suggest_size(text: &str) -> Option<String> {
    let tidy: String = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect::<String>()
        .to_lowercase();
    let (number, unit) = split(&tidy);
    if let Some(fraction) = unit.strip_prefix('.') {
        return suggest_fraction(number, fraction);
    }
    let count: u64 = number.parse().ok()?;
    let (_, ours) = size_unit(unit)?;
    Some(format!("{count}{ours}"))
}

/// `1.5GiB` as `1536MiB`.
fn suggest_fraction(whole: &str, rest: &str) -> Option<String> {
    let (digits, unit) = split(rest);
    let (factor, _) = size_unit(unit)?;
    let value: f64 = format!("{whole}.{digits}").parse().ok()?;
    let bytes = value * factor as f64;
    // Only what comes out even is worth proposing.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "asked where it is a whole number from 1 to 10¹⁵"
    )]
    let show = || show_size(bytes as u64);
    ((1.0..1e15).contains(&bytes) && bytes.fract() == 0.0).then(show)
}

/// The unit that text in lower case stands for; `m`, as in nginx, is binary.
fn size_unit(lower: &str) -> Option<(u64, &'static str)> {
    let exact = SIZE.iter().find(|(name, _)| name.to_lowercase() == lower);
    let short = || {
        SIZE[1..5]
            .iter()
            .find(|(name, _)| name[..1].to_lowercase() == lower)
    };
    exact.or_else(short).map(|(name, factor)| (*factor, *name))
}

fn too_large(text: &str) -> Mistake {
    Mistake::new(format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong<T: std::fmt::Debug>(result: Result<T, Mistake>) -> String {
        let mistake = result.expect_err("must be refused");
        format!("{} | {}", mistake.message, mistake.hint.unwrap_or_default())
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0s", 0),
            ("1ms", 1),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1y", 31_536_000_000),
            ("007s", 7_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_duration_gets_a_hint() {
        for (text, says) in [
            ("30", r#""30" is not a duration | did you mean `"30s"`?"#),
            (
                "30 s",
                r#""30 s" is not a duration | did you mean `"30s"`?"#,
            ),
            ("30S", r#""30S" is not a duration | did you mean `"30s"`?"#),
            ("5min", r#""5min" is not a duration | did you mean `"5m"`?"#),
            ("2w", r#""2w" is not a duration | did you mean `"14d"`?"#),
            (
                "1m30s",
                r#""1m30s" is not a duration | did you mean `"90s"`?"#,
            ),
            (
                "99999999999999999999s",
                r#""99999999999999999999s" is too large | "#,
            ),
            (
                "9999999999999999y",
                r#""9999999999999999y" is too large | "#,
            ),
        ] {
            assert_eq!(wrong(parse_duration(text)), says, "{text}");
        }
        for text in [
            "", "s", "-5s", "1.5s", "soon", "5 apples", "１s", "1e3s", "1m30", "+5s",
        ] {
            let says = wrong(parse_duration(text));
            assert!(says.ends_with("such as `\"30s\"`"), "{text}: {says}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("16MiB", 16_777_216),
            ("1GiB", 1_073_741_824),
            ("2TiB", 2_199_023_255_552),
            ("64KB", 64_000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_gets_a_hint() {
        for (text, says) in [
            ("16M", r#""16M" is not a size | did you mean `"16MiB"`?"#),
            ("16m", r#""16m" is not a size | did you mean `"16MiB"`?"#),
            (
                "16 MiB",
                r#""16 MiB" is not a size | did you mean `"16MiB"`?"#,
            ),
            (
                "16mib",
                r#""16mib" is not a size | did you mean `"16MiB"`?"#,
            ),
            ("16mb", r#""16mb" is not a size | did you mean `"16MB"`?"#),
            (
                "1.5GiB",
                r#""1.5GiB" is not a size | did you mean `"1536MiB"`?"#,
            ),
            ("99999999TiB", r#""99999999TiB" is too large | "#),
        ] {
            assert_eq!(wrong(parse_size(text)), says, "{text}");
        }
        for text in ["", "MiB", "-1", "big", "0x10", "1.23456789KiB"] {
            let says = wrong(parse_size(text));
            assert!(says.ends_with("such as `\"16MiB\"`"), "{text}: {says}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for (bytes, text) in [
            (0, "0"),
            (300, "300"),
            (8192, "8KiB"),
            (16 << 20, "16MiB"),
            (3 << 39, "1536GiB"),
        ] {
            assert_eq!(show_size(bytes), text);
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for (millis, text) in [
            (0, "0s"),
            (250, "250ms"),
            (75_000, "75s"),
            (60_000, "1m"),
            (86_400_000, "1d"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(show_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }
}
