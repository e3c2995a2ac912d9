//! TLS 1.2 and 1.3 by rustls with aws-lc-rs: which certificate for which name, and what is offered.
//!
//! Keys come as PEM text from the master, or are made here and told to no one but the master, which hands them to the next
//! proxy. Only rustls' safe suites are offered;
//! early data is off, since a replayed request would run twice (RFC 8470).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use config::site::{HostPattern, Site, Tls};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{control::Certificate, route::Hosts};

/// Which certificate answers for which name.
#[derive(Debug)]
pub(crate) struct Certificates {
    names: Hosts<Arc<CertifiedKey>>,
    /// For clients that send no name or one that no site has: a browser then shows the request's 421 instead of nothing.
    default: Arc<CertifiedKey>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The chain's text.
    #[error("the certificate file is not PEM: {0}")]
    Chain(#[source] rustls::pki_types::pem::Error),
    /// The chain is empty.
    #[error("the certificate file holds no certificate")]
    Empty,
    /// The key's text.
    #[error("the key file holds no PEM private key: {0}")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The key and the certificate, together.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    Making(#[source] rcgen::Error),
    /// The master sent no certificate for a site that names one.
    #[error("no certificate was handed over for site {0}")]
    Missing(usize),
}

impl CertificateError {
    /// Whether the key's file is the one to mend.
    pub(crate) fn is_about_key(&self) -> bool {
        matches!(self, Self::Key(_))
    }

    /// What to do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Chain(_) | Self::Empty => {
                "give the full chain, leaf first, as PEM: -----BEGIN CERTIFICATE-----"
            }
            Self::Key(_) => "give the unencrypted private key as PEM: -----BEGIN PRIVATE KEY-----",
            Self::Unusable(_) => "check that the key belongs to the first certificate of the chain",
            Self::Making(_) | Self::Missing(_) => "please report this",
        }
    }
}

impl Certificates {
    /// Loads all that the configuration names; `None` when no site wants TLS.
    pub(crate) fn load(
        site: &Site,
        handed: &[Certificate],
        self_signed: &SelfSigned,
    ) -> Result<Option<Self>, CertificateError> {
        let mut names = Hosts::default();
        let mut first = None;
        for (index, host) in site.hosts.iter().enumerate() {
            let pem = handed.iter().find(|certificate| certificate.host == index);
            let certified = match (&host.tls.value, pem) {
                (Tls::Off, _) => continue,
                (_, Some(pem)) => Arc::new(certified_key(&pem.chain, &pem.key)?),
                (Tls::SelfSigned, None) => self_signed.certificate(index, &host.names)?,
                (Tls::Files { .. }, None) => return Err(CertificateError::Missing(index)),
            };
            first.get_or_insert_with(|| Arc::clone(&certified));
            for name in &host.names {
                names.insert(name, Arc::clone(&certified));
            }
        }
        Ok(first.map(|default| Self { names, default }))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| {
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.names.find(name.to_ascii_lowercase().as_bytes())
            } else {
                self.names.find(name.as_bytes())
            }
        });
        Some(Arc::clone(found.unwrap_or(&self.default)))
    }
}

/// What a TLS listener speaks with these certificates.
pub(crate) fn server_config(certificates: Certificates) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("aws-lc-rs has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Arc::new(config)
}

/// Parses a chain and its key, and checks that they belong together.
pub(crate) fn certified_key(chain: &str, key: &str) -> Result<CertifiedKey, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertificateError::Chain)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(CertificateError::Key)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(CertificateError::Unusable)
}

/// Self-signed certificates, made once for each set of names and kept for the life of the process.
#[derive(Default)]
pub(crate) struct SelfSigned {
    made: Mutex<HashMap<Vec<String>, Made>>,
}

/// One of them.
struct Made {
    certified: Arc<CertifiedKey>,
    /// For each site that it serves.
    pem: Vec<Certificate>,
}

impl SelfSigned {
    fn certificate(
        &self,
        host: usize,
        names: &[HostPattern],
    ) -> Result<Arc<CertifiedKey>, CertificateError> {
        let names = subject_names(names);
        let mut made = self.made.lock().expect("no holder of this lock panics");
        if let Some(known) = made.get_mut(&names) {
            if let Some(first) = known.pem.first().cloned() {
                known.pem.push(Certificate { host, ..first });
            }
            return Ok(Arc::clone(&known.certified));
        }
        let (certified, chain, key) = make(&names)?;
        let certified = Arc::new(certified);
        let new = Made {
            certified: Arc::clone(&certified),
            pem: vec![Certificate { host, chain, key }],
        };
        made.insert(names, new);
        Ok(certified)
    }

    /// All of them, to be handed to the next proxy.
    pub(crate) fn made(&self) -> Vec<Certificate> {
        let made = self.made.lock().expect("no holder of this lock panics");
        made.values().flat_map(|made| made.pem.clone()).collect()
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
        fingerprint(&der),
    );
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![der], key, &aws_lc_rs::default_provider())
        .map_err(CertificateError::Unusable)?;
    Ok((certified, made.cert.pem(), made.signing_key.serialize_pem()))
}

/// As browsers show it: upper-case pairs with colons.
fn fingerprint(der: &CertificateDer<'_>) -> String {
    use rustls::crypto::hash::Hash;
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let sha256: &dyn Hash = suite.tls13().expect("a TLS 1.3 suite").common.hash_provider;
    let digest = sha256.hash(der);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let made = store.made();
        let hosts: Vec<usize> = made.iter().map(|certificate| certificate.host).collect();
        assert_eq!(hosts, [0, 1]);
        let again = certified_key(&made[1].chain, &made[1].key).expect("what we made");
        assert_eq!(again.cert, first.cert);
    }

    #[test]
    fn mistakes_are_told_apart() {
        let one = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("made");
        let two = rcgen::generate_simple_self_signed(["b.example".to_owned()]).expect("made");
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        assert!(certified_key(&chain, &key).is_ok());
        assert!(matches!(
            certified_key("", &key),
            Err(CertificateError::Empty)
        ));
        assert!(matches!(
            certified_key(&chain, "nonsense"),
            Err(CertificateError::Key(_))
        ));
        let mixed = certified_key(&chain, &two.signing_key.serialize_pem());
        assert!(
            matches!(mixed, Err(CertificateError::Unusable(_))),
            "{mixed:?}"
        );
    }
}
