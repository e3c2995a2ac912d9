//! Overload: requests that come whether or not those before them were answered, four times as many as the app can do, for half
//! a minute; then a quarter of what it can do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep_until, timeout},
};

use super::{address, percentile};
use crate::bench::{Options, case::Size, peer::Peer, place::Place, report::Row};

const SIZE: Size = Size {
    workers: 2,
    threads: 2,
    connections: 0,
};

/// For how long there are too many.
const TIME: Duration = Duration::from_secs(30);

/// How long one waits for its answer: the queue's own deadline, and a little.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request.
#[derive(Clone, Copy)]
struct Shot {
    /// When it was due.
    at: Duration,
    /// Until its answer, in milliseconds.
    latency: f64,
    /// 0: there was none.
    status: u16,
}

pub(super) fn measure(peer: &Peer, place: &Place, _: &Options) -> Result<Row> {
    let server = peer.start(place, "app:app", SIZE)?;
    let address = address(&server)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let capacity = runtime.block_on(capacity(address));
    let calm = capacity * 0.25;
    let quiet = runtime.block_on(fire(address, &[(calm, Duration::from_secs(5))]));
    let rates = [(capacity * 4.0, TIME), (calm, Duration::from_secs(5))];
    let shots = runtime.block_on(fire(address, &rates));
    let (over, after): (Vec<_>, Vec<_>) = shots.into_iter().partition(|shot| shot.at < TIME);
    let latencies = |shots: &[Shot], served: bool| {
        let of_kind = shots.iter().filter(|shot| (shot.status == 200) == served);
        of_kind.map(|shot| shot.latency).collect::<Vec<f64>>()
    };
    let mut served = latencies(&over, true);
    let mut refused = latencies(&over, false);
    let normal = percentile(&mut latencies(&quiet, true), 0.5);
    Ok(vec![
        ("capacity /s", capacity),
        (
            "of it served",
            served.len() as f64 / TIME.as_secs_f64() / capacity,
        ),
        ("p50 ms served", percentile(&mut served, 0.5)),
        ("p99 served", percentile(&mut served, 0.99)),
        ("p50 refused", percentile(&mut refused, 0.5)),
        ("p99 refused", percentile(&mut refused, 0.99)),
        (
            "unanswered",
            over.iter().filter(|shot| shot.status == 0).count() as f64,
        ),
        (
            "other than 200/503",
            over.iter()
                .filter(|shot| !matches!(shot.status, 0 | 200 | 503))
                .count() as f64,
        ),
        ("recovered after ms", recovery(&after, normal * 2.0)),
    ])
}

/// The end of the last quarter of a second in which a request failed or half of them were slower than that; counted from the
/// end of the overload.
fn recovery(after: &[Shot], slow: f64) -> f64 {
    let window = |shot: &Shot| ((shot.at - TIME).as_secs_f64() * 4.0) as usize;
    let is_bad = |number: &usize| {
        let shots = after.iter().filter(|shot| window(shot) == *number);
        let mut latencies: Vec<f64> = shots.clone().map(|shot| shot.latency).collect();
        shots.clone().any(|shot| shot.status != 200) || percentile(&mut latencies, 0.5) > slow
    };
    let last = (0..20).rfind(is_bad);
    last.map_or(0.0, |last| (last + 1) as f64 * 250.0)
}

/// How many requests of 10 ms are answered in a second when there are always some.
async fn capacity(address: SocketAddr) -> f64 {
    let time = Duration::from_secs(5);
    let end = Instant::now() + time;
    let askers = (0..8).map(|_| async move {
        let mut connection = None;
        let mut served = 0;
        while Instant::now() < end {
            served += u64::from(ask(&mut connection, address).await == 200);
        }
        served
    });
    let askers: Vec<_> = askers.map(tokio::spawn).collect();
    let mut served = 0;
    for asker in askers {
        served += asker.await.unwrap_or(0);
    }
    served as f64 / time.as_secs_f64()
}

/// Asks at these rates, one after the other, on connections that are used again.
async fn fire(address: SocketAddr, rates: &[(f64, Duration)]) -> Vec<Shot> {
    let idle: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let begun = Instant::now();
    let mut shots = Vec::new();
    let mut start = Duration::ZERO;
    for &(rate, time) in rates {
        let count = (rate * time.as_secs_f64()) as u32;
        for number in 0..count {
            let at = start + time * number / count;
            sleep_until((begun + at).into()).await;
            let idle = Arc::clone(&idle);
            shots.push(tokio::spawn(async move {
                let mut connection = idle.lock().ok().and_then(|mut idle| idle.pop());
                let asked = Instant::now();
                let status = timeout(PATIENCE, ask(&mut connection, address)).await;
                let latency = asked.elapsed().as_secs_f64() * 1e3;
                let status = status.unwrap_or(0);
                if let (Some(connection), Ok(mut idle)) = (connection, idle.lock()) {
                    idle.push(connection);
                }
                Shot {
                    at,
                    latency,
                    status,
                }
            }));
        }
        start += time;
    }
    let mut all = Vec::with_capacity(shots.len());
    for shot in shots {
        all.extend(shot.await);
    }
    all
}

/// The status of one answer; 0 where there is none. A connection that was closed meanwhile is made anew.
async fn ask(connection: &mut Option<TcpStream>, address: SocketAddr) -> u16 {
    if let Some(mut stream) = connection.take()
        && let Ok(status @ 1..) = try_ask(&mut stream).await
    {
        *connection = Some(stream);
        return status;
    }
    let Ok(mut stream) = connect(address).await else {
        return 0;
    };
    // A connection is used again only when its answer was a whole one.
    let status = try_ask(&mut stream).await.unwrap_or(0);
    if status > 0 {
        *connection = Some(stream);
    }
    status
}

/// From one address after the other: the visitors of a site are not one.
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = Ipv4Addr::from_bits(0x7f02_0001 + NEXT.fetch_add(1, Ordering::Relaxed) % 1000);
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(own.into(), 0))?;
    socket.connect(address).await
}

async fn try_ask(stream: &mut TcpStream) -> std::io::Result<u16> {
    stream
        .write_all(b"GET /ten HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Ok(0);
        }
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if answer.len() >= end + 4 + length {
            return Ok(head
                .get(9..12)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0));
        }
    }
}
