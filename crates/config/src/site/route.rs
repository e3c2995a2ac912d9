//! `[[site.routes]]`: which path is answered by what.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Access, Headers, Limits, Located};

/// One entry of `routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Which paths.
    pub path: RoutePath,
    /// Whether what answers sees the path without the route's own, as if it were mounted there.
    pub strip: bool,
    /// What is changed in its responses: what the route says, and of the site's what it does not say otherwise.
    pub headers: Headers,
    /// Whether its responses are sent in codings (br, zstd, gzip) where they gain.
    pub compress: bool,
    /// Whether a request is read whole before an app or an upstream sees any of it.
    pub request_buffering: bool,
    /// Its own limits, of those that a request meets once its route is known; `None`: [`Site::limits`](super::Site::limits).
    pub limits: Option<Box<Limits>>,
    /// Whether its responses get the usual fields of caution where they lack them.
    pub security_headers: bool,
    /// Who may come in, and how often.
    pub access: Access,
    /// What answers them.
    pub action: Action,
}

/// Which paths a route matches; compared with the decoded path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoutePath {
    /// `"/about"`: this path alone.
    Exact(String),
    /// `"/static/"`: everything below it, the slash included.
    Subtree(String),
}

impl RoutePath {
    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Subtree(path) => path,
        }
    }
}

/// A folder whose files answer a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The folder, absolute.
    pub root: Located<PathBuf>,
    /// Names that answer for a folder, the first that is there.
    pub index: Vec<String>,
    /// The file, below the root, that answers where there is none: the page of a single-page app.
    pub fallback: Option<String>,
    /// Whether a folder without an index shows what is in it.
    pub listing: bool,
    /// How long a client may keep a file without asking.
    pub cache: Cache,
    /// Media types by the ending of a name, lower case and without its dot, over those that are built in.
    pub types: BTreeMap<String, String>,
    /// Where symbolic links may lead.
    pub symlinks: Symlinks,
    /// Whether they are only for apps to answer with (`X-Accel-Redirect`).
    pub internal: bool,
}

/// What is said of how long a file may be kept (RFC 9111 §5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cache {
    /// Nothing was written: nothing is said, but of a name with a hash of its content in it, that it may be kept for ever.
    Unsaid,
    /// `cache = "1h"`; names with a hash may be kept for ever unless it is `"0s"`.
    Age(Duration),
    /// `cache = "immutable"`: for ever, without asking even when the page is reloaded (RFC 8246).
    Immutable,
    /// Not at all (`no-store`), nor do we remember any: what `--dev` makes of all of them.
    Never,
}

/// Where the symbolic links of a folder may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// To places inside the folder.
    Inside,
    /// Anywhere that the process may read.
    Follow,
}

/// What answers a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// `app = "web"`.
    App {
        /// The app's name; it exists in [`Site::apps`](super::Site::apps).
        app: String,
        /// `queue = "first"`: where its requests wait for a slot.
        queue: Queue,
    },
    /// `files = "public"`.
    Files {
        /// Which, and how they are served.
        files: Box<Files>,
        /// `app = "web"` beside it: what answers where there is no file.
        otherwise: Option<Box<Self>>,
    },
    /// `upstream = "api"`, `"http://127.0.0.1:3000"` or a list of addresses.
    Upstream {
        /// Its name in [`Site::upstreams`](super::Site::upstreams).
        upstream: String,
    },
    /// `redirect = "/new"`, `"https://example.org/"` or `"https://example.org{path}{query}"`.
    Redirect {
        /// The location.
        to: Location,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// `respond = "text"`.
    Respond {
        /// 200 to 599.
        status: u16,
        /// The content.
        body: String,
        /// Its type.
        content_type: String,
    },
}

/// Where requests of a route wait for a slot of their app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Queue {
    /// `"first"`: before all others. For health checks.
    First,
    /// `"last"`: behind those that came before.
    Last,
}

/// Where a redirect leads: parts that are put behind one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location(pub Vec<LocationPart>);

impl std::fmt::Display for Location {
    /// As written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|part| {
            f.write_str(match part {
                LocationPart::Text(text) => text,
                LocationPart::Path => "{path}",
                LocationPart::Rest => "{rest}",
                LocationPart::Query => "{query}",
            })
        })
    }
}

/// A part of a [`Location`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocationPart {
    /// As written.
    Text(String),
    /// `{path}`: the path that was asked for.
    Path,
    /// `{rest}`: what of the path is below the route's own.
    Rest,
    /// `{query}`: `?` and the query that was asked with, or nothing.
    Query,
}
