//! One request and its response on a stream, through the same exchange as HTTP/1.1's.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use message::{frame::Code, framing::Body, head::RequestHead};
use telemetry::panics;
use tokio::time::timeout;

use super::{
    duct::Duct,
    session::{Gone, Opened, Session, Taken},
};
use crate::{
    exchange,
    failure::Failure,
    journal::Journal,
    origin::{interim::Interim, live::Duplex},
    plan::Plan,
    request::{Peer, Upload},
    response::{Content, FieldLines, Pieces, Response},
    upstream::{Passed, Tunnel},
};

/// A stream of a session. All of a connection's streams and the connection itself are one task, so nobody ever waits for the
/// lock; and since that task polls a stream whenever something happens to it, no waker is kept.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) session: Arc<Mutex<Session>>,
    pub(super) place: usize,
}

impl Handle {
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        panics::lock(&self.session)
    }

    fn is_gone(&self) -> bool {
        self.session().is_gone(self.place)
    }

    /// Resolves when the client has left the stream.
    async fn gone(&self) {
        poll_fn(|_| match self.is_gone() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// Answers it.
pub(super) async fn answer(opened: Opened, handle: Handle, plan: Arc<Plan>, peer: Arc<Peer>) {
    let mut journal = Journal::begin();
    let Opened { head, framing, .. } = opened;
    let (head, response) = match head {
        // One that was cancelled with its first breath costs no more than a line.
        Ok(head) if handle.is_gone() => {
            journal.fail(&Failure::ClientLeft);
            return journal.record(&plan, &peer, Some(&head), LEFT, 0);
        }
        Ok(head) => {
            let mut upload = Incoming::new(&handle, framing, &head);
            let response = exchange::respond(&plan, &peer, &head, &mut upload, &mut journal).await;
            (Some(head), response)
        }
        Err(refusal) => (None, exchange::refuse(&plan, refusal.into(), &mut journal)),
    };
    if let Content::Tunnel(tunnel) = response.content {
        let passed = run_tunnel(tunnel, &response.fields, &handle, &plan).await;
        journal.received = passed.up;
        return journal.record(&plan, &peer, head.as_ref(), TUNNELLED, passed.down);
    }
    let status = response.status;
    let goes_on = match &response.content {
        Content::Duplex(duplex) => Some(duplex.live.received()),
        _ => None,
    };
    let mut sent = 0;
    if !journal.client_left() {
        let mut sending = Sending {
            handle: &handle,
            patience: plan.limits.send_timeout,
            sent: &mut sent,
        };
        if let Err(failure) = sending.send(response).await {
            journal.fail(&failure);
            handle.session().send_reset(handle.place, failure.code());
        } else if head.is_none() && status == MALFORMED {
            // RFC 9113 §8.1.1: a malformed request is a stream error, be it that it was answered.
            handle.session().send_reset(handle.place, Code::Protocol);
        }
    } else {
        handle.session().send_reset(handle.place, Code::Cancel);
    }
    if let Some(received) = goes_on {
        journal.received = received.load(Ordering::Relaxed);
    }
    journal.record(&plan, &peer, head.as_ref(), status, sent);
}

/// What the log says of a client that left, as nginx has it.
const LEFT: u16 = 499;
const MALFORMED: u16 = 400;

/// What 101 is in HTTP/2 (RFC 8441 §4).
const TUNNELLED: u16 = 200;

/// From the answer that opens a tunnel to its end.
async fn run_tunnel(
    tunnel: Box<Tunnel>,
    fields: &FieldLines,
    handle: &Handle,
    plan: &Plan,
) -> Passed {
    let opened = handle
        .session()
        .send_head(handle.place, TUNNELLED, fields.iter(), false);
    if opened.is_err() {
        return Passed::default();
    }
    let idle = plan.limits.tunnel_timeout;
    let passed = tunnel.run(&mut Duct(handle), BytesMut::new(), idle).await;
    let mut session = handle.session();
    if session.is_open(handle.place) {
        // RFC 8441 §5: what a reset is to a connection.
        session.send_reset(handle.place, Code::Cancel);
    }
    passed
}

/// A request's content on its stream.
struct Incoming<'s> {
    handle: &'s Handle,
    framing: Body,
    /// The client waits to be told to send (RFC 9110 §10.1.1).
    waits: bool,
}

impl<'s> Incoming<'s> {
    fn new(handle: &'s Handle, framing: Body, head: &RequestHead) -> Self {
        Self {
            handle,
            framing,
            waits: framing != Body::None && head.fields.contains("expect"),
        }
    }
}

impl Upload for Incoming<'_> {
    fn framing(&self) -> Body {
        self.framing
    }

    fn goes_on(&self) -> bool {
        self.framing != Body::None
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Handle { place, .. } = *self.handle;
        if std::mem::take(&mut self.waits) {
            let mut session = self.handle.session();
            session
                .send_head(place, 100, std::iter::empty(), false)
                .map_err(left)?;
        }
        poll_fn(|_| match self.handle.session().take(place, usize::MAX) {
            Taken::Content(content) => Poll::Ready(Ok(Some(content))),
            Taken::End => Poll::Ready(Ok(None)),
            Taken::Nothing => Poll::Pending,
            Taken::Refused(refusal) => Poll::Ready(Err(refusal.into())),
            Taken::Gone => Poll::Ready(Err(Failure::ClientLeft)),
        })
        .await
    }

    async fn left(&mut self) {
        self.handle.gone().await;
    }

    async fn inform(&mut self, interims: Vec<Interim>) -> Result<(), Failure> {
        let mut session = self.handle.session();
        interims.iter().try_for_each(|Interim { status, fields }| {
            session
                .send_head(self.handle.place, *status, fields.iter(), false)
                .map_err(left)
        })
    }
}

fn left(_: Gone) -> Failure {
    Failure::ClientLeft
}

/// A response on its way out.
struct Sending<'s> {
    handle: &'s Handle,
    patience: Duration,
    sent: &'s mut u64,
}

impl Sending<'_> {
    async fn send(&mut self, response: Response) -> Result<(), Failure> {
        let empty = match &response.content {
            Content::None | Content::Head(_) | Content::Tunnel(_) => true,
            content => content.length() == Some(0),
        };
        self.head(&response, empty)?;
        if empty {
            return Ok(());
        }
        match response.content {
            // A tunnel is not sent, but run.
            Content::None | Content::Head(_) | Content::Tunnel(_) => Ok(()),
            Content::Bytes(bytes) => self.content(bytes, true).await,
            Content::File(mut file) => {
                while let Some(piece) = file.next().await.map_err(Failure::FileUnreadable)? {
                    self.content(piece, false).await?;
                }
                self.content(Bytes::new(), true).await
            }
            Content::Relay(relay) => self.pieces(relay).await,
            Content::Encoded(encoded) => self.pieces(*encoded).await,
            Content::Duplex(duplex) => self.both(*duplex).await,
        }
    }

    /// Sends the response while the request goes on. The response is the end of both: what the client might still say, nobody
    /// asks for any more.
    async fn both(&mut self, Duplex { relay, mut live }: Duplex) -> Result<(), Failure> {
        let mut upload = Incoming {
            handle: self.handle,
            framing: Body::Chunked,
            waits: false,
        };
        let mut bring = std::pin::pin!(live.bring(&mut upload));
        let mut send = std::pin::pin!(self.pieces(relay));
        tokio::select! {
            brought = &mut bring => brought?,
            sent = &mut send => return sent,
        }
        send.await
    }

    /// Sends content that is still coming. As in HTTP/1.1, a client that leaves in the middle is noticed even while the app
    /// says nothing.
    async fn pieces(&mut self, mut pieces: impl Pieces) -> Result<(), Failure> {
        while let Some(piece) = self.unless_left(pieces.next()).await? {
            self.content(piece?, false).await?;
        }
        match pieces.trailers() {
            Some(trailers) => self
                .handle
                .session()
                .send_trailers(self.handle.place, trailers.iter())
                .map_err(left),
            None => self.content(Bytes::new(), true).await,
        }
    }

    fn head(&self, response: &Response, empty: bool) -> Result<(), Failure> {
        let mut digits = [0; 20];
        let length = match response.content {
            Content::None => None,
            _ => response.content.length(),
        };
        let length = length.map(|length| (&b"content-length"[..], decimal(length, &mut digits)));
        let fields = response.fields.iter().chain(length);
        let mut session = self.handle.session();
        session
            .send_head(self.handle.place, response.status, fields, empty)
            .map_err(left)
    }

    /// Sends a piece as the client's windows and the connection take it. A window that stays shut is not waited for longer
    /// than for a client that does not read (CVE-2019-9517, CVE-2026-49975).
    async fn content(&mut self, mut content: Bytes, last: bool) -> Result<(), Failure> {
        loop {
            let before = content.len();
            self.handle
                .session()
                .send_content(self.handle.place, &mut content, last)
                .map_err(left)?;
            *self.sent += (before - content.len()) as u64;
            if content.is_empty() {
                return Ok(());
            }
            timeout(self.patience, self.room(&mut content, last))
                .await
                .map_err(|_| Failure::ClientStalled)??;
        }
    }

    /// Resolves when something more has been sent.
    async fn room(&mut self, content: &mut Bytes, last: bool) -> Result<(), Failure> {
        let before = content.len();
        poll_fn(|_| {
            let sent = self
                .handle
                .session()
                .send_content(self.handle.place, content, last);
            match sent {
                Err(Gone) => Poll::Ready(Err(Failure::ClientLeft)),
                Ok(()) if content.len() == before => Poll::Pending,
                Ok(()) => {
                    *self.sent += (before - content.len()) as u64;
                    Poll::Ready(Ok(()))
                }
            }
        })
        .await
    }

    /// What comes of the work, unless the client leaves before.
    async fn unless_left<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.handle.gone() => Err(Failure::ClientLeft),
        }
    }
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}
