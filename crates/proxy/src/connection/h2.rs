//! HTTP/2 (RFC 9113), by the `h2` crate: many requests at once, each through the same exchange as HTTP/1.1's.
//!
//! A request is turned into the head that HTTP/1.1 would have sent, so that one set of rules decides about both; what
//! HTTP/1.1 could not carry is refused (§8.2.1, §8.3.1).

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::header::{COOKIE, HOST};
use message::{
    field::Fields,
    framing::{self, Body},
    head::{Limits, Method, RequestHead, Version},
    refusal::Refusal,
};
use tokio::time::{Instant, sleep_until, timeout};

use super::Stream;
use crate::{
    exchange,
    failure::Failure,
    journal::Journal,
    plan::Plan,
    request::{Peer, Upload},
    response::{Content, Response},
    server::Server,
};

/// What a client may send of one request's content before we have read it; larger costs memory, smaller costs round trips.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that a client may open and reset before we look at them (CVE-2023-44487, rapid reset).
const PENDING_RESETS: usize = 20;
/// Streams that we reset ourselves because of a client's errors (CVE-2025-8671, MadeYouReset).
const LOCAL_RESETS: usize = 200;
/// How much of a response waits in memory for one stream's window.
const SEND_BUFFER: usize = 256 * 1024;

/// How long a client may take to say that it has seen our farewell, once none of its requests is left. One that never does
/// would otherwise keep its connection for as long as it likes.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub(super) async fn serve(stream: impl Stream, peer: Peer, server: Arc<Server>) {
    let plan = server.plan();
    let handshake = builder(&plan).handshake::<_, Bytes>(stream);
    let Ok(Ok(mut connection)) = timeout(plan.limits.head_timeout, handshake).await else {
        return;
    };
    let idle = plan.limits.keepalive_timeout;
    let oldest = Instant::now() + plan.limits.keepalive_age;
    let most = plan.limits.keepalive_requests;
    drop(plan);
    let (peer, streams) = (Arc::new(peer), Arc::new(()));
    let mut stop = server.stopping();
    let mut served = 0;
    let mut leaving = false;
    let mut look = Instant::now() + idle;
    loop {
        let leave = tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let stream = answer(request, respond, server.plan(), Arc::clone(&peer));
                    let counted = Arc::clone(&streams);
                    tokio::spawn(async move {
                        stream.await;
                        drop(counted);
                    });
                    served += 1;
                    look = Instant::now() + if leaving { FAREWELL } else { idle };
                    served >= most
                }
                Some(Err(error)) => {
                    tracing::debug!("HTTP/2 connection of {:?}: {error}", peer.address);
                    return;
                }
                None => return,
            },
            () = &mut stop, if !leaving => true,
            () = sleep_until(look.min(oldest)), if !leaving => {
                look = Instant::now() + idle;
                Arc::strong_count(&streams) == 1 || Instant::now() >= oldest
            }
            () = sleep_until(look), if leaving => {
                if Arc::strong_count(&streams) == 1 {
                    return;
                }
                look = Instant::now() + FAREWELL;
                false
            }
        };
        if leave && !leaving {
            leaving = true;
            look = Instant::now() + FAREWELL;
            connection.graceful_shutdown();
        }
    }
}

fn builder(plan: &Plan) -> server::Builder {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(small(plan.limits.h2_streams))
        .max_header_list_size(small(plan.limits.head))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// One stream.
async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    plan: Arc<Plan>,
    peer: Arc<Peer>,
) {
    let mut journal = Journal::begin();
    let (parts, body) = request.into_parts();
    let parsed =
        head(&parts, &plan.head_limits).and_then(|head| Ok((framing::of_request(&head)?, head)));
    let (head, response) = match parsed {
        Ok((stated, head)) => {
            let mut upload = Incoming::new(body, stated, &head, &mut respond);
            let response = exchange::respond(&plan, &peer, &head, &mut upload, &mut journal).await;
            (Some(head), response)
        }
        Err(refusal) => (None, exchange::refuse(&plan, refusal.into(), &mut journal)),
    };
    let status = response.status;
    let mut sent = 0;
    if journal.client_left() {
        respond.send_reset(Reason::CANCEL);
    } else if let Err(failure) = send(response, &mut respond, &plan, &mut sent).await {
        journal.fail(&failure);
        respond.send_reset(Reason::INTERNAL_ERROR);
    }
    journal.record(&plan.log, &peer, head.as_ref(), status, sent);
}

/// The head that HTTP/1.1 would have sent, within the same limits.
fn head(parts: &http::request::Parts, limits: &Limits) -> Result<RequestHead, Refusal> {
    let target = match parts.uri.path_and_query() {
        Some(target) => target.as_str(),
        None => "/",
    };
    let line = parts.method.as_str().len() + target.len() + " HTTP/1.1\r\n ".len();
    if line > limits.line {
        return Err(Refusal::LineTooLong);
    }
    // Each crumb of a cookie counts: HPACK makes thousands of them out of a few bytes (CVE-2026-49975).
    if parts.headers.len() > limits.fields {
        return Err(Refusal::TooManyFields);
    }
    let host = host(parts)?;
    let cookie = cookie(&parts.headers);
    let lines = parts
        .headers
        .iter()
        .filter(|(name, _)| !(*name == HOST || cookie.is_some() && *name == COOKIE))
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let host = host.map(|host| (&b"host"[..], host));
    let joined = cookie.as_deref().map(|cookie| (&b"cookie"[..], cookie));
    let fields = Fields::from_pairs(host.into_iter().chain(lines).chain(joined));
    fields.check()?;
    Ok(RequestHead {
        method: Method::parse(&Bytes::copy_from_slice(parts.method.as_str().as_bytes()))?,
        target: Bytes::copy_from_slice(target.as_bytes()),
        version: Version::Http2,
        fields,
    })
}

/// `:authority`, or Host where there is none; where there are both, they must agree (RFC 9113 §8.3.1).
fn host(parts: &http::request::Parts) -> Result<Option<&[u8]>, Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Refusal::RepeatedHost);
    }
    let authority = parts.uri.authority();
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Refusal::AuthorityMismatch)
        }
        (authority, host) => Ok(authority.or(host)),
    }
}

/// The crumbs that browsers make of their cookies, as one field again (RFC 9113 §8.2.3): an app would read only one of them.
fn cookie(headers: &http::HeaderMap) -> Option<Vec<u8>> {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (first, second) = (crumbs.next()?, crumbs.next()?);
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    Some(whole)
}

/// A request's content on its stream.
struct Incoming<'s> {
    body: RecvStream,
    framing: Body,
    /// The client waits to be told to send (RFC 9110 §10.1.1).
    waits: bool,
    respond: &'s mut SendResponse<Bytes>,
}

impl<'s> Incoming<'s> {
    fn new(
        body: RecvStream,
        stated: Body,
        head: &RequestHead,
        respond: &'s mut SendResponse<Bytes>,
    ) -> Self {
        let framing = match stated {
            _ if body.is_end_stream() => Body::None,
            Body::Length(length) => Body::Length(length),
            // Until the stream ends: what chunks are in HTTP/1.1.
            _ => Body::Chunked,
        };
        Self {
            body,
            framing,
            waits: framing != Body::None && head.fields.contains("expect"),
            respond,
        }
    }

    /// Tells a client that waits to go on.
    fn go_on(&mut self) -> Result<(), Failure> {
        let mut head = http::Response::new(());
        *head.status_mut() = http::StatusCode::CONTINUE;
        self.respond.send_informational(head).map_err(gone)
    }
}

impl Upload for Incoming<'_> {
    fn framing(&self) -> Body {
        self.framing
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if std::mem::take(&mut self.waits) {
            self.go_on()?;
        }
        loop {
            let Some(piece) = self.body.data().await else {
                return Ok(None);
            };
            let piece = piece.map_err(|_| Failure::ClientLeft)?;
            // What has been taken may be sent again; what is kept is bounded by whoever keeps it.
            self.body
                .flow_control()
                .release_capacity(piece.len())
                .map_err(|_| Failure::ClientLeft)?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    async fn left(&mut self) {
        // Whatever the reason, the stream is gone.
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }
}

async fn send(
    response: Response,
    respond: &mut SendResponse<Bytes>,
    plan: &Plan,
    sent: &mut u64,
) -> Result<(), Failure> {
    let length = response.content.length();
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(response.status).map_err(gone)?;
    for (name, value) in response.fields.iter() {
        let name = http::HeaderName::from_bytes(name).map_err(gone)?;
        head.headers_mut()
            .append(name, http::HeaderValue::from_bytes(value).map_err(gone)?);
    }
    if let (Some(length), false) = (length, matches!(response.content, Content::None)) {
        head.headers_mut()
            .insert(http::header::CONTENT_LENGTH, length.into());
    }
    let empty = match &response.content {
        Content::None | Content::Head(_) => true,
        Content::Bytes(bytes) => bytes.is_empty(),
        Content::File(_) | Content::Relay(_) => length == Some(0),
    };
    let mut stream = respond.send_response(head, empty).map_err(gone)?;
    if empty {
        return Ok(());
    }
    let mut out = Outgoing {
        stream: &mut stream,
        patience: plan.limits.send_timeout,
        sent,
    };
    match response.content {
        Content::None | Content::Head(_) => Ok(()),
        Content::Bytes(bytes) => out.data(bytes, true).await,
        Content::File(mut file) => {
            while let Some(piece) = file.next().await.map_err(Failure::FileUnreadable)? {
                out.data(piece, false).await?;
            }
            out.end()
        }
        Content::Relay(mut relay) => {
            // As in HTTP/1.1: a client that leaves in the middle is noticed even while the app says nothing.
            while let Some(piece) = out.unless_left(relay.next()).await? {
                out.data(piece?, false).await?;
            }
            out.end()
        }
    }
}

/// The stream takes nothing more; whatever the library calls it, the client no longer listens to this stream.
fn gone<E>(_: E) -> Failure {
    Failure::ClientLeft
}

/// A response's content on its stream.
struct Outgoing<'s> {
    stream: &'s mut SendStream<Bytes>,
    patience: Duration,
    sent: &'s mut u64,
}

impl Outgoing<'_> {
    /// Sends a piece as the client's window takes it. A window that stays shut is not waited for longer than for a client
    /// that does not read (CVE-2019-9517).
    async fn data(&mut self, mut bytes: Bytes, last: bool) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len()).await?;
            let piece = bytes.split_to(room.min(bytes.len()));
            *self.sent += piece.len() as u64;
            let end = last && bytes.is_empty();
            self.stream.send_data(piece, end).map_err(gone)?;
        }
        Ok(())
    }

    /// What comes of the work, unless the client resets the stream or closes the connection before.
    async fn unless_left<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = poll_fn(|cx| self.stream.poll_reset(cx)) => Err(Failure::ClientLeft),
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.stream.send_data(Bytes::new(), true).map_err(gone)
    }

    fn room(&mut self, wanted: usize) -> impl Future<Output = Result<usize, Failure>> {
        self.stream.reserve_capacity(wanted);
        async {
            loop {
                let room = self.stream.capacity();
                if room > 0 {
                    return Ok(room);
                }
                let more = poll_fn(|cx| self.stream.poll_capacity(cx));
                match timeout(self.patience, more).await {
                    Ok(Some(Ok(_))) => {}
                    _ => return Err(Failure::ClientLeft),
                }
            }
        }
    }
}
