//! `cargo xtask floor`: a server that makes the system calls of an exchange and nothing else, as the bench has it beside the
//! others: what it costs is the kernel's, and no server on this machine gets below.
//!
//! It takes whatever it reads for one request, which is true of the bench's clients, and answers the same each time.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    thread,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::{Errno, read, write},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with,
        sockopt::set_tcp_nodelay,
    },
};

/// What is answered, and where.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The port of 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// How many bytes of content an answer has.
    #[arg(long, default_value_t = 0)]
    length: usize,
    /// Passes what it reads to this server instead, and back.
    #[arg(long)]
    origin: Option<PathBuf>,
}

/// The listener's number among the connections.
const LISTENER: u64 = u64::MAX;

/// What nginx says in as many bytes.
const FIELDS: &str = "Server: floor\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\nLast-Modified: Mon, 30 Nov 2026 11:00:00 GMT\r\n\
                      Connection: keep-alive\r\nETag: \"6925a1c0-400\"\r\n";

/// Serves until it is ended.
pub(crate) fn run(options: &Options) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
    listener.set_nonblocking(true)?;
    let content = "x".repeat(options.length);
    let length = options.length;
    let whole = format!(
        "HTTP/1.1 200 OK\r\n{FIELDS}Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{content}"
    );
    let unchanged = format!("HTTP/1.1 304 Not Modified\r\n{FIELDS}\r\n");
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let serving: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let served = Served {
                        whole: whole.as_bytes(),
                        unchanged: unchanged.as_bytes(),
                        origin: options.origin.as_ref(),
                    };
                    served.serve(&listener)
                })
            })
            .collect();
        for thread in serving {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

/// What one thread needs.
struct Served<'a> {
    whole: &'a [u8],
    unchanged: &'a [u8],
    origin: Option<&'a PathBuf>,
}

/// A connection and, where there is an origin, the one to that: events have twice the number of the pair, and one more.
struct Pair {
    client: OwnedFd,
    origin: Option<OwnedFd>,
}

impl Served<'_> {
    fn serve(&self, listener: &TcpListener) -> Result<()> {
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        let only_one = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&events, listener, EventData::new_u64(LISTENER), only_one)?;
        let mut pairs: Vec<Option<Pair>> = Vec::new();
        let mut space = vec![0; 64 * 1024];
        let mut ready = Vec::with_capacity(512);
        loop {
            ready.clear();
            match epoll::wait(&events, spare_capacity(&mut ready), None) {
                Err(Errno::INTR) => continue,
                found => found?,
            };
            for event in &ready {
                let number = event.data.u64();
                if number == LISTENER {
                    self.accept(listener.as_fd(), events.as_fd(), &mut pairs)?;
                    continue;
                }
                let at = usize::try_from(number / 2)?;
                let Some(Some(pair)) = pairs.get(at) else {
                    continue;
                };
                if !self.pass(pair, number % 2 == 1, &mut space)? {
                    pairs[at] = None;
                }
            }
        }
    }

    fn accept(
        &self,
        listener: BorrowedFd<'_>,
        events: BorrowedFd<'_>,
        pairs: &mut Vec<Option<Pair>>,
    ) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = match accept_with(listener, flags) {
            Ok(client) => client,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error).context("cannot accept"),
        };
        set_tcp_nodelay(&client, true)?;
        let number = u64::try_from(pairs.len())?;
        epoll::add(
            events,
            &client,
            EventData::new_u64(number * 2),
            EventFlags::IN,
        )?;
        let origin = match self.origin {
            None => None,
            Some(path) => {
                let flags = SocketFlags::CLOEXEC;
                let origin = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                match connect(&origin, &SocketAddrUnix::new(path)?) {
                    // It is not there yet; whoever waits for the first page asks again.
                    Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(()),
                    connected => connected?,
                }
                let data = EventData::new_u64(number * 2 + 1);
                epoll::add(events, &origin, data, EventFlags::IN)?;
                Some(origin)
            }
        };
        pairs.push(Some(Pair { client, origin }));
        Ok(())
    }

    /// One read and one write; `false` at the end of the connection.
    fn pass(&self, pair: &Pair, from_origin: bool, space: &mut [u8]) -> Result<bool> {
        let (from, to, answer) = match &pair.origin {
            None => (&pair.client, &pair.client, true),
            Some(origin) if from_origin => (origin, &pair.client, false),
            Some(origin) => (&pair.client, origin, false),
        };
        let length = match read(from, &mut *space) {
            Ok(0) | Err(Errno::CONNRESET) => return Ok(false),
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error).context("cannot read"),
        };
        let request = &space[..length];
        let bytes = match answer {
            false => request,
            true if contains(request, b"If-None-Match:") => self.unchanged,
            true => self.whole,
        };
        match write(to, bytes) {
            Ok(written) => ensure!(
                written == bytes.len(),
                "a client is too slow for this server"
            ),
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error).context("cannot write"),
        }
        Ok(!answer || !contains(request, b"Connection: close"))
    }
}

fn contains(request: &[u8], line: &[u8]) -> bool {
    let mut windows = request.windows(line.len());
    windows.any(|window| window.eq_ignore_ascii_case(line))
}
