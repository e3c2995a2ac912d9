//! Connections to a member that speaks HTTP/2, each shared by many requests.

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use telemetry::panics;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex as Turns,
    time::{sleep, timeout},
};

use crate::origin::wire::HEAD_LIMITS;

/// Most requests on one connection at once; further ones get another. What of a connection breaks, all of them feel.
const STREAMS: u32 = 100;

/// How much of each response a member may send before it has been taken, as where nothing else is said (RFC 9113 §6.9.2).
const STREAM_WINDOW: u32 = 64 * 1024;

/// All of them together: the one whose client reads slowly keeps nobody else waiting.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// How much of requests waits inside a connection to be written.
const SEND_BUFFER: usize = 64 * 1024;

/// The connections of one member.
#[derive(Debug)]
pub(crate) struct Connections {
    list: Arc<List>,
    /// Whoever finds no room makes a connection, and those who come meanwhile wait for that one.
    making: Turns<()>,
    idle: Duration,
}

/// One connection.
#[derive(Debug)]
struct Shared {
    send: SendRequest<Bytes>,
    /// How many requests are on it.
    streams: AtomicUsize,
    /// Whether there has been one since somebody looked.
    used: AtomicBool,
}

/// A request's part of a connection.
#[derive(Debug)]
pub(crate) struct Part {
    /// What sends it.
    pub(super) send: SendRequest<Bytes>,
    shared: Arc<Shared>,
    list: Arc<List>,
}

/// Those that further requests may be sent on.
#[derive(Debug, Default)]
struct List(Mutex<Vec<Arc<Shared>>>);

impl List {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        panics::lock(&self.0)
    }

    /// No further requests for this one. It ends when those that it has are answered.
    fn forget(&self, shared: &Weak<Shared>) {
        let forgotten = |known: &mut Arc<Shared>| std::ptr::eq(Arc::as_ptr(known), shared.as_ptr());
        let gone: Vec<Arc<Shared>> = self.lock().extract_if(.., forgotten).collect();
        // Not under the lock: it may be the last that holds the connection open.
        drop(gone);
    }
}

impl Connections {
    /// There is none yet. One that nobody needs is kept for about so long.
    pub(crate) fn new(idle: Duration) -> Self {
        Self {
            list: Arc::default(),
            making: Turns::new(()),
            idle,
        }
    }

    /// A part of a connection that has room, or of a new one, which `connect` makes within this time.
    pub(crate) async fn part<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        within: Duration,
        connect: impl Future<Output = io::Result<S>>,
    ) -> io::Result<Part> {
        if let Some(part) = self.free().await {
            return Ok(part);
        }
        let made = timeout(within, async {
            let _turn = self.making.lock().await;
            match self.free().await {
                Some(part) => Ok(part),
                None => self.add(connect.await?).await,
            }
        });
        made.await.unwrap_or_else(|_| {
            let late = format!("no connection in {within:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, late))
        })
    }

    /// One that has room, and whose other end has not said that it leaves (GOAWAY).
    async fn free(&self) -> Option<Part> {
        loop {
            let mut part = self.first()?;
            if poll_fn(|cx| part.send.poll_ready(cx)).await.is_ok() {
                return Some(part);
            }
            part.retire();
        }
    }

    /// The first that has room; so those behind it become idle when there is less to do.
    fn first(&self) -> Option<Part> {
        let list = self.list.lock();
        let shared = list.iter().find(|shared| shared.has_room())?;
        Some(self.take(shared))
    }

    fn take(&self, shared: &Arc<Shared>) -> Part {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        shared.used.store(true, Ordering::Relaxed);
        Part {
            send: shared.send.clone(),
            shared: Arc::clone(shared),
            list: Arc::clone(&self.list),
        }
    }

    async fn add<S>(&self, socket: S) -> io::Result<Part>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = Builder::new()
            .initial_max_send_streams(STREAMS as usize)
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(HEAD_LIMITS.head).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(socket);
        let (send, connection) = handshake.await.map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            send,
            streams: AtomicUsize::new(0),
            used: AtomicBool::new(true),
        });
        let part = self.take(&shared);
        self.list.lock().push(Arc::clone(&shared));
        let drive = drive(
            connection,
            Arc::downgrade(&shared),
            Arc::clone(&self.list),
            self.idle,
        );
        tokio::spawn(drive);
        Ok(part)
    }
}

/// Reads and writes, to the end of the connection: that is when nobody can or may send on it any more, and all is answered.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    connection: Connection<S>,
    shared: Weak<Shared>,
    list: Arc<List>,
    idle: Duration,
) {
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            // Its requests hear themselves of how it ended.
            _ = &mut connection => break,
            () = sleep(idle) => if shared.upgrade().is_some_and(|shared| shared.rests()) {
                list.forget(&shared);
            }
        }
    }
    list.forget(&shared);
}

impl Shared {
    fn has_room(&self) -> bool {
        let most = self.send.current_max_send_streams().min(STREAMS as usize);
        self.streams.load(Ordering::Relaxed) < most
    }

    /// Whether there is no request on it, nor was since the last look.
    fn rests(&self) -> bool {
        !self.used.swap(false, Ordering::Relaxed) && self.streams.load(Ordering::Relaxed) == 0
    }
}

impl Part {
    /// No further request is sent on this connection.
    pub(super) fn retire(&self) {
        self.list.forget(&Arc::downgrade(&self.shared));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
