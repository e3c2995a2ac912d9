//! Certificates of the test's own, and a TLS client that says what it was shown.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::{PATIENCE, read_some};

/// A certificate and its key, as PEM text.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Pair {
    /// Self-signed, ECDSA P-256.
    pub fn new(name: &str) -> Self {
        Self::made(name, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256), |_| {})
    }

    /// Self-signed, RSA.
    pub fn rsa(name: &str) -> Self {
        Self::made(name, KeyPair::generate_for(&PKCS_RSA_SHA256), |_| {})
    }

    /// Self-signed, with changes.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::made(name, KeyPair::generate(), change)
    }

    fn made(
        name: &str,
        key: Result<KeyPair, rcgen::Error>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = key.expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        change(&mut params);
        Self {
            cert: params.self_signed(&key).expect("signed").pem(),
            key: key.serialize_pem(),
        }
    }

    /// The certificate as DER.
    pub fn der(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.cert.as_bytes());
        der.expect("PEM of ours").to_vec()
    }
}

/// One that signs clients' certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub cert: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            cert,
        }
    }

    /// A client's certificate.
    pub fn sign(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(&params)
    }

    /// A server's certificate.
    pub fn sign_server(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.signed(&params)
    }

    fn signed(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        Pair {
            cert: params.signed_by(&key, &self.issuer).expect("signed").pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A client's TLS, with these protocols offered; any certificate will do.
pub fn config(protocols: &[&[u8]]) -> ClientConfig {
    let mut config = Offer::of("localhost").config;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// A server's end of a connection, with this certificate and protocol.
pub fn accept(
    tcp: TcpStream,
    pair: &Pair,
    protocol: &str,
) -> StreamOwned<ServerConnection, TcpStream> {
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for them")
        .with_no_client_auth()
        .with_single_cert(vec![pair.der().into()], key)
        .expect("they fit");
    config.alpn_protocols = vec![protocol.into()];
    let session = ServerConnection::new(Arc::new(config)).expect("a valid configuration");
    StreamOwned::new(session, tcp)
}

/// What a client offers.
#[derive(Clone)]
pub struct Offer {
    config: ClientConfig,
    shown: Arc<Shown>,
    name: Option<String>,
}

/// A connection that a handshake came of.
pub struct Connected {
    session: ClientConnection,
    tcp: TcpStream,
    /// The server's certificate, as DER.
    pub certificate: Vec<u8>,
    /// What came with it of OCSP.
    pub ocsp: Vec<u8>,
}

impl Offer {
    /// HTTP/1.1, any certificate, for this name.
    pub fn of(name: &str) -> Self {
        let schemes = aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes();
        Self::with_schemes(name, schemes, None)
    }

    /// The same for an address: no name is sent.
    pub fn nameless() -> Self {
        Self {
            name: None,
            ..Self::of("localhost")
        }
    }

    /// The same for a client that knows RSA alone.
    pub fn rsa_only(name: &str) -> Self {
        let schemes = vec![
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA256,
        ];
        Self::with_schemes(name, schemes, None)
    }

    /// The same with a certificate of the client's own.
    pub fn showing(name: &str, pair: &Pair) -> Self {
        let schemes = aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes();
        Self::with_schemes(name, schemes, Some(pair))
    }

    fn with_schemes(name: &str, schemes: Vec<SignatureScheme>, pair: Option<&Pair>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown {
            provider: Arc::clone(&provider),
            schemes,
            last: Mutex::default(),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for them")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<dyn ServerCertVerifier>);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                let chain = vec![pair.der().into()];
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(8);
        Self {
            config,
            shown,
            name: Some(name.to_owned()),
        }
    }

    /// Offers these protocols.
    pub fn protocols(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// The client's configuration, for other clients.
    pub fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// Connects, and asks nothing yet.
    pub fn connect(&self, address: SocketAddr) -> Result<Connected, String> {
        let mut tcp = TcpStream::connect_timeout(&address, PATIENCE).expect("the stack listens");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a valid time");
        let name = match &self.name {
            Some(name) => ServerName::try_from(name.clone()),
            None => ServerName::try_from(address.ip().to_string()),
        };
        let config = Arc::new(self.config.clone());
        let mut session =
            ClientConnection::new(config, name.expect("a valid name")).expect("valid");
        while session.is_handshaking() {
            session
                .complete_io(&mut tcp)
                .map_err(|error| error.to_string())?;
        }
        let (certificate, ocsp) = self
            .shown
            .last
            .lock()
            .expect("nobody panics with it")
            .clone();
        Ok(Connected {
            session,
            tcp,
            certificate,
            ocsp,
        })
    }

    /// The certificate that it is shown, as DER.
    pub fn certificate(&self, address: SocketAddr) -> Vec<u8> {
        self.connect(address).expect("a handshake").certificate
    }
}

impl Connected {
    /// Whether the handshake was a short one.
    pub fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// One GET; what came, as text, up to the end of its content.
    pub fn get(&mut self, host: &str, path: &str) -> Result<String, std::io::Error> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// One request without content.
    pub fn send(&mut self, request: &str) -> Result<String, std::io::Error> {
        let mut stream = rustls::Stream::new(&mut self.session, &mut self.tcp);
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        let mut piece = [0; 4096];
        loop {
            let length = read_some(&mut stream, &mut piece)?;
            text.push_str(&String::from_utf8_lossy(&piece[..length]));
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                if length == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            let stated = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().ok())?
            });
            if length == 0 || stated.is_none_or(|stated| body.len() >= stated) {
                return Ok(text);
            }
        }
    }
}

/// Trusts every certificate and remembers it, but checks that the server has its key.
#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
    last: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.last.lock().expect("nobody panics with it") = (certificate.to_vec(), ocsp.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
