//! A stream with what was read from it, its timer, and the knowledge of when to stop: what an HTTP/1.1 connection waits on.

use std::{
    fs::File,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use message::{
    head::{Finder, Limits},
    refusal::Refusal,
    status,
};
use rustix::net::SendFlags;
use tokio::{
    io::{AsyncWriteExt, Interest, ReadBuf},
    time::Instant,
};

use super::{INPUT, Stream};
use crate::{failure::Failure, response::FieldLines, server::Stopping, timer::Timer};

/// How much a client may send ahead while its request is being answered (pipelining); past it we stop reading.
const AHEAD: usize = 16 * 1024;

/// A client's connection.
pub(super) struct Wire<S> {
    stream: S,
    /// What was read and not yet used.
    pub(super) buffer: BytesMut,
    /// Where a response's head is put together; kept for its memory.
    pub(super) out: Vec<u8>,
    timer: Timer,
    /// Whether the client has taken nothing for too long.
    stalled: bool,
    stop: Stopping,
    stopped: bool,
    /// Whether no request has come yet.
    fresh: bool,
}

/// How long a client that has just connected may take to send, when we stop: its request is on its way, and would be lost. A
/// connection that a browser opened ahead of need holds nobody up for longer.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// What came of waiting for a request.
pub(super) enum Next {
    /// A request head.
    Head(Bytes),
    /// Something that is not one.
    Refused(Refusal),
    /// Part of one, and then too little.
    Late,
    /// Nothing: the client is done, was idle for too long, or we stop.
    Closed,
}

/// When a wait ends. The clock is read only by who has to wait: nearly every head is whole when its first byte is there.
enum Deadline {
    In(Duration),
    At(Instant),
}

impl Deadline {
    fn reckon(&mut self) -> Instant {
        let at = match *self {
            Self::At(at) => at,
            Self::In(time) => Instant::now() + time,
        };
        *self = Self::At(at);
        at
    }
}

/// What came of one read.
enum Read {
    More,
    Ended,
    Late,
    Stopped,
}

/// The connection can no longer be written to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lost {
    /// It is closed, or broken.
    Left,
    /// The other end has taken nothing for too long.
    Stalled,
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Left => Self::ClientLeft,
            Lost::Stalled => Self::ClientStalled,
        }
    }
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, first: Duration, stop: Stopping) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            out: Vec::new(),
            timer: Timer::new(first),
            stalled: false,
            stop,
            stopped: false,
            fresh: true,
        }
    }

    /// Waits for the next request head: `idle` until its first byte, then `whole` until its last.
    pub(super) async fn next_head(
        &mut self,
        limits: &Limits,
        idle: Duration,
        whole: Duration,
    ) -> Next {
        let mut finder = Finder::default();
        let mut begun = !self.buffer.is_empty();
        let mut deadline = Deadline::In(if begun { whole } else { idle });
        let mut stoppable = true;
        loop {
            if !self.buffer.is_empty() {
                match finder.find(&self.buffer, limits) {
                    Ok(Some(length)) => {
                        self.fresh = false;
                        return Next::Head(self.take(length));
                    }
                    Ok(None) => {}
                    Err(refusal) => return Next::Refused(refusal),
                }
            }
            match self.read_until(&mut deadline, stoppable && !begun).await {
                Read::More if begun => {}
                Read::More => {
                    begun = true;
                    deadline = Deadline::In(whole);
                }
                Read::Late if begun => return Next::Late,
                Read::Stopped if self.fresh => {
                    stoppable = false;
                    deadline = Deadline::In(ON_ITS_WAY);
                }
                Read::Ended | Read::Late | Read::Stopped => return Next::Closed,
            }
        }
    }

    /// The beginning of the buffer. Nearly always it is all that was read, and then nothing is left allocated.
    fn take(&mut self, length: usize) -> Bytes {
        if length == self.buffer.len() {
            return std::mem::take(&mut self.buffer).freeze();
        }
        self.buffer.split_to(length).freeze()
    }

    async fn read_until(&mut self, deadline: &mut Deadline, stoppable: bool) -> Read {
        if stoppable && self.stopped {
            return Read::Stopped;
        }
        let Self {
            stream,
            buffer,
            out,
            timer,
            stop,
            stopped,
            ..
        } = self;
        poll_fn(|cx| {
            if let Poll::Ready(more) = poll_piece(stream, buffer, cx) {
                return Poll::Ready(if more { Read::More } else { Read::Ended });
            }
            if stoppable {
                // A connection at rest holds no memory for what it may send.
                *out = Vec::new();
            }
            if stoppable && Pin::new(&mut *stop).poll(cx).is_ready() {
                *stopped = true;
                return Poll::Ready(Read::Stopped);
            }
            timer.poll(cx, deadline.reckon()).map(|()| Read::Late)
        })
        .await
    }

    /// Reads more content; `false` is the end. Whoever awaits this bounds it.
    pub(super) async fn fill(&mut self) -> bool {
        let Self { stream, buffer, .. } = self;
        poll_fn(|cx| poll_piece(stream, buffer, cx)).await
    }

    /// Sends an interim response (RFC 9110 §15.2), such as 100 to a client that waits to send its content.
    pub(super) async fn interim(&mut self, status: u16, fields: &FieldLines) -> Result<(), Lost> {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", status::reason(status)).into_bytes();
        fields.write_to(&mut head);
        head.extend_from_slice(b"\r\n");
        self.write([&head, b"", b""], INTERIM).await?;
        self.flush(INTERIM).await
    }

    /// Resolves when the client has gone away; what it sends meanwhile is kept for later.
    pub(super) async fn left(&mut self) {
        while self.buffer.len() < AHEAD {
            if !self.fill().await {
                return;
            }
        }
        std::future::pending().await
    }

    /// Writes all parts, in one call where the socket takes them. `patience` bounds each wait in which the client takes nothing.
    async fn write(&mut self, parts: [&[u8]; 3], patience: Duration) -> Result<(), Lost> {
        let mut parts = parts.map(IoSlice::new);
        let mut left = &mut parts[..];
        // Skips the empty ones at the front.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let Self {
                stream,
                timer,
                stalled,
                ..
            } = self;
            let write = async {
                if left[1..].iter().all(|part| part.is_empty()) {
                    stream.write(&left[0]).await
                } else {
                    stream.write_vectored(left).await
                }
            };
            let written = patiently(timer, stalled, patience, write).await?;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    /// Writes `out` and then `content`.
    pub(super) async fn write_out(
        &mut self,
        content: &[u8],
        patience: Duration,
    ) -> Result<(), Lost> {
        self.write_out_and(content, b"", patience).await
    }

    /// Writes `out`, `content` and `end`.
    pub(super) async fn write_out_and(
        &mut self,
        content: &[u8],
        end: &[u8],
        patience: Duration,
    ) -> Result<(), Lost> {
        let out = std::mem::take(&mut self.out);
        let result = self.write([&out, content, end], patience).await;
        self.out = out;
        result
    }

    /// The stream, and what was read from it, for a tunnel: nothing of HTTP follows.
    pub(super) fn tunnelled(&mut self) -> (&mut S, BytesMut) {
        self.out = Vec::new();
        (&mut self.stream, std::mem::take(&mut self.buffer))
    }

    /// Whether files can be sent by the kernel ([`Self::send_file`]).
    pub(super) fn is_plain(&self) -> bool {
        self.stream.plain().is_some()
    }

    /// Writes `out`, and lets the kernel wait for what follows before it sends the last, incomplete packet.
    pub(super) async fn write_out_and_more(&mut self, patience: Duration) -> Result<(), Lost> {
        let out = std::mem::take(&mut self.out);
        let mut rest = &out[..];
        while !rest.is_empty() {
            let Self {
                stream,
                timer,
                stalled,
                ..
            } = self;
            let Some(socket) = stream.plain() else {
                break;
            };
            let more = || {
                Ok(rustix::net::send(
                    socket,
                    rest,
                    SendFlags::MORE | SendFlags::NOSIGNAL,
                )?)
            };
            let send = socket.async_io(Interest::WRITABLE, more);
            let sent = patiently(timer, stalled, patience, send).await?;
            rest = &rest[sent..];
        }
        self.out = out;
        Ok(())
    }

    /// Sends a part of a file from the page cache to the socket, without a copy through this process. Nothing is sent past the
    /// file's end: a file that has become shorter is [`Lost`], as its length was promised.
    pub(super) async fn send_file(
        &mut self,
        file: &File,
        range: Range<u64>,
        patience: Duration,
    ) -> Result<(), Lost> {
        let mut offset = range.start;
        while offset < range.end {
            let Self {
                stream,
                timer,
                stalled,
                ..
            } = self;
            let Some(socket) = stream.plain() else {
                return Err(Lost::Left);
            };
            let count = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
            let send = socket.async_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(
                    socket,
                    file,
                    Some(&mut offset),
                    count,
                )?)
            });
            patiently(timer, stalled, patience, send).await?;
        }
        Ok(())
    }

    /// Hands what TLS still holds to the kernel.
    pub(super) async fn flush(&mut self, patience: Duration) -> Result<(), Lost> {
        let Self {
            stream,
            timer,
            stalled,
            ..
        } = self;
        patiently(timer, stalled, patience, async {
            stream.flush().await.map(|()| 1)
        })
        .await
        .map(drop)
    }

    /// Ends the connection where it is, without a farewell.
    pub(super) fn cut(self) {
        if self.stalled {
            self.stream.reset();
        }
    }

    /// Ends the connection. When the client may still be sending, what it sends is read and thrown away for a while first: a
    /// close with unread input is a reset, which can destroy the response on its way (RFC 9112 §9.6).
    pub(super) async fn close(mut self, still_sending: bool) {
        let deadline = Instant::now() + LINGER;
        let Self { stream, timer, .. } = &mut self;
        if timer.bound(deadline, stream.shutdown()).await.is_err() || !still_sending {
            return;
        }
        loop {
            self.buffer.clear();
            let silent = deadline.min(Instant::now() + LINGER_SILENCE);
            match self.read_until(&mut Deadline::At(silent), false).await {
                Read::More => {}
                Read::Ended | Read::Late | Read::Stopped => return,
            }
        }
    }
}

/// Reads what there is and adds it to `buffer`, which has no room for more than that; `false` is the end.
fn poll_piece(stream: &mut impl Stream, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<bool> {
    INPUT.with_borrow_mut(|input| {
        let mut input = ReadBuf::new(&mut input[..]);
        let Poll::Ready(read) = Pin::new(stream).poll_read(cx, &mut input) else {
            return Poll::Pending;
        };
        let piece = input.filled();
        if read.is_err() || piece.is_empty() {
            return Poll::Ready(false);
        }
        if buffer.is_empty() {
            *buffer = BytesMut::from(piece);
        } else {
            buffer.extend_from_slice(piece);
        }
        Poll::Ready(true)
    })
}

/// A client that waits takes what tells it something; the bound is for one that has gone.
const INTERIM: Duration = Duration::from_secs(10);

/// How long a refused client is listened to before the connection is closed, and how long when it sends nothing. Many clients
/// send all they have before they read the answer, and would find a reset instead; nginx waits as long.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(2);

/// Waits for the client to take something, `patience` at most.
async fn patiently(
    timer: &mut Timer,
    stalled: &mut bool,
    patience: Duration,
    write: impl Future<Output = io::Result<usize>>,
) -> Result<usize, Lost> {
    let mut write = std::pin::pin!(write);
    let mut deadline = None;
    poll_fn(|cx| {
        if let Poll::Ready(written) = write.as_mut().poll(cx) {
            return Poll::Ready(match written {
                Ok(written @ 1..) => Ok(written),
                _ => Err(Lost::Left),
            });
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
        timer.poll(cx, deadline).map(|()| {
            *stalled = true;
            Err(Lost::Stalled)
        })
    })
    .await
}
