//! Who may come in, and how often: `allow`, `deny`, `limit`, `auth` and `cors` of a site and its routes.
//!
//! A gate belongs to a route that was found by the decoded path, so every spelling that is routed there meets the same
//! gate. It is asked before anything is read of a body or taken from a pool, the cheap questions first: address, rate, and
//! only then the password.

mod addresses;
mod basic;
mod cors;
mod forward;
mod passwords;
mod rate;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use config::{
    error::Problem,
    site::{self, LimitBy, Satisfy, Site},
};
use telemetry::panics;

pub use self::passwords::hash as hash_password;
pub(crate) use self::{
    addresses::Addresses,
    basic::Basic,
    cors::Cors,
    forward::{bare_fields, is_bare},
    rate::TooMany,
};
use self::{forward::Forward, rate::Limiter};
use crate::{
    buffer::Store,
    control::Users,
    failure::Failure,
    network::Network,
    request::{Request, Vouched},
    response::{FieldLines, Response},
    upstream::{Inquiry, Upstream},
};

/// What a request must pass.
#[derive(Debug)]
pub(crate) struct Gate {
    addresses: Option<Addresses>,
    limits: Vec<Limited>,
    guard: Option<Guard>,
    satisfy: Satisfy,
    /// What is said to pages of other origins.
    pub(crate) cors: Option<Cors>,
}

/// Who says who somebody is.
#[derive(Clone, Debug)]
enum Guard {
    Basic(Arc<Basic>),
    Forward(Arc<Forward>),
}

/// Who has come in.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    /// As whom, if it had to say who it is.
    pub(crate) user: Option<String>,
    /// What its origin is told of it.
    pub(crate) fields: FieldLines,
    /// What its browser is told beside the answer: `Set-Cookie`, for sessions that are prolonged.
    pub(crate) cookies: FieldLines,
}

/// One `limit`.
#[derive(Clone, Debug)]
struct Limited {
    by: LimitBy,
    limiter: Arc<Limiter>,
}

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Passed {
    /// It may go on.
    In(Entered),
    /// A browser only asks what it may ask, and has its answer.
    Preflight(Response),
}

impl Gate {
    /// Fields of the request that are not its client's to say here.
    pub(crate) fn claim(&self, vouched: &mut Vouched) {
        if let Some(Guard::Forward(forward)) = &self.guard {
            vouched.here = Some(forward.claimed());
        }
    }

    /// Asks everything.
    pub(crate) async fn pass(&self, request: &Request<'_>) -> Result<Passed, Failure> {
        let in_place = self
            .addresses
            .as_ref()
            .map(|addresses| addresses.admit(request.client.address));
        let open = match (in_place, &self.guard, self.satisfy) {
            (Some(true), Some(_), Satisfy::Any) => true,
            (Some(false), Some(_), Satisfy::Any) => false,
            (Some(false), ..) => return Err(Failure::Denied),
            (_, guard, _) => guard.is_none(),
        };
        self.count(request)?;
        if let Some(answer) = self
            .cors
            .as_ref()
            .and_then(|cors| cors.preflight(request.head))
        {
            return Ok(Passed::Preflight(answer));
        }
        let entered = match self.guard.as_ref().filter(|_| !open) {
            None => Entered::default(),
            Some(Guard::Basic(basic)) => {
                let user = basic.user(request.head.fields.get("authorization")).await?;
                Entered {
                    user: Some(user),
                    ..Entered::default()
                }
            }
            // Seldom needed, and large: every request has room for what it awaits.
            Some(Guard::Forward(forward)) => Box::pin(forward.enter(request)).await?,
        };
        Ok(Passed::In(entered))
    }

    /// Each limit counts, also what another refuses: who asks too much does not get more by it.
    fn count(&self, request: &Request<'_>) -> Result<(), Failure> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let mut refused = None;
        for limited in &self.limits {
            if let Err(too_many) = limited.take(request, now) {
                refused.get_or_insert(too_many);
            }
        }
        match refused {
            Some(too_many) => Err(Failure::TooMany(too_many)),
            None => Ok(()),
        }
    }
}

impl Limited {
    fn take(&self, request: &Request<'_>, now: Instant) -> Result<(), TooMany> {
        let client = || request.client.address.map(Network::from);
        match &self.by {
            LimitBy::Address => self.limiter.take(client(), now),
            LimitBy::Path => self.limiter.take(request.target.path.as_bytes(), now),
            LimitBy::Header(name) => match request.head.fields.get(name) {
                Some(value) => self.limiter.take(value, now),
                None => self.limiter.take(client(), now),
            },
        }
    }
}

/// What outlives a configuration: a reload must not forgive.
#[derive(Debug, Default)]
pub(crate) struct Limiters(Mutex<HashMap<Place, Weak<Limiter>>>);

/// Where a limit is written: the hosts of its site, the path of its route, and what it says.
type Place = (Vec<site::HostPattern>, Option<String>, site::Limit, usize);

impl Limiters {
    fn get(&self, place: Place) -> Arc<Limiter> {
        let mut known = panics::lock(&self.0);
        known.retain(|_, limiter| limiter.strong_count() > 0);
        if let Some(limiter) = known.get(&place).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::new(&place.2, place.3));
        known.insert(place, Arc::downgrade(&limiter));
        limiter
    }
}

/// Why a gate cannot be made here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// Nobody handed the file over.
    #[error("{0} was not handed over")]
    NoUsers(PathBuf),
    /// An upstream that there is not; the configuration forbids it.
    #[error("there is no upstream {0:?}")]
    NoUpstream(String),
    /// Something is wrong in the file.
    #[error("{path}: {source}")]
    Users {
        /// The file.
        path: PathBuf,
        /// What.
        #[source]
        source: passwords::BadLine,
    },
}

/// Makes the gates of one site.
pub(crate) struct Gates<'a> {
    host: &'a site::VirtualHost,
    keys: usize,
    limits: &'a site::Limits,
    limiters: &'a Limiters,
    users: &'a [Users],
    origins: Origins<'a>,
    /// Those of the site, which all its routes share.
    shared: Vec<Limited>,
    /// Made once for each file and realm, so that who was let in is known on all routes.
    basics: Mutex<HashMap<(PathBuf, String), Arc<Basic>>>,
}

/// What servers are asked by.
#[derive(Clone, Copy)]
pub(crate) struct Origins<'a> {
    /// By their names.
    pub(crate) upstreams: &'a HashMap<&'a str, Arc<Upstream>>,
    /// Where what they answer is kept.
    pub(crate) buffers: &'a Arc<Store>,
}

impl<'a> Gates<'a> {
    /// For the routes of this site.
    pub(crate) fn new(
        site: &'a Site,
        host: &'a site::VirtualHost,
        limiters: &'a Limiters,
        users: &'a [Users],
        origins: Origins<'a>,
    ) -> Self {
        let mut gates = Self {
            host,
            keys: usize::try_from(site.limits.limit_clients).unwrap_or(usize::MAX),
            limiters,
            users,
            origins,
            limits: &site.limits,
            shared: Vec::new(),
            basics: Mutex::default(),
        };
        gates.shared = gates.limited(None, &host.access.limits);
        gates
    }

    /// The gate of a route; `None` where everybody may come in as often as they like.
    pub(crate) fn of(&self, route: &site::Route) -> Result<Option<Arc<Gate>>, GateError> {
        let access = &route.access;
        let mut limits = self.shared.clone();
        limits.extend(self.limited(Some(route.path.as_str()), &access.limits));
        let guard = match &access.auth {
            Some(site::Auth::Basic { users, realm }) => {
                Some(Guard::Basic(self.basic(&users.value, realm)?))
            }
            Some(site::Auth::Forward(forward)) => {
                Some(Guard::Forward(self.forward(route, forward)?))
            }
            None => None,
        };
        let gate = Gate {
            addresses: Addresses::new(&access.allow, &access.deny),
            limits,
            guard,
            satisfy: access.satisfy,
            cors: access.cors.as_ref().map(Cors::new),
        };
        let open = gate.addresses.is_none() && gate.limits.is_empty() && gate.guard.is_none();
        Ok((!open || gate.cors.is_some()).then(|| Arc::new(gate)))
    }

    /// Those that go by files, by their paths.
    pub(crate) fn into_basics(self) -> impl Iterator<Item = (PathBuf, Arc<Basic>)> {
        let basics = self.basics.into_inner();
        let basics = basics.unwrap_or_else(PoisonError::into_inner).into_iter();
        basics.map(|((path, _), basic)| (path, basic))
    }

    fn limited(&self, path: Option<&str>, limits: &[site::Limit]) -> Vec<Limited> {
        let limited = |limit: &site::Limit| Limited {
            by: limit.by.clone(),
            limiter: self.limiters.get((
                self.host.names.clone(),
                path.map(str::to_owned),
                limit.clone(),
                self.keys,
            )),
        };
        limits.iter().map(limited).collect()
    }

    fn forward(
        &self,
        route: &site::Route,
        forward: &site::Forward,
    ) -> Result<Arc<Forward>, GateError> {
        let Origins { upstreams, buffers } = self.origins;
        let upstream = upstreams.get(forward.upstream.as_str());
        let upstream = upstream.ok_or_else(|| GateError::NoUpstream(forward.upstream.clone()))?;
        let limits = route.limits.as_deref().unwrap_or(self.limits);
        let inquiry = Inquiry::new(forward, Arc::clone(upstream), limits, buffers);
        Ok(Arc::new(Forward::new(forward, inquiry)))
    }

    fn basic(&self, path: &PathBuf, realm: &str) -> Result<Arc<Basic>, GateError> {
        let mut basics = panics::lock(&self.basics);
        let key = (path.clone(), realm.to_owned());
        if let Some(basic) = basics.get(&key) {
            return Ok(Arc::clone(basic));
        }
        let file = self.users.iter().find(|users| users.path == *path);
        let file = file.ok_or_else(|| GateError::NoUsers(path.clone()))?;
        let users = passwords::Users::parse(&file.text).map_err(|source| GateError::Users {
            path: path.clone(),
            source,
        })?;
        let basic = Arc::new(Basic::new(users, realm));
        basics.insert(key, Arc::clone(&basic));
        Ok(basic)
    }
}

fn all(site: &Site) -> impl Iterator<Item = &site::Access> {
    let of_site = site.hosts.iter().map(|host| &host.access);
    let routes = site.hosts.iter().flat_map(|host| &host.routes);
    of_site.chain(routes.map(|route| &route.access))
}

/// The fields that servers say of who they let in, anywhere; `None` where there are none. What clients log in with is theirs
/// where nobody is asked.
pub(crate) fn vouched(site: &Site) -> Option<Arc<[Box<str>]>> {
    let mut names: Vec<Box<str>> = Vec::new();
    for access in all(site) {
        if let Some(site::Auth::Forward(forward)) = &access.auth {
            let claimed = forward::claimed(forward).filter(|name| *name != "authorization");
            names.extend(claimed.map(Into::into));
        }
    }
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| names.into())
}

/// The files of names and passwords that a configuration names, each once.
pub fn user_files(site: &Site) -> Vec<&site::Located<PathBuf>> {
    let mut files: Vec<&site::Located<PathBuf>> = Vec::new();
    for access in all(site) {
        if let Some(site::Auth::Basic { users, .. }) = &access.auth
            && !files.iter().any(|known| known.value == users.value)
        {
            files.push(users);
        }
    }
    files
}

/// What is in a file of users.
pub(crate) fn passwords(text: &str) -> Result<passwords::Users, passwords::BadLine> {
    passwords::Users::parse(text)
}

/// How many users a file has.
///
/// # Errors
/// What is wrong in it.
pub fn check_users(file: &Users) -> Result<usize, String> {
    let users = passwords::Users::parse(&file.text).map_err(|error| error.to_string())?;
    Ok(users.len())
}

/// What is wrong inside those files; that they can be read is somebody else's to see.
pub(crate) fn check(site: &Site) -> Vec<Problem> {
    let problem = |file: &site::Located<PathBuf>| {
        let text = std::fs::read_to_string(&file.value).ok()?;
        let error = passwords::Users::parse(&text).err()?;
        Some(Problem::new(
            file.span,
            format!("{}: {error}", file.value.display()),
        ))
    };
    user_files(site).into_iter().filter_map(problem).collect()
}
