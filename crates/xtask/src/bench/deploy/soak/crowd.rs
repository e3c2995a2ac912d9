//! Clients of all kinds, who take what comes, and say of each visit that failed when and how.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    fault::CUT,
    visitor::{self, Session, Trust},
};
use crate::bench::websocket;

/// How many there were of all crowds: one of them must not have the ids of another, or an upload has run twice.
static VISITS: AtomicU64 = AtomicU64::new(0);

/// They come until it is ended.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    book: Arc<Mutex<Book>>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of their visits.
#[derive(Default)]
pub(super) struct Book {
    /// How often each kind got what it came for.
    served: BTreeMap<&'static str, u64>,
    /// The visits that failed.
    pub(super) failed: Vec<Visit>,
    /// Visits that took long, of those that no app may hold up.
    pub(super) slow: Vec<Visit>,
    /// Visits past the server, all of them: what slow ones are compared with.
    past: Vec<(Instant, Instant)>,
    /// How long each kind took at most.
    longest: BTreeMap<&'static str, Duration>,
}

/// Longer than that a file does not take, and a socket no longer beside its pauses, on a machine that has other work.
const SLOW: Duration = Duration::from_secs(3);

/// One that failed, or took long.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) kind: &'static str,
    /// What its requests have for a query, so that the access log has them by it.
    pub(super) name: String,
    pub(super) since: Instant,
    pub(super) at: Instant,
    pub(super) trouble: Trouble,
}

/// How.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It got what it came for, and took long.
    Late,
    /// The connection broke, or nothing came.
    Broken(io::Error),
    /// Another answer came.
    Status(u16),
    /// What no fault excuses.
    Wrong(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("late"),
            Self::Broken(error) => write!(f, "broken: {error}"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Wrong(what) => write!(f, "wrong: {what}"),
        }
    }
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.trouble)
    }
}

/// Where they come in.
pub(super) struct Doors {
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    /// Of the server behind.
    pub(super) behind: PathBuf,
    pub(super) trust: Trust,
}

impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (kind, count)) in self.served.iter().enumerate() {
            let failed = self.failed.iter().filter(|visit| visit.kind == *kind);
            let comma = if number == 0 { "" } else { ", " };
            let longest = self.longest.get(kind).copied().unwrap_or_default();
            write!(
                f,
                "{comma}{kind} {count} ({} failed, longest {longest:.1?})",
                failed.count()
            )?;
        }
        Ok(())
    }
}

impl Book {
    /// How long the same took past the server at most, of what was on its way then: as long as that takes, it is the machine.
    pub(super) fn past_then(&self, since: Instant, at: Instant) -> Duration {
        let past = (self.past.iter()).filter(|(from, until)| *from <= at && *until >= since);
        past.map(|(from, until)| *until - *from)
            .max()
            .unwrap_or_default()
    }
}

/// Visits that no app has to do with.
pub(super) const NO_APP: [&str; 4] = ["files", "files by h2", "sockets", PAST];

/// Visits to the server behind, past ours.
const PAST: &str = "sockets past the server";

/// What a client comes for, under the name of this visit.
type Come = fn(&Doors, &str) -> Result<(), Trouble>;

/// How many of each kind there are, and how long each is away.
const KINDS: [(&str, Come, usize, Duration); 12] = [
    ("slow readers", read_slowly, 2, SOON),
    ("slow askers", ask_slowly, 1, SOON),
    ("uploads", upload, 2, SOON),
    ("listeners", listen, 2, SOON),
    ("who left early", leave_early, 1, SOON),
    ("files", fetch, 1, SOON),
    ("sockets", talk, 2, SOON),
    (PAST, talk_past, 1, SOON),
    ("TLS", by_tls, 1, SOON),
    ("TLS anew", by_tls_anew, 1, SOON),
    ("files by h2", files_by_http2, 1, LATER),
    ("app by h2", app_by_http2, 1, LATER),
];
const SOON: Duration = Duration::from_millis(100);
/// A run of `h2load` is a process.
const LATER: Duration = Duration::from_millis(700);

impl Crowd {
    pub(super) fn start(doors: &Arc<Doors>) -> Self {
        let (stop, book) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Book>>::default());
        let mut threads = Vec::new();
        for (kind, come, count, pause) in KINDS {
            for _ in 0..count {
                let (stop, book) = (Arc::clone(&stop), Arc::clone(&book));
                let doors = Arc::clone(doors);
                threads.push(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let number = VISITS.fetch_add(1, Ordering::Relaxed);
                        let name = format!("{}-{number}", kind.replace(' ', "-"));
                        let since = Instant::now();
                        let came = come(&doors, &name);
                        note(&book, kind, name, since, came);
                        thread::sleep(pause);
                    }
                }));
            }
        }
        Self {
            stop,
            book,
            threads,
        }
    }

    /// Nobody comes any more; waits for those who are there.
    pub(super) fn end(self) -> Result<Book> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a client has panicked")?;
        }
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *book))
    }
}

fn note(
    book: &Mutex<Book>,
    kind: &'static str,
    name: String,
    since: Instant,
    came: Result<(), Trouble>,
) {
    let at = Instant::now();
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let longest = book.longest.entry(kind).or_default();
    *longest = (*longest).max(at - since);
    let visit = |name, trouble| Visit {
        kind,
        name,
        since,
        at,
        trouble,
    };
    if kind == PAST {
        book.past.push((since, at));
    }
    if NO_APP.contains(&kind) && at - since > SLOW {
        book.slow.push(visit(name.clone(), Trouble::Late));
    }
    let served = book.served.entry(kind).or_default();
    match came {
        Ok(()) => *served += 1,
        Err(trouble) => book.failed.push(visit(name, trouble)),
    }
}

/// Longer than this nobody waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(doors: &Doors, method: &str, target: &str, fields: &str) -> io::Result<TcpStream> {
    let mut stream = connect(doors.plain)?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// The status of an answer.
fn status(head: &[u8]) -> u16 {
    let text = head.get(9..12).and_then(|text| str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What of an answer is there, judged: 200, and so many bytes at least.
fn judge(all: &[u8], at_least: usize) -> Result<(), Trouble> {
    match status(all) {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        200 if all.len() > at_least => Ok(()),
        200 => Err(io::Error::other(format!("{} bytes of {at_least}", all.len())).into()),
        other => Err(Trouble::Status(other)),
    }
}

fn whole(mut stream: TcpStream, at_least: usize) -> Result<(), Trouble> {
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    // An answer that says no is one, though the rest of an upload was not read.
    match (read, status(&all)) {
        (Err(error), 0 | 200) => Err(error.into()),
        _ => judge(&all, at_least),
    }
}

fn read_slowly(doors: &Doors, name: &str) -> Result<(), Trouble> {
    let mut stream = ask(doors, "GET", &format!("/big?{name}"), "")?;
    let mut all = vec![0; 10 * 32 * 1024];
    let mut filled = 0;
    for _ in 0..10 {
        filled += stream.read(&mut all[filled..])?;
        thread::sleep(Duration::from_millis(30));
    }
    all.truncate(filled);
    stream.read_to_end(&mut all)?;
    judge(&all, 16 * 64 * 1024)
}

/// A head in pieces.
fn ask_slowly(doors: &Doors, name: &str) -> Result<(), Trouble> {
    let mut stream = connect(doors.plain)?;
    let head =
        format!("GET /version?{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for piece in head.as_bytes().chunks(8) {
        stream.write_all(piece)?;
        thread::sleep(Duration::from_millis(40));
    }
    whole(stream, 0)
}

fn upload(doors: &Doors, name: &str) -> Result<(), Trouble> {
    const PIECES: usize = 16;
    const PIECE: usize = 16 * 1024;
    let fields = format!("Content-Length: {}\r\n", PIECES * PIECE);
    let mut stream = ask(doors, "POST", &format!("/upload?{name}"), &fields)?;
    for _ in 0..PIECES {
        if stream.write_all(&[b'x'; PIECE]).is_err() {
            // It was answered before its end, or the connection broke.
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    whole(stream, 0)
}

fn listen(doors: &Doors, name: &str) -> Result<(), Trouble> {
    let mut stream = ask(
        doors,
        "GET",
        &format!("/events?{name}"),
        "Accept: text/event-stream\r\n",
    )?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    judge(&all, 100)?;
    match all.windows(8).any(|part| part == b"data: 19") {
        true => Ok(()),
        false => Err(io::Error::other("the events have no end").into()),
    }
}

/// In the middle of an upload, of a head, or of a response.
fn leave_early(doors: &Doors, name: &str) -> Result<(), Trouble> {
    let target = format!("/upload?{CUT}{name}");
    let mut upload = ask(doors, "POST", &target, "Content-Length: 1000000\r\n")?;
    upload.write_all(&[b'x'; 10_000])?;
    upload.shutdown(Shutdown::Both)?;
    let mut head = connect(doors.plain)?;
    head.write_all(b"GET / HT")?;
    drop(head);
    let mut response = ask(doors, "GET", &format!("/big?{name}"), "")?;
    let mut start = [0; 12];
    response.read_exact(&mut start)?;
    judge(&start, 0)
}

fn fetch(doors: &Doors, name: &str) -> Result<(), Trouble> {
    for (file, length) in [("100k", 100 * 1024), ("1k", 1024)] {
        let target = format!("/static/{file}?{name}");
        whole(ask(doors, "GET", &target, "")?, length)?;
    }
    Ok(())
}

/// A WebSocket through an upstream: what is said comes back, in this order.
fn talk(doors: &Doors, name: &str) -> Result<(), Trouble> {
    talk_by(connect(doors.plain)?, name)
}

/// The same without us in between.
fn talk_past(doors: &Doors, name: &str) -> Result<(), Trouble> {
    let stream = UnixStream::connect(&doors.behind)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    talk_by(stream, name)
}

fn talk_by(mut stream: impl Read + Write, name: &str) -> Result<(), Trouble> {
    let head = format!(
        "GET /socket?{name} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        websocket::KEY
    );
    stream.write_all(head.as_bytes())?;
    let answer = websocket::head(&mut stream)?;
    if status(answer.as_bytes()) != 101 {
        return Err(Trouble::Status(status(answer.as_bytes())));
    }
    if !answer.contains(websocket::ACCEPT) {
        return Err(Trouble::Wrong(answer));
    }
    for number in 0..20 {
        let said = format!("message {number}");
        websocket::send(&mut stream, said.as_bytes(), Some([1, 2, 3, 4]))?;
        let heard = websocket::receive(&mut stream)?;
        if heard != said.as_bytes() {
            return Err(Trouble::Wrong(format!("{said} became {heard:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn by_tls(doors: &Doors, name: &str) -> Result<(), Trouble> {
    visitor::come(doors.tls, &doors.trust, Session::Resumed, name).map(drop)
}

fn by_tls_anew(doors: &Doors, name: &str) -> Result<(), Trouble> {
    visitor::come(doors.tls, &doors.trust, Session::New, name).map(drop)
}

fn files_by_http2(doors: &Doors, name: &str) -> Result<(), Trouble> {
    h2load(doors, &format!("/static/1k?{name}"))
}

fn app_by_http2(doors: &Doors, name: &str) -> Result<(), Trouble> {
    h2load(doors, &format!("/version?{name}"))
}

/// How long `h2load` waits on a connection on which nothing comes, before it leaves.
pub(super) const H2LOAD_PATIENCE: Duration = Duration::from_secs(10);

/// All of its requests succeed, or it says how many did not.
fn h2load(doors: &Doors, path: &str) -> Result<(), Trouble> {
    let mut h2load = Command::new("h2load");
    let patience = H2LOAD_PATIENCE.as_secs().to_string();
    let h2load = h2load.args(["-n", "60", "-c", "2", "-m", "5"]);
    let h2load = h2load.args(["-T", &patience, "-N", &patience]);
    let output = h2load.arg(format!("https://{}{path}", doors.tls)).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Trouble::Wrong("there is no h2load; it is in the package nghttp2-client".into())
        }
        _ => Trouble::Broken(error),
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains(" 60 succeeded, 0 failed, 0 errored, 0 timeout") {
        return Ok(());
    }
    match text.lines().find(|line| line.starts_with("status codes: ")) {
        Some(line) if !line.contains(" 0 5xx") => Err(Trouble::Status(503)),
        _ => Err(io::Error::other(text).into()),
    }
}
