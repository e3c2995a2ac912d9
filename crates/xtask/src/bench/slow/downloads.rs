//! Slow downloads: readers of a file of 1 GiB, at 1 KiB a second, in the clear. What the front holds for them is all that counts.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Barrier,
    time::sleep,
};

use super::address;
use crate::bench::{Options, case::Size, peer::Peer, place::Place, report::Row};

const SIZE: Size = Size {
    workers: 1,
    threads: 1,
    connections: 0,
};

/// How long they read.
const STAY: Duration = Duration::from_secs(20);

/// One for each is too many for a backlog at once.
const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn measure(peer: &Peer, place: &Place, options: &Options) -> Result<Row> {
    let server = peer.start(place, "app:app", SIZE)?;
    let address = address(&server)?;
    let (memory, descriptors) = (server.front_memory()?, server.front_descriptors());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let count = options.slow_clients;
    let all_read = Arc::new(Barrier::new(count + 1));
    let readers = runtime.block_on(async {
        let mut readers = Vec::new();
        for _ in 0..count {
            readers.push(tokio::spawn(read(address, Arc::clone(&all_read))));
            sleep(PAUSE).await;
        }
        tokio::time::timeout(Duration::from_secs(60), all_read.wait())
            .await
            .context("not every download has begun within a minute")?;
        anyhow::Ok(readers)
    })?;
    let begun = server.cpu()?;
    let first = server.front_memory()?;
    std::thread::sleep(STAY);
    let last = server.front_memory()?;
    let took = server.cpu()?.since(&begun, "proxy");
    let open = server.front_descriptors().saturating_sub(descriptors);
    let gone = readers.iter().filter(|reader| reader.is_finished()).count();
    runtime.shutdown_timeout(Duration::from_secs(1));
    ensure!(gone == 0, "{gone} of {count} downloads have ended");
    Ok(vec![
        ("MiB alone", memory),
        ("MiB at first", first),
        ("MiB at last", last),
        ("KiB/download", (last - memory) * 1024.0 / count as f64),
        ("descriptors", open as f64),
        ("CPU ms/s", took / 1e3 / STAY.as_secs_f64()),
    ])
}

/// One of them; it never comes to the end.
async fn read(address: SocketAddr, all_read: Arc<Barrier>) -> std::io::Result<()> {
    let mut stream = ask(address).await?;
    let mut piece = [0; 1024];
    stream.read_exact(&mut piece).await?;
    all_read.wait().await;
    while stream.read(&mut piece).await? > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn ask(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Otherwise the kernel would read for the slow reader.
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(address).await?;
    let head = b"GET /static/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(head).await?;
    Ok(stream)
}
