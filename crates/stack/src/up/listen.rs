//! The sockets that visitors connect to. The master opens them, keeps them while proxies come and go, and never accepts.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ::proxy::control::Listener;
use anyhow::Context;
use config::{
    error::Problem,
    site::{Endpoint, Listen, Located, Server},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};
use supervisor::fds;

use crate::failure::Failure;

/// How many connections may wait to be accepted; the kernel takes less if `net.core.somaxconn` is less.
const BACKLOG: i32 = 4096;

/// Whoever may enter the folder may connect, as with nginx.
const SOCKET_MODE: u32 = 0o666;

/// A socket that listens. A clone is the same socket.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    /// The socket.
    pub(crate) socket: Arc<OwnedFd>,
    /// What it is.
    pub(crate) what: Listener,
    /// What the file names it by; `None` for one that the service manager opened.
    pub(crate) listen: Option<Listen>,
    /// Removed with the last of them.
    path: Option<Arc<SocketPath>>,
}

impl Listening {
    /// One that another master has left us.
    pub(crate) fn inherited(
        socket: OwnedFd,
        what: Listener,
        listen: Option<Listen>,
        path: Option<PathBuf>,
    ) -> Self {
        Self {
            listen,
            path: path.map(|path| SocketPath::new(path, false)),
            ..Self::of(socket, what)
        }
    }

    /// It is ours from here on.
    pub(crate) fn claim(&self) {
        self.belongs_to_us(true);
    }

    /// It is another master's from here on.
    pub(crate) fn let_go(&self) {
        self.belongs_to_us(false);
    }

    fn belongs_to_us(&self, ours: bool) {
        if let Some(path) = &self.path {
            path.ours.store(ours, Ordering::Relaxed);
        }
    }

    /// The path that is removed with it.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.path.as_ref().map(|path| path.path.clone())
    }

    /// A socket that is no path.
    pub(crate) fn of(socket: OwnedFd, what: Listener) -> Self {
        Self {
            socket: Arc::new(socket),
            what,
            listen: None,
            path: None,
        }
    }

    /// The same, with or without the PROXY protocol.
    fn with_proxy_protocol(mut self, proxy_protocol: bool) -> Self {
        self.what.proxy_protocol = proxy_protocol;
        self
    }
}

/// The path of a Unix socket that we made, or that we have from another master.
#[derive(Debug)]
struct SocketPath {
    path: PathBuf,
    /// Whether it is ours to remove: not as long as another master serves there.
    ours: AtomicBool,
}

impl SocketPath {
    fn new(path: PathBuf, ours: bool) -> Arc<Self> {
        let ours = AtomicBool::new(ours);
        Arc::new(Self { path, ours })
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if !self.ours.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Sockets that the service manager opened for us: they go on taking connections while we are restarted.
#[derive(Debug, Default)]
pub(crate) struct Given {
    http: Vec<OwnedFd>,
    https: Vec<OwnedFd>,
}

impl Given {
    /// Takes what this process was started with.
    pub(crate) fn take() -> Result<Self, Failure> {
        let sockets = fds::activated().context("cannot take the service manager's sockets")?;
        let mut given = Self::default();
        for (name, socket) in sockets {
            if !is_listening_stream(&socket) {
                return Err(Failure::User(format!(
                    "the socket `{name}` of the service manager does not listen for streams: \
                     write ListenStream= and leave Accept=no in its unit"
                )));
            }
            match name.as_str() {
                "http" => given.http.push(socket),
                "https" => given.https.push(socket),
                _ => {
                    return Err(Failure::User(format!(
                        "the socket `{name}` of the service manager is for nothing that we know: \
                         write FileDescriptorName=http or FileDescriptorName=https in its unit"
                    )));
                }
            }
        }
        Ok(given)
    }
}

fn is_listening_stream(socket: &OwnedFd) -> bool {
    sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_acceptconn(socket).is_ok_and(|listens| listens)
}

/// Opens all of them, or says all that is wrong with them. What the service manager gives stands in for what the file names.
pub(crate) fn open_all(server: &Server, given: Given) -> Result<Vec<Listening>, Vec<Problem>> {
    let mut listening = Vec::new();
    let mut problems = Vec::new();
    let kinds = [
        (&server.http[..], given.http, Kind::Http),
        (&server.https, given.https, Kind::Https),
        (figures(server), Vec::new(), Kind::Figures),
    ];
    for (named, given, kind) in kinds {
        let tls = kind == Kind::Https;
        let opened: Vec<Result<Listening, Problem>> = if given.is_empty() {
            let opened = named.iter().map(|endpoint| {
                let listening = open(&endpoint.listen, tls)?;
                Ok(listening.with_proxy_protocol(endpoint.proxy_protocol))
            });
            opened.collect()
        } else {
            // Whatever stands in for the named ones is spoken to as they are.
            let proxy_protocol = named.iter().any(|endpoint| endpoint.proxy_protocol);
            let taken = given.into_iter().map(|socket| {
                let listening = take(socket, tls)?;
                Ok(listening.with_proxy_protocol(proxy_protocol))
            });
            taken.collect()
        };
        for result in opened {
            match result {
                Ok(socket) => listening.push(socket.of_kind(kind)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    if problems.is_empty() {
        Ok(listening)
    } else {
        Err(problems)
    }
}

/// What another configuration listens on: the same sockets where it names the same addresses, so that nobody who connects
/// finds nobody there; new ones for the others. What is opened anew is closed again when nothing comes of it.
pub(crate) fn open_others(
    server: &Server,
    now: &[Listening],
) -> Result<Vec<Listening>, Vec<Problem>> {
    let mut listening = Vec::new();
    let mut problems = Vec::new();
    let mut left: Vec<&Listening> = now.iter().collect();
    let kinds = [
        (&server.http[..], Kind::Http),
        (&server.https, Kind::Https),
        (figures(server), Kind::Figures),
    ];
    for (named, kind) in kinds {
        let tls = kind == Kind::Https;
        let given = |known: &&Listening| known.listen.is_none() && known.kind() == kind;
        let (given, others) = left.into_iter().partition::<Vec<_>, _>(given);
        left = others;
        if !given.is_empty() {
            let proxy_protocol = named.iter().any(|endpoint| endpoint.proxy_protocol);
            let given = given.into_iter().cloned();
            listening.extend(given.map(|known| known.with_proxy_protocol(proxy_protocol)));
            continue;
        }
        for endpoint in named {
            let listen = &endpoint.listen;
            let same = |known: &&Listening| known.listen.as_ref() == Some(&listen.value);
            let result = match left.iter().position(same) {
                Some(at) => Ok(left.remove(at).clone()),
                None => open(listen, tls).map_err(|problem| blame_ourselves(problem, listen, now)),
            };
            match result {
                Ok(socket) => {
                    let socket = socket.with_proxy_protocol(endpoint.proxy_protocol);
                    listening.push(socket.of_kind(kind));
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    if problems.is_empty() {
        Ok(listening)
    } else {
        Err(problems)
    }
}

/// An address that we hold ourselves, by another name, cannot be had before we let go of it.
fn blame_ourselves(problem: Problem, listen: &Located<Listen>, now: &[Listening]) -> Problem {
    let ours = now.iter().filter_map(|known| known.listen.as_ref());
    match ours.into_iter().find(|known| known.overlaps(listen)) {
        Some(ours) => Problem::new(
            listen.span,
            format!(
                "`{}` overlaps with `{ours}`, which is being listened on",
                listen.value
            ),
        )
        .hint("restart for this change: the one must be closed before the other can be opened"),
        None => problem,
    }
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Visitors, in the clear.
    Http,
    /// Visitors, over TLS.
    Https,
    /// Operators.
    Figures,
}

fn figures(server: &Server) -> &[Endpoint] {
    let metrics = server.metrics.as_ref();
    metrics.map_or(&[], |metrics| &metrics.listen)
}

impl Listening {
    /// What it is for.
    pub(crate) fn kind(&self) -> Kind {
        match (self.what.figures, self.what.tls) {
            (true, _) => Kind::Figures,
            (false, true) => Kind::Https,
            (false, false) => Kind::Http,
        }
    }

    fn of_kind(mut self, kind: Kind) -> Self {
        self.what.tls = kind == Kind::Https;
        self.what.figures = kind == Kind::Figures;
        self
    }
}

fn open(listen: &Located<Listen>, tls: bool) -> Result<Listening, Problem> {
    let listening = open_anew(listen, tls)?;
    Ok(Listening {
        listen: Some(listen.value.clone()),
        ..listening
    })
}

fn open_anew(listen: &Located<Listen>, tls: bool) -> Result<Listening, Problem> {
    let refused = |(message, hint): (String, &str)| Problem::new(listen.span, message).hint(hint);
    match &listen.value {
        Listen::Any { port } => {
            let everywhere = SocketAddr::new([0u16; 8].into(), *port);
            // A machine without IPv6 has no such socket, or no such address.
            let result = match open_tcp(everywhere) {
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                    open_tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port))
                }
                result => result,
            };
            let socket = result.map_err(|error| refused(explain(everywhere, error)))?;
            describe(socket, tls).map_err(|error| refused(explain(everywhere, error)))
        }
        Listen::Address(address) => {
            let socket = open_tcp(*address).map_err(|error| refused(explain(*address, error)))?;
            describe(socket, tls).map_err(|error| refused(explain(*address, error)))
        }
        Listen::Unix(path) => open_unix(path, tls).map_err(refused),
    }
}

fn open_tcp(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of the last run that linger in TIME_WAIT do not keep the next one from starting.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `[::]` is both; any other IPv6 address is only itself.
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// One that was given to us; its path, if it has one, is its maker's.
fn take(socket: OwnedFd, tls: bool) -> Result<Listening, Problem> {
    let address = rustix::net::getsockname(&socket).map_err(|error| {
        let error = io::Error::from(error);
        Problem::new(
            None,
            format!("the service manager's socket is unusable: {error}"),
        )
    })?;
    let (name, port) = match SocketAddr::try_from(address.clone()) {
        Ok(address) => (address.to_string(), Some(address.port())),
        Err(_) => (unix_name(address), None),
    };
    tracing::info!(
        "{name} was opened by the service manager, and stands in for what the file names"
    );
    Ok(Listening::of(
        socket,
        Listener {
            tls,
            proxy_protocol: false,
            figures: false,
            name,
            port,
        },
    ))
}

fn unix_name(address: SocketAddrAny) -> String {
    let path = SocketAddrUnix::try_from(address).ok();
    let path = path.as_ref().and_then(SocketAddrUnix::path_bytes);
    let path = path.map(|path| String::from_utf8_lossy(path).into_owned());
    format!("unix:{}", path.unwrap_or_default())
}

fn describe(socket: OwnedFd, tls: bool) -> Result<Listening, Errno> {
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    let what = Listener {
        tls,
        proxy_protocol: false,
        figures: false,
        name: bound.to_string(),
        port: Some(bound.port()),
    };
    Ok(Listening::of(socket, what))
}

/// What went wrong and what to do.
fn explain(address: SocketAddr, error: Errno) -> (String, &'static str) {
    let port = address.port();
    match error {
        Errno::ADDRINUSE => (
            format!("port {port} is taken by another process"),
            "`ss -ltnp` shows by which; stop that, or take another port",
        ),
        Errno::ACCESS => (
            format!("only root may listen on port {port}"),
            "take a port from 1024 on, or run as root, or give the right: setcap cap_net_bind_service=+ep",
        ),
        Errno::ADDRNOTAVAIL => (
            format!("this machine does not have the address {}", address.ip()),
            "`ip address` shows those it has; \":80\" means all of them",
        ),
        error => (
            format!("cannot listen on {address}: {}", io::Error::from(error)),
            "take another address",
        ),
    }
}

fn open_unix(path: &Path, tls: bool) -> Result<Listening, (String, &'static str)> {
    let shown = path.display();
    let failed = |error: io::Error| {
        (
            format!("cannot listen on {shown}: {error}"),
            "take a path in a folder that we may write to",
        )
    };
    if let Some(taken) = occupant(path) {
        return Err(taken);
    }
    let socket = bind_unix(path).map_err(failed)?;
    let what = Listener {
        tls,
        proxy_protocol: false,
        figures: false,
        name: format!("unix:{shown}"),
        port: None,
    };
    Ok(Listening {
        path: Some(SocketPath::new(path.to_owned(), true)),
        ..Listening::of(socket, what)
    })
}

/// Who keeps us from this path; the socket of a dead process does not, and is removed.
fn occupant(path: &Path) -> Option<(String, &'static str)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let shown = path.display();
    if !metadata.file_type().is_socket() {
        return Some((
            format!("{shown} is there already, and is no socket"),
            "take another path",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).err().map(|error| {
                (
                    format!("cannot remove the dead socket {shown}: {error}"),
                    "remove it",
                )
            })
        }
        // Even one that may not be asked is somebody's.
        _ => Some((
            format!("another process listens on {shown}"),
            "`ss -lxp` shows which; stop that, or take another path",
        )),
    }
}

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &address)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, os::unix::net::UnixListener};

    use config::site::Endpoint;

    use super::*;

    fn located(value: Listen) -> Located<Listen> {
        Located { value, span: None }
    }

    fn local(port: u16) -> Located<Listen> {
        located(Listen::Address(SocketAddr::new(
            Ipv4Addr::LOCALHOST.into(),
            port,
        )))
    }

    #[test]
    fn port_zero_is_told_as_the_port_it_became() {
        let listening = open(&local(0), true).unwrap();
        let port = listening.what.port.unwrap();
        assert_ne!(port, 0);
        assert_eq!(listening.what.name, format!("127.0.0.1:{port}"));
        assert!(listening.what.tls);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn any_is_both_families() {
        let listening = open(&located(Listen::Any { port: 0 }), false).unwrap();
        let port = listening.what.port.unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listening.what.name.starts_with('[') {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_refused_with_what_to_do() {
        let first = open(&local(0), false).unwrap();
        let port = first.what.port.unwrap();
        let problem = open(&local(port), false).unwrap_err();
        assert_eq!(
            problem.message,
            format!("port {port} is taken by another process")
        );
        assert!(problem.hint.unwrap().contains("ss -ltnp"));
    }

    #[test]
    fn another_configuration_keeps_what_it_names_too() {
        let server = |http: Vec<Located<Listen>>, https: Vec<Located<Listen>>| {
            let text = "[[site]]\nroutes = [{ path = \"/\", respond = \"\" }]\n";
            let loaded = config::parse(Path::new("/site.toml"), text.to_owned(), false).unwrap();
            let server = loaded.site.server;
            let endpoints = |listens: Vec<Located<Listen>>| {
                let endpoint = |listen| Endpoint {
                    listen,
                    proxy_protocol: false,
                };
                listens.into_iter().map(endpoint).collect()
            };
            Server {
                http: endpoints(http),
                https: endpoints(https),
                ..server
            }
        };
        let now = open_all(
            &server(vec![local(0), local(0)], Vec::new()),
            Given::default(),
        )
        .unwrap();
        let names = |all: &[Listening]| -> Vec<(String, bool)> {
            let name = |one: &Listening| (one.what.name.clone(), one.what.tls);
            all.iter().map(name).collect()
        };
        let next = open_others(&server(vec![local(0)], vec![local(0)]), &now).unwrap();
        let [(first, _), (second, _)] = &names(&now)[..] else {
            panic!("two")
        };
        assert_eq!(
            names(&next),
            [(first.clone(), false), (second.clone(), true)]
        );
        let more = vec![local(0), local(0), local(0)];
        let next = open_others(&server(more, Vec::new()), &now).unwrap();
        assert_eq!(names(&next)[..2], names(&now)[..]);
        // The kernel's choice of a port does not count as an overlap; a port of one's own does.
        let port = now[0].what.port.unwrap();
        let mine = open_all(
            &server(vec![located(Listen::Any { port: 0 })], Vec::new()),
            Given::default(),
        );
        drop(mine.unwrap());
        let taken = open_others(&server(vec![local(port)], Vec::new()), &now).unwrap_err();
        assert!(
            taken[0].message.contains("is taken"),
            "{}",
            taken[0].message
        );
    }

    #[test]
    fn each_error_says_what_to_do() {
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let cases = [
            (Errno::ADDRINUSE, "port 80 is taken by another process"),
            (Errno::ACCESS, "only root may listen on port 80"),
            (
                Errno::ADDRNOTAVAIL,
                "this machine does not have the address 192.0.2.1",
            ),
            (
                Errno::NOBUFS,
                "cannot listen on 192.0.2.1:80: No buffer space available (os error 105)",
            ),
        ];
        for (error, message) in cases {
            assert_eq!(explain(address, error).0, message);
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_and_a_file_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let listen = located(Listen::Unix(path.clone()));

        drop(UnixListener::bind(&path).unwrap());
        let ours = open(&listen, false).unwrap();
        assert_eq!(ours.what.name, format!("unix:{}", path.display()));
        UnixStream::connect(&path).unwrap();

        let second = open(&listen, false).unwrap_err();
        assert_eq!(
            second.message,
            format!("another process listens on {}", path.display())
        );
        drop(ours);
        assert!(!path.exists(), "removed at the end");

        fs::write(&path, "precious").unwrap();
        let file = open(&listen, false).unwrap_err();
        assert_eq!(
            file.message,
            format!("{} is there already, and is no socket", path.display())
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
