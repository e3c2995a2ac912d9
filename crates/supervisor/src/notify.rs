//! Telling the service manager how we are: `sd_notify(3)`, protocol of `NOTIFY_SOCKET`.
//!
//! Written by hand because it is one datagram, and because it must not change our environment: children are simply not
//! given the variable. Lines of ours start with `X_STACK_`, as the protocol asks for extensions.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The variable that names the socket. Children must not inherit it: their notifications would be taken for ours.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells a master that it is to take over from another one, which has left it descriptors. Children must not inherit it.
pub const TAKE_OVER: &str = "STACK_TAKE_OVER";

/// What a service manager, or the master before, tells the process that it has started (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3),
/// systemd.exec(5)). None of it is true of that process's children.
pub const FROM_MANAGER: [&str; 10] = [
    VARIABLE,
    TAKE_OVER,
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
];

/// How long the manager waits for a sign of life, `WATCHDOG=1`; `None` when it does not (sd_watchdog_enabled(3)).
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    // The manager may mean another process than us, such as a script that started us.
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let patience = number("WATCHDOG_USEC").filter(|patience| ours && *patience > 0)?;
    Some(Duration::from_micros(patience))
}

/// A manager that does not read must not stop us.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// To the socket that [`VARIABLE`] names; silent when it is not set.
    ///
    /// # Errors
    /// When it names something that cannot be an address.
    pub fn from_env() -> io::Result<Self> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Self::to(&name),
            _ => Ok(Self { manager: None }),
        }
    }

    /// To this socket: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// When it cannot be an address.
    pub fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let message = format!(
                    "{VARIABLE} is neither a path nor an abstract name: {}",
                    name.display()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            manager: Some((socket, address)),
        })
    }

    /// Sends these assignments, such as `("READY", "1")`, in one datagram.
    ///
    /// # Errors
    /// When nobody listens there, or does not read.
    pub fn send(&self, assignments: &[(&str, &str)]) -> io::Result<()> {
        let Some((socket, address)) = &self.manager else {
            return Ok(());
        };
        let mut text = String::new();
        for (name, value) in assignments {
            // A line end in a value would forge a further assignment.
            text.extend([name, "=", &value.replace('\n', " "), "\n"]);
        }
        socket.send_to_addr(text.as_bytes(), address).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let read = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("stack-notify-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let cases = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&by_name).unwrap(),
                format!("@{abstract_name}").into(),
            ),
        ];
        for (manager, name) in cases {
            let notifier = Notifier::to(&name).unwrap();
            notifier
                .send(&[("READY", "1"), ("STATUS", "two\nlines")])
                .unwrap();
            assert_eq!(receive(&manager), "READY=1\nSTATUS=two lines\n");
        }
    }

    #[test]
    fn nonsense_is_refused_and_absence_is_silence() {
        assert_eq!(
            Notifier::to(OsStr::new("relative")).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        Notifier { manager: None }.send(&[("READY", "1")]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let nobody = Notifier::to(folder.path().join("nobody").as_os_str()).unwrap();
        assert_eq!(
            nobody.send(&[("READY", "1")]).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
