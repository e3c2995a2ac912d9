//! The configuration, valid in itself: every name resolves, every path is absolute, every figure is in its range.
//!
//! A [`Site`] says nothing about this machine: whether a certificate can be read or a folder exists is found out by
//! whoever makes a plan of it. It is plain data, so that the master can send it to the proxy. What each table of the file
//! becomes is in a file of its own, as what reads it is in `schema`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Span;

mod access;
mod app;
mod host;
mod limits;
mod logs;
mod route;
mod server;
mod service;
mod tls;
mod upstream;

pub use access::{Access, Auth, Ban, Cors, Forward, Limit, LimitBy, Satisfy};
pub use app::{App, Entry, Interpreter, Strategy, Workers};
pub use host::{ErrorPage, Headers, HostPattern, Hsts, Statuses, VirtualHost};
pub use limits::Limits;
pub use logs::{AccessLog, ErrorLog, ErrorLogFormat, LogFormat, LogTarget, Rotation};
pub use route::{Action, Cache, Files, Location, LocationPart, Queue, Route, RoutePath, Symlinks};
pub use server::{Account, Endpoint, Forwarded, Listen, Server, TrustedProxies, UnknownNames};
pub use service::{Maintenance, Metrics, Traces};
pub use tls::{Acme, ClientAuth, Eab, KeyPair, Need, Tls};
pub use upstream::{Member, Scheme, Upstream};

/// The whole file: `site.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The file this was read from, absolute.
    pub file: PathBuf,
    /// `[server]`.
    pub server: Server,
    /// `[limits]`.
    pub limits: Limits,
    /// `[acme]`; there is one where a site has `tls = "acme"`.
    pub acme: Option<Acme>,
    /// `[app.NAME]`, in order of name.
    pub apps: Vec<App>,
    /// `[upstream.NAME]`, in order of name, and those that routes write as addresses alone.
    pub upstreams: Vec<Upstream>,
    /// `[[site]]`, in order of the file.
    pub hosts: Vec<VirtualHost>,
    /// Where it is served to who develops it, who may see what nobody else may. No key says so, but the command (`--dev`).
    pub dev: Option<Dev>,
}

/// What is otherwise where a site is served to who develops it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dev {
    /// Certificates that the file names and that are not on this machine; self-signed ones take their place.
    pub missing: Vec<PathBuf>,
}

/// A value and where it was written, so that an error found later can still point at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where the file says so; `None` for a default.
    pub span: Option<Span>,
}

impl<T> std::ops::Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl Site {
    /// Who an app's workers run as: its own user, else the proxy's; `None` for who we are.
    #[must_use]
    pub fn account<'a>(&'a self, app: &'a App) -> Option<&'a Account> {
        app.account.as_ref().or(self.server.account.as_ref())
    }

    /// Every folder and file that the proxy reads to serve. What is not among them it cannot open once it has confined itself.
    pub fn served(&self) -> impl Iterator<Item = &Located<PathBuf>> {
        let routes = self.hosts.iter().flat_map(|host| &host.routes);
        let roots = routes.filter_map(|route| match &route.action {
            Action::Files { files, .. } => Some(&files.root),
            _ => None,
        });
        let errors = self.hosts.iter().flat_map(|host| &host.errors);
        roots
            .chain(self.apps.iter().flat_map(|app| &app.sendfile))
            .chain(errors.map(|error| &error.page))
            .chain(
                self.hosts
                    .iter()
                    .filter_map(|host| host.maintenance.page.as_ref()),
            )
    }

    /// The app of this name.
    #[must_use]
    pub fn app(&self, name: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.name == name)
    }

    /// The upstream of this name.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }
}
