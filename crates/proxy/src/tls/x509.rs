//! The few facts of a certificate that people and apps are told: whose it is, whose word that is, and until when (RFC 5280 §4.1).
//!
//! Whether it is valid is rustls' to judge; only what it has accepted, or what the configuration names, is read here.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its subject, as RFC 4514 writes it.
    pub(crate) subject: String,
    /// Its issuer, likewise.
    pub(crate) issuer: String,
    /// Its serial number, in upper-case hexadecimal digits.
    pub(crate) serial: String,
    /// Since when it is valid.
    pub(crate) not_before: SystemTime,
    /// Until when.
    pub(crate) not_after: SystemTime,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
/// The version, which may be missing.
const VERSION: u8 = 0xa0;

impl Facts {
    /// Reads them; `None` when this is no certificate.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate);
        let mut certificate = Der(outer.next_of(SEQUENCE)?);
        let mut body = Der(certificate.next_of(SEQUENCE)?);
        if body.peek() == Some(VERSION) {
            body.next()?;
        }
        let serial = body.next_of(INTEGER)?;
        body.next_of(SEQUENCE)?;
        let issuer = name(body.next_of(SEQUENCE)?)?;
        let mut validity = Der(body.next_of(SEQUENCE)?);
        let not_before = time(validity.next()?)?;
        let not_after = time(validity.next()?)?;
        let subject = name(body.next_of(SEQUENCE)?)?;
        Some(Self {
            subject,
            issuer,
            serial: serial_digits(serial),
            not_before,
            not_after,
        })
    }
}

/// A series of values in DER (X.690).
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Tag and content of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    fn next_of(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, content)| content)
    }
}

/// Without the zero that only says that it is positive.
fn serial_digits(serial: &[u8]) -> String {
    let serial = match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        serial => serial,
    };
    hex(serial)
}

/// Upper-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02X}").expect("a String takes every write");
        text
    })
}

/// A distinguished name, the last part first (RFC 4514 §2.1).
fn name(content: &[u8]) -> Option<String> {
    let mut sets = Der(content);
    let mut parts = Vec::new();
    while !sets.0.is_empty() {
        let mut set = Der(sets.next_of(SET)?);
        let mut together = Vec::new();
        while !set.0.is_empty() {
            together.push(attribute(set.next_of(SEQUENCE)?)?);
        }
        parts.push(together.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(content: &[u8]) -> Option<String> {
    let mut content = Der(content);
    let kind = content.next_of(OBJECT_IDENTIFIER)?;
    let (tag, value) = content.next()?;
    let value = match tag {
        BMP_STRING => {
            let (units, _) = value.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(value).into_owned(),
    };
    Some(format!("{}={}", kind_name(kind)?, escaped(&value)))
}

/// RFC 4514 §3, RFC 4519, and what OpenSSL calls the address.
fn kind_name(kind: &[u8]) -> Option<String> {
    let known = match kind {
        [0x55, 4, last] => match last {
            3 => "CN",
            4 => "SN",
            5 => "serialNumber",
            6 => "C",
            7 => "L",
            8 => "ST",
            9 => "STREET",
            10 => "O",
            11 => "OU",
            12 => "title",
            42 => "GN",
            _ => return dotted(kind),
        },
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        _ => return dotted(kind),
    };
    Some(known.to_owned())
}

fn dotted(kind: &[u8]) -> Option<String> {
    let first = *kind.first()?;
    let mut text = format!(
        "{}.{}",
        (first / 40).min(2),
        first - 40 * (first / 40).min(2)
    );
    let mut number = 0u64;
    for byte in &kind[1..] {
        number = number.checked_mul(128)? + u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            write!(text, ".{number}").expect("a String takes every write");
            number = 0;
        }
    }
    Some(text)
}

/// RFC 4514 §2.4. Control characters too, so that a name is always one line and one field value.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' | ' ' if index == 0 => text.extend(['\\', character]),
            ' ' if index == last => text.push_str("\\ "),
            _ if character.is_ascii_control() => {
                write!(text, "\\{:02X}", character as u32).expect("a String takes every write");
            }
            _ => text.push(character),
        }
    }
    text
}

/// RFC 5280 §4.1.2.5: two digits of the year until 2049, four after that; always UTC, always with seconds.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let digits = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    if rest.len() != 10 {
        return None;
    }
    let days = days(year, digits(0)?, digits(2)?)?;
    let seconds = ((days * 24 + digits(4)?) * 60 + digits(6)?) * 60 + digits(8)?;
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
        Err(_) => Some(SystemTime::UNIX_EPOCH),
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
            - 719_468,
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        change(&mut params);
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn facts_of_a_certificate() {
        let der = made(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CountryName, "DE");
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Müller, Söhne + Co");
            params
                .distinguished_name
                .push(DnType::CommonName, " #1\r\nx: y ");
            params
                .distinguished_name
                .push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999]), "z");
            params.serial_number = Some(SerialNumber::from(vec![0x80, 1, 0xff]));
            params.not_before = date_time_ymd(2026, 2, 28);
            params.not_after = date_time_ymd(2051, 3, 1);
        });
        let facts = Facts::of(&der).expect("a certificate");
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let subject = "1.3.6.1.4.1.99999=z,CN=\\ #1\\0D\\0Ax: y\\ ,O=Müller\\, Söhne \\+ Co,C=DE";
        assert_eq!(
            facts,
            Facts {
                subject: subject.to_owned(),
                issuer: subject.to_owned(),
                serial: "8001FF".to_owned(),
                not_before: at(1_772_236_800),
                not_after: at(2_561_241_600),
            }
        );
    }

    #[test]
    fn dates() {
        for ((year, month, day), expected) in [
            ((1970, 1, 1), 0),
            ((1970, 12, 31), 364),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 25), 20_782),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(
                days(year, month, day),
                Some(expected),
                "{year}-{month}-{day}"
            );
        }
        assert_eq!(days(2026, 13, 1), None);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_certificate_or_another_but_never_a_panic() {
        let der = made(|_| {});
        for length in 0..der.len() {
            assert_eq!(Facts::of(&der[..length]), None);
        }
        for index in 0..der.len().min(200) {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[index] ^= 1 << bit;
                let _ = Facts::of(&changed);
            }
        }
    }
}
