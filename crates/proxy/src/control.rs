//! What the master and the proxy say to each other, over one socketpair.
//!
//! A message is a length (u32, big endian) and that many bytes of JSON; descriptors travel beside the first byte
//! (`SCM_RIGHTS`), in the order in which the message names them. Only these two processes hold the pair, so a broken
//! message is a bug or a dead peer, and ends the channel.

use std::{path::PathBuf, time::Duration};

use config::site::Site;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use telemetry::metrics::Snapshot;

use crate::tls::TicketKey;

/// From the master to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The first message: serve this. Later it is another configuration, which is made ready beside the one that is served,
    /// and not more: [`Report::Prepared`] or [`Report::Refused`] is the answer. Descriptors: one for each listener, in order,
    /// then one for the access log where `access_log` is true.
    Serve {
        /// The whole configuration.
        site: Box<Site>,
        /// The build id that connections to workers are greeted with.
        build: String,
        /// What the descriptors are.
        listeners: Vec<Listener>,
        /// What TLS needs: of the configuration, opened by the master, and of an earlier proxy, made and reported by it.
        credentials: Credentials,
        /// The files of users that the configuration names, read by the master.
        users: Vec<Users>,
        /// What commands have closed for maintenance.
        closed: Vec<Closed>,
        /// Whether a descriptor for the access log follows those of the listeners.
        access_log: bool,
    },
    /// A worker listens and has imported its app: connect to it.
    WorkerReady {
        /// Which worker.
        worker: WorkerName,
        /// Its socket.
        socket: PathBuf,
        /// How many connections it can own at once.
        threads: u16,
    },
    /// A worker is to leave: give it no further request once another has a free slot, which [`Report::Relieved`] tells; close
    /// its connections as they become idle, then answer [`Report::Released`].
    ReleaseWorker {
        /// Which worker.
        worker: WorkerName,
    },
    /// A worker died; requests that were inside it want to know how.
    WorkerDied {
        /// Which worker.
        worker: WorkerName,
        /// For people: `killed by SIGSEGV`, `exit code 3`.
        how: String,
    },
    /// No worker of this app could start; its routes answer 503 until one is ready.
    AppFailed {
        /// Which app.
        app: String,
        /// For people, one line; the traceback is in the log.
        why: String,
    },
    /// The newest code or configuration cannot be served, which pages say to who develops it ([`Site::dev`]); `None`: it is served.
    Broken {
        /// For people, of several lines: a traceback, a report.
        why: Option<String>,
    },
    /// Say that you live: [`Report::Alive`].
    Ping,
    /// Go on in another file: with the access records of every plan that are written to this path, in the first descriptor
    /// that comes along; and with standard error, in the next, where `log` is true.
    ReopenLogs {
        /// The path, where there is a descriptor for access records.
        access_log: Option<PathBuf>,
        /// Whether there is one for standard error.
        log: bool,
    },
    /// Say what was counted so far: [`Report::Figures`]. Answers come in the order of these.
    Figures,
    /// Log by this filter from here on.
    LogFilter {
        /// `info`, `warn,proxy=debug`.
        filter: String,
    },
    /// Use these for every TLS handshake from now on. The master has checked them.
    Renew {
        /// All of them.
        credentials: Credentials,
    },
    /// Who may come in by name from now on. The master has checked it.
    Users {
        /// All files.
        users: Vec<Users>,
    },
    /// This, and nothing else, is closed for maintenance by commands from now on.
    Close {
        /// All of it.
        closed: Vec<Closed>,
    },
    /// The answer to [`Report::Asked`].
    Answer {
        /// Of which question.
        id: u64,
        /// What is said.
        said: Said,
    },
    /// Answer the challenges of certificate authorities so from here on, and no others: [`Report::Answering`] says that it is so.
    Challenges {
        /// Which of these orders it is.
        number: u64,
        /// All of them.
        challenges: Vec<Challenge>,
    },
    /// Serve what was prepared from here on; no connection notices. [`Report::Serving`] is the answer.
    Commit,
    /// What was prepared is not wanted any more.
    Forget,
    /// Another proxy accepts on the same sockets: stop accepting and finish what runs within `limits.drain_timeout`, without
    /// hurry for connections that may just be about to be used.
    Retire,
    /// Stop accepting, finish what runs within `limits.drain_timeout`, exit.
    Drain,
}

/// From the proxy to the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The answer to [`Order::Ping`], given by the threads that serve.
    Alive,
    /// The configuration is being served.
    Serving {
        /// The self-signed certificates that were made for it, to be handed to the next proxy: a visitor's browser trusts the
        /// one that it has seen.
        made: Vec<Certificate>,
    },
    /// The other configuration could be served from here on.
    Prepared,
    /// The configuration cannot be served; nothing has changed.
    Refused {
        /// For people.
        why: String,
    },
    /// Challenges are answered as this order says.
    Answering {
        /// Its number.
        number: u64,
    },
    /// What was counted so far.
    Figures(Box<Snapshot>),
    /// Somebody asks at an address for operators; [`Order::Answer`] is the answer.
    Asked {
        /// Counted by this proxy.
        id: u64,
        /// What.
        question: Question,
    },
    /// This worker, which is to leave, gets no further request.
    Relieved {
        /// Which worker.
        worker: WorkerName,
    },
    /// No connection to this worker is left.
    Released {
        /// Which worker.
        worker: WorkerName,
    },
    /// What an app whose number of workers follows the load has been asked to do since the last such report. Comes each
    /// second.
    Load {
        /// Which app.
        app: String,
        /// The longest that any request has waited for a slot.
        waited: Duration,
        /// The most slots that were busy at once.
        busy: u32,
    },
    /// The app did not answer within its `timeout`.
    Overdue {
        /// Which worker.
        worker: WorkerName,
        /// The request that it is busy with.
        request_id: String,
    },
}

/// A worker: the app's name and a number that this run of the master never uses again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerName {
    /// The app.
    pub app: String,
    /// Counted from 1 over the life of the master, for each app.
    pub number: u32,
}

impl std::fmt::Display for WorkerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}·{}", self.app, self.number)
    }
}

/// Something that a command has closed for maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What.
    pub extent: Extent,
    /// Who comes in nevertheless, besides those of the configuration.
    pub allow: Vec<IpNet>,
}

/// How much is closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// All sites.
    Everything,
    /// The site that has this among its `hosts`.
    Site(String),
    /// What this app would answer, on all sites.
    App(String),
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Site(name) => write!(f, "site {name}"),
            Self::App(name) => write!(f, "app {name}"),
        }
    }
}

/// What operators ask for at an address of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// All figures, as Prometheus reads them.
    Metrics,
    /// The same in OpenMetrics.
    OpenMetrics,
    /// Whether the master lives.
    Live,
    /// Whether visitors are served as they should be.
    Ready,
    /// What the page shows.
    Summary,
}

impl Question {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Metrics,
        Self::OpenMetrics,
        Self::Live,
        Self::Ready,
        Self::Summary,
    ];
}

/// An answer for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// 200 to 599.
    pub status: u16,
    /// Its media type.
    pub content_type: String,
    /// The content.
    pub content: String,
}

impl Said {
    /// A line for people.
    pub fn text(status: u16, content: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8".to_owned(),
            content: content.into(),
        }
    }
}

/// A listening socket that the master opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// Whether TLS is spoken on it.
    pub tls: bool,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether operators ask for figures there, and not visitors for pages. An older program knows no such socket.
    #[serde(default)]
    pub figures: bool,
    /// What it is bound to, for people: `[::]:8080`, `unix:/run/stack.sock`.
    pub name: String,
    /// The port clients see; `None` for a Unix socket.
    pub port: Option<u16>,
}

/// What TLS needs and only the master may read, or keeps from one proxy to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// In the order in which each site names its own.
    pub certificates: Vec<Certificate>,
    /// Who signs clients' certificates: which `[[site]]`, counted from 0, and PEM text.
    pub authorities: Vec<(usize, String)>,
    /// Who signs the certificates of members that speak TLS: the name of their upstream, and PEM text.
    pub upstreams: Vec<(String, String)>,
    /// What session tickets are sealed with, the key in use first.
    pub tickets: Vec<TicketKey>,
}

impl Credentials {
    /// PEM text of who signs the certificates of an upstream's members.
    pub(crate) fn trusted_by(&self, upstream: &str) -> &str {
        let mut found = self.upstreams.iter();
        found
            .find(|(known, _)| known == upstream)
            .map_or("", |(_, pem)| pem)
    }

    /// PEM text of who signs the certificates of a site's clients.
    pub(crate) fn authorities_of(&self, host: usize) -> &str {
        let mut found = self.authorities.iter();
        found
            .find(|(known, _)| *known == host)
            .map_or("", |(_, pem)| pem)
    }
}

/// What a certificate authority is to find, by which it sees that a name is ours.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Challenge {
    /// This text at the token's place (RFC 8555 §8.3).
    Http {
        /// The last segment of the path.
        token: String,
        /// The content.
        text: String,
    },
    /// This certificate in a handshake for `acme-tls/1` (RFC 8737).
    Tls {
        /// The name that the handshake is for.
        name: String,
        /// PEM.
        certificate: String,
        /// PEM.
        key: String,
    },
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { token, .. } => f.debug_tuple("Http").field(token).finish(),
            Self::Tls { name, .. } => f.debug_tuple("Tls").field(name).finish(),
        }
    }
}

/// A file of names and hashes of passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Its path, as the configuration has it.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nor do hashes.
        f.debug_struct("Users")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A certificate and its key, as PEM text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Which `[[site]]` it belongs to, counted from 0.
    pub host: usize,
    /// The chain, leaf first.
    pub chain: String,
    /// The private key.
    pub key: String,
    /// A response of OCSP (DER) that is shown with it.
    pub ocsp: Option<Vec<u8>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key never reaches a log.
        f.debug_struct("Certificate")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
