//! Visitors by TLS, who know whom they come to: one of two certificates, and a handshake that proves its key.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::Result;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::crowd::{Trouble, connect};
use crate::bench::websocket;

/// Whom they trust.
pub(super) struct Trust {
    resuming: Arc<ClientConfig>,
    anew: Arc<ClientConfig>,
}

/// How they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// Where there is a session they go on with it, as browsers do, and with the certificate that it began with.
    Resumed,
    /// With a whole handshake.
    New,
}

impl Trust {
    /// These leaves and no other.
    pub(super) fn of(leaves: Vec<Vec<u8>>) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let known = Arc::new(Known {
            leaves,
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(known)
            .with_no_client_auth();
        let mut anew = config.clone();
        anew.resumption = Resumption::disabled();
        Ok(Self {
            resuming: Arc::new(config),
            anew: Arc::new(anew),
        })
    }
}

/// Requests of one connection.
const REQUESTS: usize = 5;

/// Comes under this name, asks some times, and goes; which leaf was shown.
pub(super) fn come(
    address: SocketAddr,
    trust: &Trust,
    session: Session,
    visit: &str,
) -> Result<Vec<u8>, Trouble> {
    let config = match session {
        Session::Resumed => &trust.resuming,
        Session::New => &trust.anew,
    };
    let name = ServerName::IpAddress(address.ip().into());
    let mut tcp = connect(address)?;
    let connection = ClientConnection::new(Arc::clone(config), name);
    let mut connection = connection.map_err(|error| Trouble::Wrong(error.to_string()))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).map_err(trouble)?;
    }
    let mut stream = StreamOwned::new(connection, tcp);
    for _ in 0..REQUESTS {
        let request = format!("GET /version?{visit} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(trouble)?;
        let head = websocket::head(&mut stream)
            .map_err(trouble)?
            .to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut content = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut content).map_err(trouble)?;
        let status = head.get(9..12).and_then(|text| text.parse().ok());
        if status != Some(200) {
            return Err(Trouble::Status(status.unwrap_or(0)));
        }
        if head.contains("connection: close") {
            break;
        }
    }
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first);
    Ok(shown.map(|leaf| leaf.to_vec()).unwrap_or_default())
}

/// What TLS says against the other side is its fault; all else is the connection's.
fn trouble(error: io::Error) -> Trouble {
    match error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
    {
        true => Trouble::Wrong(error.to_string()),
        false => Trouble::Broken(error),
    }
}

#[derive(Debug)]
struct Known {
    leaves: Vec<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.leaves.iter().any(|known| known == leaf.as_ref()) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("a certificate of nobody".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
