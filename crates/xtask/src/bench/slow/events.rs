//! Events (`text/event-stream`) to a thousand clients, from the app and from another server: how long the first takes, and
//! those that follow. Each carries the time at which it was made.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::{sleep, timeout},
};

use super::{address, percentile};
use crate::bench::{
    Options,
    case::Size,
    peer::{Peer, Running},
    place::Place,
    report::Row,
};

const SIZE: Size = Size {
    workers: 2,
    threads: 512,
    connections: 0,
};

/// How many come in a second, and how long all of them stay.
const ARRIVALS: u32 = 100;
const STAY: Duration = Duration::from_secs(15);

/// Later than this it does not count as come.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Seen {
    first: Vec<f64>,
    next: Vec<f64>,
    never: usize,
}

/// From the app.
pub(super) fn measure(peer: &Peer, place: &Place, options: &Options) -> Result<Row> {
    let server = peer.start(place, "app:app", SIZE)?;
    watch(&server, options)
}

/// From another server, which answers at once: what comes late is the proxy's doing.
pub(super) fn relayed(peer: &Peer, place: &Place, options: &Options) -> Result<Row> {
    let origin = Origin::start()?;
    let server = peer.start(place, &origin.address.to_string(), SIZE)?;
    watch(&server, options)
}

fn watch(server: &Running, options: &Options) -> Result<Row> {
    let address = address(server)?;
    let calm = server.front_memory()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let before = server.cpu()?;
    runtime.block_on(async {
        for _ in 0..options.slow_clients {
            tokio::spawn(listen(address, Arc::clone(&seen)));
            sleep(Duration::from_secs(1) / ARRIVALS).await;
        }
        sleep(STAY).await;
    });
    let memory = server.front_memory()?;
    let streams = seen.lock().map_or(0, |seen| seen.first.len()).max(1);
    let after = server.cpu()?;
    let mut seen = seen
        .lock()
        .ok()
        .map(|mut seen| std::mem::take(&mut *seen))
        .unwrap_or_default();
    let events = (seen.first.len() + seen.next.len()).max(1) as f64;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(vec![
        ("streams", seen.first.len() as f64),
        ("without any", seen.never as f64),
        ("first: p50 ms", percentile(&mut seen.first, 0.5)),
        ("first: p99", percentile(&mut seen.first, 0.99)),
        ("first: last", percentile(&mut seen.first, 1.0)),
        ("next: p50 ms", percentile(&mut seen.next, 0.5)),
        ("next: p99", percentile(&mut seen.next, 0.99)),
        ("front µs/event", after.since(&before, "proxy") / events),
        ("front MiB", memory),
        ("KiB/stream", (memory - calm) * 1024.0 / streams as f64),
    ])
}

async fn listen(address: SocketAddr, seen: Arc<Mutex<Seen>>) {
    let begun = Instant::now();
    let first = timeout(PATIENCE, begin(address)).await;
    let Ok(Ok(Some(mut lines))) = first else {
        if let Ok(mut seen) = seen.lock() {
            seen.never += 1;
        }
        return;
    };
    if let Ok(mut seen) = seen.lock() {
        seen.first.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    while let Ok(Some(made)) = event(&mut lines).await {
        if let Ok(mut seen) = seen.lock() {
            seen.next.push(now().saturating_sub(made) as f64 / 1e6);
        }
    }
}

type Lines = tokio::io::Lines<BufReader<TcpStream>>;

/// Asks, and waits for the first event; `None` where there is none.
async fn begin(address: SocketAddr) -> std::io::Result<Option<Lines>> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut lines = BufReader::new(stream).lines();
    Ok(event(&mut lines).await?.map(|_| lines))
}

/// When the next event was made, by the clock of this machine.
async fn event(lines: &mut Lines) -> std::io::Result<Option<u64>> {
    while let Some(line) = lines.next_line().await? {
        if let Some(made) = line.strip_prefix("data: ") {
            return Ok(made.trim().parse().ok());
        }
    }
    Ok(None)
}

/// A server of events in a thread of its own: the first at once, another each second.
struct Origin {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Origin {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever leaves ends it.
                tokio::spawn(async move { drop(serve(stream).await) });
            }
        });
        Ok(Self {
            address,
            runtime: Some(runtime),
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut events = false;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        events |= line.starts_with("GET /events ");
        if !line.trim_end().is_empty() {
            continue;
        }
        if !events {
            let page = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, world!\n";
            stream.write_all(page).await?;
            continue;
        }
        // The last field is for nginx, which keeps events back otherwise.
        let head =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n\
                     Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).await?;
        loop {
            let event = format!("data: {}\n\n", now());
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await?;
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Nanoseconds, as Python's `time.monotonic_ns`.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
