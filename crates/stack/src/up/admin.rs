//! The master's end of the admin socket: it turns what is asked into questions for the master, and answers.
//!
//! Only our own user (and root) can open the socket. It is HTTP/1.1 by the same strict reader as everywhere, one request
//! to a connection, and JSON in both directions. Nothing here decides anything: a question waits for the master's answer,
//! in a task of its own, so that one that takes long (a reload) keeps nobody else waiting.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::proxy::{control::Said, operators};
use bytes::{Bytes, BytesMut};
use config::site::Site;
use message::{
    framing::{self, Body},
    head::{Finder, Limits, Method, RequestHead},
    refusal::Refusal,
    status,
};
use rustix::{
    fs::Mode,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use serde::{Serialize, de::DeserializeOwned};
use telemetry::metrics::Format;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};
use tracing::{debug, warn};

use super::reload::Scope;
use crate::admin::{AskLog, AskMaintenance, AskRecycle, AskReload, AskTrace, SOCKET, Trouble};

/// The type of the page.
const PAGE: &str = "text/html; charset=utf-8";

/// Nobody but us.
const MODE: u32 = 0o600;

/// Most connections at once: people and their scripts are few, and whoever opens more waits.
const CONNECTIONS: usize = 32;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Time to ask in. Commands ask at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The head of a question.
const HEAD: Limits = Limits {
    line: 4 * 1024,
    head: 16 * 1024,
    fields: 64,
};

/// The content of a question.
const CONTENT_MAX: u64 = 64 * 1024;

/// What is asked of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How all of it is.
    Status,
    /// All figures, as Prometheus reads them.
    Metrics(Format),
    /// What the page shows.
    Summary,
    /// Whether the master lives at all.
    Live,
    /// Whether visitors are served as they should be.
    Ready,
    /// To log by another filter; by that of the configuration without.
    Log {
        /// `debug`.
        filter: Option<String>,
    },
    /// To close something to visitors, or to open it.
    Maintenance(AskMaintenance),
    /// To finish what runs and stop.
    Drain,
    /// To replace a worker: another is ready before this one leaves.
    Recycle {
        /// `web·3`, `web.3`.
        worker: String,
    },
    /// Where the busy slots are.
    Trace {
        /// Of this app; of all without.
        app: Option<String>,
    },
    /// Take the new configuration, and new code.
    Reload(Scope),
    /// Let another master take over, of the program that is there by now.
    Upgrade,
    /// Find out whether certificates could be got.
    Rehearse,
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What.
    pub(crate) question: Question,
    /// Whoever asked may have gone meanwhile.
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    status: u16,
    content_type: &'static str,
    content: Vec<u8>,
}

impl Answer {
    /// What was asked for.
    pub(crate) fn json(what: &impl Serialize) -> Self {
        Self::of(200, what)
    }

    /// It cannot be done, and nothing has changed; says why.
    pub(crate) fn conflict(why: impl Into<String>) -> Self {
        Self::trouble(409, why)
    }

    /// What was asked for, as text.
    pub(crate) fn text(
        status: u16,
        content_type: &'static str,
        content: impl Into<String>,
    ) -> Self {
        Self {
            status,
            content_type,
            content: content.into().into_bytes(),
        }
    }

    /// The same through a proxy.
    pub(crate) fn into_said(self) -> Said {
        Said {
            status: self.status,
            content_type: self.content_type.to_owned(),
            content: String::from_utf8_lossy(&self.content).into_owned(),
        }
    }

    fn trouble(status: u16, error: impl Into<String>) -> Self {
        Self::of(
            status,
            &Trouble {
                error: error.into(),
            },
        )
    }

    fn of(status: u16, what: &impl Serialize) -> Self {
        let mut content = serde_json::to_vec(what).expect("our answers are data");
        content.push(b'\n');
        Self {
            status,
            content_type: "application/json",
            content,
        }
    }

    fn page() -> Self {
        Self::text(200, PAGE, operators::PAGE)
    }

    fn encode(&self) -> Vec<u8> {
        let policy = match self.content_type {
            PAGE => format!("Content-Security-Policy: {}\r\n", operators::PAGE_POLICY),
            _ => String::new(),
        };
        let mut text = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{policy}Connection: close\r\n\r\n",
            self.status,
            status::reason(self.status),
            self.content_type,
            self.content.len()
        )
        .into_bytes();
        text.extend_from_slice(&self.content);
        text
    }
}

/// The socket, listening. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    /// Removed with it.
    path: Option<PathBuf>,
    task: tokio::task::JoinHandle<()>,
}

/// Where the socket of this configuration is.
pub(crate) fn place(site: &Site, run_directory: &Path) -> PathBuf {
    match &site.server.admin {
        Some(path) => path.value.clone(),
        None => run_directory.join(SOCKET),
    }
}

impl Admin {
    /// Listens, and passes on what is asked. One that a dead run has left at this path is replaced: who holds the run
    /// directory is the only one.
    pub(crate) fn open(path: PathBuf, asked: mpsc::Sender<Asked>) -> io::Result<Self> {
        // Made aside and then moved: at no moment is there a path that nobody answers.
        let aside = path.with_extension("new");
        let _ = fs::remove_file(&aside);
        let listener = bind(&aside)?;
        fs::rename(&aside, &path)?;
        let task = tokio::spawn(accept(listener, asked));
        let path = Some(path);
        Ok(Self { path, task })
    }
}

/// The mode is the socket's before it has a path (Linux takes it from there), so nobody else can open it at any time.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(MODE))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

impl Admin {
    /// Listens no more, and leaves the path to whoever has taken it.
    pub(crate) fn let_go(&mut self) {
        self.path = None;
        self.task.abort();
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
            // In the run directory it has gone with the sockets of workers.
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot remove {}: {error}", path.display());
        }
    }
}

async fn accept(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, asked.clone(), permit))),
            Err(error) => {
                warn!("cannot accept on the admin socket: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, asked: mpsc::Sender<Asked>, _permit: OwnedSemaphorePermit) {
    let answer = match tokio::time::timeout(PATIENCE, read(&mut stream)).await {
        Ok(Ok(Some((head, content)))) => match wanted(&head, &content) {
            Ok(Wanted::Answer(question)) => ask(question, &asked).await,
            Ok(Wanted::Page) => Answer::page(),
            Ok(Wanted::Events) => return show(stream, &asked).await,
            Err(answer) => answer,
        },
        Ok(Ok(None)) => return,
        Ok(Err(Unread::Refused(refusal))) => Answer::trouble(refusal.status(), refusal.to_string()),
        Ok(Err(Unread::TooLarge)) => Answer::trouble(413, "the content is too large"),
        Ok(Err(Unread::Broken(error))) => {
            debug!("a connection to the admin socket broke: {error}");
            return;
        }
        Err(_) => Answer::trouble(408, "nothing was asked in time"),
    };
    let sent = async {
        stream.write_all(&answer.encode()).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(())) => {}
        // Whoever asked has gone, or does not read.
        Ok(Err(_)) | Err(_) => debug!("an answer on the admin socket was not taken"),
    }
}

async fn ask(question: Question, asked: &mpsc::Sender<Asked>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let gone = || Answer::trouble(503, "the master is stopping");
    if asked.send(Asked { question, answer }).await.is_err() {
        return gone();
    }
    answered.await.unwrap_or_else(|_| gone())
}

/// Why there is no question.
enum Unread {
    Refused(Refusal),
    TooLarge,
    Broken(io::Error),
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Reads one request; `None` when nothing was asked at all.
async fn read(stream: &mut UnixStream) -> Result<Option<(RequestHead, Bytes)>, Unread> {
    let mut buffer = BytesMut::new();
    let mut finder = Finder::default();
    let end = loop {
        if let Some(end) = finder.find(&buffer, &HEAD)? {
            break end;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            };
        }
    };
    let head = RequestHead::parse(&buffer.split_to(end).freeze(), &HEAD)?;
    let length = match framing::of_request(&head)? {
        Body::None => 0,
        Body::Length(length) if length <= CONTENT_MAX => length,
        _ => return Err(Unread::TooLarge),
    };
    while (buffer.len() as u64) < length {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Some((head, buffer.freeze())))
}

/// What is wanted of a connection.
enum Wanted {
    Answer(Question),
    /// All of it, for people.
    Page,
    /// What that page shows, each second.
    Events,
}

/// What is wanted, or the answer to what cannot be. Whoever looks at the page through a tunnel (`ssh -L`) has a browser at this
/// socket, in which pages of others may be open as well: what a browser sends from one of those has an `Origin`, and ours sends none.
fn wanted(head: &RequestHead, content: &[u8]) -> Result<Wanted, Answer> {
    if head.fields.contains("origin") {
        return Err(Answer::trouble(
            403,
            "pages of others have nothing to ask here",
        ));
    }
    let page = match &head.target[..] {
        b"/" => Wanted::Page,
        b"/events" => Wanted::Events,
        _ => return question(head, content).map(Wanted::Answer),
    };
    if head.method != Method::Get {
        return Err(Answer::trouble(405, "it is asked with GET"));
    }
    match operators::is_named_plainly(head.fields.get("host")) {
        true => Ok(page),
        false => Err(Answer::trouble(421, "the page is shown as localhost alone")),
    }
}

/// Pages that are shown live at once.
static SHOWN: Semaphore = Semaphore::const_new(CONNECTIONS / 2);

/// How often a live page hears something new.
const BEAT: Duration = Duration::from_secs(1);

/// A summary each second, until nobody reads it.
async fn show(mut stream: UnixStream, asked: &mpsc::Sender<Asked>) {
    let shown = async {
        let Ok(_place) = SHOWN.try_acquire() else {
            let full = Answer::trouble(503, "enough pages are shown already");
            return stream.write_all(&full.encode()).await;
        };
        stream.write_all(operators::EVENTS.as_bytes()).await?;
        loop {
            let said = ask(Question::Summary, asked).await.into_said();
            let event = operators::event(&said.content);
            tokio::time::timeout(PATIENCE, stream.write_all(event.as_bytes())).await??;
            if said.status != 200 {
                return Ok(());
            }
            tokio::time::sleep(BEAT).await;
        }
    };
    if let Err(error) = shown.await {
        debug!("a page is not shown any longer: {error}");
    }
}

/// Reads what a question says besides its path.
type Reader = fn(&RequestHead, &[u8]) -> Result<Question, Answer>;

/// What is asked for, or the answer to what cannot be.
fn question(head: &RequestHead, content: &[u8]) -> Result<Question, Answer> {
    let target = str::from_utf8(&head.target).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let (allowed, question): (Method, Reader) = match path {
        "/status" => (Method::Get, |_, _| Ok(Question::Status)),
        "/metrics" => (Method::Get, |head, _| {
            let accept = head.fields.get("accept");
            Ok(Question::Metrics(Format::accepted(accept)))
        }),
        "/summary" => (Method::Get, |_, _| Ok(Question::Summary)),
        "/-/live" => (Method::Get, |_, _| Ok(Question::Live)),
        "/-/ready" => (Method::Get, |_, _| Ok(Question::Ready)),
        "/log" => (Method::Post, |_, content| {
            let AskLog { level: filter } = parse(content)?;
            Ok(Question::Log { filter })
        }),
        "/maintenance" => (Method::Post, |_, content| {
            Ok(Question::Maintenance(parse(content)?))
        }),
        "/drain" => (Method::Post, |_, _| Ok(Question::Drain)),
        "/recycle" => (Method::Post, |_, content| {
            let AskRecycle { worker } = parse(content)?;
            Ok(Question::Recycle { worker })
        }),
        "/trace" => (Method::Post, |_, content| {
            let AskTrace { app } = parse(content)?;
            Ok(Question::Trace { app })
        }),
        "/upgrade" => (Method::Post, |_, _| Ok(Question::Upgrade)),
        "/rehearse" => (Method::Post, |_, _| Ok(Question::Rehearse)),
        "/reload" => (Method::Post, |_, content| {
            let AskReload { apps } = parse(content)?;
            let scope = apps.map_or(Scope::Everything, |apps| {
                Scope::Apps(apps.into_iter().collect())
            });
            Ok(Question::Reload(scope))
        }),
        _ => return Err(Answer::trouble(404, format!("nothing is at {path}"))),
    };
    if head.method != allowed {
        let allowed = allowed.as_str();
        return Err(Answer::trouble(
            405,
            format!("{path} is asked with {allowed}"),
        ));
    }
    question(head, content)
}

/// Nothing at all means that nothing particular is wanted.
fn parse<T: DeserializeOwned + Default>(content: &[u8]) -> Result<T, Answer> {
    if content.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(content)
        .map_err(|error| Answer::trouble(400, format!("the content is not understood: {error}")))
}
