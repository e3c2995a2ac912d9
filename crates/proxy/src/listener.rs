//! Accepting connections: one task for each listening socket.
//!
//! A connection needs a permit ([`door`](crate::door)); without one we do not accept, and the kernel's backlog is the queue.

use std::{io, net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::net::{AddressFamily, sockopt};
use telemetry::{panics::Vital, text::Elapsed};
use tokio::{
    net::{TcpListener, UnixListener},
    time::Instant,
};

use crate::{
    connection::{self, Socket},
    control::Listener,
    door::Permit,
    origin::wire,
    server::Server,
};

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

    /// What it is.
    pub(crate) fn what(&self) -> &Listener {
        &self.what
    }

    /// Accepts until the server stops.
    pub(crate) async fn run(self, server: Arc<Server>) {
        let _vital = Vital::new("one of the listeners");
        if self.what.figures {
            return self.run_for_operators(server).await;
        }
        let mut stop = server.stopping();
        let mut trouble = Trouble::default();
        let accepts = server.figures.listener(&self.what.name);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = self.accept(&server) => accepted,
            };
            match accepted {
                Ok(Some(socket)) => {
                    accepts.add(1);
                    trouble.accepted(&self.what.name);
                    tokio::spawn(connection::serve(
                        socket,
                        self.what.clone(),
                        Arc::clone(&server),
                    ));
                }
                Ok(None) => server.figures.refused.add(1),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    trouble.is_here(&self.what.name, &error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Accepts as long as the process lives: operators want to know also while it stops. Visitors, however many, take none of their
    /// places.
    async fn run_for_operators(self, server: Arc<Server>) {
        let mut trouble = Trouble::default();
        loop {
            let place = Arc::clone(&server.places.connections).acquire_owned();
            let place = place.await.expect("the semaphore is never closed");
            let accepted = match &self.socket {
                Listened::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    let address = address.ip().to_canonical();
                    (wire::Socket::Tcp(stream), Some(address))
                }),
                Listened::Unix(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| (wire::Socket::Unix(stream), None))
                }
            };
            match accepted {
                Ok((stream, from)) => {
                    trouble.accepted(&self.what.name);
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        let _place = place;
                        let plan = server.plan();
                        let Server {
                            bulletins, places, ..
                        } = &*server;
                        plan.operators.serve(stream, from, bulletins, places).await;
                    });
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    trouble.is_here(&self.what.name, &error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The next connection; `None` if its client has too many.
    async fn accept(&self, server: &Server) -> io::Result<Option<(Socket, Permit)>> {
        let mut permit = server.door.permit().await;
        let socket = match &self.socket {
            Listened::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                if !is_welcome(server, &mut permit, address.ip()) {
                    return Ok(None);
                }
                // Small responses are written whole; waiting for more to send would only delay them.
                stream.set_nodelay(true)?;
                Socket::Tcp(stream, address)
            }
            Listened::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        };
        Ok(Some((socket, permit)))
    }
}

/// Whether the client may have one connection more. A trusted proxy has those of its clients.
pub(crate) fn is_welcome(server: &Server, permit: &mut Permit, address: IpAddr) -> bool {
    let plan = server.plan();
    let most = plan.limits.connections_per_client;
    if most == 0 || plan.trust.covers(address) {
        return true;
    }
    let welcome = server.door.count(permit, address.into(), most);
    if !welcome {
        tracing::debug!("a connection of {address} was closed: it has {most} already");
    }
    welcome
}

/// Accepting fails, or did: said once, not at each attempt.
#[derive(Debug, Default)]
struct Trouble(Option<Times>);

#[derive(Debug)]
struct Times {
    first: Instant,
    last: Instant,
}

/// How long accepting must have worked before the trouble is over: near the limit each connection that ends lets one more in.
const CALM: Duration = Duration::from_secs(1);

impl Trouble {
    fn is_here(&mut self, listener: &str, error: &io::Error) {
        let now = Instant::now();
        match &mut self.0 {
            Some(times) => times.last = now,
            None => {
                self.0 = Some(Times {
                    first: now,
                    last: now,
                });
                tracing::warn!(
                    "cannot accept on {listener}: {error}; new connections wait, and it is tried again every {PAUSE:?}"
                );
            }
        }
    }

    fn accepted(&mut self, listener: &str) {
        if self
            .0
            .as_ref()
            .is_some_and(|times| times.last.elapsed() >= CALM)
            && let Some(times) = self.0.take()
        {
            let time = Elapsed(times.last - times.first);
            tracing::warn!("accepting on {listener} again; it failed for {time}");
        }
    }
}

/// Pause after an accept that failed for want of descriptors or memory: trying at once would spin.
const PAUSE: Duration = Duration::from_millis(100);

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
