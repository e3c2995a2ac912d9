//! Blocking clients on a Unix socket, a thread for each connection, that ask again as soon as they have their answer.
//!
//! The request has the fields that a proxy adds; a server that closes after its answer, as some do, is connected to again.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Load, Outcome, Request};
use crate::bench::{
    peer::Running,
    report::{P50, P99, RATE},
};

/// Makes the request over the server's Unix socket.
pub(crate) struct Unix(pub(crate) Request);

impl Load for Unix {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let (request, path) = (self.bytes(server.fields), server.socket()?);
        let start = Instant::now();
        let ask = || clients(&request, path, start + time);
        let asked: Vec<Result<Vec<u32>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..connections).map(|_| scope.spawn(ask)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|end| end.unwrap_or_else(|_| bail!("a client panicked")))
                .collect()
        });
        let seconds = start.elapsed().as_secs_f64();
        let mut took = Vec::new();
        for one in asked {
            took.append(&mut one?);
        }
        ensure!(!took.is_empty(), "nothing was answered");
        took.sort_unstable();
        let at = |part: f64| f64::from(took[(took.len() as f64 * part) as usize]) / 1e3;
        Ok(Outcome {
            requests: took.len() as u64,
            cpu: None,
            figures: vec![
                (RATE, took.len() as f64 / seconds),
                (P50, at(0.5)),
                (P99, at(0.99)),
            ],
        })
    }
}

impl Unix {
    fn bytes(&self, fields: &str) -> Vec<u8> {
        let Request { path, body } = self.0;
        let (method, length) = match body {
            0 => ("GET", String::new()),
            _ => ("POST", format!("Content-Length: {body}\r\n")),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{fields}Host: example.org\r\nUser-Agent: bench\r\nAccept: */*\r\n\
             X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n{length}\r\n"
        );
        [head.into_bytes(), vec![b'x'; body]].concat()
    }
}

/// One client to its end; how long each answer took, in microseconds.
fn clients(request: &[u8], path: &Path, end: Instant) -> Result<Vec<u32>> {
    let mut took = Vec::new();
    let mut connection = None;
    let mut begun = Instant::now();
    while begun < end {
        let mut client = match connection.take() {
            Some(client) => client,
            None => Client::connect(path)?,
        };
        if client.ask(request)? == Next::Same {
            connection = Some(client);
        }
        let now = Instant::now();
        took.push(u32::try_from((now - begun).as_micros())?);
        begun = now;
    }
    Ok(took)
}

/// Where the next request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Same,
    Another,
}

struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("cannot connect")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self {
            stream,
            buffer: vec![0; 256 * 1024],
            filled: 0,
        })
    }

    fn fill(&mut self) -> Result<usize> {
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        self.filled += count;
        Ok(count)
    }

    fn ask(&mut self, request: &[u8]) -> Result<Next> {
        self.stream.write_all(request)?;
        self.filled = 0;
        let end = loop {
            ensure!(self.fill()? > 0, "closed without an answer");
            let read = &self.buffer[..self.filled];
            if let Some(place) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break place + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        ensure!(
            matches!(head.get(..10), Some("http/1.1 2" | "http/1.0 2")),
            "answered: {head}"
        );
        self.read_content(&head, end)?;
        Ok(
            if head.contains("\r\nconnection: close") || head.starts_with("http/1.0") {
                Next::Another
            } else {
                Next::Same
            },
        )
    }

    fn read_content(&mut self, head: &str, end: usize) -> Result<()> {
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("content-length:"));
        if let Some(length) = length {
            let mut left = length
                .trim()
                .parse::<usize>()?
                .checked_sub(self.filled - end)
                .context("more than its Content-Length")?;
            while left > 0 {
                self.filled = 0;
                left = left
                    .checked_sub(self.fill_some()?)
                    .context("more than its Content-Length")?;
            }
            return Ok(());
        }
        ensure!(
            head.contains("\r\ntransfer-encoding: chunked"),
            "no framing: {head}"
        );
        // The apps give short content: its last chunk ends what one read brings.
        while !self.buffer[end..self.filled].ends_with(b"0\r\n\r\n") {
            self.fill_some()?;
        }
        Ok(())
    }

    fn fill_some(&mut self) -> Result<usize> {
        let count = self.fill()?;
        ensure!(count > 0, "closed in the middle of an answer");
        Ok(count)
    }
}
