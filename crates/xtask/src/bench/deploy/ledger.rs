//! Clients at a constant pace, each request with an id of its own, and what became of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::app::Code;
use crate::bench::report::Row;

/// How many ask at once; fewer than there are slots, so that nobody waits for another.
const CLIENTS: usize = 6;

/// Between an answer and the next request of a client.
const PAUSE: Duration = Duration::from_millis(2);

/// Requests of one connection.
const REQUESTS: u64 = 25;

/// Longer than this a client does not wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients that ask until it is closed.
pub(super) struct Ledger {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    ran: PathBuf,
    clients: Vec<JoinHandle<Story>>,
}

/// What one client lived through.
#[derive(Default)]
struct Story {
    answered: Vec<String>,
    failed: Vec<Failed>,
}

/// A request without the answer that it should have had.
#[derive(Debug)]
pub(super) struct Failed {
    /// When it was asked.
    pub(super) since: Instant,
    /// When that was known.
    pub(super) at: Instant,
    /// The status of what came instead; 0 where the connection broke.
    pub(super) status: u16,
    /// Its id in the server's log, if the answer said one.
    pub(super) request_id: String,
    /// Whether not even a connection could be made.
    pub(super) refused: bool,
}

/// What came of all of them.
pub(super) struct Outcome {
    answered: usize,
    pub(super) failed: Vec<Failed>,
    lost: usize,
    doubled: usize,
    /// Some of the lost and of the doubled.
    examples: Vec<String>,
}

impl Ledger {
    /// Begins to ask: every second request is a POST.
    pub(super) fn open(address: SocketAddr, code: &Code) -> Self {
        Self::at_pace(address, code, PAUSE)
    }

    /// With so much between an answer and the next request of a client.
    pub(super) fn at_pace(address: SocketAddr, code: &Code, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let start = |client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || ask_on(address, client, pause, &stop, &answered))
        };
        Self {
            clients: (0..CLIENTS).map(start).collect(),
            stop,
            answered,
            ran: code.ran(),
        }
    }

    /// Waits until so many more have been answered.
    pub(super) fn wait_for(&self, more: u64) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.answered.load(Ordering::Relaxed) < goal {
            ensure!(Instant::now() < deadline, "it does not answer any more");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends it and compares.
    pub(super) fn close(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = BTreeSet::new();
        let mut failed = Vec::new();
        for client in self.clients {
            let story = client.join().ok().context("a client has panicked")?;
            answered.extend(story.answered);
            failed.extend(story.failed);
        }
        let mut ran = BTreeMap::<String, usize>::new();
        for id in fs::read_to_string(&self.ran)?.lines() {
            *ran.entry(id.to_owned()).or_default() += 1;
        }
        let lost: Vec<&String> = (answered.iter())
            .filter(|id| !ran.contains_key(*id))
            .collect();
        let doubled: Vec<&String> = (ran.iter())
            .filter(|(_, times)| **times > 1)
            .map(|(id, _)| id)
            .collect();
        let examples = lost.iter().take(5).chain(doubled.iter().take(5));
        Ok(Outcome {
            examples: examples.map(|id| (*id).clone()).collect(),
            lost: lost.len(),
            doubled: doubled.len(),
            answered: answered.len(),
            failed,
        })
    }
}

impl Outcome {
    /// Whether each that was answered has run, and none twice.
    pub(super) fn ran_once(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }

    /// Ids of some that were lost or ran twice.
    pub(super) fn examples(&self) -> &[String] {
        &self.examples
    }

    /// For the table.
    pub(super) fn row(&self) -> Row {
        let refused = self.failed.iter().filter(|failed| failed.refused).count();
        vec![
            ("answered", self.answered as f64),
            ("failed", self.failed.len() as f64),
            ("of them refused", refused as f64),
            ("lost", self.lost as f64),
            ("doubled", self.doubled as f64),
        ]
    }
}

fn ask_on(
    address: SocketAddr,
    client: usize,
    pause: Duration,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Story {
    let mut story = Story::default();
    let mut connection = None;
    for request in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if request % REQUESTS == 0 {
            connection = None;
        }
        let id = format!("{client}-{request}");
        match ask(address, &mut connection, &id, request % 2 == 1) {
            Ok(()) => {
                answered.fetch_add(1, Ordering::Relaxed);
                story.answered.push(id);
            }
            Err(failed) => {
                connection = None;
                story.failed.push(failed);
            }
        }
        thread::sleep(pause);
    }
    story
}

fn ask(
    address: SocketAddr,
    connection: &mut Option<BufReader<TcpStream>>,
    id: &str,
    post: bool,
) -> Result<(), Failed> {
    let since = Instant::now();
    let broken = |refused| Failed {
        since,
        at: Instant::now(),
        status: 0,
        request_id: String::new(),
        refused,
    };
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(connect(address).map_err(|_| broken(true))?),
    };
    let answer = exchange(stream, id, post).map_err(|_| broken(false))?;
    if answer.closes {
        *connection = None;
    }
    match answer.status {
        200 => Ok(()),
        status => Err(Failed {
            since,
            at: Instant::now(),
            status,
            request_id: answer.request_id,
            refused: false,
        }),
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// What came back.
#[derive(Default)]
struct Answer {
    status: u16,
    request_id: String,
    closes: bool,
}

fn exchange(stream: &mut BufReader<TcpStream>, id: &str, post: bool) -> io::Result<Answer> {
    let (method, length, body) = match post {
        true => ("POST", "Content-Length: 6\r\n", "x=1234"),
        false => ("GET", "", ""),
    };
    let request = format!("{method} /id?{id} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}");
    stream.get_mut().write_all(request.as_bytes())?;
    let (answer, length) = head(stream)?;
    match length {
        Length::Known(length) => stream.read_exact(&mut vec![0; length])?,
        Length::Chunked => skip_chunks(stream)?,
    }
    Ok(answer)
}

/// How long a content is.
enum Length {
    Known(usize),
    Chunked,
}

fn head(stream: &mut impl BufRead) -> io::Result<(Answer, Length)> {
    let (mut answer, mut length) = (Answer::default(), Length::Known(0));
    for number in 0.. {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_lowercase();
        if number == 0 {
            let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            answer.status = status.unwrap_or(0);
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = Length::Known(value.parse().unwrap_or(0));
        } else if line == "transfer-encoding: chunked" {
            length = Length::Chunked;
        } else if let Some(id) = line.strip_prefix("x-request-id: ") {
            answer.request_id = id.to_owned();
        } else if line == "connection: close" {
            answer.closes = true;
        } else if line.is_empty() {
            break;
        }
    }
    Ok((answer, length))
}

fn skip_chunks(stream: &mut impl BufRead) -> io::Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        stream.read_exact(&mut vec![0; length + 2])?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Which version answers now, on a connection of its own.
pub(super) fn version(address: SocketAddr) -> Option<u32> {
    let mut stream = connect(address).ok()?;
    let request = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.get_mut().write_all(request).ok()?;
    let (answer, length) = head(&mut stream).ok()?;
    let mut content = vec![
        0;
        match length {
            Length::Known(length) => length,
            Length::Chunked => return None,
        }
    ];
    stream.read_exact(&mut content).ok()?;
    let text = String::from_utf8(content).ok()?;
    (answer.status == 200).then(|| text.trim().parse().ok())?
}
