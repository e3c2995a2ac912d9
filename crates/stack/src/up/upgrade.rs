//! A binary upgrade: another master, of the program that is there by now, takes over from a running one.
//!
//! The old master starts it as it was started itself, and leaves it its *estate*: the listening sockets, the run directory
//! with its lock, the certificates that were made and the keys of sessions. The new one starts its workers, and only when all
//! apps are ready its proxy, so that no request meets one that is not; then it says so, and the old one finishes what it has
//! begun and leaves. If the new one fails, or says nothing, nothing has changed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};

use ::proxy::{
    control::{Certificate, Closed, Listener},
    tls::TicketKey,
};
use anyhow::{Context, bail};
use config::site::{HostPattern, Listen};
use serde::{Deserialize, Serialize};
use supervisor::{
    child::{Child, Command, Signal},
    fds, notify,
};
use telemetry::text::Elapsed;
use tokio::{io::AsyncReadExt, sync::mpsc};

use super::listen::Listening;

const CONTROL_FD: RawFd = 3;
const ESTATE_FD: RawFd = 4;
const LOCK_FD: RawFd = 5;
const FIRST_SOCKET_FD: RawFd = 6;

/// What is left to the next master. Another version of the program reads it: what it does not know it does without.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Estate {
    /// Where the run directory is, and whether we made it.
    pub(crate) run_directory: PathBuf,
    pub(crate) made: bool,
    /// What the descriptors are, in order.
    pub(super) sockets: Vec<Socket>,
    /// The last number of a worker of each app.
    pub(crate) numbers: BTreeMap<String, u32>,
    /// Self-signed certificates, by the hosts of their sites.
    pub(crate) certificates: Vec<(Vec<HostPattern>, Certificate)>,
    /// What session tickets are sealed with.
    pub(crate) tickets: Vec<TicketKey>,
    /// What is closed for maintenance.
    pub(crate) closed: Vec<Closed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Socket {
    listen: Option<Listen>,
    what: Listener,
    path: Option<PathBuf>,
}

/// How this program was started, for starting it again.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Beginning {
    /// To be asked at the start: once another file has the name of this program, the kernel calls ours deleted.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }
}

/// What came of a start.
#[derive(Debug)]
pub(super) enum End {
    /// It serves; it lives on without us.
    Ready(Child),
    /// It does not.
    Failed(String),
}

/// Starts the next master; its end is told. Must be called on the main thread: see [`Command::spawn`].
pub(super) fn start(
    beginning: &Beginning,
    mut estate: Estate,
    listening: &[Listening],
    lock: &File,
    patience: Duration,
    told: mpsc::UnboundedSender<End>,
) -> anyhow::Result<i32> {
    estate.sockets = listening.iter().map(describe).collect();
    let text = serde_json::to_vec(&estate)?;
    let (ours, theirs) = fds::socket_pair()?;
    let mut command = Command::new(&beginning.program)
        .outlives_us()
        .keep_capabilities()
        .descriptor(theirs, CONTROL_FD)
        .descriptor(fds::sealed_memory("stack-estate", &text)?, ESTATE_FD)
        .descriptor(lock.try_clone()?.into(), LOCK_FD);
    for argument in &beginning.arguments {
        command = command.arg(argument);
    }
    for (number, listening) in (FIRST_SOCKET_FD..).zip(listening) {
        command = command.descriptor(listening.socket.try_clone()?, number);
    }
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "MAINPID"] {
        command = command.env_remove(name);
    }
    let child = command.env(notify::TAKE_OVER, "1").spawn()?;
    let pid = child.pid();
    let control: UnixStream = ours.into();
    control.set_nonblocking(true)?;
    let control = tokio::net::UnixStream::from_std(control)?;
    tokio::spawn(async move {
        // Nobody listens only when we are gone, and then it is killed with us.
        let _ = told.send(watch(child, control, patience).await);
    });
    Ok(pid)
}

fn describe(listening: &Listening) -> Socket {
    Socket {
        listen: listening.listen.clone(),
        what: listening.what.clone(),
        path: listening.path(),
    }
}

/// Longest reason that a next master gives.
const WORDS_MAX: usize = 1 << 20;

async fn watch(mut child: Child, control: tokio::net::UnixStream, patience: Duration) -> End {
    let mut words = Vec::new();
    let heard = tokio::time::timeout(patience, listen(control, &mut words)).await;
    if words == READY.as_bytes() {
        return End::Ready(child);
    }
    let words = String::from_utf8_lossy(&words).into_owned();
    let why = match (heard, words.strip_prefix(FAILED)) {
        (Ok(()), Some(why)) => why.to_owned(),
        (Ok(()), None) => match tokio::time::timeout(LAST_WORDS, child.wait()).await {
            Ok(Ok(exit)) => format!("it ended before it was ready: {exit}"),
            _ => "it does not say why".to_owned(),
        },
        (Err(_), _) => format!("it was not ready within {}", Elapsed(patience)),
    };
    // Whatever it is, it must not serve beside us.
    let _ = child.signal(Signal::KILL);
    let _ = child.wait().await;
    End::Failed(why)
}

/// Hears it out: to the end of its words, or until it is ready.
async fn listen(mut control: tokio::net::UnixStream, words: &mut Vec<u8>) {
    while words != READY.as_bytes() && words.len() < WORDS_MAX {
        if !matches!(control.read_buf(words).await, Ok(1..)) {
            return;
        }
    }
}

/// How long one that has closed its end may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

const READY: &str = "ready\n";
const FAILED: &str = "failed: ";

/// The next master's end.
#[derive(Debug)]
pub(crate) struct Heir {
    pub(crate) estate: Estate,
    /// The lock of the run directory.
    pub(crate) lock: Option<File>,
    /// What the old master listens on.
    pub(crate) listening: Vec<Listening>,
    pub(crate) control: Will,
}

/// The way to the old master: one word, and it is closed.
#[derive(Debug)]
pub(crate) struct Will(UnixStream);

impl Heir {
    /// Takes what this process was started with, if it was started to take over.
    pub(crate) fn take() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(notify::TAKE_OVER).is_none() {
            return Ok(None);
        }
        let given = |number| fds::inherited(number).context("there is no estate to take over");
        let control = Will(given(CONTROL_FD)?.into());
        let mut text = String::new();
        File::from(given(ESTATE_FD)?).read_to_string(&mut text)?;
        let estate: Estate = serde_json::from_str(&text).context("the estate is not understood")?;
        let lock = Some(File::from(given(LOCK_FD)?));
        if estate.run_directory.as_os_str().is_empty() {
            bail!("the estate has no run directory");
        }
        let listening = (FIRST_SOCKET_FD..)
            .zip(&estate.sockets)
            .map(|(number, socket)| {
                let descriptor: OwnedFd = given(number)?;
                let Socket { listen, what, path } = socket.clone();
                Ok(Listening::inherited(descriptor, what, listen, path))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Some(Self {
            estate,
            lock,
            listening,
            control,
        }))
    }
}

impl Will {
    /// It serves: the old master may go.
    pub(crate) fn ready(mut self) -> io::Result<()> {
        self.0.write_all(READY.as_bytes())
    }

    /// It does not, and this is why.
    pub(crate) fn failed(&self, why: &str) {
        // An old master that does not listen sees our end.
        let _ = (&self.0).write_all(format!("{FAILED}{why}").as_bytes());
    }

    /// The same way, for whoever else may have to say that it failed.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}
