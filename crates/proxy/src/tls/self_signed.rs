//! Certificates that we sign ourselves, for trying out: made once for each set of names, told to no one but the master, which
//! hands them to the next proxy, so that a browser need not be asked again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use config::site::{HostPattern, Site, Tls, VirtualHost};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use telemetry::panics;

use super::{CertificateError, fingerprint};
use crate::control::Certificate;

/// Self-signed certificates, made once for each set of names and kept for the life of the process.
#[derive(Default)]
pub(crate) struct SelfSigned {
    made: Mutex<HashMap<Vec<String>, Made>>,
}

/// One of them.
struct Made {
    certified: Arc<CertifiedKey>,
    /// Of the first site that it was made for.
    pem: Certificate,
}

impl SelfSigned {
    pub(super) fn certificate(
        &self,
        host: usize,
        names: &[HostPattern],
    ) -> Result<Arc<CertifiedKey>, CertificateError> {
        let names = subject_names(names);
        let mut made = panics::lock(&self.made);
        if let Some(known) = made.get(&names) {
            return Ok(Arc::clone(&known.certified));
        }
        let (certified, chain, key) = make(&names)?;
        let certified = Arc::new(certified);
        let new = Made {
            certified: Arc::clone(&certified),
            pem: Certificate {
                host,
                chain,
                key,
                ocsp: None,
            },
        };
        made.insert(names, new);
        Ok(certified)
    }

    /// Those of a configuration, to be handed to the next proxy.
    pub(crate) fn made(&self, site: &Site) -> Vec<Certificate> {
        let made = panics::lock(&self.made);
        let hosts = site.hosts.iter().enumerate();
        let of_host = |(host, virtual_host): (usize, &VirtualHost)| {
            if virtual_host.tls.value != Tls::SelfSigned {
                return None;
            }
            let known = made.get(&subject_names(&virtual_host.names))?;
            let pem = known.pem.clone();
            Some(Certificate { host, ..pem })
        };
        hosts.filter_map(of_host).collect()
    }
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys never reach a log.
        f.write_str("SelfSigned")
    }
}

/// The site's own names, and those by which a developer reaches this machine.
fn subject_names(hosts: &[HostPattern]) -> Vec<String> {
    let own = hosts.iter().filter_map(|host| match host {
        HostPattern::Any => None,
        HostPattern::Exact(name) => Some(name.trim_matches(['[', ']']).to_owned()),
        HostPattern::Wildcard(parent) => Some(format!("*.{parent}")),
    });
    let mut names: Vec<String> = own
        .chain(["localhost", "127.0.0.1", "::1"].map(String::from))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The certificate as rustls wants it, and as PEM text: the chain and the key.
fn make(names: &[String]) -> Result<(CertifiedKey, String, String), CertificateError> {
    let made = rcgen::generate_simple_self_signed(names).map_err(CertificateError::Making)?;
    let der = made.cert.der().clone();
    tracing::info!(
        "self-signed certificate for {}: browsers ask once whether to trust it, curl needs -k
SHA-256 {}",
        names.join(", "),
        with_colons(&der),
    );
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![der], key, &aws_lc_rs::default_provider())
        .map_err(CertificateError::Unusable)?;
    Ok((certified, made.cert.pem(), made.signing_key.serialize_pem()))
}

/// As browsers show it: upper-case pairs with colons.
fn with_colons(der: &CertificateDer<'_>) -> String {
    let digits = fingerprint(der);
    let pairs = digits.as_bytes().chunks(2);
    let pairs: Vec<&str> = pairs
        .map(|pair| str::from_utf8(pair).unwrap_or_default())
        .collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certified_key;

    #[test]
    fn a_self_signed_certificate_is_made_once() {
        let store = SelfSigned::default();
        let names = [HostPattern::Exact("example.org".into()), HostPattern::Any];
        let first = store.certificate(0, &names).expect("made");
        let second = store.certificate(2, &names).expect("kept");
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn what_was_made_can_be_handed_on() {
        let store = SelfSigned::default();
        let first = store.certificate(0, &[HostPattern::Any]).expect("made");
        store.certificate(1, &[HostPattern::Any]).expect("kept");
        let site = |text: &str| {
            let text = format!("[server]\nhttps = [\":8443\"]\n{text}");
            let loaded = config::parse(std::path::Path::new("/site.toml"), text, false);
            loaded.expect("valid").site
        };
        let route = "routes = [{ path = \"/\", respond = \"\" }]\n";
        let off = format!("[[site]]\nhosts = [\"a.example\"]\ntls = \"off\"\n{route}");
        let made = store.made(&site(&format!("{off}[[site]]\n{route}")));
        let hosts: Vec<usize> = made.iter().map(|certificate| certificate.host).collect();
        assert_eq!(hosts, [1], "in the order of this configuration");
        let again = certified_key(&made[0]).expect("what we made");
        assert_eq!(again.cert, first.cert);
    }
}
