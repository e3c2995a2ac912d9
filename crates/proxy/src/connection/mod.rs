//! One accepted connection, from its first byte to its last: TLS if the listener speaks it, then HTTP/1.1 or HTTP/2.

mod h1;
mod h2;
mod handshake;
mod preface;
mod wire;

use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::Duration};

pub(crate) use h2::attacks as http2_attacks;

use bytes::BytesMut;
use message::frame::PREFACE;
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{control::Listener, door::Permit, request::Peer, server::Server};

/// What is read at once: what one TLS record holds.
const READ: usize = 16 * 1024;

thread_local! {
    /// Where connections read to. They keep what has come of a request and no room for more: one at rest holds nothing.
    static INPUT: RefCell<Box<[u8; READ]>> = RefCell::new(Box::new([0; READ]));
}

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

    /// Has the kernel throw away what the client has not taken, and the connection with it, when this is dropped. It would else
    /// keep up to some MiB for each client that reads a byte now and then, for as long as that lasts, and count it nowhere.
    fn reset(&self);
}

impl Stream for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn reset(&self) {
        // One that is gone already needs no reset.
        let _ = set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl Stream for UnixStream {
    fn reset(&self) {
        // What was written is the other end's, and counted there.
    }
}

impl<S: Stream> Stream for Box<TlsStream<S>> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

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
        presented: None,
        local_port: what.port,
    };
    if what.proxy_protocol
        && preface::read(&mut socket, &mut peer, &mut permit, &server)
            .await
            .is_err()
    {
        return;
    }
    // What a connection can come to be differs much in size, and rests as what it is: each is allocated by itself.
    let server = Arc::clone(&server);
    match socket {
        Socket::Tcp(stream, _) if what.tls => Box::pin(serve_tls(stream, peer, server)).await,
        Socket::Unix(stream) if what.tls => Box::pin(serve_tls(stream, peer, server)).await,
        Socket::Tcp(stream, _) => Box::pin(serve_plain(stream, peer, server)).await,
        Socket::Unix(stream) => Box::pin(serve_plain(stream, peer, server)).await,
    }
}

async fn serve_tls(stream: impl Stream, mut peer: Peer, server: Arc<Server>) {
    let Some(stream) = Box::pin(handshake::shake(stream, &mut peer, &server)).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(h2::serve(stream, peer, server, Vec::new())).await;
    } else {
        h1::serve(stream, peer, server, BytesMut::new()).await;
    }
}

/// HTTP/2 in the clear has no other sign than its preface (RFC 9113 §3.3).
async fn serve_plain(mut stream: impl Stream, peer: Peer, server: Arc<Server>) {
    let plan = server.plan();
    if !plan.h2c {
        return h1::serve(stream, peer, server, BytesMut::new()).await;
    }
    let mut begun = BytesMut::new();
    let is_undecided = |begun: &[u8]| begun.len() < PREFACE.len() && PREFACE.starts_with(begun);
    while is_undecided(&begun) {
        let read = timeout(plan.limits.head_timeout, stream.read_buf(&mut begun));
        if !matches!(read.await, Ok(Ok(1..))) {
            break;
        }
    }
    drop(plan);
    if begun.starts_with(PREFACE) {
        Box::pin(h2::serve(stream, peer, server, begun.to_vec())).await;
    } else {
        h1::serve(stream, peer, server, begun).await;
    }
}
