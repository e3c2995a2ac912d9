//! The HTTP client by which the authority is spoken to: HTTP/1.1 over rustls, one connection at a time, everything with an end.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use telemetry::panics::lock;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Time for a connection to one address.
const CONNECT: Duration = Duration::from_secs(10);

/// Time for a whole request, the connection included.
const REQUEST: Duration = Duration::from_secs(60);

/// Longest response, in bytes: a chain of certificates is the longest, of a few KiB.
const CONTENT_MAX: usize = 1 << 20;

/// What we call ourselves (RFC 8555 §6.1).
const USER_AGENT: &str = concat!("stack/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// A client of one authority. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tls: Arc<ClientConfig>,
    /// The connection that the last request has left.
    rests: Mutex<Option<Connection>>,
    /// When the authority wants to be asked again, by its last refusal.
    again: Mutex<Option<SystemTime>>,
}

#[derive(Debug)]
struct Connection {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

/// The authority cannot be trusted to be who it says.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is no certificate to know it by.
    #[error("there is no certificate in PEM that the authority could be known by")]
    None,
}

impl Client {
    /// Trusts these, certificates in PEM, among which there may be some that we cannot read, as in every system's collection.
    pub(crate) fn new(authorities: &str) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let all = CertificateDer::pem_slice_iter(authorities.as_bytes());
        let (good, _) = roots.add_parsable_certificates(all.filter_map(Result::ok));
        if good == 0 {
            return Err(TrustError::None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("aws-lc-rs has suites for both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(Shared {
            tls: Arc::new(tls),
            rests: Mutex::default(),
            again: Mutex::default(),
        })))
    }

    /// When the authority wants to be asked again, if it has said so since the last look.
    pub(crate) fn take_again(&self) -> Option<SystemTime> {
        lock(&self.0.again).take()
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let uri = request.uri().clone();
            let answered = timeout(REQUEST, shared.ask(request)).await;
            let answered = answered.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it does not answer within {} s", REQUEST.as_secs()),
                ))
            });
            let host = uri.authority().map_or("-", http::uri::Authority::as_str);
            match answered {
                Ok(response) => judge(&uri, response),
                Err(error) => Err(Error::Other(format!("{host}: {error}").into())),
            }
        })
    }
}

impl Shared {
    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> io::Result<Response<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map_or_else(|never| match never {}, http_body_util::Collected::to_bytes);
        let (authority, host, port) = target(&parts.uri)?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let path: Uri = path.parse().map_err(io::Error::other)?;
        let host_field = authority.parse().map_err(io::Error::other)?;
        parts.headers.insert(header::HOST, host_field);
        parts.headers.insert(
            header::USER_AGENT,
            header::HeaderValue::from_static(USER_AGENT),
        );
        parts.uri = path;
        let rests = lock(&self.rests).take();
        let rests = rests.filter(|rests| rests.authority == authority && !rests.sender.is_closed());
        if let Some(mut connection) = rests {
            let again = Request::from_parts(parts.clone(), Full::new(body.clone()));
            match connection.sender.send_request(again).await {
                Ok(response) => return self.finish(connection, response).await,
                // It was closed while it rested. What the server has not read it may be told once more: each request has a
                // number that is good for one (RFC 8555 §6.5).
                Err(error) => tracing::debug!("{authority} has closed the connection: {error}"),
            }
        }
        let sender = self.connect(&host, port).await?;
        let mut connection = Connection { authority, sender };
        let request = Request::from_parts(parts, Full::new(body));
        let response = connection.sender.send_request(request).await;
        self.finish(connection, response.map_err(io::Error::other)?)
            .await
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<SendRequest<Full<Bytes>>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = reach(host, port).await?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("no TLS: {error}")))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("the connection to the authority broke: {error}");
            }
        });
        Ok(sender)
    }

    async fn finish(
        &self,
        connection: Connection,
        response: Response<hyper::body::Incoming>,
    ) -> io::Result<Response<Bytes>> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, CONTENT_MAX)
            .collect()
            .await
            .map_err(io::Error::other)?;
        if parts.status.is_client_error() || parts.status.is_server_error() {
            *lock(&self.again) = retry_after(&parts.headers);
        }
        *lock(&self.rests) = Some(connection);
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// Authority, host and port.
fn target(uri: &Uri) -> io::Result<(String, String, u16)> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} {why}"));
    if uri.scheme_str() != Some("https") {
        return Err(wrong("does not begin with https://"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("names no server"))?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(443);
    Ok((authority.as_str().to_owned(), host, port))
}

/// A connection to the first address that takes one.
async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => lookup_host((host, port))
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("no address: {error}")))?
            .collect::<Vec<_>>(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => {
                last = io::Error::new(
                    error.kind(),
                    format!("cannot connect to {address}: {error}"),
                );
            }
            Err(_) => {
                let text = format!(
                    "cannot connect to {address}: no answer within {} s",
                    CONNECT.as_secs()
                );
                last = io::Error::new(io::ErrorKind::TimedOut, text);
            }
        }
    }
    Err(last)
}

/// An error that is not said in JSON is no answer of an authority, but of something before it.
fn judge(uri: &Uri, response: Response<Bytes>) -> Result<BytesResponse, Error> {
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().contains("json"));
    let is_error = status.is_client_error() || status.is_server_error();
    if is_error && !is_json || status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(Error::Other(format!("{uri} answers {status}").into()));
    }
    let (parts, body) = response.into_parts();
    Ok(BytesResponse {
        parts,
        body: Box::new(body),
    })
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(fields: &HeaderMap) -> Option<SystemTime> {
    let value = fields.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse::<u32>() {
        Ok(seconds) => Some(SystemTime::now() + Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_request_goes() {
        let target = |uri: &str| target(&uri.parse().unwrap());
        assert_eq!(
            target("https://ca.example/dir").unwrap(),
            ("ca.example".to_owned(), "ca.example".to_owned(), 443)
        );
        assert_eq!(
            target("https://[::1]:14000/dir").unwrap(),
            ("[::1]:14000".to_owned(), "::1".to_owned(), 14000)
        );
        for wrong in ["http://ca.example/dir", "/dir"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_page_is_no_answer() {
        let uri: Uri = "https://ca.example/dir".parse().unwrap();
        let response = |status: u16, kind: &str| {
            let builder = Response::builder()
                .status(status)
                .header("Content-Type", kind);
            judge(&uri, builder.body(Bytes::from("{}")).unwrap())
        };
        assert!(response(200, "application/json").is_ok());
        assert!(response(400, "application/problem+json").is_ok());
        assert!(response(404, "text/html").is_err());
        assert!(response(503, "application/problem+json").is_err());
    }

    #[test]
    fn when_to_ask_again() {
        let fields = |value: &str| {
            let mut fields = HeaderMap::new();
            fields.insert("Retry-After", value.parse().unwrap());
            fields
        };
        let date = retry_after(&fields("Fri, 31 Dec 1999 23:59:59 GMT")).unwrap();
        assert_eq!(
            date,
            SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_799)
        );
        assert!(retry_after(&fields("120")).unwrap() > SystemTime::now());
        for none in ["", "soon", "99999999999999999999"] {
            assert_eq!(retry_after(&fields(none)), None, "{none}");
        }
    }
}
