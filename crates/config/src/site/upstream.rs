//! `[upstream.NAME]`: other servers that answer.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::Located;

/// `[upstream.NAME]`: other servers that answer, any of them as well as another, and all in the same version of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The name in `[upstream.NAME]`; the addresses where a route writes nothing else.
    pub name: String,
    /// The servers.
    pub members: Vec<Located<Member>>,
    /// `ca`: who signs the certificates of members that speak TLS; `None` for whom this system trusts.
    pub authorities: Option<Located<PathBuf>>,
    /// Time to connect to one.
    pub connect_timeout: Duration,
    /// Time until the response head (504).
    pub timeout: Duration,
    /// Longest silence inside a response (the connection is cut).
    pub read_timeout: Duration,
    /// Most requests at once, over all members; further ones wait (503).
    pub connections: u64,
    /// Most connections that are kept open for each member while nobody needs them.
    pub idle_connections: u64,
    /// How long one is kept.
    pub idle_timeout: Duration,
    /// How long a member that failed is passed over while others are there.
    pub retry_after: Duration,
}

impl Upstream {
    /// Whether its members speak HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.members.iter().any(|member| member.value.is_http2())
    }

    /// The first of its members that speaks TLS, if one does.
    #[must_use]
    pub fn encrypted(&self) -> Option<&Located<Member>> {
        self.members
            .iter()
            .find(|member| member.value.is_encrypted())
    }
}

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Member {
    /// `"http://host:port"`.
    Tcp {
        /// What it speaks.
        scheme: Scheme,
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `"unix:/run/api.sock"`, which speaks HTTP/1.1.
    Unix(PathBuf),
}

impl Member {
    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(
            self,
            Self::Tcp {
                scheme: Scheme::H2c | Scheme::H2,
                ..
            }
        )
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tcp { scheme, .. } if scheme.is_encrypted())
    }
}

/// What a server of an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scheme {
    /// `"http://…"`: HTTP/1.1.
    Http,
    /// `"h2c://…"`: HTTP/2 in the clear, without asking first (RFC 9113 §3.3).
    H2c,
    /// `"https://…"`: HTTP/1.1 over TLS.
    Https,
    /// `"h2://…"`: HTTP/2 over TLS.
    H2,
}

impl Scheme {
    /// As written before `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Https => "https",
            Self::H2 => "h2",
        }
    }

    /// Whether it is TLS.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }
}
