//! TLS 1.2 and 1.3 by rustls with aws-lc-rs: which certificate for which name, what is offered, and who may come in.
//!
//! Keys come as PEM text from the master, or are made here (`self_signed`). Only rustls' safe suites are offered; early data
//! is off, since a replayed request would run twice (RFC 8470). Certificates are renewed without a new plan: whoever has a
//! connection keeps what it was made with.

mod self_signed;
mod tickets;
mod x509;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::config::site::{ClientAuth, HostPattern, Need, Site, UnknownNames, VirtualHost};
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
};

use tokio::sync::Semaphore;

use self::tickets::Tickets;
pub use self::tickets::{ROTATION, TicketKey};
pub(crate) use self::{self_signed::SelfSigned, x509::Facts};
use crate::{
    control::{Certificate, Credentials},
    route::Hosts,
};

/// What TLS listeners speak.
#[derive(Debug)]
pub(crate) struct Tls {
    sites: Vec<TlsSite>,
    unknown_names: UnknownNames,
    tickets: Tickets,
    /// Places for handshakes (`limits.handshakes`).
    pub(crate) places: Semaphore,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Names>,
}

/// What a site with TLS asks for.
#[derive(Debug)]
struct TlsSite {
    /// Its place in the configuration.
    index: usize,
    names: Vec<HostPattern>,
    clients: Option<ClientAuth>,
    is_self_signed: bool,
}

/// Who answers for which name.
#[derive(Debug)]
struct Names {
    hosts: Hosts<Arc<Chosen>>,
    /// For clients that send no name or one that no site has: a browser then shows the request's 421 instead of nothing.
    default: Option<Arc<Chosen>>,
}

/// How a site speaks TLS.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// With these certificates, suites and protocols.
    pub(crate) config: Arc<ServerConfig>,
    /// Which site that is, counted from 0.
    pub(crate) site: usize,
    /// Whether clients are asked for certificates.
    pub(crate) asks_clients: bool,
}

/// A certificate that is being shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The site's hosts, as they are written.
    pub hosts: Vec<String>,
    /// Whose it is, as RFC 4514 writes it.
    pub subject: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// Those of the hosts that it does not name, where somebody has given it: browsers refuse it there.
    pub unnamed: Vec<String>,
}

/// A client's certificate, as the app is told of it.
#[derive(Debug)]
pub(crate) struct Presented {
    /// The site that asked for it.
    pub(crate) site: usize,
    /// What it says, and its fingerprint; `None` where the client showed none.
    pub(crate) certificate: Option<(Facts, String)>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The chain's text.
    #[error("the certificate file is not PEM: {}", broken_pem(.0))]
    Chain(#[source] pem::Error),
    /// The chain is empty.
    #[error("the certificate file holds no certificate")]
    Empty,
    /// The file of the chain is that of a key.
    #[error("the certificate file holds no certificate, but a private key")]
    Swapped,
    /// The key is kept from who has no passphrase.
    #[error("the private key has a passphrase")]
    Encrypted,
    /// Two that do not belong together.
    #[error("this key is not the certificate's")]
    Mismatch,
    /// The key's text.
    #[error("the key file holds no PEM private key: {}", broken_pem(.0))]
    Key(#[source] pem::Error),
    /// The key and the certificate, together.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// Who signs clients' certificates.
    #[error("the certificates of `client_ca` cannot be used: {0}")]
    Authorities(String),
    /// Who signs the certificates of an upstream's members.
    #[error("the certificates that members are verified by cannot be used: {0}")]
    Trust(String),
    /// A member whose name no certificate can have.
    #[error("{0:?} is no name that a certificate can have")]
    Name(String),
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
        matches!(self, Self::Key(_) | Self::Encrypted | Self::Mismatch)
    }

    /// What to do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Chain(_) | Self::Empty => {
                "give the full chain, leaf first, as PEM (-----BEGIN CERTIFICATE-----): of a binary file \
                 `openssl x509 -inform der` makes it, of a .pfx `openssl pkcs12 -nodes`"
            }
            Self::Encrypted => {
                "nobody is there to type it when a server starts: `openssl pkey -in KEY -out NEW` takes it off, \
                 and `chmod 600 NEW` keeps others out"
            }
            Self::Swapped => "are `cert` and `key` swapped?",
            Self::Key(_) => "give the unencrypted private key as PEM: -----BEGIN PRIVATE KEY-----",
            Self::Mismatch | Self::Unusable(_) => {
                "check that the key belongs to the first certificate of the chain"
            }
            Self::Authorities(_) => {
                "give the certificates of who signs clients', as PEM: -----BEGIN CERTIFICATE-----"
            }
            Self::Trust(_) => {
                "give the certificates of who signs theirs, as PEM: -----BEGIN CERTIFICATE-----"
            }
            Self::Name(_) => "write the name that is in its certificate",
            Self::Making(_) | Self::Missing(_) => "please report this",
        }
    }
}

impl Tls {
    /// All that the configuration names; `None` when no site wants TLS.
    pub(crate) fn new(
        site: &Site,
        credentials: &Credentials,
        self_signed: &SelfSigned,
    ) -> Result<Option<Self>, CertificateError> {
        use ::config::site::Tls as Wanted;
        let sites = site.hosts.iter().enumerate();
        let wanted = sites.filter(|(_, host)| host.tls.value != Wanted::Off);
        let sites: Vec<TlsSite> = wanted
            .map(|(index, host)| TlsSite {
                index,
                names: host.names.clone(),
                clients: host.clients.clone(),
                // One by ACME is self-signed until there is another.
                is_self_signed: matches!(host.tls.value, Wanted::SelfSigned | Wanted::Acme),
            })
            .collect();
        if sites.is_empty() {
            return Ok(None);
        }
        let tls = Self {
            sites,
            unknown_names: site.server.unknown_names,
            tickets: Tickets::default(),
            places: Semaphore::new(
                usize::try_from(site.limits.handshakes)
                    .unwrap_or(usize::MAX)
                    .min(Semaphore::MAX_PERMITS),
            ),
            provider: Arc::new(aws_lc_rs::default_provider()),
            current: ArcSwap::from_pointee(Names {
                hosts: Hosts::default(),
                default: None,
            }),
        };
        tls.renew(credentials, self_signed)?;
        Ok(Some(tls))
    }

    /// Uses these for every handshake from now on; where one of them cannot be used, nothing changes.
    pub(crate) fn renew(
        &self,
        credentials: &Credentials,
        self_signed: &SelfSigned,
    ) -> Result<(), CertificateError> {
        let mut names = Names {
            hosts: Hosts::default(),
            default: None,
        };
        for site in &self.sites {
            let keys = self.keys(site, credentials, self_signed)?;
            let chosen = Arc::new(self.chosen(site, keys, credentials)?);
            for name in &site.names {
                names.hosts.insert(name, Arc::clone(&chosen));
            }
            if self.unknown_names == UnknownNames::Default {
                names.default.get_or_insert(chosen);
            }
        }
        self.tickets.renew(&credentials.tickets);
        self.current.store(Arc::new(names));
        Ok(())
    }

    fn keys(
        &self,
        site: &TlsSite,
        credentials: &Credentials,
        self_signed: &SelfSigned,
    ) -> Result<Vec<Arc<CertifiedKey>>, CertificateError> {
        let handed = credentials.certificates.iter();
        let keys = handed
            .filter(|certificate| certificate.host == site.index)
            .map(|certificate| certified_key(certificate).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        if site.is_self_signed {
            return Ok(vec![self_signed.certificate(site.index, &site.names)?]);
        }
        Err(CertificateError::Missing(site.index))
    }

    fn chosen(
        &self,
        site: &TlsSite,
        keys: Vec<Arc<CertifiedKey>>,
        credentials: &Credentials,
    ) -> Result<Chosen, CertificateError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("aws-lc-rs has suites for both versions");
        let builder = match &site.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let pem = credentials.authorities_of(site.index);
                let roots = Arc::new(authorities(pem)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
                let verifier = match clients.need {
                    Need::Required => verifier,
                    Need::Optional => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Several(keys)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if site.clients.is_some() {
            // A session that is resumed is not asked for a certificate again, and what it was asked for may have changed since
            // (CVE-2025-23419): here every handshake is a whole one.
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Arc::new(self.tickets.clone());
        }
        Ok(Chosen {
            config: Arc::new(config),
            site: site.index,
            asks_clients: site.clients.is_some(),
        })
    }

    /// How to speak with a client that begins so; `None` if not at all.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<Chosen>> {
        let names = self.current.load();
        let found = hello.server_name().and_then(|name| {
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                names.hosts.find(name.to_ascii_lowercase().as_bytes())
            } else {
                names.hosts.find(name.as_bytes())
            }
        });
        found.or(names.default.as_ref()).map(Arc::clone)
    }
}

/// The certificates of one site, the best first.
#[derive(Debug)]
struct Several(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Several {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| {
            let schemes = hello.signature_schemes();
            key.key.choose_scheme(schemes).is_some()
        };
        // If none fits, the handshake fails with the right alert.
        self.0
            .iter()
            .find(fits)
            .or_else(|| self.0.first())
            .map(Arc::clone)
    }
}

/// Parses a chain and its key, and checks that they belong together.
pub(crate) fn certified_key(certificate: &Certificate) -> Result<CertifiedKey, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(CertificateError::Chain)?;
    if chain.is_empty() {
        let is_key = PrivateKeyDer::from_pem_slice(certificate.chain.as_bytes()).is_ok();
        return Err(match is_key {
            true => CertificateError::Swapped,
            false => CertificateError::Empty,
        });
    }
    // PKCS #8 (RFC 7468 §11), and what OpenSSL wrote before it (RFC 1421 §4.6.1.1).
    if ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|words| certificate.key.contains(words))
    {
        return Err(CertificateError::Encrypted);
    }
    let key =
        PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).map_err(CertificateError::Key)?;
    let mut certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch
            }
            other => CertificateError::Unusable(other),
        })?;
    certified.ocsp.clone_from(&certificate.ocsp);
    Ok(certified)
}

/// Those who sign clients' certificates.
pub(crate) fn authorities(pem: &str) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unusable(broken_pem(&error)))?;
        roots.add(certificate).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(CertificateError::Authorities(
            "there is none in the file".to_owned(),
        ));
    }
    Ok(roots)
}

fn unusable(error: impl fmt::Display) -> CertificateError {
    CertificateError::Authorities(error.to_string())
}

/// What is wrong with a text as PEM (RFC 7468). The library shows labels as numbers, and would show lines of a key.
pub(crate) fn broken_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "it ends before -----END {}-----",
            String::from_utf8_lossy(end_marker).escape_debug()
        ),
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with -----BEGIN does not end with -----".to_owned()
        }
        other => other.to_string(),
    }
}

/// Checks what the master has read, before a proxy is told of it: what will be shown to whom.
///
/// # Errors
/// Why it cannot be used, for people, in one line.
pub fn check(site: &Site, credentials: &Credentials) -> Result<Vec<Shown>, String> {
    let hosts_of = |index: usize| {
        let names = site.hosts.get(index).map(|host| &host.names);
        let names = names.into_iter().flatten().map(ToString::to_string);
        names.collect::<Vec<_>>()
    };
    let say = |index: usize, error: &CertificateError| {
        format!("site {}: {error}", hosts_of(index).join(", "))
    };
    for (index, pem) in &credentials.authorities {
        authorities(pem).map_err(|error| say(*index, &error))?;
    }
    let mut shown = Vec::new();
    for certificate in &credentials.certificates {
        let index = certificate.host;
        let key = certified_key(certificate).map_err(|error| say(index, &error))?;
        let Some(leaf) = key.cert.first() else {
            continue;
        };
        shown.extend(Facts::of(leaf).map(|facts| {
            Shown {
                hosts: hosts_of(index),
                subject: facts.subject,
                serial: facts.serial,
                not_after: facts.not_after,
                unnamed: site
                    .hosts
                    .get(index)
                    .map_or_else(Vec::new, |host| unnamed(leaf, host)),
            }
        }));
    }
    Ok(shown)
}

/// The hosts that a certificate does not name. What is got by ACME, or made here, is not asked: until there is another, any is shown.
fn unnamed(leaf: &CertificateDer<'_>, host: &VirtualHost) -> Vec<String> {
    if !matches!(host.tls.value, ::config::site::Tls::Files(_)) {
        return Vec::new();
    }
    let Ok(certificate) = ParsedCertificate::try_from(leaf) else {
        return Vec::new();
    };
    let is_named = |pattern: &&HostPattern| {
        let name = match pattern {
            HostPattern::Exact(name) => name.clone(),
            // Any name below it will do.
            HostPattern::Wildcard(parent) => format!("any.{parent}"),
            HostPattern::Any => return true,
        };
        // An address of IPv6 has brackets in a host.
        let name = ServerName::try_from(name.trim_matches(['[', ']']));
        name.is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    };
    let unnamed = host.names.iter().filter(|pattern| !is_named(pattern));
    unnamed.map(ToString::to_string).collect()
}

/// How long before its end a certificate is warned of: authorities that issue by themselves renew a month before.
pub const SOON: Duration = Duration::from_secs(14 * 86_400);

/// SHA-256, in upper-case hexadecimal digits.
pub(crate) fn fingerprint(der: &CertificateDer<'_>) -> String {
    x509::hex(::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, der).as_ref())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pair(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
        Certificate {
            host: 0,
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            ocsp: None,
        }
    }

    #[test]
    fn hosts_that_a_certificate_does_not_name_are_found() {
        let names = ["a.example", "*.b.example", "192.0.2.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("made");
        let unnamed_of = |hosts: &str, tls: &str| {
            let text = format!(
                "[server]\nhttps = [\":0\"]\n[[site]]\nhosts = {hosts}\ntls = {tls}\n\
                 routes = [{{ path = \"/\", respond = \"\" }}]\n"
            );
            let loaded = ::config::parse(Path::new("/srv/site.toml"), text, false);
            let site = loaded.unwrap_or_else(|report| panic!("{report}")).site;
            unnamed(made.cert.der(), &site.hosts[0])
        };
        let files = "{ cert = \"c.pem\", key = \"k.pem\" }";
        for (hosts, expected) in [
            ("[\"a.example\", \"192.0.2.1\", \"::1\"]", vec![]),
            ("[\"*.b.example\", \"www.b.example\"]", vec![]),
            ("[\"*\"]", vec![]),
            (
                "[\"www.a.example\", \"a.example\", \"b.example\"]",
                vec!["www.a.example", "b.example"],
            ),
            (
                "[\"*.a.example\", \"192.0.2.2\"]",
                vec!["*.a.example", "192.0.2.2"],
            ),
        ] {
            assert_eq!(unnamed_of(hosts, files), expected, "{hosts}");
            assert_eq!(unnamed_of(hosts, "\"self-signed\""), Vec::<String>::new());
        }
    }

    #[test]
    fn mistakes_are_told_apart() {
        let (one, two) = (pair("a.example"), pair("b.example"));
        assert!(certified_key(&one).is_ok());
        let empty = Certificate {
            chain: String::new(),
            ..one.clone()
        };
        assert!(matches!(
            certified_key(&empty),
            Err(CertificateError::Empty)
        ));
        let swapped = Certificate {
            chain: one.key.clone(),
            key: one.chain.clone(),
            ..one.clone()
        };
        assert!(matches!(
            certified_key(&swapped),
            Err(CertificateError::Swapped)
        ));
        let nonsense = Certificate {
            key: "nonsense".to_owned(),
            ..one.clone()
        };
        assert!(matches!(
            certified_key(&nonsense),
            Err(CertificateError::Key(_))
        ));
        // What a disk that was full has left of it, or a copy that is not finished.
        let half = Certificate {
            chain: one.chain[..one.chain.len() / 2].to_owned(),
            ..one.clone()
        };
        let said = certified_key(&half).expect_err("it has no end").to_string();
        assert_eq!(
            said,
            "the certificate file is not PEM: it ends before -----END CERTIFICATE-----"
        );
        let said = authorities(&half.chain).expect_err("nor here").to_string();
        assert!(
            said.ends_with(": it ends before -----END CERTIFICATE-----"),
            "{said}"
        );
        let mixed = Certificate {
            key: two.key,
            ..one.clone()
        };
        assert!(matches!(
            certified_key(&mixed),
            Err(CertificateError::Mismatch)
        ));
        for words in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
        ] {
            let encrypted = Certificate {
                key: words.to_owned(),
                ..one.clone()
            };
            assert!(matches!(
                certified_key(&encrypted),
                Err(CertificateError::Encrypted)
            ));
        }
        assert!(authorities(&one.chain).is_ok());
        for pem in ["", "nonsense", &one.key] {
            assert!(
                matches!(authorities(pem), Err(CertificateError::Authorities(_))),
                "{pem}"
            );
        }
    }
}
