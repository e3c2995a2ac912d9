//! Who may come in, and how often.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Located;

/// Who may come in at a site or a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Only these addresses, if any is named. A route that names none has its site's, of both lists.
    pub allow: Vec<IpNet>,
    /// Not these, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// Names and passwords, or somebody else who decides. A route that says nothing has its site's.
    pub auth: Option<Auth>,
    /// What it takes where there are addresses and `auth`.
    pub satisfy: Satisfy,
    /// How often. A site's hold over all its routes together, a route's besides.
    pub limits: Vec<Limit>,
    /// Which pages of other origins may ask from a browser. A route that says nothing has its site's.
    pub cors: Option<Cors>,
}

/// What it takes to come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Satisfy {
    /// The right address and the right name.
    #[default]
    All,
    /// One of them.
    Any,
}

/// Who says who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Auth {
    /// A file of names and hashes of passwords (RFC 7617).
    Basic {
        /// The file, absolute.
        users: Located<PathBuf>,
        /// What a browser shows above its question.
        realm: String,
    },
    /// A server that is asked for each request.
    Forward(Box<Forward>),
}

/// A server that says who may come in, as nginx's `auth_request` and Traefik's ForwardAuth ask one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The name of its upstream.
    pub upstream: String,
    /// The value of `Host` in the question.
    pub host: String,
    /// The path, and perhaps a query, that is asked for.
    pub target: String,
    /// How long its answer may take, to the end of the head.
    pub timeout: Duration,
    /// Fields of its answer that go on with the request, in place of what the client says in them; in lower case.
    pub copy: Vec<String>,
    /// The field of its answer that names the user; in lower case.
    pub user: String,
}

/// How often somebody may ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// So many requests
    pub requests: u32,
    /// in so long a time,
    pub per: Duration,
    /// and so many at once after a pause.
    pub burst: u32,
    /// Who is counted as one.
    pub by: LimitBy,
    /// Whether who does not stop is shut out for longer.
    pub ban: Option<Ban>,
}

/// Who is counted as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LimitBy {
    /// A client: an IPv4 address, or the /64 of an IPv6 address.
    Address,
    /// A path, whoever asks for it.
    Path,
    /// The value of this field; the client where it is missing.
    Header(String),
}

/// When somebody is shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ban {
    /// After so many refusals without a pause.
    pub after: u32,
    /// For so long.
    pub time: Duration,
}

/// Cross-origin requests of browsers (Fetch Standard, CORS protocol).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cors {
    /// `cors = "*"`: any page, without cookies.
    Any,
    /// Pages of these origins, with cookies.
    Origins(Vec<String>),
}
