//! Who may come in, and how often: `allow`, `deny`, `limit`, `auth` and `cors` of a site and its routes.
//!
//! A gate belongs to a route that was found by the decoded path, so every spelling that is routed there meets the same
//! gate. It is asked before anything is read of a body or taken from a pool, the cheap questions first: address, rate, and
//! only then the password.

mod addresses;
mod basic;
mod cors;
mod passwords;
mod rate;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Instant,
};

use config::{
    error::Problem,
    site::{self, LimitBy, Satisfy, Site},
};

pub use self::passwords::hash as hash_password;
use self::{addresses::Addresses, basic::Basic, rate::Limiter};
pub(crate) use self::{cors::Cors, rate::TooMany};
use crate::{
    control::Users, failure::Failure, network::Network, request::Request, response::Response,
};

/// What a request must pass.
#[derive(Debug)]
pub(crate) struct Gate {
    addresses: Option<Addresses>,
    limits: Vec<Limited>,
    basic: Option<Arc<Basic>>,
    satisfy: Satisfy,
    /// What is said to pages of other origins.
    pub(crate) cors: Option<Cors>,
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
    /// It may go on, as this user if it had to say who it is.
    In(Option<String>),
    /// A browser only asks what it may ask, and has its answer.
    Preflight(Response),
}

impl Gate {
    /// Asks everything.
    pub(crate) async fn pass(&self, request: &Request<'_>) -> Result<Passed, Failure> {
        let in_place = self
            .addresses
            .as_ref()
            .map(|addresses| addresses.admit(request.client.address));
        let open = match (in_place, &self.basic, self.satisfy) {
            (Some(true), Some(_), Satisfy::Any) => true,
            (Some(false), Some(_), Satisfy::Any) => false,
            (Some(false), ..) => return Err(Failure::Denied),
            (_, basic, _) => basic.is_none(),
        };
        self.count(request)?;
        if let Some(answer) = self
            .cors
            .as_ref()
            .and_then(|cors| cors.preflight(request.head))
        {
            return Ok(Passed::Preflight(answer));
        }
        match &self.basic {
            Some(basic) if !open => {
                let user = basic.user(request.head.fields.get("authorization")).await?;
                Ok(Passed::In(Some(user)))
            }
            _ => Ok(Passed::In(None)),
        }
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
        let mut known = self.0.lock().expect("no holder of this lock panics");
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
    limiters: &'a Limiters,
    users: &'a [Users],
    /// Those of the site, which all its routes share.
    shared: Vec<Limited>,
    /// Made once for each file and realm, so that who was let in is known on all routes.
    basics: Mutex<HashMap<(PathBuf, String), Arc<Basic>>>,
}

impl<'a> Gates<'a> {
    /// For the routes of this site.
    pub(crate) fn new(
        site: &Site,
        host: &'a site::VirtualHost,
        limiters: &'a Limiters,
        users: &'a [Users],
    ) -> Self {
        let mut gates = Self {
            host,
            keys: usize::try_from(site.limits.limit_clients).unwrap_or(usize::MAX),
            limiters,
            users,
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
        let basic = match &access.auth {
            Some(site::Auth::Basic { users, realm }) => Some(self.basic(&users.value, realm)?),
            None => None,
        };
        let gate = Gate {
            addresses: Addresses::new(&access.allow, &access.deny),
            limits,
            basic,
            satisfy: access.satisfy,
            cors: access.cors.as_ref().map(Cors::new),
        };
        let open = gate.addresses.is_none() && gate.limits.is_empty() && gate.basic.is_none();
        Ok((!open || gate.cors.is_some()).then(|| Arc::new(gate)))
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

    fn basic(&self, path: &PathBuf, realm: &str) -> Result<Arc<Basic>, GateError> {
        let mut basics = self.basics.lock().expect("no holder of this lock panics");
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

/// The files of names and passwords that a configuration names, each once.
pub fn user_files(site: &Site) -> Vec<&site::Located<PathBuf>> {
    let of_site = site.hosts.iter().map(|host| &host.access);
    let of_routes = site
        .hosts
        .iter()
        .flat_map(|host| &host.routes)
        .map(|route| &route.access);
    let mut files: Vec<&site::Located<PathBuf>> = Vec::new();
    for access in of_site.chain(of_routes) {
        if let Some(site::Auth::Basic { users, .. }) = &access.auth
            && !files.iter().any(|known| known.value == users.value)
        {
            files.push(users);
        }
    }
    files
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
