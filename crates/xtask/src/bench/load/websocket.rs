//! Clients of WebSockets (RFC 6455), one connection each, that send a message as soon as the last has come back.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{Load, Outcome};
use crate::bench::{
    peer::Running,
    report::{P50, P99, RATE},
    websocket::{ACCEPT, KEY, send},
};

/// Sends messages and waits for their echoes.
pub(crate) struct Echoes;

/// What is said.
const TEXT: [u8; 64] = [b'x'; 64];

/// A client masks what it sends (section 5.3), be it with the same mask.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Load for Echoes {
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let address = server.url()?.trim_start_matches("http://").parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let start = Instant::now();
        let mut took = runtime.block_on(async {
            let mut clients = JoinSet::new();
            for _ in 0..connections {
                clients.spawn(converse(address, start + time));
            }
            let mut took = Vec::new();
            while let Some(one) = clients.join_next().await {
                took.append(&mut one??);
            }
            anyhow::Ok(took)
        })?;
        ensure!(!took.is_empty(), "nothing came back");
        took.sort_unstable();
        let at = |part: f64| took[(took.len() as f64 * part) as usize].as_secs_f64() * 1e3;
        Ok(Outcome {
            requests: took.len() as u64,
            cpu: None,
            figures: vec![
                (RATE, took.len() as f64 / start.elapsed().as_secs_f64()),
                (P50, at(0.5)),
                (P99, at(0.99)),
            ],
        })
    }
}

/// How long each message took there and back.
async fn converse(address: SocketAddr, end: Instant) -> Result<Vec<Duration>> {
    let mut stream = open(address).await?;
    let (mut message, mut echo) = (Vec::new(), Vec::new());
    send(&mut message, &TEXT, Some(MASK))?;
    send(&mut echo, &TEXT, None)?;
    let mut came = vec![0; echo.len()];
    let mut took = Vec::new();
    let mut begun = Instant::now();
    while begun < end {
        stream.write_all(&message).await?;
        stream.read_exact(&mut came).await.context("no echo")?;
        ensure!(came == echo, "another message came back");
        let now = Instant::now();
        took.push(now - begun);
        begun = now;
    }
    Ok(took)
}

async fn open(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // The server is silent until it is spoken to: what comes is the head.
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut head).await? > 0, "no answer");
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(
        head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT),
        "answered: {head}"
    );
    Ok(stream)
}
