//! A `Plan` is a configuration that holds on this machine: certificates parsed, folders opened, tables built.
//!
//! It is made whole or not at all, and then never changes; a new configuration is a new plan.

mod maker;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use config::{
    error::{Problem, Span},
    site::{self, Location, Site, VirtualHost},
};
use message::{forwarded::Tongue, head};
use telemetry::access::Log;
use tokio::sync::Semaphore;

use self::maker::{Maker, Places, upstreams};
use crate::{
    access::{self, Basic, Gate, GateError, Limiters},
    app::{AppRoute, pool::Pool},
    buffer::{self, budget::Budget, scratch::FolderError},
    challenges::Challenges,
    closed::{Closures, Maintenance},
    control::{Certificate, Credentials, Listener, Users},
    dev::Dev,
    figures::{Exchange, Figures, Place},
    files::{Folder, Store},
    health::Health,
    operators::Operators,
    pages::Pages,
    request::Request,
    response::Edits,
    route::{Hosts, Paths},
    spans::Exporter,
    tls::{self, Tls},
    trust::Trust,
    upstream::{Upstream, UpstreamRoute},
};

/// What the server does with every request.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The limits of the table.
    pub(crate) limits: site::Limits,
    /// The part of the limits that the head parser knows.
    pub(crate) head_limits: head::Limits,
    /// Where access records go.
    pub(crate) log: Arc<Log>,
    /// Peers that are believed about clients.
    pub(crate) trust: Trust,
    /// In which fields they speak.
    pub(crate) tongue: Tongue,
    /// Whether responses say `Server: stack`.
    pub(crate) server_header: bool,
    /// What TLS listeners speak; `None` when no site has a certificate.
    pub(crate) tls: Option<Tls>,
    /// Places for responses that are encoded while they come (`limits.encoders`).
    pub(crate) encoders: Arc<Semaphore>,
    /// Apps whose number of workers follows the load.
    pub(crate) adaptive: Vec<String>,
    /// Whether HTTP/2 is spoken in the clear with who begins with it.
    pub(crate) h2c: bool,
    /// Whether there is anything that a WebSocket could lead to. Clients of HTTP/2 are told before they ask, and otherwise open a
    /// connection of HTTP/1.1 for each.
    pub(crate) has_tunnels: bool,
    /// Where what is recorded of requests goes.
    pub(crate) spans: Option<Arc<Exporter>>,
    /// What is said to operators, and to whom.
    pub(crate) operators: Operators,
    /// Fields that servers of `auth = { forward = … }` say of who they let in, and clients do not.
    pub(crate) vouched: Option<Arc<[Box<str>]>>,
    /// What who develops the site is told; `None` where it is served to everybody.
    pub(crate) dev: Option<Arc<Dev>>,
    /// What certificate authorities are answered.
    pub(crate) challenges: Arc<Challenges>,
    hosts: Hosts<Arc<Host>>,
    /// Where sites say whether they are well.
    healths: Vec<Arc<Health>>,
    /// Who goes by files of users, by their paths.
    basics: Vec<(PathBuf, Arc<Basic>)>,
    /// All of them: what the next plan has as well goes on there.
    upstreams: Vec<Arc<Upstream>>,
    figures: Arc<Figures>,
    /// By the numbers that hosts and routes have.
    places: Vec<Arc<Place>>,
}

/// One `[[site]]`.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its place in the configuration, counted from 0.
    pub(crate) index: usize,
    /// Whether its clients are asked for certificates.
    pub(crate) asks_clients: bool,
    /// The value of `Strict-Transport-Security`, for responses over TLS (RFC 6797 §7.2).
    pub(crate) hsts: Option<Box<str>>,
    /// Where a plain request is sent instead, when the site has a certificate: the port of `https`.
    pub(crate) https_port: Option<u16>,
    /// Whether a route is for the challenges of certificate authorities, which are answered in the clear (RFC 8555 §8.3).
    pub(crate) has_challenges: bool,
    /// Whether a route is for apps to answer with.
    pub(crate) has_internal: bool,
    /// Its own pages for failures.
    pub(crate) pages: Pages,
    /// Whether it is open.
    pub(crate) maintenance: Maintenance,
    /// Where it says whether it is well.
    pub(crate) health: Option<Arc<Health>>,
    /// What is changed in responses that no route makes.
    pub(crate) edits: Option<Edits>,
    /// Where requests are counted that no route answers.
    pub(crate) place: usize,
    routes: Paths<Route>,
    /// The gates of subtrees at their own path without its last slash. Whoever guards `/admin/` means `/admin` as well, which is
    /// another route's by the letter; nearly every framework answers the two alike.
    guards: HashMap<Vec<u8>, Arc<Gate>>,
}

/// One entry of `routes`.
#[derive(Debug)]
pub(crate) struct Route {
    /// What answers.
    pub(crate) action: Action,
    /// What is changed in its responses.
    pub(crate) edits: Option<Edits>,
    /// Whether its responses are sent in codings.
    pub(crate) compress: bool,
    /// Who may come in; `None` for everybody.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Where its requests are counted.
    pub(crate) place: usize,
}

/// Where certificate authorities look for an answer to their challenge, always in the clear (RFC 8555 §8.3).
pub(crate) const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// What answers a route.
#[derive(Debug)]
pub(crate) enum Action {
    /// A slot of this app.
    App(AppRoute),
    /// A member of this upstream.
    Upstream(UpstreamRoute),
    /// A file below this folder.
    Files {
        /// The folder.
        folder: Folder,
        /// What answers where there is none.
        otherwise: Option<Box<Self>>,
    },
    /// Another place.
    Redirect {
        /// The location.
        to: Location,
        /// 3xx.
        status: u16,
    },
    /// The same place with a slash: what is mounted below a path has nothing at the path itself.
    Slash,
    /// A fixed answer.
    Respond {
        /// 200 to 599.
        status: u16,
        /// The content.
        body: bytes::Bytes,
        /// Its type.
        content_type: Arc<str>,
    },
}

impl Action {
    /// Whether somebody else may answer: an app, or another server.
    pub(crate) fn has_origin(&self) -> bool {
        match self {
            Self::App(_) | Self::Upstream(_) => true,
            Self::Files { otherwise, .. } => otherwise.is_some(),
            _ => false,
        }
    }

    /// Whether only apps may answer with it.
    pub(crate) fn is_internal(&self) -> bool {
        matches!(self, Self::Files { folder, .. } if folder.is_internal())
    }
}

/// Why a configuration cannot be served here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// A folder that cannot be opened.
    #[error("cannot open the folder {path}: {source}")]
    Root {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder for buffers that cannot be written to.
    #[error(transparent)]
    Spool(#[from] FolderError),
    /// A page for failures that cannot be read.
    #[error("cannot read the page {path}: {source}")]
    Page {
        /// The page.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate that cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::CertificateError),
    /// Who may come in cannot be told.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A route to an app without a pool; the configuration forbids it.
    #[error("there is no app {0:?}")]
    NoApp(String),
    /// A route to an upstream that there is not; the configuration forbids it.
    #[error("there is no upstream {0:?}")]
    NoUpstream(String),
}

/// What a plan is made of beside the configuration: what the master has opened for it, and what outlives it.
pub(crate) struct Given<'a> {
    /// What there is to accept on.
    pub(crate) listeners: &'a [Listener],
    /// What TLS needs.
    pub(crate) credentials: &'a Credentials,
    /// The files of users that it names.
    pub(crate) users: &'a [Users],
    /// Where certificates are made.
    pub(crate) self_signed: &'a tls::SelfSigned,
    /// Who has asked how often.
    pub(crate) limiters: &'a Limiters,
    /// What commands have closed.
    pub(crate) closures: &'a Arc<Closures>,
    /// Whether the proxy stops with nobody to follow.
    pub(crate) draining: &'a Arc<AtomicBool>,
    /// What certificate authorities are answered.
    pub(crate) challenges: &'a Arc<Challenges>,
    /// What all requests and responses may hold.
    pub(crate) budget: &'a Arc<Budget>,
    /// What is being served.
    pub(crate) before: Option<&'a Plan>,
    /// Where records go.
    pub(crate) log: Arc<Log>,
    /// Where requests are counted.
    pub(crate) figures: &'a Arc<Figures>,
    /// What is known of the newest code.
    pub(crate) dev: &'a Arc<Dev>,
}

impl Plan {
    /// Makes the plan. `pool` gives the pool of an app by name.
    pub(crate) fn new(
        site: &Site,
        given: Given<'_>,
        pool: impl Fn(&site::App) -> Arc<Pool>,
    ) -> Result<Self, PlanError> {
        let folder = site
            .server
            .spool
            .as_ref()
            .map(|folder| folder.value.as_path());
        let buffers = buffer::Store::open(folder, Arc::clone(given.budget))?;
        let maker = Maker {
            site,
            store: Store::new(&site.limits),
            buffers: Arc::new(buffers),
            pool: &pool,
            upstreams: upstreams(site, given.before, given.credentials)?,
            places: Places::new(given.figures),
            closures: given.closures,
            draining: given.draining,
        };
        let made = maker.hosts(&given)?;
        let encoders = usize::try_from(site.limits.encoders).unwrap_or(usize::MAX);
        Ok(Self {
            head_limits: head_limits(&site.limits),
            log: given.log,
            trust: Trust::new(&site.server.trusted_proxies),
            tongue: tongue(&site.server),
            server_header: site.server.server_header,
            tls: Tls::new(site, given.credentials, given.self_signed)?,
            h2c: site.server.h2c,
            has_tunnels: site.upstreams.iter().any(|upstream| !upstream.is_http2()),
            limits: site.limits.clone(),
            dev: site.dev.as_ref().map(|_| Arc::clone(given.dev)),
            encoders: Arc::new(Semaphore::new(encoders.min(Semaphore::MAX_PERMITS))),
            adaptive: adaptive(site),
            spans: maker.exporter(given.before, given.figures)?,
            operators: Operators::new(site.server.metrics.as_ref()),
            vouched: access::vouched(site),
            challenges: Arc::clone(given.challenges),
            hosts: made.hosts,
            healths: made.healths,
            basics: made.basics,
            upstreams: maker.upstreams.into_values().collect(),
            figures: Arc::clone(given.figures),
            places: maker.places.made.into_inner(),
        })
    }

    /// Counts a request at a place: a host's or a route's, or 0 for one that never came so far.
    pub(crate) fn count(&self, place: usize, exchange: &Exchange) {
        self.figures.count(&self.places[place], exchange);
    }

    /// Lets in who is in these files from now on.
    pub(crate) fn renew_users(&self, users: &[Users]) {
        for (path, basic) in &self.basics {
            let file = users.iter().find(|file| file.path == *path);
            match file.map(|file| access::passwords(&file.text)) {
                Some(Ok(users)) => basic.renew(users),
                Some(Err(error)) => tracing::error!("{}: {error}", path.display()),
                None => {}
            }
        }
    }

    /// Those of whom a request asks whether they are well, under whatever name.
    pub(crate) fn health(&self, request: &Request<'_>) -> Vec<&Health> {
        let healths = self.healths.iter().map(|health| &**health);
        healths.filter(|health| health.is_asked(request)).collect()
    }

    /// The site that answers for a host.
    pub(crate) fn host(&self, host: &[u8]) -> Option<&Arc<Host>> {
        self.hosts.find(host)
    }
}

fn tongue(server: &site::Server) -> Tongue {
    match server.forwarded {
        site::Forwarded::Forwarded => Tongue::Forwarded,
        site::Forwarded::XForwarded => Tongue::XForwarded {
            host: server.forwarded_host,
        },
    }
}

fn adaptive(site: &Site) -> Vec<String> {
    let follows = |app: &&site::App| app.workers.least < app.workers.most;
    let apps = site.apps.iter().filter(follows);
    apps.map(|app| app.name.clone()).collect()
}

impl Host {
    /// What answers a decoded path, and how long the part of it is that the route names.
    pub(crate) fn route(&self, path: &[u8]) -> Option<(&Route, usize)> {
        self.routes.find(path)
    }

    /// Who may come in at a path that this route answers.
    pub(crate) fn gate<'a>(&'a self, path: &[u8], route: &'a Route) -> Option<&'a Arc<Gate>> {
        match self.guards.is_empty() {
            true => route.gate.as_ref(),
            false => self.guards.get(path).or(route.gate.as_ref()),
        }
    }
}

fn head_limits(limits: &site::Limits) -> head::Limits {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    head::Limits {
        line: size(limits.request_line),
        head: size(limits.head),
        fields: size(limits.fields),
    }
}

/// What is wrong with the certificates that a configuration names. Files that are missing are somebody else's to report
/// (`config::machine`); what is found here is what they hold.
#[must_use]
pub fn check(site: &Site) -> Vec<Problem> {
    let certificates = site.hosts.iter().flat_map(check_host);
    let trusted = site.upstreams.iter().filter_map(check_upstream);
    certificates
        .chain(trusted)
        .chain(access::check(site))
        .collect()
}

fn check_upstream(upstream: &site::Upstream) -> Option<Problem> {
    let path = upstream.authorities.as_ref()?;
    let pem = text(&path.value)?;
    let error = tls::authorities(&pem).err()?;
    let error = match error {
        tls::CertificateError::Authorities(why) => tls::CertificateError::Trust(why),
        other => other,
    };
    Some(problem(path.span, &error))
}

fn check_host(host: &VirtualHost) -> Vec<Problem> {
    let pairs: &[site::KeyPair] = match &host.tls.value {
        site::Tls::Files(pairs) => pairs,
        _ => &[],
    };
    let authorities = host.clients.as_ref().and_then(|clients| {
        let pem = text(&clients.authorities.value)?;
        let error = tls::authorities(&pem).err()?;
        Some(problem(clients.authorities.span, &error))
    });
    pairs
        .iter()
        .filter_map(check_pair)
        .chain(authorities)
        .collect()
}

fn check_pair(pair: &site::KeyPair) -> Option<Problem> {
    let certificate = Certificate {
        host: 0,
        chain: text(&pair.cert.value)?,
        key: text(&pair.key.value)?,
        ocsp: None,
    };
    let error = tls::certified_key(&certificate).err()?;
    let span = if error.is_about_key() {
        pair.key.span
    } else {
        pair.cert.span
    };
    Some(problem(span, &error))
}

/// What a file of PEM holds. What others write beside it, such as names in Latin-1, need not be UTF-8.
fn text(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn problem(span: Option<Span>, error: &tls::CertificateError) -> Problem {
    Problem {
        span,
        message: error.to_string(),
        hint: Some(error.hint().to_owned()),
    }
}
