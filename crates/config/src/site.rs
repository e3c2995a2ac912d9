//! The configuration, valid in itself: every name resolves, every path is absolute, every figure is in its range.
//!
//! A [`Site`] says nothing about this machine: whether a certificate can be read or a folder exists is found out by
//! whoever makes a plan of it. It is plain data, so that the master can send it to the proxy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{defaults, error::Span};

mod access;
mod service;

pub use access::{Access, Auth, Ban, Cors, Forward, Limit, LimitBy, Satisfy};
pub use service::{Maintenance, Metrics, Traces};

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

/// Where access records go and how they look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The destination.
    pub to: LogTarget,
    /// The format; `None` means one that suits the destination: pretty for a terminal, else combined.
    pub format: Option<LogFormat>,
    /// When its file is moved aside; `None` leaves that to others.
    pub rotation: Option<Rotation>,
}

/// When a file is moved aside, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Once it has this many bytes.
    pub size: Option<u64>,
    /// Once it is this old.
    pub age: Option<Duration>,
    /// How many old ones are kept.
    pub keep: u32,
}

/// The log of everything but requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLog {
    /// What is said: `info`, `warn,proxy=debug`.
    pub level: String,
    /// How lines look.
    pub format: ErrorLogFormat,
    /// Where they go; `None` is standard error.
    pub file: Option<Located<PathBuf>>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorLogFormat {
    /// For people, and for the journal.
    Text,
    /// One JSON object a line.
    Json,
}

impl AccessLog {
    /// Whether both mean the same, wherever the file says so.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let to = |log: &Self| match &log.to {
            LogTarget::File(path) => Some(path.value.clone()),
            LogTarget::Off | LogTarget::Stdout => None,
        };
        let kind = |log: &Self| std::mem::discriminant(&log.to);
        to(self) == to(other) && kind(self) == kind(other) && self.format == other.format
    }
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// `"off"`.
    Off,
    /// Standard output, the default.
    Stdout,
    /// A file, appended to.
    File(Located<PathBuf>),
}

/// How an access record looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For eyes: short, in colour on a terminal.
    Pretty,
    /// The combined format of Apache and nginx.
    Combined,
    /// One JSON object a line.
    Json,
    /// A format of the user's own, with `$names`.
    Own(String),
}

/// `[limits]`: what the internet may ask of us. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest request line (414).
    pub request_line: u64,
    /// Longest request head (431).
    pub head: u64,
    /// Most field lines of a request (431).
    pub fields: u64,
    /// Time for the header of the PROXY protocol (close).
    pub proxy_protocol_timeout: Duration,
    /// Most TLS handshakes at once; further ones wait for their turn, within their time.
    pub handshakes: u64,
    /// Time for a TLS handshake (close).
    pub handshake_timeout: Duration,
    /// Time for a whole request head once its first byte came (408).
    pub head_timeout: Duration,
    /// Longest silence while a request body is awaited (408).
    pub body_timeout: Duration,
    /// Slowest a body may come, in bytes a second, once `body_timeout` has passed (408).
    pub body_rate: u64,
    /// Largest request body (413).
    pub body: u64,
    /// How much of a request body is kept in memory before it goes to a temporary file.
    pub body_memory: u64,
    /// How much of a response that the client has not taken is kept in memory.
    pub response_memory: u64,
    /// How much of it beyond that is kept in a temporary file; past it the worker waits for the client.
    pub response_disk: u64,
    /// Most memory for all bodies and responses together; past it they go to files sooner.
    pub buffers_memory: u64,
    /// Most bytes in temporary files for all of them together; past it: 503 for bodies, workers wait for clients.
    pub buffers_disk: u64,
    /// How much of files, and of what they were compressed to, is kept in memory.
    pub file_memory: u64,
    /// Most folders of files whose changes the kernel tells; elsewhere they are seen within a second. 0: none.
    pub file_watches: u64,
    /// Most responses that are encoded while they come; further ones go out as they are.
    pub encoders: u64,
    /// Longest time a client may take to accept any byte of a response (reset).
    pub send_timeout: Duration,
    /// Longest time between two requests of a connection (close).
    pub keepalive_timeout: Duration,
    /// Most requests of one connection (close).
    pub keepalive_requests: u64,
    /// Longest life of a connection, looked at between requests (close).
    pub keepalive_age: Duration,
    /// Longest time a request waits for a slot (503).
    pub queue_timeout: Duration,
    /// Most requests that wait for a slot of one app (503).
    pub queue_length: u64,
    /// Most requests of one client that wait for a slot of one app (503).
    pub queue_per_client: u64,
    /// How long requests should wait at most while there are lastingly more than the app can do (503); zero: no matter.
    pub queue_target: Duration,
    /// Most streams at once of an HTTP/2 connection.
    pub h2_streams: u64,
    /// Most streams that an HTTP/2 client may cancel in ten seconds (GOAWAY, `ENHANCE_YOUR_CALM`).
    pub h2_resets: u64,
    /// Most PING frames of an HTTP/2 client in ten seconds (the same).
    pub h2_pings: u64,
    /// Most DATA frames of an HTTP/2 client in ten seconds that hold nothing and end nothing (the same).
    pub h2_empty_data: u64,
    /// Most WINDOW_UPDATE frames of an HTTP/2 client in ten seconds, besides one for each KiB that it was sent (the same).
    pub h2_window_updates: u64,
    /// Most connections at once; further ones wait in the backlog.
    pub connections: u64,
    /// Most connections of one client at once (close); 0: any number.
    pub connections_per_client: u64,
    /// How many clients each `limit` can tell apart; of more, those that came longest ago are forgotten.
    pub limit_clients: u64,
    /// Longest time in which nothing passes through a tunnel, such as a WebSocket (close).
    pub tunnel_timeout: Duration,
    /// How long running requests may take to finish when we stop.
    pub drain_timeout: Duration,
}

/// `[app.NAME]`: one Python application and its pool of workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The name in `[app.NAME]`: `[a-z0-9_-]+`.
    pub name: String,
    /// What to import and which attribute of it is the application.
    pub wsgi: Located<Entry>,
    /// Called in each worker once the app is imported, before its first request.
    pub on_start: Option<Located<Entry>>,
    /// Called in each worker that leaves, after its last request.
    pub on_stop: Option<Located<Entry>>,
    /// Working directory, and first on `sys.path`.
    pub root: Located<PathBuf>,
    /// Where the interpreter was asked for.
    pub interpreter: Located<Interpreter>,
    /// How many worker processes.
    pub workers: Workers,
    /// How many slots (threads) in each worker.
    pub threads: u16,
    /// How many live responses (events, streams) it may have at once (503); `None`: as many as half of its slots.
    pub streams: Option<u16>,
    /// Environment on top of the master's own: `env_file`, then `env`.
    pub env: BTreeMap<String, String>,
    /// Folders, absolute, whose files it may answer with (`X-Sendfile`).
    pub sendfile: Vec<Located<PathBuf>>,
    /// Time a request may take until its response head (504).
    pub timeout: Duration,
    /// Time a worker may take until it is ready.
    pub boot_timeout: Duration,
    /// Who its workers run as; `None` for the proxy's user.
    pub account: Option<Account>,
    /// Which permissions the workers' new files lack; `None` for our own mask.
    pub umask: Option<u32>,
    /// How many requests a worker serves until it is replaced, ± 10 %.
    pub max_requests: Option<u64>,
    /// How much memory a worker may have until it is replaced, in bytes of resident set.
    pub max_rss: Option<u64>,
    /// How long a worker serves until it is replaced, ± 10 %.
    pub max_age: Option<Duration>,
    /// How much memory a worker can have at all, in bytes.
    pub memory_max: Option<u64>,
    /// How many descriptors a worker can have.
    pub nofile: Option<u64>,
    /// Whether its workers have temporary files that nobody else sees.
    pub private_tmp: bool,
    /// How a reload brings new workers in.
    pub reload: Strategy,
    /// A command for the shell that must succeed before new workers are started.
    pub before_reload: Option<Located<String>>,
    /// Time that it may take.
    pub before_reload_timeout: Duration,
}

/// How many workers an app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// At least.
    pub least: u16,
    /// At most; the same as `least` where the number is fixed.
    pub most: u16,
}

impl Workers {
    /// Always so many.
    #[must_use]
    pub const fn fixed(number: u16) -> Self {
        Self {
            least: number,
            most: number,
        }
    }

    /// The nearest number within the range.
    #[must_use]
    pub fn clamp(self, number: usize) -> usize {
        number.clamp(self.least.into(), self.most.into())
    }
}

/// How a reload brings new workers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// `"side-by-side"`: all new ones are started beside the old ones, and take over at once.
    SideBySide,
    /// `"rolling"`: one at a time, each old one leaving before the next new one is started.
    Rolling,
}

/// `module:attribute`, or a factory `module:attribute()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Dotted module name.
    pub module: String,
    /// Dotted attribute path inside the module.
    pub attribute: String,
    /// Whether the attribute is called, without arguments, to get the application.
    pub factory: bool,
}

/// Which Python runs an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpreter {
    /// `venv = "…"`: its `bin/python`.
    Venv(PathBuf),
    /// `python = "…"`: absolute, or a bare name such as `python3.12` that is looked up in `PATH`.
    Path(PathBuf),
    /// Neither was written: `root/.venv`, `root/venv`, else `python3` from `PATH`.
    Search,
}

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

/// Where a site's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tls {
    /// The site is plain HTTP. The default where `[server]` has no `https`.
    Off,
    /// Made at start, kept in memory, for localhost and the site's hosts. The default where `[server]` has `https`.
    SelfSigned,
    /// PEM files; of several the client's abilities choose, the first of those that fit.
    Files(Vec<KeyPair>),
    /// Got and renewed by us, from the authority that `[acme]` names (RFC 8555).
    Acme,
}

/// `[acme]`: the authority that certificates come from. Whoever writes the table agrees to its terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acme {
    /// Where its directory is: an `https` URL (RFC 8555 §7.1.1).
    pub directory: String,
    /// Whom it may write to about certificates.
    pub email: Option<String>,
    /// Which of its kinds of certificates is wanted, by the authority's own name for it; `None` for the usual one.
    pub profile: Option<String>,
    /// Who is trusted to say who the authority is, as PEM; `None` for whom the system trusts.
    pub authorities: Option<Located<PathBuf>>,
    /// Which customer of the authority we are, where it wants to know (RFC 8555 §7.3.4).
    pub eab: Option<Eab>,
    /// Where account, keys and certificates are kept; `None` for the place that this system has for such things.
    pub state: Option<Located<PathBuf>>,
}

/// `eab`: what binds an account to one that was opened elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eab {
    /// What the authority calls the key.
    pub key_id: String,
    /// A file with the key, as the authority writes it: base64.
    pub mac_key: Located<PathBuf>,
}

impl Acme {
    /// Where to rehearse: the authority's own place for that, where one is known, else the authority itself.
    #[must_use]
    pub fn rehearsal(&self) -> &str {
        match self.directory.as_str() {
            defaults::ACME_DIRECTORY => defaults::ACME_STAGING,
            directory => directory,
        }
    }
}

/// A certificate in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The chain, leaf first.
    pub cert: Located<PathBuf>,
    /// The leaf's private key.
    pub key: Located<PathBuf>,
    /// What its authority says of it, as a response of OCSP in DER (RFC 6960), to be shown with it.
    pub ocsp: Option<Located<PathBuf>>,
}

/// Certificates of clients (mTLS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// Who signs them: certificates in PEM.
    pub authorities: Located<PathBuf>,
    /// Whether every client must show one.
    pub need: Need,
}

/// Whether every client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// Who has none has no connection.
    Required,
    /// The app decides.
    Optional,
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

/// What a client gets that names a host in its handshake which no site has, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownNames {
    /// The certificate of the first site.
    Default,
    /// No handshake.
    Refuse,
}

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
    /// Its own limits, of those that a request meets once its route is known; `None`: [`Site::limits`].
    pub limits: Option<Box<Limits>>,
    /// Whether its responses get the usual fields of caution where they lack them.
    pub security_headers: bool,
    /// Who may come in, and how often.
    pub access: Access,
    /// What answers them.
    pub action: Action,
}

/// `headers = { X-Frame-Options = "DENY", X-Powered-By = false }`: fields of responses, each set or (`None`) removed. No name
/// is there twice, however it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers(pub Vec<(String, Option<String>)>);

/// Which paths a route matches; compared with the decoded path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoutePath {
    /// `"/about"`: this path alone.
    Exact(String),
    /// `"/static/"`: everything below it, the slash included.
    Subtree(String),
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
        /// The app's name; it exists in [`Site::apps`].
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
        /// Its name in [`Site::upstreams`].
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

/// Where a redirect leads: parts that are put behind one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location(pub Vec<LocationPart>);

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
}

impl Site {
    /// The upstream of this name.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }
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

impl RoutePath {
    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Subtree(path) => path,
        }
    }
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
