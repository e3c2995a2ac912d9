//! Constant load of requests that are told apart: every answer is looked at, and the app writes down which requests it ran.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::PATIENCE;

/// The app of a test under load: it appends the id of each request to the file `ran`, in one write, and says its own pid.
pub const APP: &str = r#"
import os

ran = os.open("ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
VERSION = "1"

def app(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size)
    if environ["PATH_INFO"] == "/id":
        os.write(ran, (environ["QUERY_STRING"] + "\n").encode())
    answer = ("%s %d %d" % (VERSION, os.getpid(), len(body))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"#;

/// Clients that ask without pause until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Story>>,
}

/// What one client lived through.
#[derive(Default)]
struct Story {
    answered: Vec<String>,
    failed: Vec<Failed>,
}

/// A request that was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its id in the app's file.
    pub id: String,
    /// What came instead.
    pub why: Why,
}

/// What came instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another status than 200.
    Status {
        status: u16,
        /// Its id in the logs.
        request_id: String,
        content: String,
    },
    /// No connection could be made.
    Connect(String),
    /// The connection broke.
    Broke(String),
}

/// What came of a load.
pub struct Outcome {
    pub answered: usize,
    pub failed: Vec<Failed>,
    /// Answered, but not in the app's file.
    pub lost: Vec<String>,
    /// In the file more than once.
    pub doubled: Vec<String>,
}

impl Load {
    /// Starts so many clients: each second request is a POST, and each client opens a new connection now and then.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let start = |client: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || run(address, client, &stop, &answered))
        };
        Self {
            clients: (0..clients).map(start).collect(),
            stop,
            answered,
        }
    }

    /// How many have been answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it and compares with what the app wrote into its folder.
    pub fn finish(self, folder: &Path) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let stories: Vec<Story> = self
            .clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect();
        let mut ran = BTreeMap::<String, usize>::new();
        let text = fs::read_to_string(folder.join("ran")).expect("the app wrote it");
        for id in text.lines() {
            *ran.entry(id.to_owned()).or_default() += 1;
        }
        let answered = stories.iter().flat_map(|story| &story.answered);
        let lost = answered.clone().filter(|id| !ran.contains_key(*id));
        Outcome {
            answered: answered.clone().count(),
            lost: lost.cloned().collect(),
            doubled: ran
                .iter()
                .filter(|(_, times)| **times > 1)
                .map(|(id, _)| id.clone())
                .collect(),
            failed: stories.into_iter().flat_map(|story| story.failed).collect(),
        }
    }
}

impl Outcome {
    /// Nothing failed, nothing was lost, nothing ran twice.
    pub fn is_perfect(&self) {
        assert_eq!(self.failed, [], "of {}", self.answered);
        self.ran_once();
        assert!(self.answered > 0);
    }

    /// Whatever failed: nothing that was answered is missing, and nothing ran twice.
    pub fn ran_once(&self) {
        assert_eq!(self.lost, [""; 0]);
        assert_eq!(self.doubled, [""; 0]);
    }
}

/// Requests of one connection.
const REQUESTS: usize = 25;

fn run(address: SocketAddr, client: usize, stop: &AtomicBool, answered: &AtomicU64) -> Story {
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
            Err(why) => {
                connection = None;
                story.failed.push(Failed { id, why });
            }
        }
    }
    story
}

fn ask(
    address: SocketAddr,
    connection: &mut Option<BufReader<TcpStream>>,
    id: &str,
    post: bool,
) -> Result<(), Why> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = connect(address).map_err(|error| Why::Connect(error.to_string()))?;
            connection.insert(BufReader::new(stream))
        }
    };
    let answer = exchange(stream, id, post).map_err(|error| Why::Broke(error.to_string()))?;
    if answer.closes {
        *connection = None;
    }
    match answer.status {
        200 => Ok(()),
        status => Err(Why::Status {
            status,
            request_id: answer.request_id,
            content: answer.content,
        }),
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What came back.
#[derive(Default)]
struct Answer {
    status: u16,
    request_id: String,
    /// Whether the connection ends with it.
    closes: bool,
    content: String,
}

fn exchange(stream: &mut BufReader<TcpStream>, id: &str, post: bool) -> io::Result<Answer> {
    let (method, body) = if post {
        ("POST", "x=1234")
    } else {
        ("GET", "")
    };
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let request = format!("{method} /id?{id} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut answer, length) = head(stream)?;
    let mut content = vec![0; length];
    stream.read_exact(&mut content)?;
    answer.content = String::from_utf8_lossy(&content).into_owned();
    Ok(answer)
}

/// The head of an answer, and the length of its content.
fn head(stream: &mut impl BufRead) -> io::Result<(Answer, usize)> {
    let (mut answer, mut length) = (Answer::default(), 0);
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
            length = value.parse().unwrap_or(0);
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
