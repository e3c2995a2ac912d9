//! One request to an origin: written, and its response taken at the origin's speed.
//!
//! A request runs at most once. Before its first byte is written the connection is known to be open; from then on a broken
//! connection is this request's failure, and it is never tried again (RFC 9110 §9.2.2 would allow it for some methods; an
//! application's author expects it for none).

use std::{io, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use message::{
    framing::{self, Body, Piece},
    head::ResponseHead,
};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{
    Connection, Origin,
    spool::Spooled,
    wire::{HeadError, Reader, Socket, Wire, read_head},
};
use crate::{failure::Failure, framed::Framed, response::Content};

/// How much of a request the socket took at once: nearly always all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written(usize);

impl Written {
    /// How many bytes.
    #[cfg(test)]
    pub(crate) fn bytes(self) -> usize {
        self.0
    }
}

/// Writes the beginning of a request whose head is in `out`, as much as the socket takes. `None`: the other end is gone, and
/// not a byte was written.
pub(crate) fn begin(connection: &mut Connection, body: &Spooled) -> Option<Written> {
    let Connection { wire, out, .. } = connection;
    if let Spooled::Memory(bytes) = body {
        out.extend_from_slice(bytes);
    }
    match wire.socket.try_write(out) {
        Ok(written) => Some(Written(written)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Written(0)),
        Err(_) => None,
    }
}

/// Why there is no response head.
pub(crate) enum Unanswered {
    Late,
    Head(HeadError),
    Spool(io::Error),
}

/// Writes the rest of the request and waits for the response head. What of the request had not left us by then comes back.
pub(crate) async fn answer(
    connection: &mut Connection,
    body: Spooled,
    Written(written): Written,
    deadline: Instant,
) -> Result<(ResponseHead, Option<Unsent>), Unanswered> {
    let Connection {
        wire, out, timer, ..
    } = connection;
    let file = match body {
        Spooled::None | Spooled::Memory(_) => None,
        Spooled::File { file, .. } => Some(file),
    };
    let answered = if written == out.len() && file.is_none() {
        let head = timer.bound(deadline, wire.head()).await;
        head.map(|head| head.map(|head| (head, None)).map_err(Unanswered::Head))
    } else {
        let unsent = Unsent {
            piece: BytesMut::from(&out[written..]),
            file,
        };
        timer.bound(deadline, send_and_read(wire, unsent)).await
    };
    out.clear();
    answered.unwrap_or(Err(Unanswered::Late))
}

/// Sends what is left of the request while the response head is awaited. Both at once: an app may answer before it has read
/// what was sent, with more than a socket holds, and then each side would wait for the other.
async fn send_and_read(
    wire: &mut Wire,
    mut unsent: Unsent,
) -> Result<(ResponseHead, Option<Unsent>), Unanswered> {
    let socket = &wire.socket;
    let mut head = std::pin::pin!(read_head(
        Reader::Half(socket),
        &mut wire.buffer,
        &mut wire.inbox
    ));
    let head = tokio::select! {
        biased;
        head = &mut head => return answered_early(head, unsent),
        sent = unsent.send(socket) => match sent {
            Ok(()) => head.await,
            // What the origin has said before its end is found by the reader.
            Err(SendError::Origin) => {
                return answered_early(head.await, unsent);
            }
            Err(SendError::File(error)) => return Err(Unanswered::Spool(error)),
        },
    };
    head.map(|head| (head, None)).map_err(Unanswered::Head)
}

fn answered_early(
    head: Result<ResponseHead, HeadError>,
    unsent: Unsent,
) -> Result<(ResponseHead, Option<Unsent>), Unanswered> {
    head.map(|head| (head, Some(unsent)))
        .map_err(Unanswered::Head)
}

/// The part of a request that is still ours. An app that answers while it reads, as one that transforms an upload, gets it
/// during its response.
pub(crate) struct Unsent {
    /// Read, and not yet written.
    piece: BytesMut,
    file: Option<tokio::fs::File>,
}

enum SendError {
    /// The origin takes no more.
    Origin,
    /// The file cannot be read.
    File(io::Error),
}

impl Unsent {
    /// Sends all of it. Cancel-safe: whatever a dropped future has not sent is still here.
    async fn send(&mut self, to: &Socket) -> Result<(), SendError> {
        loop {
            while !self.piece.is_empty() {
                match to.write_some(&self.piece).await {
                    Ok(written @ 1..) => self.piece.advance(written),
                    _ => return Err(SendError::Origin),
                }
            }
            let Some(file) = &mut self.file else {
                return Ok(());
            };
            self.piece.reserve(FILE_PIECE);
            let read = file.read_buf(&mut self.piece).await;
            if read.map_err(SendError::File)? == 0 {
                self.file = None;
            }
        }
    }
}

/// How much of a spooled upload is read and written at once.
const FILE_PIECE: usize = 128 * 1024;

/// The response is complete: the connection is free. Where part of the request never left us, it is closed instead: the origin
/// would read that part as the next request.
pub(crate) fn finish(origin: impl Origin, unsent: Option<&Unsent>) {
    match unsent {
        None => origin.free(),
        Some(_) => drop(origin),
    }
}

/// The content: whole, if it is here already or arrives without a wait; else as a [`Relay`].
pub(crate) fn content(
    mut origin: impl Origin,
    head: &ResponseHead,
    is_head: bool,
    unsent: Option<Unsent>,
    ahead: usize,
) -> Result<Content, Failure> {
    let framing = framing::of_response(head, is_head).map_err(|rule| origin.broke(rule))?;
    if framing == Body::None {
        finish(origin, unsent.as_ref());
        return Ok(match head.status {
            // They say nothing of a length (RFC 9110 §8.6); everything else with no content says 0.
            204 | 304 => Content::None,
            _ if is_head => Content::Head(head.fields.get("content-length").and_then(decimal)),
            _ => Content::Bytes(Bytes::new()),
        });
    }
    let mut source = Framed::new(framing);
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    loop {
        let wire = &mut origin.connection().wire;
        match source.take(&mut wire.buffer) {
            Err(rule) => return Err(origin.broke(rule)),
            Ok(Piece::End) => {
                finish(origin, unsent.as_ref());
                return Ok(Content::Bytes(join(first, whole)));
            }
            Ok(Piece::Data(piece)) if first.is_none() => first = Some(piece),
            Ok(Piece::Data(piece)) => whole.extend_from_slice(&piece),
            Ok(Piece::NeedMore) => {
                let held = first.as_ref().map_or(0, Bytes::len) + whole.len();
                let more = source.expects().unwrap_or(READ_MAX).clamp(1024, READ_MAX);
                if held >= ahead || !matches!(wire.fill_now(more), Ok(Some(1..))) {
                    let begun = join(first, whole);
                    return Ok(Content::Relay(Relay::start(
                        origin, source, begun, unsent, ahead,
                    )));
                }
            }
        }
    }
}

/// Most bytes asked of a socket in one read.
const READ_MAX: usize = 64 * 1024;

fn join(first: Option<Bytes>, rest: BytesMut) -> Bytes {
    match first {
        None => Bytes::new(),
        Some(first) if rest.is_empty() => first,
        Some(first) => {
            let mut all = BytesMut::with_capacity(first.len() + rest.len());
            all.extend_from_slice(&first);
            all.extend_from_slice(&rest);
            all.freeze()
        }
    }
}

pub(crate) fn decimal(value: &[u8]) -> Option<u64> {
    str::from_utf8(value).ok()?.parse().ok()
}

/// A response that is still coming. A task of its own takes it off the slot, up to `limits.response_memory` ahead of the
/// client, so that a client that reads slowly frees the slot as soon as the rest fits.
#[derive(Debug)]
pub(crate) struct Relay {
    length: Option<u64>,
    pieces: mpsc::Receiver<Result<Held, Failure>>,
}

/// A piece, and its part of the memory that may be held.
type Held = (Bytes, Option<OwnedSemaphorePermit>);

impl Relay {
    fn start(
        origin: impl Origin,
        source: Framed,
        begun: Bytes,
        unsent: Option<Unsent>,
        ahead: usize,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let ahead = ahead.min(Semaphore::MAX_PERMITS);
        let relay = Self {
            length: source.length(begun.len()),
            pieces,
        };
        let pump = Pump {
            origin,
            source,
            unsent,
            ends_with_connection: false,
            ahead,
            memory: Arc::new(Semaphore::new(ahead)),
            sender,
        };
        tokio::spawn(pump.run(begun));
        relay
    }

    /// The length, where the worker told it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        let next = self.pieces.recv().await?;
        Some(next.map(|(piece, _held_until_here)| piece))
    }

    /// The next piece if it is here already.
    pub(crate) fn next_now(&mut self) -> Option<Result<Bytes, Failure>> {
        let next = self.pieces.try_recv().ok()?;
        Some(next.map(|(piece, _held_until_here)| piece))
    }
}

/// Most pieces held ahead of a client: what bounds a response that comes in tiny ones.
const PIECES: usize = 256;

/// Takes a response off its origin.
struct Pump<O> {
    origin: O,
    source: Framed,
    /// What the origin has not yet been sent of the request.
    unsent: Option<Unsent>,
    /// The origin has closed the connection, as it may.
    ends_with_connection: bool,
    /// How much may be held ahead of the client.
    ahead: usize,
    /// What of it is free.
    memory: Arc<Semaphore>,
    sender: mpsc::Sender<Result<Held, Failure>>,
}

impl<O: Origin> Pump<O> {
    async fn run(mut self, begun: Bytes) {
        if !begun.is_empty() && !self.send(begun).await {
            return;
        }
        let taken = self.take().await;
        let Self {
            origin,
            unsent,
            ends_with_connection,
            sender,
            ..
        } = self;
        let failure = match taken {
            Taken::All if !ends_with_connection => return finish(origin, unsent.as_ref()),
            // The origin has closed the connection, or the client left and closing it tells the origin.
            Taken::All | Taken::ForNobody => return drop(origin),
            Taken::Ended => origin.ended().await,
            Taken::Failed(failure) => {
                drop(origin);
                failure
            }
        };
        // The receiver may be gone; then nobody needs to know.
        let _ = sender.send(Err(failure)).await;
    }

    /// Reads to the end, or until the client has left.
    async fn take(&mut self) -> Taken {
        loop {
            let wire = &mut self.origin.connection().wire;
            let piece = match self.source.take(&mut wire.buffer) {
                Ok(piece) => piece,
                Err(rule) => return Taken::Failed(self.origin.broke(rule)),
            };
            match piece {
                Piece::End => return Taken::All,
                Piece::Data(piece) => {
                    if !self.send(piece).await {
                        return Taken::ForNobody;
                    }
                }
                Piece::NeedMore => {
                    let read = tokio::select! {
                        biased;
                        read = fill(wire, &mut self.unsent) => read,
                        () = self.sender.closed() => return Taken::ForNobody,
                    };
                    match read {
                        Ok(Ok(0)) if matches!(self.source, Framed::UntilClose) => {
                            self.ends_with_connection = true;
                            return Taken::All;
                        }
                        // Whatever the kernel calls it, the other end is gone.
                        Ok(Ok(0) | Err(_)) => return Taken::Ended,
                        Ok(Ok(_)) => {}
                        Err(failure) => return Taken::Failed(failure),
                    }
                }
            }
        }
    }

    /// Hands a piece on, once there is room for it; `false` when nobody takes it.
    async fn send(&self, piece: Bytes) -> bool {
        // More than there is would be waited for for ever; such a piece goes out alone.
        let size = u32::try_from(piece.len().min(self.ahead)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.memory).acquire_many_owned(size);
        let held = tokio::select! {
            biased;
            held = room => held.ok(),
            () = self.sender.closed() => return false,
        };
        self.sender.send(Ok((piece, held))).await.is_ok()
    }
}

/// How taking a response ended.
enum Taken {
    All,
    /// The client has left.
    ForNobody,
    /// The connection ended first.
    Ended,
    Failed(Failure),
}

/// Reads more of the response, 0 at its end, and meanwhile sends what is left of the request.
async fn fill(wire: &mut Wire, unsent: &mut Option<Unsent>) -> Result<io::Result<usize>, Failure> {
    let Some(rest) = unsent else {
        return Ok(wire.fill().await);
    };
    wire.buffer.reserve(READ_MAX);
    let Wire { socket, buffer, .. } = wire;
    let mut read = std::pin::pin!(socket.read_some(buffer));
    tokio::select! {
        biased;
        read = &mut read => return Ok(read),
        sent = rest.send(socket) => match sent {
            Ok(()) => *unsent = None,
            // It may still answer.
            Err(SendError::Origin) => {}
            Err(SendError::File(error)) => return Err(Failure::Spool(error)),
        },
    }
    Ok(read.await)
}
