//! A connection to an origin and what was read from it: strict response heads, and content as it comes.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::BytesMut;
use message::{
    head::{Finder, Limits, ResponseHead},
    refusal::Refusal,
};
use rustix::{
    io::retry_on_intr,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::{encrypted::Encrypted, interim::Interims};

/// The head of a response: as large as any framework's cookies and policies need, far below what hurts.
pub(crate) const HEAD_LIMITS: Limits = Limits {
    line: 8 * 1024,
    head: 64 * 1024,
    fields: 256,
};

/// What is read at once: a small response whole, a large one in few calls.
pub(crate) const READ: usize = 16 * 1024;

/// Where an origin is reached.
#[derive(Debug)]
pub(crate) enum Socket {
    /// On this machine.
    Unix(UnixStream),
    /// Anywhere.
    Tcp(TcpStream),
    /// Anywhere, over TLS.
    Encrypted(Box<Encrypted>),
}

/// A socket and what was read from it and not yet used.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) socket: Socket,
    pub(crate) buffer: BytesMut,
    /// For origins that may send descriptors: our own workers.
    pub(crate) inbox: Option<Inbox>,
}

/// What reads of a head need beside the socket.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// What came beside the last head ([`message::handoff::FILE`]).
    pub(crate) descriptor: Option<OwnedFd>,
}

thread_local! {
    /// Where a read of an [`Inbox`] puts what it finds. `recvmsg` takes no memory that is not initialised, and to clear some for
    /// each head costs more than to copy the head.
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
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
        // Whatever the kernel calls it (reset, broken pipe), the other end is gone.
        Self::Ended
    }
}

impl From<Refusal> for HeadError {
    fn from(rule: Refusal) -> Self {
        Self::Broken(rule)
    }
}

/// Every call goes to the one that there is.
macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr, $encrypted:ident => $other:expr) => {
        match $socket {
            Socket::Unix($stream) => $call,
            Socket::Tcp($stream) => $call,
            Socket::Encrypted($encrypted) => $other,
        }
    };
}

impl Socket {
    /// Whether the other end still holds the connection: an idle one has nothing to say, so anything read is its end. Costs a
    /// system call only when the kernel has announced something.
    pub(crate) fn is_open(&self) -> bool {
        let read = either!(
            self,
            stream => stream.try_read(&mut [0]),
            encrypted => return encrypted.is_open()
        );
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes what the socket takes at once.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(
            self,
            stream => stream.try_write(bytes),
            encrypted => encrypted.try_write(bytes)
        )
    }

    /// Writes a part, as soon as the socket takes one. Cancel-safe; beside [`Self::read_some`].
    pub(super) async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let write = || self.try_write(bytes);
        either!(
            self,
            stream => stream.async_io(Interest::WRITABLE, write).await,
            encrypted => poll_fn(|cx| encrypted.poll_write(cx, bytes)).await
        )
    }

    /// Reads a part, as soon as there is one; 0 is the end. Cancel-safe; beside [`Self::write_some`].
    pub(super) async fn read_some(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if let Self::Encrypted(encrypted) = self {
            return poll_fn(|cx| encrypted.poll_read_behind(cx, buffer)).await;
        }
        loop {
            either!(self, stream => stream.readable().await?, _encrypted => {});
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Socket {
    /// Reads what is there already.
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        either!(
            self,
            stream => stream.try_read_buf(buffer),
            encrypted => encrypted.try_read(buffer)
        )
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer), encrypted => encrypted.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes), encrypted => encrypted.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx), encrypted => encrypted.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx), encrypted => encrypted.poll_shutdown(cx))
    }
}

impl Wire {
    /// Nothing has been read yet.
    pub(crate) fn new(socket: Socket, inbox: Option<Inbox>) -> Self {
        Self {
            socket,
            buffer: BytesMut::new(),
            inbox,
        }
    }

    /// Reads one final response head; interim ones (RFC 9110 §15.2) are not the answer, and go to who wants them.
    pub(crate) async fn head(
        &mut self,
        interims: Option<&Interims>,
    ) -> Result<ResponseHead, HeadError> {
        let reader = Reader::Whole(&mut self.socket);
        read_head(reader, &mut self.buffer, &mut self.inbox, interims).await
    }

    /// Reads more; 0 is the end. While nothing comes there is no memory for it: an event stream is silent most of the time, and
    /// there may be thousands.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            self.buffer.reserve(READ);
            let read = pin!(self.socket.read_buf(&mut self.buffer)).poll(cx);
            if read.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            read
        })
        .await
    }

    /// Reads what is there already, up to `more` bytes, without waiting; `None` when nothing is.
    pub(crate) fn fill_now(&mut self, more: usize) -> io::Result<Option<usize>> {
        self.buffer.reserve(more);
        match self.socket.try_read(&mut self.buffer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How a head is read.
pub(super) enum Reader<'a> {
    /// By whoever has the socket for itself, with the fewest system calls.
    Whole(&'a mut Socket),
    /// While another part of the same task writes.
    Half(&'a Socket),
}

impl Reader<'_> {
    fn socket(&self) -> &Socket {
        match self {
            Self::Whole(socket) => socket,
            Self::Half(socket) => socket,
        }
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(READ);
        match self {
            Self::Whole(socket) => socket.read_buf(buffer).await,
            Self::Half(socket) => socket.read_some(buffer).await,
        }
    }
}

/// Reads heads until a final one, and the descriptor that may come with it. One that came with anything else is closed: by
/// the kernel where no room is made for it, else here.
pub(super) async fn read_head(
    mut reader: Reader<'_>,
    buffer: &mut BytesMut,
    inbox: &mut Option<Inbox>,
    interims: Option<&Interims>,
) -> Result<ResponseHead, HeadError> {
    if let Some(inbox) = inbox {
        inbox.descriptor = None;
    }
    let mut finder = Finder::default();
    loop {
        if let Some(length) = finder.find_response(buffer, &HEAD_LIMITS)? {
            let head = ResponseHead::parse(buffer.split_to(length).freeze(), &HEAD_LIMITS)?;
            // Switching protocols (RFC 9110 §15.2.2) is final: nothing of HTTP follows.
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
            if let Some(interims) = interims {
                interims.push(&head);
            }
            continue;
        }
        let read = match (reader.socket(), &mut *inbox) {
            (Socket::Unix(stream), Some(inbox)) => inbox.receive(stream, buffer).await?,
            _ => reader.read(buffer).await?,
        };
        if read == 0 {
            return Err(HeadError::Ended);
        }
    }
}

impl Inbox {
    /// Reads what there is, as tokio's own read does it, and a descriptor if one comes; 0 is the end.
    async fn receive(&mut self, stream: &UnixStream, to: &mut BytesMut) -> io::Result<usize> {
        loop {
            stream.readable().await?;
            let mut drained = None;
            let received = stream.try_io(Interest::READABLE, || {
                let (count, beside) = SPACE.with_borrow_mut(|space| {
                    let received = receive_now(stream, space)?;
                    if to.capacity() - to.len() < received.0 {
                        // Room for the next heads as well.
                        to.reserve(READ);
                    }
                    to.extend_from_slice(&space[..received.0]);
                    io::Result::Ok(received)
                })?;
                if beside.is_some() {
                    // A read ends at a descriptor, whatever follows it.
                    self.descriptor = beside;
                } else if (1..READ).contains(&count) {
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
