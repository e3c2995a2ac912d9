//! Making hosts and their routes: what the configuration names is opened and found here, or the plan is none.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use config::site::{self, RoutePath, Site, VirtualHost};

use super::{Action, CHALLENGES, Given, Host, Plan, PlanError, Route};
use crate::{
    access::{Basic, Gate, Gates, Origins},
    app::{AppRoute, Settings, pool::Pool},
    buffer,
    closed::{Closures, Maintenance},
    control::Credentials,
    figures::{Figures, Place},
    files::{Folder, SendFile, Store},
    health::Health,
    pages::{Page, Pages},
    response::Edits,
    route::{Hosts, Paths},
    spans::Exporter,
    tls,
    upstream::{Upstream, UpstreamRoute},
};

/// What a plan and its hosts are made with.
pub(super) struct Maker<'a> {
    pub(super) site: &'a Site,
    pub(super) store: Store,
    pub(super) buffers: Arc<buffer::Store>,
    pub(super) pool: &'a dyn Fn(&site::App) -> Arc<Pool>,
    pub(super) upstreams: HashMap<&'a str, Arc<Upstream>>,
    pub(super) places: Places<'a>,
    pub(super) closures: &'a Arc<Closures>,
    pub(super) draining: &'a Arc<AtomicBool>,
}

/// Gives places their numbers.
pub(super) struct Places<'a> {
    figures: &'a Figures,
    pub(super) made: RefCell<Vec<Arc<Place>>>,
}

impl<'a> Places<'a> {
    /// The first is for requests of which nothing came to be known.
    pub(super) fn new(figures: &'a Figures) -> Self {
        let nowhere = figures.place(NOWHERE, NOWHERE, None);
        Self {
            figures,
            made: RefCell::new(vec![nowhere]),
        }
    }

    fn number(&self, site: &str, route: &str, app: Option<&str>) -> usize {
        let mut made = self.made.borrow_mut();
        made.push(self.figures.place(site, route, app));
        made.len() - 1
    }
}

/// The name of a site or a route that is not known.
const NOWHERE: &str = "-";

/// What a site is called where it is counted: the first of its hosts.
fn name_of(host: &VirtualHost) -> String {
    host.names
        .first()
        .map_or_else(|| NOWHERE.to_owned(), ToString::to_string)
}

/// The app that a route's requests may reach.
fn app_of(action: &site::Action) -> Option<&str> {
    match action {
        site::Action::App { app, .. } => Some(app),
        site::Action::Files { otherwise, .. } => otherwise.as_deref().and_then(app_of),
        _ => None,
    }
}

pub(super) fn upstreams<'s>(
    site: &'s Site,
    before: Option<&Plan>,
    credentials: &Credentials,
) -> Result<HashMap<&'s str, Arc<Upstream>>, tls::CertificateError> {
    let known = before.map_or(&[][..], |before| &before.upstreams);
    let made = |upstream: &'s site::Upstream| {
        let name = upstream.name.as_str();
        let before = known.iter().find(|known| known.name() == name);
        let trusted = credentials.trusted_by(name);
        let made = Upstream::new(upstream, before.map(Arc::as_ref), trusted)?;
        Ok((name, made))
    };
    site.upstreams.iter().map(made).collect()
}

/// All hosts, and what of them is known under other names than theirs.
pub(super) struct Made {
    pub(super) hosts: Hosts<Arc<Host>>,
    pub(super) healths: Vec<Arc<Health>>,
    pub(super) basics: Vec<(PathBuf, Arc<Basic>)>,
}

impl Maker<'_> {
    /// All hosts, by all of their names.
    pub(super) fn hosts(&self, given: &Given<'_>) -> Result<Made, PlanError> {
        let mut secure = given.listeners.iter().filter(|listener| listener.tls);
        let https_port = secure.next().and_then(|listener| listener.port);
        let mut made = Made {
            hosts: Hosts::default(),
            healths: Vec::new(),
            basics: Vec::new(),
        };
        for (index, host) in self.site.hosts.iter().enumerate() {
            let origins = Origins {
                upstreams: &self.upstreams,
                buffers: &self.buffers,
            };
            let gates = Gates::new(self.site, host, given.limiters, given.users, origins);
            let finished = Arc::new(self.host(index, host, https_port, &gates)?);
            made.basics.extend(gates.into_basics());
            made.healths.extend(finished.health.clone());
            for name in &host.names {
                made.hosts.insert(name, Arc::clone(&finished));
            }
        }
        Ok(made)
    }

    fn host(
        &self,
        index: usize,
        host: &VirtualHost,
        https_port: Option<u16>,
        gates: &Gates<'_>,
    ) -> Result<Host, PlanError> {
        let name = name_of(host);
        let counted_at = |route: &site::Route| {
            let path = route.path.as_str();
            self.places.number(&name, path, app_of(&route.action))
        };
        let gates: Vec<Option<Arc<Gate>>> = host
            .routes
            .iter()
            .map(|route| gates.of(route))
            .collect::<Result<_, _>>()?;
        let guarded = || host.routes.iter().zip(&gates);
        let mut routes = Paths::default();
        for (route, gate) in guarded() {
            let made = Route {
                place: counted_at(route),
                action: self.action(route, &route.action)?,
                compress: route.compress,
                edits: Edits::new(&route.headers, route.security_headers),
                gate: gate.clone(),
            };
            routes.insert(&route.path, made);
        }
        // Written routes are in the table before, and stay.
        for (route, gate) in guarded().filter(|(route, _)| route.strip) {
            let place = route.path.as_str().trim_end_matches('/');
            let slash = Route {
                place: counted_at(route),
                action: Action::Slash,
                compress: false,
                edits: Edits::new(&route.headers, route.security_headers),
                gate: gate.clone(),
            };
            routes.insert(&RoutePath::Exact(place.to_owned()), slash);
        }
        let challenges = |route: &site::Route| route.path.as_str().starts_with(CHALLENGES);
        let redirects = host.tls.value != site::Tls::Off;
        Ok(Host {
            index,
            asks_clients: host.clients.is_some(),
            hsts: host.hsts.as_ref().map(hsts),
            https_port: https_port.filter(|_| redirects),
            pages: pages(&host.errors)?,
            maintenance: self.maintenance(host)?,
            health: self.health(host).map(Arc::new),
            has_internal: host.routes.iter().any(is_internal),
            has_challenges: host.routes.iter().any(challenges),
            place: self.places.number(&name, NOWHERE, None),
            edits: Edits::new(&host.headers, host.security_headers),
            routes,
            guards: guards(host, &gates),
        })
    }

    pub(super) fn exporter(
        &self,
        before: Option<&Plan>,
        figures: &Arc<Figures>,
    ) -> Result<Option<Arc<Exporter>>, PlanError> {
        let Some(traces) = &self.site.server.traces else {
            return Ok(None);
        };
        let upstream = self.upstreams.get(traces.upstream.as_str());
        let upstream = upstream.ok_or_else(|| PlanError::NoUpstream(traces.upstream.clone()))?;
        Ok(Some(Exporter::new(
            traces,
            Arc::clone(upstream),
            &self.site.limits,
            &self.buffers,
            figures,
            before.and_then(|before| before.spans.as_ref()),
        )))
    }

    fn maintenance(&self, host: &VirtualHost) -> Result<Maintenance, PlanError> {
        let page = host.maintenance.page.as_ref();
        let page = page.map(|page| Page::read(&page.value)).transpose();
        let page = page.map_err(|(path, source)| PlanError::Page { path, source })?;
        let (maintenance, names) = (&host.maintenance, &host.names);
        Ok(Maintenance::new(maintenance, names, page, self.closures))
    }

    /// It depends on every app that a route leads to.
    fn health(&self, host: &VirtualHost) -> Option<Health> {
        let mut names: Vec<&str> = host
            .routes
            .iter()
            .filter_map(|route| app_of(&route.action))
            .collect();
        names.sort_unstable();
        names.dedup();
        let apps = names.into_iter().filter_map(|name| self.site.app(name));
        let pools = apps.map(|app| (app.name.as_str().into(), (self.pool)(app)));
        let path = host.health.as_ref()?;
        Some(Health::new(path, pools.collect(), self.draining))
    }

    fn action(&self, route: &site::Route, action: &site::Action) -> Result<Action, PlanError> {
        let limits = route.limits.as_deref().unwrap_or(&self.site.limits);
        Ok(match action {
            site::Action::App { app, queue } => {
                let found = self.site.app(app);
                let app = found.ok_or_else(|| PlanError::NoApp(app.clone()))?;
                Action::App(AppRoute {
                    pool: (self.pool)(app),
                    settings: Settings::new(
                        app,
                        *queue,
                        route.request_buffering,
                        limits,
                        &self.buffers,
                    ),
                    mounted: route.strip.then(|| mounted(&route.path)),
                    sendfile: sendfile(app)?,
                })
            }
            site::Action::Upstream { upstream } => {
                let found = self.upstreams.get(upstream.as_str()).cloned();
                Action::Upstream(UpstreamRoute::new(
                    found.ok_or_else(|| PlanError::NoUpstream(upstream.clone()))?,
                    limits,
                    &self.buffers,
                    route.request_buffering,
                    route.strip.then(|| mounted(&route.path)),
                ))
            }
            site::Action::Files { files, otherwise } => Action::Files {
                folder: self.folder(files, route.compress)?,
                otherwise: match otherwise {
                    None => None,
                    Some(action) => Some(Box::new(self.action(route, action)?)),
                },
            },
            site::Action::Redirect { to, status } => Action::Redirect {
                to: to.clone(),
                status: *status,
            },
            site::Action::Respond {
                status,
                body,
                content_type,
            } => Action::Respond {
                status: *status,
                body: body.clone().into(),
                content_type: content_type.as_str().into(),
            },
        })
    }

    fn folder(&self, files: &site::Files, compress: bool) -> Result<Folder, PlanError> {
        Folder::open(files, compress, &self.store).map_err(|source| PlanError::Root {
            path: files.root.display().to_string(),
            source,
        })
    }
}

fn sendfile(app: &site::App) -> Result<SendFile, PlanError> {
    SendFile::open(app).map_err(|(path, source)| PlanError::Root {
        path: path.display().to_string(),
        source,
    })
}

fn pages(errors: &[site::ErrorPage]) -> Result<Pages, PlanError> {
    Pages::read(errors).map_err(|(path, source)| PlanError::Page { path, source })
}

fn is_internal(route: &site::Route) -> bool {
    matches!(&route.action, site::Action::Files { files, .. } if files.internal)
}

/// See [`Host::guards`]. `gates` are those of the host's routes. What is internal guards nothing: nobody can ask for it.
fn guards(host: &VirtualHost, gates: &[Option<Arc<Gate>>]) -> HashMap<Vec<u8>, Arc<Gate>> {
    let mut guards = HashMap::new();
    for (route, gate) in host.routes.iter().zip(gates) {
        let place = route.path.as_str().trim_end_matches('/');
        let written = RoutePath::Exact(place.to_owned());
        if let (RoutePath::Subtree(_), Some(gate)) = (&route.path, gate)
            && !is_internal(route)
            && !host.routes.iter().any(|route| route.path == written)
        {
            guards.insert(place.as_bytes().to_vec(), Arc::clone(gate));
        }
    }
    guards
}

fn hsts(hsts: &site::Hsts) -> Box<str> {
    let mut value = format!("max-age={}", hsts.age.as_secs());
    if hsts.subdomains {
        value.push_str("; includeSubDomains");
    }
    if hsts.preload {
        value.push_str("; preload");
    }
    value.into()
}

/// How long the path is at which a route's app is mounted, without its last slash.
fn mounted(path: &RoutePath) -> usize {
    path.as_str().trim_end_matches('/').len()
}
