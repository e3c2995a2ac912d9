//! One request to an origin: written, and its response taken at the origin's speed.
//!
//! A request runs at most once. Before its first byte is written the connection is known to be open; from then on a broken
//! connection is this request's failure, and it is never tried again (RFC 9110 §9.2.2 would allow it for some methods; an
//! application's author expects it for none).

use std::{io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use message::{
    framing::{self, Body, Piece},
    head::ResponseHead,
    refusal::Refusal,
};
use tokio::time::{Instant, timeout};

use super::{
    Connection, Origin,
    interim::Interims,
    spool::Spooled,
    wire::{HeadError, Reader, Socket, Wire, read_head},
};
use crate::{
    buffer::{
        Holding,
        pipe::{self, pipe},
        scratch::Scratch,
    },
    failure::Failure,
    framed::Framed,
    request::RequestId,
    response::{Content, FieldLines},
    timer::Elapsed,
};

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

/// Writes the rest of the request and waits for the response head. What of the request had not left us by then comes back; what
/// the origin says before its answer goes to `interims`.
pub(crate) async fn answer(
    connection: &mut Connection,
    body: Spooled,
    Written(written): Written,
    deadline: Instant,
    interims: &Interims,
) -> Result<(ResponseHead, Option<Unsent>), Unanswered> {
    let Connection {
        wire, out, timer, ..
    } = connection;
    let rest = Rest::of(body);
    let answered = if written == out.len() && rest.is_none() {
        let head = timer.bound(deadline, wire.head(Some(interims))).await;
        head.map(|head| head.map(|head| (head, None)).map_err(Unanswered::Head))
    } else {
        let unsent = Unsent {
            piece: Bytes::copy_from_slice(&out[written..]),
            rest,
        };
        // Boxed: nearly every request has left at once, and has no room for this in its future.
        match unsent.rest {
            Some(Rest::Coming(_)) => {
                let patience = deadline - Instant::now();
                Ok(Box::pin(send_and_read(wire, unsent, Some(patience), interims)).await)
            }
            _ => {
                let both = Box::pin(send_and_read(wire, unsent, None, interims));
                timer.bound(deadline, both).await
            }
        }
    };
    out.clear();
    answered.unwrap_or(Err(Unanswered::Late))
}

/// Sends what is left of the request while the response head is awaited. Both at once: an app may answer before it has read
/// what was sent, with more than a socket holds, and then each side would wait for the other.
///
/// `patience` is for a request that is still coming, whose time is its client's: the origin has that long to take each piece, and
/// then to answer.
async fn send_and_read(
    wire: &mut Wire,
    mut unsent: Unsent,
    patience: Option<Duration>,
    interims: &Interims,
) -> Result<(ResponseHead, Option<Unsent>), Unanswered> {
    let socket = &wire.socket;
    let mut head = std::pin::pin!(read_head(
        Reader::Half(socket),
        &mut wire.buffer,
        &mut wire.inbox,
        Some(interims),
    ));
    let head = tokio::select! {
        biased;
        head = &mut head => return answered_early(head, unsent),
        sent = unsent.send(socket, patience) => match sent {
            Ok(()) => match patience {
                None => head.await,
                Some(patience) => timeout(patience, head).await.map_err(|_| Unanswered::Late)?,
            },
            Err(SendError::Late) => return Err(Unanswered::Late),
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
    piece: Bytes,
    rest: Option<Rest>,
}

/// Where the rest of it is.
pub(crate) enum Rest {
    /// In a file, but for what has been read of it.
    File { file: Scratch, sent: u64 },
    /// On its way.
    Coming(pipe::Reader),
}

impl Rest {
    /// What of content is not in memory, if there is any.
    pub(crate) fn of(body: Spooled) -> Option<Self> {
        match body {
            Spooled::None | Spooled::Memory(_) => None,
            Spooled::File(file) => Some(Self::File { file, sent: 0 }),
            Spooled::Coming { rest, .. } => Some(Self::Coming(rest)),
        }
    }

    /// The next piece; empty after the last.
    pub(crate) async fn next(&mut self) -> Result<Bytes, SendError> {
        match self {
            Self::File { file, sent } if *sent == file.length() => Ok(Bytes::new()),
            Self::File { file, sent } => {
                let piece = file.reader().read(*sent..file.length()).await;
                let piece = piece.map_err(SendError::File)?;
                *sent += piece.len() as u64;
                Ok(piece)
            }
            Self::Coming(pieces) => match pieces.next().await {
                None => Ok(Bytes::new()),
                Some(Ok(piece)) => Ok(piece),
                // Whoever brought it has said why.
                Some(Err(_)) => Err(SendError::Origin),
            },
        }
    }
}

/// Why no more of a request is sent.
pub(crate) enum SendError {
    /// The origin takes no more.
    Origin,
    /// The file cannot be read.
    File(io::Error),
    /// The origin has not taken any for too long.
    Late,
}

impl Unsent {
    /// Sends all of it. Cancel-safe: whatever a dropped future has not sent is still here.
    async fn send(&mut self, to: &Socket, patience: Option<Duration>) -> Result<(), SendError> {
        loop {
            while !self.piece.is_empty() {
                let write = to.write_some(&self.piece);
                let written = match patience {
                    None => write.await,
                    Some(patience) => {
                        let written = timeout(patience, write).await;
                        written.map_err(|_| SendError::Late)?
                    }
                };
                match written {
                    Ok(written @ 1..) => self.piece.advance(written),
                    _ => return Err(SendError::Origin),
                }
            }
            let Some(rest) = &mut self.rest else {
                return Ok(());
            };
            self.piece = rest.next().await?;
            if self.piece.is_empty() {
                self.rest = None;
            }
        }
    }
}

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
    holding: &Holding,
    id: RequestId,
) -> Result<Content, Failure> {
    if head.status < 200 {
        // Nobody here has asked for another protocol, and would not know what to do with it.
        return Err(origin.broke(Refusal::UnaskedUpgrade));
    }
    let live;
    let holding = if is_live(head) {
        live = holding.in_memory();
        &live
    } else {
        holding
    };
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
                return Ok(held(join(first, whole), holding, id));
            }
            Ok(Piece::Data(piece)) if first.is_none() => first = Some(piece),
            Ok(Piece::Data(piece)) => whole.extend_from_slice(&piece),
            Ok(Piece::NeedMore) => {
                let held = first.as_ref().map_or(0, Bytes::len) + whole.len();
                let more = source.expects().unwrap_or(READ_MAX).clamp(1024, READ_MAX);
                if held >= holding.memory || !matches!(wire.fill_now(more), Ok(Some(1..))) {
                    let begun = join(first, whole);
                    let holding = holding.clone();
                    return Ok(Content::Relay(Relay::start(
                        origin, source, begun, unsent, holding, id,
                    )));
                }
            }
        }
    }
}

/// Whether a response is worth nothing when it is late: events, pictures that replace each other, and what says so as nginx has
/// it. It is not kept on disk for a client that does not keep up, since that would only ever fall further behind.
///
/// Every other response is passed on as it comes as well; a client that keeps up sees no difference.
pub(crate) fn is_live(head: &ResponseHead) -> bool {
    let says = |name, wanted: &[&str]| {
        let value = head.fields.get(name).unwrap_or_default();
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii();
        wanted
            .iter()
            .any(|wanted| essence.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    says(
        "content-type",
        &["text/event-stream", "multipart/x-mixed-replace"],
    ) || says("x-accel-buffering", &["no"])
}

/// Content that is here whole: within the budget, if it is not small.
fn held(content: Bytes, holding: &Holding, id: RequestId) -> Content {
    if content.len() <= UNCOUNTED {
        return Content::Bytes(content);
    }
    let mut share = holding.store.budget.memory.share();
    if share.grow(content.len()) {
        return Content::Bytes(share.hold(content));
    }
    Content::Relay(Relay::whole(content, holding.clone(), id))
}

/// Content up to this size is not counted: a connection's own buffers are as large.
const UNCOUNTED: usize = 16 * 1024;

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

/// A response that is still coming. A task of its own takes it off its origin, ahead of the client, so that a client that reads
/// slowly frees the slot as soon as the app is finished.
#[derive(Debug)]
pub(crate) struct Relay {
    length: Option<u64>,
    pipe: pipe::Reader,
}

impl Relay {
    fn start(
        origin: impl Origin,
        source: Framed,
        begun: Bytes,
        unsent: Option<Unsent>,
        holding: Holding,
        id: RequestId,
    ) -> Self {
        let length = source.length(begun.len());
        let (writer, pipe) = pipe(holding, id);
        let pump = Pump {
            origin,
            source,
            unsent,
            ends_with_connection: false,
            pipe: writer,
        };
        tokio::spawn(pump.run(begun));
        Self { length, pipe }
    }

    /// One whose origin is finished, and for which there is no memory.
    fn whole(content: Bytes, holding: Holding, id: RequestId) -> Self {
        let length = Some(content.len() as u64);
        let (mut writer, pipe) = pipe(holding, id);
        tokio::spawn(async move {
            if writer.write(content, None).await.is_ok() {
                writer.end(Ok(()));
            }
        });
        Self { length, pipe }
    }

    /// One that another task fills.
    pub(crate) fn of(length: Option<u64>, pipe: pipe::Reader) -> Self {
        Self { length, pipe }
    }

    /// The length, where the origin told it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece; `None` after the last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        self.pipe.next().await
    }

    /// The next piece if it is here already.
    pub(crate) fn next_now(&mut self) -> Option<Bytes> {
        self.pipe.next_now()
    }

    /// After the last: the fields that stand behind the content.
    pub(crate) fn trailers(&mut self) -> Option<FieldLines> {
        self.pipe.trailers()
    }
}

/// Takes a response off its origin.
struct Pump<O> {
    origin: O,
    source: Framed,
    /// What the origin has not yet been sent of the request.
    unsent: Option<Unsent>,
    /// The origin has closed the connection, as it may.
    ends_with_connection: bool,
    pipe: pipe::Writer,
}

impl<O: Origin> Pump<O> {
    async fn run(mut self, begun: Bytes) {
        let taken = self.take(begun).await;
        let Self {
            origin,
            unsent,
            ends_with_connection,
            pipe,
            ..
        } = self;
        let end = match taken {
            Taken::All => {
                if ends_with_connection {
                    drop(origin);
                } else {
                    finish(origin, unsent.as_ref());
                }
                Ok(())
            }
            // Closing the connection tells the origin.
            Taken::ForNobody => return drop(origin),
            Taken::Ended => Err(origin.ended().await),
            Taken::Silent => Err(origin.late(origin.silence().unwrap_or_default())),
            Taken::Failed(failure) => {
                drop(origin);
                Err(failure)
            }
        };
        pipe.end(end);
    }

    /// Reads to the end, or until the client has left.
    async fn take(&mut self, mut piece: Bytes) -> Taken {
        loop {
            if !piece.is_empty()
                && self.pipe.write(piece, self.origin.stalls()).await == Err(pipe::Gone)
            {
                return Taken::ForNobody;
            }
            piece = match self.next().await {
                Ok(piece) => piece,
                Err(taken) => return taken,
            };
        }
    }

    /// The next piece, or how there came to be none.
    async fn next(&mut self) -> Result<Bytes, Taken> {
        loop {
            let buffer = &mut self.origin.connection().wire.buffer;
            match self.source.take(buffer) {
                Ok(Piece::Data(piece)) => return Ok(piece),
                Ok(Piece::End) => return Err(Taken::All),
                Ok(Piece::NeedMore) => {}
                Err(rule) => return Err(Taken::Failed(self.origin.broke(rule))),
            }
            let read = tokio::select! {
                biased;
                read = fill_in_time(&mut self.origin, &mut self.unsent) => match read {
                    Ok(read) => read,
                    Err(Elapsed) => return Err(Taken::Silent),
                },
                () = self.pipe.gone() => return Err(Taken::ForNobody),
            };
            match read {
                Ok(Ok(0)) if matches!(self.source, Framed::UntilClose) => {
                    self.ends_with_connection = true;
                    return Err(Taken::All);
                }
                // Whatever the kernel calls it, the other end is gone.
                Ok(Ok(0) | Err(_)) => return Err(Taken::Ended),
                Ok(Ok(_)) => {}
                Err(failure) => return Err(Taken::Failed(failure)),
            }
        }
    }
}

/// How taking a response ended.
enum Taken {
    All,
    /// The client has left.
    ForNobody,
    /// The connection ended first.
    Ended,
    /// Nothing came for longer than the origin may be silent.
    Silent,
    Failed(Failure),
}

/// Reads more, within the silence that the origin is allowed.
async fn fill_in_time(
    origin: &mut impl Origin,
    unsent: &mut Option<Unsent>,
) -> Result<Result<io::Result<usize>, Failure>, Elapsed> {
    let silence = origin.silence();
    let Connection { wire, timer, .. } = origin.connection();
    let work = fill(wire, unsent);
    match silence {
        Some(silence) => timer.bound(Instant::now() + silence, work).await,
        None => Ok(work.await),
    }
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
        sent = rest.send(socket, None) => match sent {
            Ok(()) => *unsent = None,
            // It may still answer.
            Err(SendError::Origin | SendError::Late) => {}
            Err(SendError::File(error)) => return Err(Failure::Spool(error)),
        },
    }
    Ok(read.await)
}
