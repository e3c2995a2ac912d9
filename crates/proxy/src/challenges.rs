//! The challenges of certificate authorities (RFC 8555 §8): what is answered to them, by HTTP and in handshakes.
//!
//! They come from the master, which has them from who orders certificates, and hold for every plan.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{control::Challenge, plan::CHALLENGES, tls::CertificateError};

/// The protocol of handshakes that are challenges (RFC 8737 §6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";

/// What is answered.
#[derive(Debug, Default)]
pub(crate) struct Challenges(ArcSwap<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// By the token.
    http: HashMap<String, Arc<str>>,
    /// By the name that the handshake is for.
    tls: HashMap<String, Arc<ServerConfig>>,
}

impl Challenges {
    /// Answers these, and no others.
    pub(crate) fn set(&self, challenges: Vec<Challenge>) {
        let mut answers = Answers::default();
        for challenge in challenges {
            match challenge {
                Challenge::Http { token, text } => {
                    answers.http.insert(token, text.into());
                }
                Challenge::Tls {
                    name,
                    certificate,
                    key,
                } => match handshake(&certificate, &key) {
                    Ok(config) => {
                        answers.tls.insert(name, Arc::new(config));
                    }
                    Err(error) => {
                        tracing::error!("the challenge for {name} cannot be answered: {error}");
                    }
                },
            }
        }
        self.0.store(Arc::new(answers));
    }

    /// What is to be found at a path; `None` where that is nobody's challenge.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Arc<str>> {
        let token = path.strip_prefix(CHALLENGES.as_bytes())?;
        let answers = self.0.load();
        answers
            .http
            .get(str::from_utf8(token).ok()?)
            .map(Arc::clone)
    }

    /// How to shake hands with who wants to see whose a name is; `None` with everybody else.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        // It offers nothing else (RFC 8737 §3).
        let mut protocols = hello.alpn()?;
        if protocols.next() != Some(PROTOCOL) || protocols.next().is_some() {
            return None;
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.load().tls.get(&name).map(Arc::clone)
    }
}

/// No client of ours would take such a certificate: what it says stands in an extension that nobody else may pass over.
fn handshake(certificate: &str, key: &str) -> Result<ServerConfig, CertificateError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::from_pem_slice(certificate.as_bytes());
    let chain = vec![chain.map_err(CertificateError::Chain)?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(CertificateError::Key)?;
    let key = provider.key_provider.load_private_key(key);
    let certified = CertifiedKey::new(chain, key.map_err(CertificateError::Unusable)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("aws-lc-rs has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_as_long_as_it_is_a_challenge() {
        let challenges = Challenges::default();
        let path = b"/.well-known/acme-challenge/abc";
        assert_eq!(challenges.find(path), None);
        challenges.set(vec![Challenge::Http {
            token: "abc".to_owned(),
            text: "abc.def".to_owned(),
        }]);
        assert_eq!(challenges.find(path).as_deref(), Some("abc.def"));
        for other in [
            &b"/.well-known/acme-challenge/"[..],
            b"/.well-known/acme-challenge/ab",
            b"/.well-known/acme-challenge/abc/",
            b"/abc",
            b"/.well-known/acme-challenge/\xff",
        ] {
            assert_eq!(challenges.find(other), None);
        }
        challenges.set(Vec::new());
        assert_eq!(challenges.find(path), None);
    }
}
