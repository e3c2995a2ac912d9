//! Slow clients: heads that never end (slowloris), uploads of 1 MiB at 10 bytes a second, readers of a page of 512 KiB at 1 KiB a
//! second. They come at 50 a second from many addresses, stay, and come again when they are sent away.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
    time::sleep,
};

use super::{address, normal, percentile};
use crate::bench::{
    Options,
    case::Size,
    peer::{Peer, Running},
    place::Place,
    report::Row,
};

/// How many come in a second.
const ARRIVALS: u32 = 50;

/// The same where nobody minds.
const ARRIVALS_ELSEWHERE: u32 = 300;

/// How long the normal client is watched alone.
const ALONE: Duration = Duration::from_secs(15);

/// And beside the whole crowd: longer than any server lets a head take.
const BESIDE: Duration = Duration::from_secs(60);

/// What they come to.
const SIZE: Size = Size {
    workers: 2,
    threads: 2,
    connections: 0,
};

#[derive(Clone, Copy)]
enum Kind {
    Head,
    Upload,
    Reader,
}

/// What they have seen.
#[derive(Default)]
struct Tally {
    inside: AtomicUsize,
    sent_away: AtomicU64,
}

pub(super) fn measure(peer: &Peer, place: &Place, options: &Options) -> Result<Row> {
    let server = peer.start(place, "app:app", SIZE)?;
    let address = address(&server)?;
    // Every worker has seen some requests.
    normal::ask_until(address, Instant::now() + Duration::from_secs(2));
    let (memory, descriptors) = (server.front_memory()?, server.front_descriptors());
    let while_alone = ALONE.mul_f64(options.scale);
    let mut alone = normal::ask_until(address, Instant::now() + while_alone);
    let count = options.slow_clients * 3;
    let mut elsewhere = beside_a_crowd_elsewhere(address, count, while_alone)?;
    let runtime = runtime()?;
    let tally = Arc::new(Tally::default());
    runtime.spawn(arrive(address, count, ARRIVALS, Arc::clone(&tally)));
    let coming = Duration::from_secs(count as u64) / ARRIVALS;
    let arriving = normal::ask_until(address, Instant::now() + coming);
    let end = Instant::now() + BESIDE.mul_f64(options.scale);
    let watched = thread::spawn(move || normal::ask_until(address, end));
    let mut most: f64 = 0.0;
    while !watched.is_finished() {
        most = most.max(server.front_memory()?);
        thread::sleep(Duration::from_secs(1));
    }
    let mut beside = watched.join().ok().context("the client panicked")?;
    let inside = tally.inside.load(Ordering::Relaxed);
    runtime.shutdown_timeout(Duration::from_secs(1));
    let (after, left) = settle(&server, address, memory, descriptors)?;
    let before = percentile(&mut alone.latencies, 0.99);
    let during = percentile(&mut beside.latencies, 0.99);
    Ok(vec![
        ("p99 ms alone", before),
        ("elsewhere", percentile(&mut elsewhere.latencies, 0.99)),
        ("p99 beside", during),
        ("times", during / before),
        ("p50 beside", percentile(&mut beside.latencies, 0.5)),
        ("failed", (arriving.failed + beside.failed) as f64),
        ("slow inside", inside as f64),
        ("sent away", tally.sent_away.load(Ordering::Relaxed) as f64),
        ("front MiB", memory),
        ("at most", most),
        ("after", after),
        ("descriptors left", left as f64),
    ])
}

/// Waits until the front is as it was; its memory then, and how many descriptors more it has.
fn settle(
    server: &Running,
    address: SocketAddr,
    memory: f64,
    descriptors: usize,
) -> Result<(f64, usize)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        normal::ask_until(address, Instant::now() + Duration::from_millis(500));
        let now = server.front_memory()?;
        let left = server.front_descriptors().saturating_sub(descriptors);
        if (left == 0 && now <= memory * 1.1) || Instant::now() > deadline {
            return Ok((now, left));
        }
    }
}

/// The same crowd at a server that does nothing but read and write: what it takes of the machine, its own side included, is
/// taken from the normal client whoever serves the crowd.
fn beside_a_crowd_elsewhere(
    address: SocketAddr,
    count: usize,
    time: Duration,
) -> Result<normal::Seen> {
    let (crowd, server) = (runtime()?, runtime()?);
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let other = listener.local_addr()?;
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever leaves ends it.
            tokio::spawn(async move { drop(indulge(stream).await) });
        }
    });
    crowd.spawn(arrive(other, count, ARRIVALS_ELSEWHERE, Arc::default()));
    let coming = Duration::from_secs(count as u64) / ARRIVALS_ELSEWHERE;
    normal::ask_until(address, Instant::now() + coming);
    let seen = normal::ask_until(address, Instant::now() + time);
    crowd.shutdown_background();
    server.shutdown_background();
    Ok(seen)
}

/// Sends the page to who asks for it, and reads what the others send for as long as they like.
async fn indulge(mut stream: TcpStream) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).await?;
        if piece[..read].starts_with(b"GET /page") {
            stream.write_all(&vec![b'x'; 512 * 1024]).await?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).enable_all().build()?)
}

async fn arrive(address: SocketAddr, count: usize, rate: u32, tally: Arc<Tally>) {
    for number in 0..count {
        let kind = [Kind::Head, Kind::Upload, Kind::Reader][number % 3];
        // 127.1.0.1 and on: every tenth client shares its address.
        let own = Ipv4Addr::from_bits(0x7f01_0001 + (number / 10 * 3) as u32);
        let tally = Arc::clone(&tally);
        tokio::spawn(async move {
            loop {
                // Whatever ends it, it comes again.
                let _ = slow(kind, own.into(), address, &tally).await;
                tally.sent_away.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
            }
        });
        sleep(Duration::from_secs(1) / rate).await;
    }
    std::future::pending().await
}

/// One of those inside.
struct Inside<'t>(&'t Tally);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn slow(kind: Kind, own: IpAddr, address: SocketAddr, tally: &Tally) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // Otherwise the kernel would read for the slow reader.
    socket.set_recv_buffer_size(4096)?;
    socket.bind(SocketAddr::new(own, 0))?;
    let mut stream = socket.connect(address).await?;
    tally.inside.fetch_add(1, Ordering::Relaxed);
    let _inside = Inside(tally);
    match kind {
        Kind::Head => {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                .await?;
            trickle(&mut stream, b"X-A: b\r\n", Duration::from_secs(5)).await
        }
        Kind::Upload => {
            let head = b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n";
            stream.write_all(head).await?;
            trickle(&mut stream, b"0123456789", Duration::from_secs(1)).await
        }
        Kind::Reader => {
            stream
                .write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await?;
            let mut piece = [0; 1024];
            loop {
                if stream.read(&mut piece).await? == 0 {
                    return Ok(());
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Sends a little now and then, until there is an answer or an end.
async fn trickle(stream: &mut TcpStream, piece: &[u8], every: Duration) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut answer = [0; 1024];
    let send = async {
        loop {
            writer.write_all(piece).await?;
            sleep(every).await;
        }
    };
    tokio::select! {
        read = reader.read(&mut answer) => read.map(drop),
        sent = send => sent,
    }
}
