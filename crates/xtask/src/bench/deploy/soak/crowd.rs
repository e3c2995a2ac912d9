//! Clients of all kinds, who take what comes.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

/// They come until it is ended.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<Served>,
    threads: Vec<JoinHandle<()>>,
}

/// How often each kind got what it came for.
#[derive(Default)]
pub(super) struct Served {
    readers: AtomicU64,
    uploads: AtomicU64,
    listeners: AtomicU64,
    leavers: AtomicU64,
    files: AtomicU64,
    http2: AtomicU64,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("slow readers", &self.readers),
            ("uploads", &self.uploads),
            ("listeners", &self.listeners),
            ("who left early", &self.leavers),
            ("files", &self.files),
            ("runs of HTTP/2 over TLS", &self.http2),
        ] {
            write!(f, "{name} {} ", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// What a client comes for.
type Visit = fn(SocketAddr) -> io::Result<()>;

/// Where it is counted that it got that.
type Count = fn(&Served) -> &AtomicU64;

impl Crowd {
    /// Two of each kind; a run of `h2load` after the other, where it is installed.
    pub(super) fn start(address: SocketAddr, tls: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(Served::default());
        let mut threads = Vec::new();
        let kinds: [(Visit, Count); 5] = [
            (read_slowly, |served| &served.readers),
            (upload, |served| &served.uploads),
            (listen, |served| &served.listeners),
            (leave_early, |served| &served.leavers),
            (fetch, |served| &served.files),
        ];
        for (visit, count) in kinds.into_iter().chain(kinds) {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if visit(address).is_ok() {
                        count(&served).fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }));
        }
        let (ends, all) = (Arc::clone(&stop), Arc::clone(&served));
        threads.push(thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let mut h2load = Command::new("h2load");
                let h2load =
                    h2load.args(["-n", "200", "-c", "4", "-m", "5", "-T", "10", "-N", "5"]);
                let h2load = h2load.arg(format!("{tls}/static/1k"));
                let ran = h2load.stdout(Stdio::null()).stderr(Stdio::null()).status();
                match ran {
                    Ok(_) => all.http2.fetch_add(1, Ordering::Relaxed),
                    Err(_) => return,
                };
                thread::sleep(Duration::from_millis(50));
            }
        }));
        Self {
            stop,
            served,
            threads,
        }
    }

    /// Nobody comes any more; waits for those who are there.
    pub(super) fn end(self) -> Result<Arc<Served>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a client has panicked")?;
        }
        Ok(self.served)
    }
}

/// Longer than this nobody waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

fn ask(address: SocketAddr, method: &str, path: &str, fields: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Whether the status is 200 and there are so many bytes behind it.
fn whole(mut stream: TcpStream, at_least: usize) -> io::Result<()> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    match all.starts_with(b"HTTP/1.1 200") && all.len() > at_least {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read_slowly(address: SocketAddr) -> io::Result<()> {
    let mut stream = ask(address, "GET", "/big", "")?;
    let mut piece = [0; 32 * 1024];
    for _ in 0..10 {
        stream.read_exact(&mut piece)?;
        thread::sleep(Duration::from_millis(30));
    }
    whole_rest(stream)
}

fn whole_rest(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn upload(address: SocketAddr) -> io::Result<()> {
    const PIECES: usize = 16;
    const PIECE: usize = 16 * 1024;
    let fields = format!("Content-Length: {}\r\n", PIECES * PIECE);
    let mut stream = ask(address, "POST", "/upload", &fields)?;
    for _ in 0..PIECES {
        stream.write_all(&[b'x'; PIECE])?;
        thread::sleep(Duration::from_millis(5));
    }
    whole(stream, 0)
}

fn listen(address: SocketAddr) -> io::Result<()> {
    whole(
        ask(address, "GET", "/events", "Accept: text/event-stream\r\n")?,
        100,
    )
}

/// In the middle of an upload, of a head, or of a response.
fn leave_early(address: SocketAddr) -> io::Result<()> {
    let mut upload = ask(address, "POST", "/upload", "Content-Length: 1000000\r\n")?;
    upload.write_all(&[b'x'; 10_000])?;
    upload.shutdown(Shutdown::Both)?;
    let mut head = TcpStream::connect_timeout(&address, PATIENCE)?;
    head.write_all(b"GET / HT")?;
    drop(head);
    let mut response = ask(address, "GET", "/big", "")?;
    response.read_exact(&mut [0; 1000])
}

fn fetch(address: SocketAddr) -> io::Result<()> {
    whole(ask(address, "GET", "/static/100k", "")?, 100 * 1024)?;
    whole(ask(address, "GET", "/static/1k", "")?, 1024)
}
