//! Visitors of our own, for what no load generator does: handshakes with HTTP/1.1 behind them, connections that stay open and
//! rest, crowds that are all there before they ask. They come from several addresses, since one has too few ports.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Load, Outcome, Request};
use crate::bench::{
    peer::Running,
    report::{EACH, RATE, RESTING},
};

/// A connection, a whole handshake and a request, and again.
pub(crate) struct Handshakes(pub(crate) Request);

impl Load for Handshakes {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let visitor = Arc::new(Visitor::tls(server, self.0)?);
        let start = Instant::now();
        let requests = runtime()?.block_on(async {
            let mut visitors = JoinSet::new();
            for number in 0..connections {
                visitors.spawn(come_and_go(Arc::clone(&visitor), number, start + time));
            }
            let mut requests = 0;
            while let Some(made) = visitors.join_next().await {
                requests += made??;
            }
            anyhow::Ok(requests)
        })?;
        Ok(Outcome {
            requests,
            cpu: None,
            figures: vec![(RATE, requests as f64 / start.elapsed().as_secs_f64())],
        })
    }
}

async fn come_and_go(visitor: Arc<Visitor>, number: usize, end: Instant) -> Result<u64> {
    let mut made = 0;
    while Instant::now() < end {
        visitor.come(number).await?;
        made += 1;
    }
    Ok(made)
}

/// Connections that have had one answer each, and rest.
pub(crate) struct Resting {
    /// What each asks for first.
    pub(crate) request: Request,
    /// Whether they speak TLS.
    pub(crate) tls: bool,
}

/// Connections that are all open before anything is counted, and then all ask at once, again and again.
pub(crate) struct Crowd(pub(crate) Request);

impl Load for Crowd {
    /// Each has asked once when it counts.
    fn warms_up(&self) -> bool {
        false
    }

    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let visitor = Arc::new(Visitor::plain(server, self.0)?);
        runtime()?.block_on(async {
            let crowd = crowd(&visitor, connections).await?;
            let before = server.cpu()?;
            let start = Instant::now();
            let mut asking = JoinSet::new();
            for stream in crowd {
                asking.spawn(ask_on(Arc::clone(&visitor), stream, start + time));
            }
            let mut inside = Vec::with_capacity(connections);
            let mut requests = 0;
            while let Some(one) = asking.join_next().await {
                let (stream, made) = one??;
                // None is closed before all have asked for the last time.
                inside.push(stream);
                requests += made;
            }
            let rate = requests as f64 / start.elapsed().as_secs_f64();
            Ok(Outcome {
                requests,
                cpu: Some((before, server.cpu()?)),
                figures: vec![(RATE, rate)],
            })
        })
    }
}

async fn ask_on(
    visitor: Arc<Visitor>,
    mut stream: Box<dyn Held>,
    end: Instant,
) -> Result<(Box<dyn Held>, u64)> {
    let mut made = 0;
    while Instant::now() < end {
        visitor.ask(&mut stream).await?;
        made += 1;
    }
    Ok((stream, made))
}

/// How many come at once.
const AT_ONCE: usize = 64;

impl Load for Resting {
    /// Whatever a warm-up leaves behind would be missing from what is counted.
    fn warms_up(&self) -> bool {
        false
    }

    fn run(&self, server: &Running, connections: usize, _: Duration) -> Result<Outcome> {
        let visitor = Arc::new(match self.tls {
            true => Visitor::tls(server, self.request)?,
            false => Visitor::plain(server, self.request)?,
        });
        let figures = runtime()?.block_on(async {
            // What the first visitors make a server load is not for them alone.
            drop(crowd(&visitor, AT_ONCE).await?);
            let before = settled(server).await?;
            let crowd = crowd(&visitor, connections).await?;
            let after = settled(server).await?;
            ensure!(
                server.front_descriptors() >= connections,
                "the server has closed some of them"
            );
            drop(crowd);
            let grown = after - before;
            Ok(vec![
                (RESTING, grown),
                (EACH, grown * 1024.0 / connections as f64),
            ])
        })?;
        Ok(Outcome {
            requests: connections as u64,
            cpu: None,
            figures,
        })
    }
}

/// Opens so many.
async fn crowd(visitor: &Arc<Visitor>, count: usize) -> Result<Vec<Box<dyn Held>>> {
    let mut coming = JoinSet::new();
    let mut inside = Vec::with_capacity(count);
    for number in 0..count {
        if coming.len() == AT_ONCE {
            inside.push(coming.join_next().await.context("some are coming")???);
        }
        let visitor = Arc::clone(visitor);
        coming.spawn(async move { visitor.come(number).await });
    }
    while let Some(one) = coming.join_next().await {
        inside.push(one??);
    }
    Ok(inside)
}

/// What the front holds, in MiB, once that does not change any more.
async fn settled(server: &Running) -> Result<f64> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut last = server.front_memory()?;
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = server.front_memory()?;
        if (now - last).abs() < 0.1 || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

/// How a visitor comes, and what it asks for.
struct Visitor {
    address: SocketAddr,
    connector: Option<TlsConnector>,
    request: Vec<u8>,
}

/// A connection that is open for as long as this is held.
trait Held: AsyncRead + AsyncWrite + Unpin + Send {}

impl Held for TcpStream {}
impl Held for TlsStream<TcpStream> {}

impl Visitor {
    fn plain(server: &Running, request: Request) -> Result<Self> {
        Self::new(server.url()?.trim_start_matches("http://"), None, request)
    }

    fn tls(server: &Running, request: Request) -> Result<Self> {
        let url = server.tls_url()?;
        let connector = TlsConnector::from(Arc::new(trusting()?));
        Self::new(url.trim_start_matches("https://"), Some(connector), request)
    }

    fn new(address: &str, connector: Option<TlsConnector>, request: Request) -> Result<Self> {
        let head = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", request.path);
        Ok(Self {
            address: address.parse()?,
            connector,
            request: head.into_bytes(),
        })
    }

    /// Connects, asks once, and stays.
    async fn come(&self, number: usize) -> Result<Box<dyn Held>> {
        // 127.0.0.2 to 127.0.0.17.
        let own = Ipv4Addr::from_bits(0x7f00_0002 + (number % 16) as u32);
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(own), 0))?;
        let mut stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = &self.connector else {
            self.ask(&mut stream).await?;
            return Ok(Box::new(stream));
        };
        let name = ServerName::IpAddress(self.address.ip().into());
        let mut stream = connector.connect(name, stream).await?;
        self.ask(&mut stream).await?;
        Ok(Box::new(stream))
    }

    async fn ask(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
        stream.write_all(&self.request).await?;
        let mut answer = Vec::with_capacity(4096);
        let end = loop {
            ensure!(stream.read_buf(&mut answer).await? > 0, "no answer");
            if let Some(place) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break place + 4;
            }
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200 "), "answered: {head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no Content-Length")?.parse()?;
        while answer.len() < end + length {
            ensure!(stream.read_buf(&mut answer).await? > 0, "half an answer");
        }
        Ok(())
    }
}

/// TLS as most browsers speak it, with one group for all servers, never resumed, with whatever certificate.
fn trusting() -> Result<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Believes every server: it is one that we have started.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.0.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
