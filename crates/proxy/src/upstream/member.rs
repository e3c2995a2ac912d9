//! One server of an upstream: how it is reached, the connections to it that nobody needs, and how it has behaved.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use config::site;
use message::refusal::Refusal;
use telemetry::panics;
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};

use super::{
    http2::{Connections, Part},
    tls::{Tls, Trust},
};
use crate::{
    failure::Failure,
    origin::{
        Connection, Origin,
        encrypted::Encrypted,
        wire::{Socket, Wire},
    },
    timer::Timer,
    tls::CertificateError,
};

/// A server.
#[derive(Debug)]
pub(super) struct Member {
    settings: Settings,
    address: Address,
    /// Where it speaks TLS.
    tls: Option<Tls>,
    /// What times are counted from.
    began: Instant,
    /// Until when it is passed over, in milliseconds from `began`; 0 if it is not.
    rests_until: AtomicU64,
    /// Requests in a row that it did not answer as it should.
    failures: AtomicU32,
    active: AtomicUsize,
    idle: Mutex<Idle>,
    /// Those of a member that speaks HTTP/2.
    shared: Connections,
}

/// What the configuration says of a member. Members that have the same are the same, in whichever configuration.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    /// The address as it is written.
    label: Arc<str>,
    /// Who is trusted to say who it is.
    trusted: Option<Arc<str>>,
    connect_timeout: Duration,
    silence: Duration,
    idle_timeout: Duration,
    idle_most: usize,
    rest: Duration,
}

#[derive(Debug)]
enum Address {
    Unix(PathBuf),
    Fixed(SocketAddr),
    Name {
        host: String,
        port: u16,
        known: Mutex<Option<Known>>,
    },
}

/// What a name was found to mean.
#[derive(Clone, Debug)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    since: Instant,
}

/// How long a name is not asked for again. Containers move; resolvers have caches of their own.
const NAME_KEPT: Duration = Duration::from_secs(10);

/// Connections that nobody needs. The last one in is the first one out, so that those that are not needed grow old.
#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Resting>,
    /// Whether a task looks for old ones; it ends with the last of them.
    swept: bool,
}

#[derive(Debug)]
struct Resting {
    connection: Connection,
    /// How many more looks it outlives.
    looks: u32,
}

/// Looks in the time that an idle connection is kept.
const LOOKS: u32 = 4;

/// So many requests in a row may fail before a member that can be reached is passed over: one that fails may be the request's
/// own doing.
const FAILURES: u32 = 3;

impl Member {
    pub(super) fn new(
        member: &site::Member,
        upstream: &site::Upstream,
        trust: Option<&Trust>,
    ) -> Result<Self, CertificateError> {
        let trust = trust.filter(|_| member.is_encrypted());
        let tls = match (member, trust) {
            (site::Member::Tcp { host, .. }, Some(trust)) => {
                Some(trust.with(host, member.is_http2())?)
            }
            _ => None,
        };
        Ok(Self {
            settings: Settings {
                label: member.to_string().into(),
                trusted: trust.map(|trust| Arc::clone(&trust.pem)),
                connect_timeout: upstream.connect_timeout,
                silence: upstream.read_timeout,
                idle_timeout: upstream.idle_timeout,
                idle_most: usize::try_from(upstream.idle_connections).unwrap_or(usize::MAX),
                rest: upstream.retry_after,
            },
            address: Address::new(member),
            began: Instant::now(),
            rests_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            active: AtomicUsize::new(0),
            idle: Mutex::default(),
            shared: Connections::new(upstream.idle_timeout),
            tls,
        })
    }

    /// A new connection.
    async fn connect(&self) -> io::Result<Socket> {
        match (self.address.connect().await?, &self.tls) {
            (Socket::Tcp(stream), Some(tls)) => {
                let encrypted = Encrypted::new(tls.over(stream).await?);
                Ok(Socket::Encrypted(Box::new(encrypted)))
            }
            (socket, _) => Ok(socket),
        }
    }

    /// Whether the configuration says the same of both.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.settings == other.settings
    }

    /// A part of a connection of HTTP/2.
    pub(super) async fn part(&self) -> io::Result<Part> {
        let within = self.settings.connect_timeout;
        self.shared.part(within, self.connect()).await
    }

    /// The scheme of what it is asked for (RFC 9113 §8.3.1).
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// How many requests it has.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// For how many milliseconds it is still to be passed over.
    pub(super) fn rests_for(&self) -> u64 {
        match self.rests_until.load(Ordering::Relaxed) {
            0 => 0,
            until => until.saturating_sub(self.now()),
        }
    }

    /// No connection could be made: others first, for a while.
    pub(super) fn unreachable(&self) {
        self.failures.store(FAILURES, Ordering::Relaxed);
        self.rest();
    }

    /// A request was not answered as it should be.
    fn failed(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.rest();
        }
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            if self.rests_until.swap(0, Ordering::Relaxed) != 0 {
                tracing::info!("{} answers again", self.settings.label);
            }
        }
    }

    fn rest(&self) {
        let rest = u64::try_from(self.settings.rest.as_millis()).unwrap_or(u64::MAX);
        let until = self.now().saturating_add(rest).max(1);
        if self.rests_until.swap(until, Ordering::Relaxed) == 0 {
            tracing::warn!("{} fails; others are asked first", self.settings.label);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A kept connection whose other end is still there.
    fn kept(&self) -> Option<Connection> {
        loop {
            let resting = self.lock().connections.pop()?;
            if resting.connection.wire.socket.is_open() {
                return Some(resting.connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    fn keep(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.lock();
        if idle.connections.len() >= self.settings.idle_most {
            return;
        }
        let looks = LOOKS;
        idle.connections.push(Resting { connection, looks });
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::clone(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        panics::lock(&self.idle)
    }
}

/// Closes connections that nobody has needed for long enough, without a look at the clock for each that is used.
async fn sweep(member: Arc<Member>) {
    loop {
        sleep(member.settings.idle_timeout / LOOKS).await;
        let mut idle = member.lock();
        let grown_old = |resting: &mut Resting| {
            resting.looks = resting.looks.saturating_sub(1);
            resting.looks == 0
        };
        let old: Vec<Resting> = idle.connections.extract_if(.., grown_old).collect();
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
        drop(idle);
        drop(old);
    }
}

impl Address {
    fn new(member: &site::Member) -> Self {
        match member {
            site::Member::Unix(path) => Self::Unix(path.clone()),
            site::Member::Tcp { host, port, .. } => match host.parse::<IpAddr>() {
                Ok(address) => Self::Fixed(SocketAddr::new(address, *port)),
                Err(_) => Self::Name {
                    host: host.clone(),
                    port: *port,
                    known: Mutex::default(),
                },
            },
        }
    }

    async fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(path) => connect_unix(path).await,
            Self::Fixed(address) => connect_tcp(*address).await,
            Self::Name { host, port, known } => {
                let addresses = look_up(host, *port, known).await?;
                let mut last = io::ErrorKind::NotFound.into();
                for address in &*addresses {
                    match connect_tcp(*address).await {
                        Ok(socket) => return Ok(socket),
                        Err(error) => last = error,
                    }
                }
                // What the name meant may be what is wrong.
                *panics::lock(known) = None;
                Err(last)
            }
        }
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    // Requests are written whole; waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}

/// Linux does not wait for a place in the backlog of a Unix socket that does not block (connect(2), EAGAIN): we do.
async fn connect_unix(path: &PathBuf) -> io::Result<Socket> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            other => return other.map(Socket::Unix),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

async fn look_up(
    host: &str,
    port: u16,
    known: &Mutex<Option<Known>>,
) -> io::Result<Arc<[SocketAddr]>> {
    let remembered = panics::lock(known)
        .clone()
        .filter(|known| known.since.elapsed() < NAME_KEPT);
    if let Some(known) = remembered {
        return Ok(known.addresses);
    }
    let addresses: Arc<[SocketAddr]> = lookup_host((host, port)).await?.collect();
    *panics::lock(known) = Some(Known {
        addresses: Arc::clone(&addresses),
        since: Instant::now(),
    });
    Ok(addresses)
}

/// A request's place at a member, and its connection once it has one. Unless it is freed, dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    member: Arc<Member>,
    keeps: bool,
    /// `None` only on the way out.
    place: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(super) fn new(member: Arc<Member>, place: OwnedSemaphorePermit) -> Self {
        member.active.fetch_add(1, Ordering::Relaxed);
        Self {
            connection: None,
            member,
            keeps: false,
            place: Some(place),
        }
    }

    /// Gets a connection; whether it is one that was kept, which may have ended unseen.
    pub(super) async fn connect(&mut self) -> io::Result<bool> {
        self.connection = self.member.kept();
        if self.connection.is_some() {
            return Ok(true);
        }
        let patience = self.member.settings.connect_timeout;
        // Seldom needed, and large where it is TLS.
        let connected = timeout(patience, Box::pin(self.member.connect())).await;
        let socket = connected.unwrap_or_else(|_| {
            let late = format!("no connection in {patience:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, late))
        })?;
        self.connection = Some(Connection {
            wire: Wire::new(socket, None),
            out: Vec::with_capacity(1024),
            timer: Timer::new(Duration::from_secs(30)),
        });
        Ok(false)
    }

    /// The place, for a request that goes elsewhere.
    pub(super) fn into_place(mut self) -> OwnedSemaphorePermit {
        self.place.take().expect("a lease has its place until now")
    }

    /// The scheme of what the member is asked for.
    pub(super) fn scheme(&self) -> &'static str {
        self.member.scheme()
    }

    /// What the member is called in logs.
    pub(super) fn label(&self) -> Arc<str> {
        Arc::clone(&self.member.settings.label)
    }

    /// The member did not answer as it should.
    pub(super) fn failed(&self) {
        self.member.failed();
    }

    /// The member has answered, and keeps the connection or does not.
    pub(super) fn answered(&mut self, keeps: bool) {
        self.member.answered();
        self.keeps = keeps;
    }
}

impl Origin for Lease {
    fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("a lease that is worked with has its connection")
    }

    fn free(mut self) {
        let spent = |connection: &Connection| connection.wire.buffer.is_empty();
        // Bytes behind the response would be read as the next one's; such a connection is not used again.
        if let Some(connection) = self.connection.take().filter(spent)
            && self.keeps
        {
            self.member.keep(connection);
        }
    }

    fn silence(&self) -> Option<Duration> {
        Some(self.member.settings.silence)
    }

    fn late(&self, waited: Duration) -> Failure {
        self.member.failed();
        Failure::UpstreamTimeout {
            member: self.label(),
            waited,
        }
    }

    fn broke(&self, rule: Refusal) -> Failure {
        self.member.failed();
        Failure::UpstreamBroken {
            member: self.label(),
            rule,
        }
    }

    async fn ended(self) -> Failure {
        self.member.failed();
        Failure::UpstreamCut {
            member: self.label(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.member.active.fetch_sub(1, Ordering::Relaxed);
    }
}
