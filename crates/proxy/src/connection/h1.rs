//! HTTP/1.1 and 1.0 (RFC 9112): one request after the other, each answered before the next is read.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use message::{
    framing::{self, Body, Piece},
    head::{RequestHead, Version},
    refusal::Refusal,
    status,
};
use tokio::time::Instant;

use super::{
    Stream,
    wire::{Lost, Next, Wire},
};
use crate::{
    boxed::boxed,
    exchange,
    failure::Failure,
    files::{FileContent, Segment, truncated},
    framed::Framed,
    journal::Journal,
    origin::interim::Interim,
    plan::Plan,
    put::{put, put_line},
    request::{Peer, Upload},
    response::{Content, FieldLines, Pieces, Response},
    server::Server,
    upstream::{Passed, Tunnel},
};

/// How much of a file is made sure of in the page cache before the kernel sends it.
const FILE_WINDOW: u64 = 1024 * 1024;

/// Nearly every response's head, so that it is put together without growing.
const HEAD: usize = 512;

/// Content up to this size is copied behind its head, so that both leave in one plain write.
const COPIED: usize = 16 * 1024;

/// Serves a connection to its end. `begun` has been read of it.
///
/// What a request needs is allocated with it: a connection rests for most of its life, and would hold room for the largest.
pub(super) async fn serve(stream: impl Stream, peer: Peer, server: Arc<Server>, begun: BytesMut) {
    let born = Instant::now();
    // What a connection at rest has of a plan, which it does not hold.
    let (mut head, mut patience) = {
        let plan = server.plan();
        (plan.head_limits, plan.limits.head_timeout)
    };
    let mut idle = patience;
    let mut wire = Wire::new(stream, idle, server.idle_ends());
    wire.buffer = begun;
    let mut served = 0;
    let end = loop {
        let next = wire.next_head(&head, idle, patience).await;
        let now = Instant::now();
        // What is served when it comes, and not when the last one had been answered: that may be a minute ago.
        let plan = server.plan();
        let limits = &plan.limits;
        served += 1;
        let last = served >= limits.keepalive_requests
            || now - born >= limits.keepalive_age
            || server.is_stopping();
        let end = match next {
            Next::Closed => End::Clean,
            Next::Head(head) => {
                let turn = Turn {
                    plan: &plan,
                    peer: &peer,
                    wire: &mut wire,
                    now,
                    last,
                };
                boxed(|| turn.take(head)).await
            }
            Next::Refused(refusal) => {
                let came = std::mem::take(&mut wire.buffer);
                Box::pin(refuse(&mut wire, &plan, &peer, refusal.into(), &came)).await
            }
            Next::Late => {
                let late = Failure::HeadTimeout(limits.head_timeout);
                let came = std::mem::take(&mut wire.buffer);
                Box::pin(refuse(&mut wire, &plan, &peer, late, &came)).await
            }
        };
        if end != End::KeepAlive {
            break end;
        }
        idle = limits.keepalive_timeout;
        (head, patience) = (plan.head_limits, limits.head_timeout);
    };
    match end {
        End::Cut => wire.cut(),
        end => wire.close(end == End::StillSending).await,
    }
}

/// Answers a connection that does not speak what it should, and ends it.
pub(super) async fn reject(stream: impl Stream, peer: &Peer, server: &Server, refusal: Refusal) {
    let plan = server.plan();
    let mut wire = Wire::new(stream, plan.limits.send_timeout, server.stopping());
    refuse(&mut wire, &plan, peer, refusal.into(), b"").await;
    wire.close(true).await;
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Another request may come.
    KeepAlive,
    /// It is closed; nothing is unread.
    Clean,
    /// It is closed, and the client may not have finished sending.
    StillSending,
    /// It is dropped without a farewell: what was sent is not whole, and over TLS the missing `close_notify` says so even
    /// where nothing else does (RFC 9112 §9.8).
    Cut,
}

/// Answers what is not a request; this is what came in its place.
async fn refuse(
    wire: &mut Wire<impl Stream>,
    plan: &Plan,
    peer: &Peer,
    failure: Failure,
    came: &[u8],
) -> End {
    let mut journal = Journal::begin();
    journal.refused(came);
    let response = exchange::refuse(plan, failure, &mut journal);
    let status = response.status;
    let mut sending = Sending {
        wire,
        plan,
        version: Version::Http11,
        keep: Keep::No,
        sent: 0,
    };
    // A client that does not take its refusal needs none.
    let _ = sending.send(response, &mut journal).await;
    let sent = sending.sent;
    journal.record(plan, peer, None, status, sent);
    End::StillSending
}

/// One request and its response.
struct Turn<'c, S> {
    plan: &'c Plan,
    peer: &'c Peer,
    wire: &'c mut Wire<S>,
    /// When it had come.
    now: Instant,
    /// Whether the connection ends with this response.
    last: bool,
}

impl<S: Stream> Turn<'_, S> {
    async fn take(self, came: Bytes) -> End {
        let Self {
            plan,
            peer,
            wire,
            now,
            last,
        } = self;
        let parsed = RequestHead::parse(&came, &plan.head_limits)
            .and_then(|head| framing::of_request(&head).map(|framing| (head, framing)));
        let (head, framing) = match parsed {
            Ok(parsed) => parsed,
            Err(refusal) => {
                return Box::pin(refuse(wire, plan, peer, refusal.into(), &came)).await;
            }
        };
        drop(came);
        let mut journal = Journal::begin_at(now.into_std());
        let mut upload = Incoming::new(wire, framing, &head);
        let response = exchange::respond(plan, peer, &head, &mut upload, &mut journal).await;
        let unread = !upload.is_complete();
        if journal.client_left() {
            journal.record(plan, peer, Some(&head), response.status, 0);
            return End::Cut;
        }
        if let Content::Tunnel(tunnel) = response.content {
            let opened = Opened {
                status: response.status,
                fields: response.fields,
                tunnel,
            };
            let passed = Box::pin(opened.run(wire, plan)).await;
            journal.received = passed.up;
            journal.record(plan, peer, Some(&head), response.status, passed.down);
            return End::Clean;
        }
        let keep = Keep::decide(last || unread || journal.closes(), &head);
        let status = response.status;
        let mut sending = Sending {
            wire,
            plan,
            version: head.version,
            keep,
            sent: 0,
        };
        let end = match sending.send(response, &mut journal).await {
            Ok(()) if sending.keep != Keep::No => End::KeepAlive,
            Ok(()) if unread => End::StillSending,
            Ok(()) => End::Clean,
            Err(lost) => {
                journal.fail(&lost.into());
                End::Cut
            }
        };
        let sent = sending.sent;
        journal.record(plan, peer, Some(&head), status, sent);
        end
    }
}

/// The answer that opens a tunnel (RFC 9110 §15.2.2), and the tunnel.
struct Opened {
    status: u16,
    fields: FieldLines,
    tunnel: Box<Tunnel>,
}

impl Opened {
    /// From the 101 to the end of the tunnel, which is the end of the connection.
    async fn run(self, wire: &mut Wire<impl Stream>, plan: &Plan) -> Passed {
        let out = &mut wire.out;
        out.clear();
        let reason = status::reason(self.status);
        out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", self.status).as_bytes());
        self.fields.write_to(out);
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
        out.extend_from_slice(self.tunnel.protocol());
        out.extend_from_slice(b"\r\n\r\n");
        let patience = plan.limits.send_timeout;
        if wire.write_out(b"", patience).await.is_err() || wire.flush(patience).await.is_err() {
            return Passed::default();
        }
        let (stream, early) = wire.tunnelled();
        self.tunnel
            .run(stream, early, plan.limits.tunnel_timeout)
            .await
    }
}

/// Whether the connection persists after a response (RFC 9112 §9.3), and whether that must be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Nothing to say: it is HTTP/1.1's default.
    Yes,
    /// HTTP/1.0 must be told.
    Told,
    /// It is closed.
    No,
}

impl Keep {
    fn decide(last: bool, head: &RequestHead) -> Self {
        match head.version {
            _ if last || !head.keep_alive() => Self::No,
            Version::Http10 => Self::Told,
            _ => Self::Yes,
        }
    }
}

/// A request's content on this connection.
struct Incoming<'w, S> {
    wire: &'w mut Wire<S>,
    framing: Body,
    framed: Framed,
    head: &'w RequestHead,
    /// The client waits to be told to send (RFC 9110 §10.1.1).
    waits: bool,
    complete: bool,
}

impl<'w, S: Stream> Incoming<'w, S> {
    fn new(wire: &'w mut Wire<S>, framing: Body, head: &'w RequestHead) -> Self {
        let empty = matches!(framing, Body::None | Body::Length(0));
        let waits = !empty && head.version == Version::Http11 && head.fields.contains("expect");
        Self {
            wire,
            framing,
            framed: Framed::new(framing),
            head,
            waits,
            complete: empty,
        }
    }

    /// Whether all content has been read, be it only to throw it away. What has arrived already costs nothing to skip.
    fn is_complete(&mut self) -> bool {
        while !self.complete && !self.waits {
            match self.framed.take(&mut self.wire.buffer) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::End) => self.complete = true,
                Ok(Piece::NeedMore) | Err(_) => return false,
            }
        }
        self.complete
    }
}

impl<S: Stream> Upload for Incoming<'_, S> {
    fn framing(&self) -> Body {
        self.framing
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.complete {
            match self.framed.take(&mut self.wire.buffer)? {
                Piece::Data(piece) => {
                    self.waits = false;
                    return Ok(Some(piece));
                }
                Piece::End => self.complete = true,
                Piece::NeedMore => {
                    if std::mem::take(&mut self.waits) {
                        self.wire.interim(100, &FieldLines::default()).await?;
                    }
                    if !self.wire.fill().await {
                        return Err(Failure::ClientLeft);
                    }
                }
            }
        }
        Ok(None)
    }

    async fn left(&mut self) {
        self.wire.left().await;
    }

    async fn inform(&mut self, interims: Vec<Interim>) -> Result<(), Failure> {
        if !knows_interim(self.head) {
            return Ok(());
        }
        for Interim { status, fields } in interims {
            self.wire.interim(status, &fields).await?;
        }
        Ok(())
    }
}

/// Whether the client takes interim responses for what they are. All that HTTP/1.1 says of it (RFC 9110 §15.2) is not true of
/// Python's `http.client`, and so of `requests`: it takes any but 100 for the answer. Browsers say that they are such, also
/// through another proxy before us.
fn knows_interim(head: &RequestHead) -> bool {
    head.version == Version::Http11 && head.fields.contains("sec-fetch-mode")
}

/// A response on its way out.
struct Sending<'c, S> {
    wire: &'c mut Wire<S>,
    plan: &'c Plan,
    version: Version,
    keep: Keep,
    /// How much content has left.
    sent: u64,
}

impl<S: Stream> Sending<'_, S> {
    async fn send(&mut self, response: Response, journal: &mut Journal) -> Result<(), Lost> {
        let patience = self.plan.limits.send_timeout;
        let framing = Outgoing::decide(&response.content, self.version);
        if framing == Outgoing::UntilClose {
            self.keep = Keep::No;
        }
        self.head(&response, framing);
        match response.content {
            Content::None | Content::Head(_) | Content::Tunnel(_) => {
                self.wire.write_out(b"", patience).await?
            }
            Content::Bytes(bytes) if bytes.len() <= COPIED => {
                self.wire.out.extend_from_slice(&bytes);
                self.wire.write_out(b"", patience).await?;
                self.sent = bytes.len() as u64;
            }
            Content::Bytes(bytes) => {
                self.wire.write_out(&bytes, patience).await?;
                self.sent = bytes.len() as u64;
            }
            Content::File(file) => {
                let sent = Box::pin(self.file(file)).await;
                sent.map_err(|failure| {
                    journal.fail(&failure);
                    Lost::Left
                })?;
            }
            Content::Relay(relay) => {
                Box::pin(self.relay(relay, framing.chunked(), journal)).await?;
            }
            Content::Encoded(encoded) => {
                Box::pin(self.relay(*encoded, framing.chunked(), journal)).await?;
            }
            // Nothing goes on beside a response of HTTP/1.1 (`Upload::goes_on`).
            Content::Duplex(duplex) => {
                Box::pin(self.relay(duplex.relay, framing.chunked(), journal)).await?;
            }
        }
        self.wire.out.clear();
        self.wire.flush(patience).await
    }

    /// A response that is still coming, as it comes. Whether the client is still there is watched meanwhile: an app that has
    /// nothing to say for an hour, as with events, would otherwise keep its slot for nobody.
    async fn relay(
        &mut self,
        mut relay: impl Pieces,
        chunked: Chunked,
        journal: &mut Journal,
    ) -> Result<(), Lost> {
        let patience = self.plan.limits.send_timeout;
        // The head need not wait for content that is slow to come.
        if let Some(piece) = relay.next_now() {
            self.piece(&piece, chunked).await?;
        } else {
            self.wire.write_out(b"", patience).await?;
            self.wire.out.clear();
            self.wire.flush(patience).await?;
        }
        loop {
            let next = tokio::select! {
                biased;
                next = relay.next() => next,
                () = self.wire.left() => return Err(Lost::Left),
            };
            match next {
                Some(piece) => self.relayed(piece, chunked, journal).await?,
                None => break,
            }
        }
        if chunked == Chunked::Yes {
            self.wire.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.wire.write_out(b"", patience).await
    }

    /// A file: sent by the kernel where that can be, else read and written in pieces.
    async fn file(&mut self, mut file: FileContent) -> Result<(), Failure> {
        let patience = self.plan.limits.send_timeout;
        let left = Failure::from;
        if !self.wire.is_plain() {
            while let Some(piece) = file.next().await.map_err(Failure::FileUnreadable)? {
                self.piece(&piece, Chunked::No).await.map_err(left)?;
            }
            return Ok(());
        }
        while let Some(segment) = file.segment() {
            match segment {
                Segment::Text(text) => {
                    self.wire.out.extend_from_slice(&text);
                    self.sent += text.len() as u64;
                }
                Segment::File(range) => {
                    self.wire.write_out_and_more(patience).await.map_err(left)?;
                    self.wire.out.clear();
                    self.file_range(&file, range).await?;
                }
            }
        }
        // What stands behind the last part, if anything.
        self.wire.write_out(b"", patience).await.map_err(left)
    }

    async fn file_range(&mut self, file: &FileContent, range: Range<u64>) -> Result<(), Failure> {
        let patience = self.plan.limits.send_timeout;
        let mut at = range.start;
        while at < range.end {
            let window = at..range.end.min(at + FILE_WINDOW);
            file.fetch(window.clone())
                .await
                .map_err(Failure::FileUnreadable)?;
            let sent = self.wire.send_file(file.file(), window.clone(), patience);
            if let Err(lost) = sent.await {
                return Err(match file.file().metadata() {
                    Ok(metadata) if metadata.len() < window.end => {
                        Failure::FileUnreadable(truncated())
                    }
                    _ => lost.into(),
                });
            }
            self.sent += window.end - window.start;
            at = window.end;
        }
        Ok(())
    }

    /// A piece from a slot, or the news that there will be no more: the connection is then closed where it is, so that the
    /// client can tell that the content is not whole (RFC 9112 §8).
    async fn relayed(
        &mut self,
        piece: Result<Bytes, Failure>,
        chunked: Chunked,
        journal: &mut Journal,
    ) -> Result<(), Lost> {
        match piece {
            Ok(piece) => self.piece(&piece, chunked).await,
            Err(failure) => {
                journal.fail(&failure);
                Err(Lost::Left)
            }
        }
    }

    async fn piece(&mut self, piece: &[u8], chunked: Chunked) -> Result<(), Lost> {
        let patience = self.plan.limits.send_timeout;
        // A chunk leaves with its end: a client may wait for that before it believes the chunk.
        let end = match chunked {
            Chunked::Yes => {
                framing::chunk_head(piece.len(), &mut self.wire.out);
                &b"\r\n"[..]
            }
            Chunked::No => b"",
        };
        self.wire.write_out_and(piece, end, patience).await?;
        self.wire.out.clear();
        self.wire.flush(patience).await?;
        self.sent += piece.len() as u64;
        Ok(())
    }

    fn head(&mut self, response: &Response, framing: Outgoing) {
        // By hand: `write!` takes a tenth as long as the system call that follows.
        let out = &mut self.wire.out;
        let mut digits = itoa::Buffer::new();
        out.clear();
        out.reserve(HEAD);
        put(out, b"HTTP/1.1 ");
        put(out, digits.format(response.status).as_bytes());
        put(out, b" ");
        put(out, status::reason(response.status).as_bytes());
        put(out, b"\r\n");
        response.fields.write_to(out);
        match framing {
            Outgoing::Length(length) => {
                put_line(out, b"Content-Length", digits.format(length).as_bytes());
            }
            Outgoing::Chunked => put(out, b"Transfer-Encoding: chunked\r\n"),
            Outgoing::UntilClose | Outgoing::None => {}
        }
        match self.keep {
            Keep::Yes => {}
            Keep::Told => put(out, b"Connection: keep-alive\r\n"),
            Keep::No => put(out, b"Connection: close\r\n"),
        }
        put(out, b"\r\n");
    }
}

/// How the client learns where the content ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Whether each piece is a chunk (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunked {
    Yes,
    No,
}

impl Outgoing {
    fn chunked(self) -> Chunked {
        if self == Self::Chunked {
            Chunked::Yes
        } else {
            Chunked::No
        }
    }

    fn decide(content: &Content, version: Version) -> Self {
        match (content, content.length()) {
            (Content::None, _) => Self::None,
            (_, Some(length)) => Self::Length(length),
            // A HEAD whose GET would come in chunks may say nothing (RFC 9110 §9.3.2).
            (Content::Head(None), None) => Self::None,
            (_, None) if version == Version::Http10 => Self::UntilClose,
            (_, None) => Self::Chunked,
        }
    }
}
