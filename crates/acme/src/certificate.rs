//! What of a certificate matters for its renewal: until when it is valid, what it names, and what the authority calls it.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::CertificateIdentifier;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::schedule::Validity;

/// A certificate that a site has.
#[derive(Clone, Debug)]
pub struct Facts {
    /// From when to when.
    pub validity: Validity,
    /// What the authority calls it (RFC 9773 §4.1); `None` where its issuer has no key identifier.
    pub(crate) identifier: Option<CertificateIdentifier<'static>>,
    /// Names and addresses, as a site writes them.
    pub names: Vec<String>,
    /// From 0 to below 1, of its bytes: which of many moments is its own.
    pub(crate) share: f64,
    /// Its public key's bytes.
    key: Vec<u8>,
}

impl Facts {
    /// Of the leaf of a chain in PEM; `None` where that cannot be read.
    #[must_use]
    pub fn of_chain(chain: &str) -> Option<Self> {
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
        Some(Self {
            validity: Validity {
                not_before: time(parsed.validity.not_before.timestamp()),
                not_after: time(parsed.validity.not_after.timestamp()),
            },
            identifier: CertificateIdentifier::try_from(&leaf)
                .ok()
                .map(CertificateIdentifier::into_owned),
            names: names(&parsed),
            share: share(&leaf),
            key: parsed.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// Whether it is of the key with these public bytes.
    pub(crate) fn is_for(&self, key: &[u8]) -> bool {
        self.key == key
    }

    /// Whether it is for these names, all of them.
    #[must_use]
    pub fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.map_or_else(Vec::new, |found| found.value.general_names.clone());
    let name = |name: GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    all.into_iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(bytes).to_string());
    }
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(bytes).to_string())
}

fn time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}

/// What the files of a certificate are called: the first of its names, for people, and what tells it from all others, the
/// directory that it comes from and its names in any order.
#[must_use]
pub fn id(directory: &str, names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let first = names.first().map_or("-", String::as_str);
    // Of names and addresses only a colon is more than files may have everywhere.
    let first: String = first
        .chars()
        .take(64)
        .map(|c| if c == ':' { '-' } else { c })
        .collect();
    format!(
        "{first}-{}",
        hash(&[&[directory], sorted.as_slice()].concat())
    )
}

/// What the file of an account is called.
#[must_use]
pub fn account_id(directory: &str) -> String {
    format!("account-{}", hash(&[directory]))
}

fn hash(parts: &[&str]) -> String {
    let hash = digest(&SHA256, parts.join("\n").as_bytes());
    hash.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// From 0 to below 1.
pub(crate) fn share(bytes: &[u8]) -> f64 {
    let hash = digest(&SHA256, bytes);
    let mut start = [0; 4];
    start.copy_from_slice(&hash.as_ref()[..4]);
    f64::from(u32::from_be_bytes(start)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn chain(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 3, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn what_matters_is_read() {
        let facts = Facts::of_chain(&chain(&["example.org", "192.0.2.1", "2001:db8::1"])).unwrap();
        assert_eq!(facts.names, ["example.org", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(facts.validity.lifetime(), Duration::from_secs(59 * 86_400));
        assert!((0.0..1.0).contains(&facts.share));
        assert!(facts.covers(&["example.org".to_owned(), "192.0.2.1".to_owned()]));
        assert!(!facts.covers(&["example.org".to_owned(), "www.example.org".to_owned()]));
    }

    #[test]
    fn files_are_called_by_what_is_in_them() {
        let id = |directory: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            id(directory, &names)
        };
        let one = id("https://ca.example/dir", &["a.example", "b.example"]);
        assert!(one.starts_with("a.example-"), "{one}");
        assert_eq!(
            one,
            id("https://ca.example/dir", &["a.example", "b.example"])
        );
        let other_order = id("https://ca.example/dir", &["b.example", "a.example"]);
        assert_eq!(one.rsplit('-').next(), other_order.rsplit('-').next());
        for other in [
            id("https://ca.example/dir", &["a.example"]),
            id("https://other.example/dir", &["a.example", "b.example"]),
        ] {
            assert_ne!(one, other);
        }
        assert!(id("https://ca.example/dir", &["2001:db8::1"]).starts_with("2001-db8--1-"));
    }

    #[test]
    fn what_is_no_certificate_has_no_facts() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "nonsense", pem] {
            assert!(Facts::of_chain(text).is_none(), "{text}");
        }
    }
}
