//! A normal client: one connection, a request now and then, and how long each took.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// Longer than this it does not wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it saw.
#[derive(Default)]
pub(super) struct Seen {
    /// In milliseconds.
    pub(super) latencies: Vec<f64>,
    /// What was no page, or did not come.
    pub(super) failed: u64,
}

/// Asks for the first page until then.
pub(super) fn ask_until(address: SocketAddr, until: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    while Instant::now() < until {
        let begun = Instant::now();
        if ask(&mut connection, address).is_none() {
            connection = None;
            seen.failed += 1;
        }
        seen.latencies.push(begun.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(PAUSE);
    }
    seen
}

fn ask(connection: &mut Option<TcpStream>, address: SocketAddr) -> Option<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
            stream.set_nodelay(true).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            connection.insert(stream)
        }
    };
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .ok()?;
    let mut page = [0; 4096];
    let mut filled = 0;
    while !page[..filled].ends_with(b"Hello, world!\n") {
        match stream.read(&mut page[filled..]).ok()? {
            0 => return None,
            read => filled += read,
        }
    }
    page.starts_with(b"HTTP/1.1 200").then_some(())
}
