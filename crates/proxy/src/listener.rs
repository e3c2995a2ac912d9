//! Accepting connections: one task for each listening socket.
//!
//! A connection needs a permit (`limits.connections`); without one we do not accept, and the kernel's backlog is the queue.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::net::{AddressFamily, sockopt};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    connection::{self, Socket},
    control::Listener,
    server::Server,
};

/// Pause after an accept that failed for want of descriptors or memory: trying at once would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: Listened,
    what: Listener,
}

#[derive(Debug)]
enum Listened {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// Takes over a socket that the master bound.
    pub(crate) fn new(socket: OwnedFd, what: Listener) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => Listened::Unix(UnixListener::from_std(socket.into())?),
            _ => Listened::Tcp(TcpListener::from_std(socket.into())?),
        };
        Ok(Self { socket, what })
    }

    /// Accepts until the server stops.
    pub(crate) async fn run(self, server: Arc<Server>) {
        let mut stop = server.stopping();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = self.accept(&server) => accepted,
            };
            match accepted {
                Ok(socket) => drop(tokio::spawn(connection::serve(
                    socket,
                    self.what.clone(),
                    Arc::clone(&server),
                ))),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept on {}: {error}", self.what.name);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self, server: &Arc<Server>) -> io::Result<(Socket, connection::Permit)> {
        let permit = server.permit().await;
        let socket = match &self.socket {
            Listened::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small responses are written whole; waiting for more to send would only delay them.
                stream.set_nodelay(true)?;
                Socket::Tcp(stream, address)
            }
            Listened::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        };
        Ok((socket, permit))
    }
}

/// Errors of the connection that was about to be accepted (accept(2)), not of the socket.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::InvalidInput
    )
}
