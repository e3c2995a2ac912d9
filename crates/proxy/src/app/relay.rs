//! One request through one slot: the head that a worker sees, and the response taken at the slot's speed.
//!
//! A request runs at most once. Before its first byte is written the slot is known to be open; from then on a broken
//! connection is this request's failure, and it is never tried again (RFC 9110 §9.2.2 would allow it for some methods; an
//! application's author expects it for none).

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use message::{
    framing::{self, Body, Piece},
    handoff,
    head::{Method, ResponseHead},
    refusal::Refusal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{
    AppRoute,
    outbound::{passed_back, write_head},
    slot::{Connection, HeadError, Slot, Wire, Worker, read_head},
    spool::Spooled,
};
use crate::{
    control::Report,
    failure::Failure,
    files::FileContent,
    framed::Framed,
    journal::Journal,
    request::{Peer, Request},
    response::{Content, Response},
};

/// How much of a request the socket took at once: nearly always all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written(usize);

/// Writes the beginning of a request, as much as the socket takes. `None`: the worker's end is gone, and not a byte was written.
pub(crate) fn begin(
    connection: &mut Connection,
    request: &Request<'_>,
    peer: &Peer,
    body: &Spooled,
) -> Option<Written> {
    let Connection { wire, out, .. } = connection;
    write_head(out, request, peer, body);
    if let Spooled::Memory(bytes) = body {
        out.extend_from_slice(bytes);
    }
    match wire.stream.try_write(out) {
        Ok(written) => Some(Written(written)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Written(0)),
        Err(_) => None,
    }
}

/// Runs the request that was begun in the slot, up to the response head or, for a response that comes at once, to its end.
pub(crate) async fn run(
    mut slot: Slot,
    app: &AppRoute,
    request: &Request<'_>,
    body: Spooled,
    written: Written,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    let begun = Instant::now();
    let deadline = begun + app.settings.timeout;
    let (head, unsent) = match answer(slot.connection(), body, written, deadline).await {
        Ok(answered) => answered,
        Err(error) => return Err(unanswered(slot, app, request, error).await),
    };
    journal.app_time = Some(begun.elapsed());
    if let Some(what) = head.fields.get(handoff::FAILURE) {
        let what = String::from_utf8_lossy(what).into_owned();
        let worker = slot.worker().label.to_string();
        finish(slot, unsent.as_ref());
        return Err(Failure::AppFailed { worker, what });
    }
    if let Some(offset) = head.fields.get(handoff::FILE) {
        let content = file(slot.connection(), &head, offset);
        finish(slot, unsent.as_ref());
        return Ok(Response {
            status: head.status,
            fields: passed_back(&head.fields),
            content: content.map_err(Failure::Handed)?,
        });
    }
    let worker = Arc::clone(slot.worker());
    let is_head = request.head.method == Method::Head;
    let content = framing::of_response(&head, is_head)
        .and_then(|framing| content(slot, &head, is_head, framing, unsent, app.settings.ahead))
        .map_err(|rule| bad_response(&worker, rule))?;
    Ok(Response {
        status: head.status,
        fields: passed_back(&head.fields),
        content,
    })
}

/// The file that came instead of the content, and which part of it was meant.
fn file(connection: &mut Connection, head: &ResponseHead, offset: &[u8]) -> io::Result<Content> {
    let length = head.fields.get("content-length").and_then(decimal);
    let (Some(offset), Some(length)) = (decimal(offset), length) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let end = offset
        .checked_add(length)
        .ok_or(io::ErrorKind::InvalidData)?;
    let lost = || {
        // The kernel drops what this process's RLIMIT_NOFILE leaves no room for.
        io::Error::other(
            "its descriptor was lost: the limit of open files (RLIMIT_NOFILE) is too low",
        )
    };
    let descriptor = connection.wire.inbox.descriptor.take().ok_or_else(lost)?;
    Ok(Content::File(FileContent::part(
        descriptor.into(),
        offset..end,
    )))
}

fn bad_response(worker: &Worker, rule: Refusal) -> Failure {
    Failure::BadResponse {
        worker: worker.label.to_string(),
        rule,
    }
}

/// Why there is no response head.
enum Unanswered {
    Late,
    Head(HeadError),
    Spool(io::Error),
}

/// Writes the rest of the request and waits for the response head. What of the request had not left us by then comes back.
async fn answer(
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
    let (reader, mut writer) = wire.stream.split();
    let mut head = std::pin::pin!(read_head(
        reader.as_ref(),
        &mut wire.buffer,
        &mut wire.inbox
    ));
    let head = tokio::select! {
        biased;
        head = &mut head => return answered_early(head, unsent),
        sent = unsent.send(&mut writer) => match sent {
            Ok(()) => head.await,
            // What the worker has said before its end is found by the reader.
            Err(SendError::Worker) => {
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
struct Unsent {
    /// Read, and not yet written.
    piece: BytesMut,
    file: Option<tokio::fs::File>,
}

enum SendError {
    /// The worker takes no more.
    Worker,
    /// The file cannot be read.
    File(io::Error),
}

impl Unsent {
    /// Sends all of it. Cancel-safe: whatever a dropped future has not sent is still here.
    async fn send(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), SendError> {
        loop {
            while !self.piece.is_empty() {
                match to.write_buf(&mut self.piece).await {
                    Ok(1..) => {}
                    _ => return Err(SendError::Worker),
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

/// Turns a missing answer into a failure, and tells the master what it should know.
async fn unanswered(
    slot: Slot,
    app: &AppRoute,
    request: &Request<'_>,
    error: Unanswered,
) -> Failure {
    let worker = Arc::clone(slot.worker());
    match error {
        Unanswered::Late => {
            let overdue = Report::Overdue {
                worker: worker.name.clone(),
                request_id: request.id.to_string(),
            };
            app.pool.report(overdue);
            Failure::AppTimeout {
                worker: worker.label.to_string(),
                timeout: app.settings.timeout,
            }
        }
        Unanswered::Head(HeadError::Ended) => {
            drop(slot);
            ended(&worker).await
        }
        Unanswered::Head(HeadError::Broken(rule)) => bad_response(&worker, rule),
        Unanswered::Spool(error) => Failure::Spool(error),
    }
}

/// Why a worker's end of a connection is gone.
async fn ended(worker: &Worker) -> Failure {
    let label = worker.label.to_string();
    match worker.obituary().await {
        Some(how) => Failure::WorkerDied {
            worker: label,
            how: how.to_string(),
        },
        None => Failure::WorkerCut { worker: label },
    }
}

/// The response is complete: the slot is free. Where part of the request never left us, the connection is closed instead: the
/// worker would read that part as the next request.
fn finish(slot: Slot, unsent: Option<&Unsent>) {
    match unsent {
        None => slot.free(),
        Some(_) => drop(slot),
    }
}

/// The content: whole, if it is here already or arrives without a wait; else as a [`Relay`].
fn content(
    mut slot: Slot,
    head: &ResponseHead,
    is_head: bool,
    framing: Body,
    unsent: Option<Unsent>,
    ahead: usize,
) -> Result<Content, Refusal> {
    if framing == Body::None {
        finish(slot, unsent.as_ref());
        return Ok(match head.status {
            // They say nothing of a length (RFC 9110 §8.6); everything else with no content says 0.
            204 | 304 => Content::None,
            _ if is_head => Content::Head(head.fields.get("content-length").and_then(decimal)),
            _ => Content::Bytes(Bytes::new()),
        });
    }
    let mut source = Framed::new(framing);
    let wire = &mut slot.connection().wire;
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    loop {
        match source.take(&mut wire.buffer)? {
            Piece::End => {
                finish(slot, unsent.as_ref());
                return Ok(Content::Bytes(join(first, whole)));
            }
            Piece::Data(piece) if first.is_none() => first = Some(piece),
            Piece::Data(piece) => whole.extend_from_slice(&piece),
            Piece::NeedMore => {
                let held = first.as_ref().map_or(0, Bytes::len) + whole.len();
                let more = source.expects().unwrap_or(READ_MAX).clamp(1024, READ_MAX);
                if held >= ahead || !matches!(wire.fill_now(more), Ok(Some(1..))) {
                    let begun = join(first, whole);
                    return Ok(Content::Relay(Relay::start(
                        slot, source, begun, unsent, ahead,
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

fn decimal(value: &[u8]) -> Option<u64> {
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
        slot: Slot,
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
            slot,
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

/// Takes a response off its slot.
struct Pump {
    slot: Slot,
    source: Framed,
    /// What the app has not yet been sent of the request.
    unsent: Option<Unsent>,
    /// The worker has closed the connection, as it may.
    ends_with_connection: bool,
    /// How much may be held ahead of the client.
    ahead: usize,
    /// What of it is free.
    memory: Arc<Semaphore>,
    sender: mpsc::Sender<Result<Held, Failure>>,
}

impl Pump {
    async fn run(mut self, begun: Bytes) {
        if !begun.is_empty() && !self.send(begun).await {
            return;
        }
        let taken = self.take().await;
        let Self {
            slot,
            unsent,
            ends_with_connection,
            sender,
            ..
        } = self;
        match taken {
            Ok(true) if !ends_with_connection => finish(slot, unsent.as_ref()),
            // The worker has closed the connection, or the client left and closing it tells the worker.
            Ok(_) => drop(slot),
            Err(failure) => {
                drop(slot);
                // The receiver may be gone; then nobody needs to know.
                let _ = sender.send(Err(failure)).await;
            }
        }
    }

    /// Reads to the end (`true`) or until the client has left (`false`).
    async fn take(&mut self) -> Result<bool, Failure> {
        let worker = Arc::clone(self.slot.worker());
        loop {
            let wire = &mut self.slot.connection().wire;
            let piece = self
                .source
                .take(&mut wire.buffer)
                .map_err(|rule| bad_response(&worker, rule))?;
            match piece {
                Piece::End => return Ok(true),
                Piece::Data(piece) => {
                    if !self.send(piece).await {
                        return Ok(false);
                    }
                }
                Piece::NeedMore => {
                    let read = tokio::select! {
                        biased;
                        read = fill(wire, &mut self.unsent) => read?,
                        () = self.sender.closed() => return Ok(false),
                    };
                    match read {
                        Ok(0) if matches!(self.source, Framed::UntilClose) => {
                            self.ends_with_connection = true;
                            return Ok(true);
                        }
                        // Whatever the kernel calls it, the worker's end is gone.
                        Ok(0) | Err(_) => return Err(ended(&worker).await),
                        Ok(_) => {}
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

/// Reads more of the response, 0 at its end, and meanwhile sends what is left of the request.
async fn fill(wire: &mut Wire, unsent: &mut Option<Unsent>) -> Result<io::Result<usize>, Failure> {
    let Some(rest) = unsent else {
        return Ok(wire.fill().await);
    };
    wire.buffer.reserve(READ_MAX);
    let (mut reader, mut writer) = wire.stream.split();
    let mut read = std::pin::pin!(reader.read_buf(&mut wire.buffer));
    tokio::select! {
        biased;
        read = &mut read => return Ok(read),
        sent = rest.send(&mut writer) => match sent {
            Ok(()) => *unsent = None,
            // It may still answer.
            Err(SendError::Worker) => {}
            Err(SendError::File(error)) => return Err(Failure::Spool(error)),
        },
    }
    Ok(read.await)
}

#[cfg(test)]
mod tests {
    use message::{
        head::{Limits, RequestHead},
        target::Target,
    };
    use tokio::net::UnixStream;

    use super::*;
    use crate::request::{Client, RequestId};

    const LIMITS: Limits = Limits {
        line: 1024,
        head: 1024,
        fields: 10,
    };

    fn begun(ours: UnixStream) -> (Connection, Option<Written>) {
        let text = Bytes::from_static(b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let head = RequestHead::parse(text, &LIMITS).expect("a request");
        let request = Request {
            target: Target::of(&head).expect("a target"),
            head: &head,
            client: Client {
                address: None,
                port: 0,
                https: false,
            },
            id: RequestId::new(),
        };
        let peer = Peer {
            address: None,
            tls: None,
            local_port: None,
        };
        let mut connection = Connection::for_tests(ours);
        let written = begin(&mut connection, &request, &peer, &Spooled::None);
        (connection, written)
    }

    /// A worker that was killed in the same turn of the reactor as its connection was taken: epoll has not told yet, so the
    /// connection seemed open, and the request got a 502 though nobody had seen a byte of it.
    #[tokio::test]
    async fn a_request_is_not_in_a_worker_that_took_no_byte() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(begun(ours).1.is_none());
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let (connection, written) = begun(ours);
        assert_eq!(
            written.expect("somebody is there").0,
            connection.out.len(),
            "all at once"
        );
    }
}
