//! `[[site]]`: the hosts that it answers for, and what its responses have in common.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Access, ClientAuth, Located, Maintenance, Route, Tls};

/// `[[site]]`: the hosts it answers for, its certificate and its routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// Which hosts.
    pub names: Vec<HostPattern>,
    /// Where the certificate comes from.
    pub tls: Located<Tls>,
    /// Whether clients show certificates of their own.
    pub clients: Option<ClientAuth>,
    /// What browsers are told to remember.
    pub hsts: Option<Hsts>,
    /// What is changed in responses that no route makes.
    pub headers: Headers,
    /// Whether what routes do not say otherwise gets the usual fields of caution.
    pub security_headers: bool,
    /// Who may come in, unless a route says otherwise, and how often in all.
    pub access: Access,
    /// Its own pages for what we cannot answer.
    pub errors: Vec<ErrorPage>,
    /// Whether visitors are sent away for a while.
    pub maintenance: Maintenance,
    /// Where it says whether it is well, for load balancers.
    pub health: Option<String>,
    /// Which path goes where.
    pub routes: Vec<Route>,
}

/// One entry of `errors`: the page for a status that we make ourselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPage {
    /// For which.
    pub statuses: Statuses,
    /// The file.
    pub page: Located<PathBuf>,
}

/// Which statuses of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statuses {
    /// `404`.
    One(u16),
    /// `5xx`: the first digit.
    Hundred(u16),
}

/// A host name a site answers for; lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostPattern {
    /// `"*"`: every host that no other site names.
    Any,
    /// `"example.org"` or an address, as it stands in a Host field: `127.0.0.1`, `[::1]`.
    Exact(String),
    /// `"*.example.org"`: the part after `*.`; any number of labels stands for `*`.
    Wildcard(String),
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hsts {
    /// How long browsers remember that the site is never plain.
    pub age: Duration,
    /// Whether that holds for all names below.
    pub subdomains: bool,
    /// Whether browsers may know it before the first visit.
    pub preload: bool,
}

/// `headers = { X-Frame-Options = "DENY", X-Powered-By = false }`: fields of responses, each set or (`None`) removed. No name
/// is there twice, however it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers(pub Vec<(String, Option<String>)>);
