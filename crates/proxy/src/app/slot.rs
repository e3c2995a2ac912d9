//! A slot: one greeted connection to one thread of a worker.
//!
//! A worker's runtime answers a greeting only when the thread behind the connection is free. So a greeted connection is a
//! free slot, and a request written to it is being read by Python's thread at that moment, not waiting in a backlog.

use std::{
    fmt,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use message::{
    handoff::{self, Greeting},
    head::{Finder, Limits, ResponseHead},
    refusal::Refusal,
};
use rustix::{
    io::retry_on_intr,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    sync::watch,
};

use super::pool::Pool;
use crate::{control::WorkerName, timer::Timer};

/// The head of a response: as large as any framework's cookies and policies need, far below what hurts.
const HEAD_LIMITS: Limits = Limits {
    line: 8 * 1024,
    head: 64 * 1024,
    fields: 256,
};

/// What is read at once: a small response whole, a large one in few calls.
const READ: usize = 16 * 1024;

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
pub(crate) struct Connection {
    /// The socket, and what was read from it.
    pub(crate) wire: Wire,
    /// Where a request's head is put together; kept for its memory.
    pub(crate) out: Vec<u8>,
    /// One timer for all waits.
    pub(crate) timer: Timer,
    /// The number the worker gave it.
    number: u16,
}

/// A socket and what was read from it and not yet used.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: UnixStream,
    pub(crate) buffer: BytesMut,
    pub(crate) inbox: Inbox,
}

/// What reads of a head need beside the socket.
pub(crate) struct Inbox {
    /// What came beside the last head ([`handoff::FILE`]).
    pub(crate) descriptor: Option<OwnedFd>,
    /// Where a read puts what it finds. `recvmsg` takes no memory that is not initialised, and to clear some for each head
    /// costs more than to copy the head.
    space: Box<[u8]>,
}

impl Inbox {
    fn new() -> Self {
        Self {
            descriptor: None,
            space: vec![0; READ].into(),
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

/// Why a response head could not be read.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The connection ended.
    Ended,
    /// What came is not HTTP.
    Broken(Refusal),
}

impl From<io::Error> for HeadError {
    fn from(_: io::Error) -> Self {
        // Whatever the kernel calls it (reset, broken pipe), the worker's end is gone.
        Self::Ended
    }
}

impl From<Refusal> for HeadError {
    fn from(rule: Refusal) -> Self {
        Self::Broken(rule)
    }
}

impl Connection {
    /// Connects and greets. Resolves when a slot of the worker is free, however long that takes.
    pub(super) async fn open(socket: &Path, build: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let mut wire = Wire {
            stream,
            buffer: BytesMut::with_capacity(READ),
            inbox: Inbox::new(),
        };
        let greeting = handoff::GREETING;
        let greeting = format!("OPTIONS * HTTP/1.1\r\nHost: stack\r\n{greeting}: {build}\r\n\r\n");
        wire.stream.write_all(greeting.as_bytes()).await?;
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let head = wire.head().await.map_err(|error| match error {
            HeadError::Ended => io::ErrorKind::UnexpectedEof.into(),
            HeadError::Broken(rule) => invalid(&rule.to_string()),
        })?;
        let greeting = head.fields.get(handoff::GREETING).and_then(Greeting::parse);
        let number = greeting.ok_or_else(|| invalid("no greeting"))?.slot;
        let timer = Timer::new(Duration::from_secs(30));
        Ok(Self {
            wire,
            out: Vec::with_capacity(1024),
            timer,
            number,
        })
    }

    /// One that nobody has greeted.
    #[cfg(test)]
    pub(super) fn for_tests(stream: UnixStream) -> Self {
        Self {
            wire: Wire {
                stream,
                buffer: BytesMut::new(),
                inbox: Inbox::new(),
            },
            out: Vec::new(),
            timer: Timer::new(Duration::from_secs(30)),
            number: 0,
        }
    }

    /// Whether the worker still holds its end: an idle connection has nothing to say, so anything read is its end. Costs a
    /// system call only when the kernel has announced something.
    pub(super) fn is_open(&self) -> bool {
        let read = self.wire.stream.try_read(&mut [0]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Wire {
    /// Reads one final response head; interim ones (RFC 9110 §15.2) are not the answer.
    pub(crate) async fn head(&mut self) -> Result<ResponseHead, HeadError> {
        read_head(&self.stream, &mut self.buffer, &mut self.inbox).await
    }

    /// Reads more; 0 is the end.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Reads what is there already, up to `more` bytes, without waiting; `None` when nothing is.
    pub(crate) fn fill_now(&mut self, more: usize) -> io::Result<Option<usize>> {
        self.buffer.reserve(more);
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads heads until a final one, and the descriptor that may come with it. One that came with anything else is closed: by
/// the kernel where no room is made for it, else here.
pub(super) async fn read_head(
    stream: &UnixStream,
    buffer: &mut BytesMut,
    inbox: &mut Inbox,
) -> Result<ResponseHead, HeadError> {
    inbox.descriptor = None;
    let mut finder = Finder::default();
    loop {
        if let Some(length) = finder.find_response(buffer, &HEAD_LIMITS)? {
            let head = ResponseHead::parse(buffer.split_to(length).freeze(), &HEAD_LIMITS)?;
            if head.status >= 200 {
                return Ok(head);
            }
            continue;
        }
        match inbox.receive(stream).await? {
            0 => return Err(HeadError::Ended),
            count => buffer.extend_from_slice(&inbox.space[..count]),
        }
    }
}

impl Inbox {
    /// Reads what there is, as tokio's own read does it, and a descriptor if one comes; 0 is the end.
    async fn receive(&mut self, stream: &UnixStream) -> io::Result<usize> {
        loop {
            stream.readable().await?;
            let mut drained = None;
            let received = stream.try_io(Interest::READABLE, || {
                let (count, beside) = receive_now(stream, &mut self.space)?;
                if beside.is_some() {
                    // A read ends at a descriptor, whatever follows it.
                    self.descriptor = beside;
                } else if (1..self.space.len()).contains(&count) {
                    // The socket is empty. Said so here, the next wait needs no call that finds nothing.
                    drained = Some(count);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(count)
            });
            match (drained, received) {
                (Some(count), _) | (None, Ok(count)) => return Ok(count),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) => return Err(error),
            }
        }
    }
}

fn receive_now(stream: &UnixStream, space: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut control);
    let received = retry_on_intr(|| {
        recvmsg(
            stream,
            &mut [IoSliceMut::new(space)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    Ok((received.bytes, descriptors.flatten().last()))
}

/// A slot that belongs to one request. Unless it is [freed](Self::free), dropping it closes the connection: the worker's
/// thread then ends what it does, finds that nobody listens, and is greeted again.
#[derive(Debug)]
pub(crate) struct Slot {
    connection: Option<Connection>,
    worker: Arc<Worker>,
    pool: Arc<Pool>,
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
    pub(super) fn new(connection: Connection, worker: Arc<Worker>, pool: Arc<Pool>) -> Self {
        Self {
            connection: Some(connection),
            worker,
            pool,
        }
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("a slot has its connection until it is freed")
    }

    /// The worker it belongs to.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Which slot this is.
    pub(crate) fn place(&self) -> Place {
        let number = self
            .connection
            .as_ref()
            .map_or(0, |connection| connection.number);
        Place {
            worker: Arc::clone(&self.worker.label),
            number,
        }
    }

    /// The response has been read to its last byte: the next request may have the slot.
    pub(crate) fn free(mut self) {
        if let Some(connection) = self.connection.take() {
            // Bytes behind the response would be read as the next one's; such a connection is not used again.
            let spent = connection.wire.buffer.is_empty();
            self.pool
                .give_back(spent.then_some(connection), &self.worker);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection);
            self.pool.give_back(None, &self.worker);
        }
    }
}
