//! `upstream` routes: other servers that speak HTTP, on this machine or elsewhere.
//!
//! A request goes to the member that has the fewest, over a connection that was kept or a new one. It is tried with another
//! member only as long as not a byte of it has been sent, or where one that speaks HTTP/2 has said that it has not begun; a member that
//! fails is passed over for a while. What comes back is held to the same rules as what clients send, and taken at the member's speed,
//! as from a slot.

mod ask;
mod http2;
mod member;
mod outbound;
mod run;
mod tls;
mod tunnel;
mod upgrade;
mod websocket;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use config::site;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    buffer::{Holding, Store},
    failure::Failure,
    journal::Journal,
    origin::{
        Origin,
        interim::attend,
        relay::{self, Written},
        spool::{self, Spooled, Spooling},
    },
    request::{Request, Upload},
    response::Response,
    tls::CertificateError,
};
pub(crate) use ask::{Inquiry, Post};
use member::{Lease, Member};
use tls::Trust;
pub(crate) use tunnel::{Passed, Tunnel};
use upgrade::Upgrade;

/// What a route knows of its upstream.
#[derive(Debug)]
pub(crate) struct UpstreamRoute {
    upstream: Arc<Upstream>,
    /// How much of the path the upstream does not see.
    stripped: Option<usize>,
    /// In the queue for a place.
    queue_timeout: Duration,
    queue_length: usize,
    /// How a response is held that the client has not taken.
    holding: Holding,
    spooling: Spooling,
}

impl UpstreamRoute {
    /// Of this upstream, within the limits of the table.
    pub(crate) fn new(
        upstream: Arc<Upstream>,
        limits: &site::Limits,
        store: &Arc<Store>,
        whole: bool,
        stripped: Option<usize>,
    ) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            upstream,
            stripped,
            queue_timeout: limits.queue_timeout,
            queue_length: size(limits.queue_length),
            holding: Holding::new(store, limits),
            spooling: Spooling::new(store, limits, whole),
        }
    }

    /// What it is called in logs.
    pub(crate) fn label(&self) -> Arc<str> {
        Arc::clone(&self.upstream.label)
    }
}

/// Servers of which each may answer.
#[derive(Debug)]
pub(crate) struct Upstream {
    name: Arc<str>,
    label: Arc<str>,
    members: Vec<Arc<Member>>,
    /// Where the next search for a member begins, so that those that have equally few take turns.
    turn: AtomicUsize,
    places: Arc<Places>,
    /// Until the response head.
    timeout: Duration,
    /// Whether the members speak HTTP/2.
    is_http2: bool,
}

/// Places for requests (`connections`), and those that wait for one.
#[derive(Debug)]
struct Places {
    most: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Places {
    fn new(most: usize) -> Self {
        Self {
            most,
            free: Arc::new(Semaphore::new(most)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Upstream {
    /// As the configuration has it. Nothing is connected before it is needed. What is the same as `before`, in the configuration
    /// that is being served, goes on: a member with its idle connections and what is known of its health, and the places, so that
    /// requests of both configurations together are no more than `connections`.
    ///
    /// `trusted` is PEM text of who signs the certificates of members that speak TLS.
    pub(crate) fn new(
        upstream: &site::Upstream,
        before: Option<&Self>,
        trusted: &str,
    ) -> Result<Arc<Self>, CertificateError> {
        let most = usize::try_from(upstream.connections).unwrap_or(usize::MAX);
        let most = most.min(Semaphore::MAX_PERMITS);
        let trust = match upstream.encrypted() {
            Some(_) => Some(Trust::new(trusted, upstream.is_http2())?),
            None => None,
        };
        let member = |member: &site::Member| {
            let made = Member::new(member, upstream, trust.as_ref())?;
            let known = before.map_or(&[][..], |before| &before.members);
            let same = known.iter().find(|known| known.is_same(&made));
            Ok(same.map_or_else(|| Arc::new(made), Arc::clone))
        };
        let places = before.map(|before| &before.places);
        let places = places.filter(|places| places.most == most);
        Ok(Arc::new(Self {
            name: upstream.name.as_str().into(),
            label: format!("upstream {}", upstream.name).into(),
            members: upstream
                .members
                .iter()
                .map(|it| member(&it.value))
                .collect::<Result<_, CertificateError>>()?,
            turn: AtomicUsize::new(0),
            places: places.map_or_else(|| Arc::new(Places::new(most)), Arc::clone),
            timeout: upstream.timeout,
            is_http2: upstream.is_http2(),
        }))
    }

    /// The name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A place among `connections`, at once or in order of arrival.
    async fn place(
        &self,
        route: &UpstreamRoute,
        journal: &mut Journal,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        if let Some(place) = self.place_now() {
            return Ok(place);
        }
        journal.queue();
        let place = self.place_later(route).await;
        journal.dequeue();
        place
    }

    fn place_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places.free).try_acquire_owned().ok()
    }

    async fn place_later(&self, route: &UpstreamRoute) -> Result<OwnedSemaphorePermit, Failure> {
        let full = |waited| Failure::UpstreamFull {
            upstream: Arc::clone(&self.name),
            waited,
        };
        let waiting = &self.places.waiting;
        if waiting.load(Ordering::Relaxed) >= route.queue_length {
            return Err(full(Duration::ZERO));
        }
        let _waits = Waits::new(waiting);
        let place = Arc::clone(&self.places.free).acquire_owned();
        match tokio::time::timeout(route.queue_timeout, place).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => Err(full(route.queue_timeout)),
        }
    }

    /// All have been tried, this one last.
    fn unreachable(&self, last: Option<(Arc<str>, io::Error)>) -> Failure {
        let (member, source) = last.expect("an upstream has a member");
        Failure::UpstreamUnreachable {
            upstream: Arc::clone(&self.name),
            member,
            source,
        }
    }

    /// The member with the fewest requests of those that have not been tried, one that rests only if there is no other.
    fn choose(&self, tried: &[usize]) -> Option<(usize, &Arc<Member>)> {
        if let ([member], []) = (&self.members[..], tried) {
            return Some((0, member));
        }
        let count = self.members.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..count)
            .map(|place| first.wrapping_add(place) % count)
            .filter(|index| !tried.contains(index))
            .map(|index| (index, &self.members[index]))
            .min_by_key(|(_, member)| (member.rests_for(), member.active()))
    }
}

/// One that waits, counted for as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads the request whole, or its beginning where the route says so; finds a member that takes it, and brings its answer.
pub(crate) async fn respond(
    route: &UpstreamRoute,
    request: &Request<'_>,
    upload: &mut impl Upload,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    let upgrade = Upgrade::wanted(request, upload.framing());
    let is_http2 = route.upstream.is_http2;
    if request.head.tunnel().is_some() && (is_http2 || upgrade.is_none()) {
        return Err(Failure::NoTunnel);
    }
    if is_http2 {
        return Box::pin(http2::respond(route, request, upload, journal)).await;
    }
    let (body, feed) = spool::receive(upload, &route.spooling, request.id).await?;
    journal.received = body.length();
    let Some(feed) = feed else {
        // A future that is moved stands in two places of the one that awaits it, and that is allocated for each request.
        let run = std::pin::pin!(run(route, request, upgrade, body, journal));
        return attend(upload, &request.interims, run).await;
    };
    let (response, received) = {
        let run = Box::pin(run(route, request, upgrade, body, journal));
        Box::pin(feed.beside(upload, &request.interims, run)).await
    };
    journal.received = received;
    response
}

/// Finds a member and has the request answered there.
async fn run(
    route: &UpstreamRoute,
    request: &Request<'_>,
    upgrade: Option<Upgrade>,
    body: Spooled,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    let place = route.upstream.place(route, journal).await?;
    let write = |out: &mut Vec<u8>| {
        outbound::write_head(out, request, route.stripped, upgrade.as_ref(), &body);
    };
    let (lease, written) = begin(&route.upstream, place, &body, write).await?;
    journal.member = Some(lease.label());
    run::run(lease, route, request, upgrade, body, written, journal).await
}

/// Writes the request to a member. As long as not a byte has been written to it, the request is not in it, and goes to the
/// next connection or the next member.
async fn begin(
    upstream: &Upstream,
    mut place: OwnedSemaphorePermit,
    body: &Spooled,
    write_head: impl Fn(&mut Vec<u8>),
) -> Result<(Lease, Written), Failure> {
    let mut tried = Vec::new();
    let mut last = None;
    while let Some((index, member)) = upstream.choose(&tried) {
        let mut lease = Lease::new(Arc::clone(member), place);
        loop {
            let kept = match lease.connect().await {
                Ok(kept) => kept,
                Err(error) => {
                    last = Some((lease.label(), error));
                    break;
                }
            };
            let connection = lease.connection();
            write_head(&mut connection.out);
            if let Some(written) = relay::begin(connection, body) {
                return Ok((lease, written));
            }
            if !kept {
                last = Some((lease.label(), io::ErrorKind::BrokenPipe.into()));
                break;
            }
        }
        member.unreachable();
        tried.push(index);
        place = lease.into_place();
    }
    Err(upstream.unreachable(last))
}
