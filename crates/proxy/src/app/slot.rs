//! A slot: one greeted connection to a worker.
//!
//! A worker has as many threads as it accepts connections, and one of them that is free answers the greeting. So a greeted
//! connection is a free slot, and a request written to it finds a thread that is in no other, and waits in no backlog. Which thread
//! that is, the worker decides.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use message::{
    handoff::{self, Greeting},
    refusal::Refusal,
};
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::watch};

use super::pool::{Pool, Stream};
use crate::{
    buffer::stalls::Stalls,
    control::WorkerName,
    failure::Failure,
    origin::{
        Connection, Origin,
        wire::{HeadError, Inbox, Socket, Wire},
    },
    timer::Timer,
};

/// How long we wait for the master to tell how a worker died, once its connection broke. The master learns of a death by
/// pidfd within a millisecond or two; a worker that merely closed a connection costs its client this much.
const OBITUARY: Duration = Duration::from_millis(250);

/// A worker as the pool knows it.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its name in the control channel.
    pub(crate) name: WorkerName,
    /// Its name in logs: `web·1`.
    pub(crate) label: Arc<str>,
    /// Its socket.
    pub(super) socket: PathBuf,
    /// How it is.
    pub(super) life: watch::Sender<Life>,
    /// How many of its slots have a live response or upload.
    pub(super) streams: Arc<AtomicUsize>,
}

/// How a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It takes requests.
    Serving,
    /// It is to leave: connections are closed as they become idle.
    Releasing,
    /// It is dead, and this is how.
    Dead(Arc<str>),
}

impl Worker {
    /// How it died, if it did or is just about to.
    pub(crate) async fn obituary(&self) -> Option<Arc<str>> {
        let mut life = self.life.subscribe();
        let dead = life.wait_for(|life| matches!(life, Life::Dead(_)));
        match tokio::time::timeout(OBITUARY, dead).await {
            Ok(Ok(life)) => match &*life {
                Life::Dead(how) => Some(Arc::clone(how)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A greeted connection.
#[derive(Debug)]
pub(super) struct Greeted {
    connection: Connection,
    /// The number the worker gave it.
    number: u16,
}

impl Greeted {
    /// Connects and greets. Resolves when a slot of the worker is free, however long that takes.
    pub(super) async fn open(socket: &Path, build: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket).await?;
        let greeting = handoff::GREETING;
        let greeting = format!("OPTIONS * HTTP/1.1\r\nHost: stack\r\n{greeting}: {build}\r\n\r\n");
        stream.write_all(greeting.as_bytes()).await?;
        let mut connection = Connection::over(stream);
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let head = connection
            .wire
            .head(None)
            .await
            .map_err(|error| match error {
                HeadError::Ended => io::ErrorKind::UnexpectedEof.into(),
                HeadError::Broken(rule) => invalid(&rule.to_string()),
            })?;
        let greeting = head.fields.get(handoff::GREETING).and_then(Greeting::parse);
        let number = greeting.ok_or_else(|| invalid("no greeting"))?.slot;
        Ok(Self { connection, number })
    }

    /// Whether the worker still holds its end.
    pub(super) fn is_open(&self) -> bool {
        self.connection.wire.socket.is_open()
    }
}

impl Connection {
    /// Over a socket of a worker of ours.
    pub(super) fn over(stream: UnixStream) -> Self {
        Self {
            wire: Wire::new(Socket::Unix(stream), Some(Inbox::default())),
            out: Vec::with_capacity(1024),
            timer: Timer::new(Duration::from_secs(30)),
        }
    }
}

/// A slot that belongs to one request. Unless it is [freed](Self::free), dropping it closes the connection: the worker's
/// thread then ends what it does, finds that nobody listens, and is greeted again.
#[derive(Debug)]
pub(crate) struct Slot {
    greeted: Option<Greeted>,
    worker: Arc<Worker>,
    pool: Arc<Pool>,
    /// It has a live response.
    stream: Option<Stream>,
}

/// Which slot answered, for logs: `web·1/3`.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    worker: Arc<str>,
    number: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.worker, self.number)
    }
}

impl Slot {
    pub(super) fn new(greeted: Greeted, worker: Arc<Worker>, pool: Arc<Pool>) -> Self {
        Self {
            greeted: Some(greeted),
            worker,
            pool,
            stream: None,
        }
    }

    /// Begins a live response; `false` if there are `most` already.
    pub(crate) fn stream(&mut self, most: Option<usize>) -> bool {
        if self.stream.is_none() {
            let stream = self.pool.stream(most);
            self.set_stream(stream);
        }
        self.stream.is_some()
    }

    /// It takes a request that is still coming.
    pub(super) fn set_stream(&mut self, stream: Option<Stream>) {
        self.stream = stream.map(|stream| stream.of(&self.worker));
    }

    /// The worker it belongs to.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Which slot this is.
    pub(crate) fn place(&self) -> Place {
        let number = self.greeted.as_ref().map_or(0, |greeted| greeted.number);
        Place {
            worker: Arc::clone(&self.worker.label),
            number,
        }
    }
}

impl Origin for Slot {
    fn stalls(&self) -> Option<&Arc<Stalls>> {
        Some(&self.pool.stalls)
    }

    fn connection(&mut self) -> &mut Connection {
        let greeted = self.greeted.as_mut();
        &mut greeted
            .expect("a slot has its connection until it is freed")
            .connection
    }

    fn free(mut self) {
        if let Some(greeted) = self.greeted.take() {
            // Bytes behind the response would be read as the next one's; such a connection is not used again.
            let spent = greeted.connection.wire.buffer.is_empty();
            self.pool.give_back(spent.then_some(greeted), &self.worker);
        }
    }

    fn late(&self, timeout: Duration) -> Failure {
        Failure::AppTimeout {
            worker: self.worker.label.to_string(),
            timeout,
        }
    }

    fn broke(&self, rule: Refusal) -> Failure {
        Failure::BadResponse {
            worker: self.worker.label.to_string(),
            rule,
        }
    }

    /// The worker's thread ends what it does, finds that nobody listens, and is greeted again; or the worker died.
    async fn ended(self) -> Failure {
        let worker = Arc::clone(&self.worker);
        drop(self);
        let label = worker.label.to_string();
        match worker.obituary().await {
            Some(how) => Failure::WorkerDied {
                worker: label,
                how: how.to_string(),
            },
            None => Failure::WorkerCut { worker: label },
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(greeted) = self.greeted.take() {
            drop(greeted);
            self.pool.give_back(None, &self.worker);
        }
    }
}
