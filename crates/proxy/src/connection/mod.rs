//! One accepted connection, from its first byte to its last: TLS if the listener speaks it, then HTTP/1.1 or HTTP/2.

mod h1;
mod h2;
mod preface;
mod wire;

use std::{net::SocketAddr, sync::Arc};

pub use h2::attacks as http2_attacks;

use rustls::ProtocolVersion;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{control::Listener, door::Permit, figures::Handshake, request::Peer, server::Server};

/// What was accepted.
#[derive(Debug)]
pub(crate) enum Socket {
    /// A TCP connection and its peer.
    Tcp(TcpStream, SocketAddr),
    /// A connection to a Unix socket.
    Unix(UnixStream),
}

/// What an HTTP connection runs over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    /// The socket, where what is written to it goes out as it is: the kernel can then send a file by itself.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Stream for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Stream for UnixStream {}

impl<S: Stream> Stream for TlsStream<S> {}

/// Serves the connection to its end.
pub(crate) async fn serve(
    (mut socket, mut permit): (Socket, Permit),
    what: Listener,
    server: Arc<Server>,
) {
    let _open = server.figures.open();
    let address = match &socket {
        Socket::Tcp(_, address) => Some(*address),
        Socket::Unix(_) => None,
    };
    let mut peer = Peer {
        address,
        tls: None,
        tls_before: false,
        local_port: what.port,
    };
    if what.proxy_protocol
        && preface::read(&mut socket, &mut peer, &mut permit, &server)
            .await
            .is_err()
    {
        return;
    }
    match socket {
        Socket::Tcp(stream, _) if what.tls => serve_tls(stream, peer, Arc::clone(&server)).await,
        Socket::Unix(stream) if what.tls => serve_tls(stream, peer, Arc::clone(&server)).await,
        Socket::Tcp(stream, _) => h1::serve(stream, peer, Arc::clone(&server)).await,
        Socket::Unix(stream) => h1::serve(stream, peer, Arc::clone(&server)).await,
    }
}

async fn serve_tls(stream: impl Stream, mut peer: Peer, server: Arc<Server>) {
    let plan = server.plan();
    let Some(config) = plan.tls.clone() else {
        return;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = match timeout(plan.limits.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            server.figures.handshake(Handshake::Failed);
            tracing::debug!("TLS handshake with {:?} failed: {error}", peer.address);
            return;
        }
        Err(_) => {
            server.figures.handshake(Handshake::Late);
            tracing::debug!("TLS handshake with {:?} took too long", peer.address);
            return;
        }
    };
    drop(plan);
    let session = stream.get_ref().1;
    let (version, end) = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => ("TLSv1.2", Handshake::Tls12),
        _ => ("TLSv1.3", Handshake::Tls13),
    };
    peer.tls = Some(version);
    server.figures.handshake(end);
    if session.alpn_protocol() == Some(b"h2") {
        h2::serve(stream, peer, server).await;
    } else {
        h1::serve(stream, peer, server).await;
    }
}
