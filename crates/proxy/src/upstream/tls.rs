//! TLS to members (`https://`, `h2://`): none is spoken to that does not prove to be who the configuration names.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::CertificateError;

/// Who is trusted to say who a member is.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    /// PEM text of them, by which two configurations are told apart.
    pub(super) pem: Arc<str>,
    config: Arc<ClientConfig>,
}

/// How a member is spoken to.
#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    is_http2: bool,
}

impl Trust {
    /// These, among which there may be some that we cannot read, as in every system's collection.
    pub(super) fn new(pem: &str, is_http2: bool) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        let all = CertificateDer::pem_slice_iter(pem.as_bytes());
        let (good, _) = roots.add_parsable_certificates(all.filter_map(Result::ok));
        if good == 0 {
            let none = "there is none that could be used".to_owned();
            return Err(CertificateError::Trust(none));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("aws-lc-rs has suites for both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocol = if is_http2 { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.into()];
        Ok(Self {
            pem: pem.into(),
            config: Arc::new(config),
        })
    }

    /// What is spoken with the member of this name or address.
    pub(super) fn with(&self, host: &str, is_http2: bool) -> Result<Tls, CertificateError> {
        let name = ServerName::try_from(host.to_owned());
        Ok(Tls {
            config: Arc::clone(&self.config),
            name: name.map_err(|_| CertificateError::Name(host.to_owned()))?,
            is_http2,
        })
    }
}

impl Tls {
    /// Shakes hands.
    pub(super) async fn over(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await?;
        // One that knows no ALPN speaks HTTP/1.1; HTTP/2 must have been agreed upon (RFC 9113 §3.2).
        if self.is_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("it does not speak HTTP/2 (ALPN)"));
        }
        Ok(stream)
    }
}
