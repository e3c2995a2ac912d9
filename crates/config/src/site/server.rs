//! `[server]`: what the process is, whatever the site.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AccessLog, ErrorLog, Located, Metrics, Traces};

/// `[server]`: what belongs to the process and not to one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Where plain HTTP is accepted.
    pub http: Vec<Endpoint>,
    /// Where TLS is accepted.
    pub https: Vec<Endpoint>,
    /// Peers that are believed about their clients.
    pub trusted_proxies: TrustedProxies,
    /// In which fields they speak of them.
    pub forwarded: Forwarded,
    /// Whether `X-Forwarded-Host` and `X-Forwarded-Port` are believed as well.
    pub forwarded_host: bool,
    /// Where access records go.
    pub access_log: AccessLog,
    /// Where everything else goes that is to be said.
    pub log: ErrorLog,
    /// Query parameters and fields whose values are hidden wherever they would be shown.
    pub redact: Vec<String>,
    /// Whether responses carry `Server: stack`.
    pub server_header: bool,
    /// Whether HTTP/2 is spoken in the clear with who begins with it (RFC 9113 §3.3).
    pub h2c: bool,
    /// What becomes of handshakes for names that no site has.
    pub unknown_names: UnknownNames,
    /// Where temporary files are made; `None`: /var/tmp, or /tmp where only that is on a disk.
    pub spool: Option<Located<PathBuf>>,
    /// The admin socket; `None` means in the run directory.
    pub admin: Option<Located<PathBuf>>,
    /// Where operators find figures, besides the admin socket.
    pub metrics: Option<Metrics>,
    /// Where spans are sent.
    pub traces: Option<Traces>,
    /// Who the proxy runs as, and the workers of apps that say nothing else; `None` for who we are.
    pub account: Option<Account>,
    /// Whether the proxy gives up every file but those that it serves or writes.
    pub landlock: bool,
    /// Whether the proxy gives up the system calls that it does not need.
    pub seccomp: bool,
}

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user's name.
    pub user: Located<String>,
    /// The primary group's name; `None` for the user's own.
    pub group: Option<Located<String>>,
}

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listen {
    /// `":80"`: IPv6 and IPv4 from one socket.
    Any {
        /// The port; 0 lets the kernel choose.
        port: u16,
    },
    /// `"127.0.0.1:8080"`, `"[::1]:8080"`.
    Address(SocketAddr),
    /// `"unix:/run/stack.sock"`.
    Unix(PathBuf),
}

impl Listen {
    /// The address to bind, unless it is a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Any { port } => Some(SocketAddr::new(IpAddr::from([0u16; 8]), *port)),
            Self::Address(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

/// A place where connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The place.
    pub listen: Located<Listen>,
    /// Whether each connection begins with a header of the PROXY protocol that says who the client is.
    pub proxy_protocol: bool,
}

impl std::ops::Deref for Endpoint {
    type Target = Located<Listen>;

    fn deref(&self) -> &Self::Target {
        &self.listen
    }
}

/// Who is believed about its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedProxies {
    /// Their networks, those of the names that were written among them.
    pub networks: Vec<IpNet>,
    /// `"unix"`: whoever connects to a Unix socket.
    pub unix: bool,
}

/// In which fields trusted proxies say whom they speak for. Of two ways a proxy writes one; the other is its client's own
/// word, passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarded {
    /// `"x-forwarded"`: `X-Forwarded-For` and its like.
    XForwarded,
    /// `"forwarded"`: RFC 7239.
    Forwarded,
}

/// What a client gets that names a host in its handshake which no site has, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownNames {
    /// The certificate of the first site.
    Default,
    /// No handshake.
    Refuse,
}
