//! Members that speak HTTP/2 (`h2c://…`, `h2://…`), such as gRPC servers: the same requests and the same rules, in streams.
//!
//! The client's side of HTTP/2 is the `h2` crate's: here the other end is a server that the configuration names, not whoever
//! comes, so what our own engine is for (budgets against attackers, one task for all streams) is not needed.
//!
//! gRPC streams in both directions at once, so its requests are neither read whole before they are sent, nor is the response
//! held back until they are: both go on side by side, for as long as something passes.

mod connection;
mod outbound;
mod pump;
mod sender;

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, client::ResponseFuture};
use message::{
    field::Fields,
    frame::Code,
    head::{Method, ResponseHead, Version},
};
use tokio::time::Instant;

pub(super) use connection::{Connections, Part};

use super::{UpstreamRoute, member::Lease};
use crate::{
    failure::Failure,
    journal::Journal,
    origin::{
        Origin,
        head::passed_back,
        interim::{Interims, attend},
        live::Duplex,
        relay::{SendError, decimal, is_live},
        spool::{self, Spooled},
    },
    request::{Request, Upload},
    response::{Content, Response},
    timer::Timer,
};
use pump::Pump;
use sender::{Sender, Sent};

/// How often a request is sent that a member has not begun with, and has said so.
const ATTEMPTS: usize = 3;

/// Finds a member that takes the request, and brings its answer.
pub(super) async fn respond(
    route: &UpstreamRoute,
    request: &Request<'_>,
    upload: &mut impl Upload,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    if upload.goes_on() && is_grpc(&request.head.fields) {
        let (body, mut live) = route.spooling.live(request.id);
        let run = run(route, request, body, journal);
        let mut response = live.beside(upload, &request.interims, run).await?;
        if let Content::Relay(relay) = response.content {
            response.content = Content::Duplex(Box::new(Duplex { relay, live }));
        }
        return Ok(response);
    }
    let (body, feed) = spool::receive(upload, &route.spooling, request.id).await?;
    journal.received = body.length();
    let Some(feed) = feed else {
        let run = run(route, request, body, journal);
        return attend(upload, &request.interims, run).await;
    };
    let (response, received) = {
        let run = run(route, request, body, journal);
        feed.beside(upload, &request.interims, run).await
    };
    journal.received = received;
    response
}

/// `application/grpc`, `application/grpc+proto` and such; not gRPC-Web, which is made for HTTP/1.1 and streams one way.
fn is_grpc(fields: &Fields) -> bool {
    let rest = fields
        .get("content-type")
        .and_then(|value| value.split_at_checked(16))
        .filter(|(start, _)| start.eq_ignore_ascii_case(b"application/grpc"))
        .map(|(_, rest)| rest);
    matches!(rest, Some([] | [b'+' | b';' | b' ', ..]))
}

/// Has the request answered by a member, once.
async fn run(
    route: &UpstreamRoute,
    request: &Request<'_>,
    mut body: Spooled,
    journal: &mut Journal,
) -> Result<Response, Failure> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let again = body.again().filter(|_| attempts > 0);
        let (lease, part) = begin(route, journal).await?;
        journal.member = Some(lease.label());
        let head = outbound::head(request, lease.scheme(), route.stripped, &body)?;
        let call = Call { lease, part };
        match (call.run(route, request, head, body, journal).await, again) {
            (Err(Unanswered::NotBegun(_)), Some(again)) => body = again,
            (Err(Unanswered::NotBegun(failure) | Unanswered::Failed(failure)), _) => {
                return Err(failure);
            }
            (Ok(response), _) => return Ok(response),
        }
    }
}

/// A place at the member with the fewest requests, and a connection to it.
async fn begin(route: &UpstreamRoute, journal: &mut Journal) -> Result<(Lease, Part), Failure> {
    let upstream = &route.upstream;
    let mut place = upstream.place(route, journal).await?;
    let mut tried = Vec::new();
    let mut last = None;
    while let Some((index, member)) = upstream.choose(&tried) {
        let lease = Lease::new(Arc::clone(member), place);
        match member.part().await {
            Ok(part) => return Ok((lease, part)),
            Err(error) => last = Some((lease.label(), error)),
        }
        member.unreachable();
        tried.push(index);
        place = lease.into_place();
    }
    Err(upstream.unreachable(last))
}

/// Why there is no response head.
enum Unanswered {
    /// The member has not begun with the request (RFC 9113 §8.7), which may be sent again.
    NotBegun(Failure),
    Failed(Failure),
}

/// A request at a member.
struct Call {
    lease: Lease,
    part: Part,
}

impl Call {
    async fn run(
        mut self,
        route: &UpstreamRoute,
        request: &Request<'_>,
        head: http::Request<()>,
        body: Spooled,
        journal: &mut Journal,
    ) -> Result<Response, Unanswered> {
        let begun = Instant::now();
        let timeout = route.upstream.timeout;
        let sent = self
            .part
            .send
            .send_request(head, matches!(body, Spooled::None));
        let (response, stream) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                self.part.retire();
                return Err(Unanswered::NotBegun(failure(self.lease.label(), error)));
            }
        };
        let mut sender = Sender::new(stream, body);
        let answered = answer(response, &mut sender, timeout, &request.interims).await;
        let (head, content) = match answered {
            Ok(answered) => answered,
            Err(Broken::Late) => {
                // Be it the connection that is dead: the next one does not wait for this one.
                self.part.retire();
                return Err(Unanswered::Failed(self.lease.late(timeout)));
            }
            Err(Broken::Spool(error)) => return Err(Unanswered::Failed(Failure::Spool(error))),
            Err(Broken::Http2(error)) if has_not_begun(&error) => {
                self.part.retire();
                return Err(Unanswered::NotBegun(failure(self.lease.label(), error)));
            }
            Err(Broken::Http2(error)) => {
                self.lease.failed();
                return Err(Unanswered::Failed(failure(self.lease.label(), error)));
            }
        };
        journal.answered(begun);
        self.lease.answered(true);
        let fields = passed_back(&head.fields);
        Ok(Response {
            status: head.status,
            fields,
            content: self.content(&head, content, sender, route, request),
        })
    }

    /// What follows the head.
    fn content(
        self,
        head: &ResponseHead,
        content: RecvStream,
        sender: Option<Sender>,
        route: &UpstreamRoute,
        request: &Request<'_>,
    ) -> Content {
        let length = head.fields.get("content-length").and_then(decimal);
        match head.status {
            204 | 304 => return Content::None,
            _ if request.head.method == Method::Head => return Content::Head(length),
            _ if content.is_end_stream() => return Content::Bytes(Bytes::new()),
            _ => {}
        }
        let holding = match is_live(head) {
            true => route.holding.in_memory(),
            false => route.holding.clone(),
        };
        let pump = Pump {
            call: self,
            content,
            sender,
        };
        Content::Relay(pump.start(length, holding, request.id))
    }
}

/// What the end of a stream means for its request.
fn failure(member: Arc<str>, error: h2::Error) -> Failure {
    if error.is_io() || error.is_go_away() && error.is_remote() {
        return Failure::UpstreamCut { member };
    }
    Failure::UpstreamReset {
        member,
        code: code(&error),
        source: error,
    }
}

/// As the client is told, whose protocol above may have a meaning for it, as gRPC's has.
fn code(error: &h2::Error) -> Code {
    match error.reason() {
        Some(Reason::CANCEL) => Code::Cancel,
        Some(Reason::REFUSED_STREAM) => Code::RefusedStream,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::EnhanceYourCalm,
        _ => Code::Internal,
    }
}

/// Whether the member has said that it will do nothing for the request: by RST_STREAM, or by GOAWAY for streams behind the last
/// that it works for.
fn has_not_begun(error: &h2::Error) -> bool {
    let reset = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let leaves = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    error.is_remote() && (reset || leaves)
}

/// Why there is no response head.
enum Broken {
    Late,
    Http2(h2::Error),
    Spool(io::Error),
}

/// Sends the request and waits for the response head. A request that is still coming goes at its client's speed: the time of the
/// member is counted from what it got last.
async fn answer(
    mut response: ResponseFuture,
    sender: &mut Option<Sender>,
    within: Duration,
    interims: &Interims,
) -> Result<(ResponseHead, RecvStream), Broken> {
    let mut timer = Timer::new(within);
    let mut deadline = Instant::now() + within;
    loop {
        tokio::select! {
            biased;
            head = poll_fn(|cx| {
                while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                    let (head, ()) = interim.into_parts();
                    interims.push(&converted(&head.status, &head.headers));
                }
                std::pin::Pin::new(&mut response).poll(cx)
            }) => {
                let (head, content) = head.map_err(Broken::Http2)?.into_parts();
                return Ok((converted(&head.status, &head.headers), content));
            }
            sent = sent(sender) => match sent {
                Ok(true) => deadline = Instant::now() + within,
                Ok(false) => {}
                Err(error) => return Err(Broken::Spool(error)),
            },
            () = poll_fn(|cx| timer.poll(cx, deadline)) => return Err(Broken::Late),
        }
    }
}

/// Sends a part of the request; whether the time of the member begins anew. Pending for ever once there is nothing to send, or
/// nobody takes it.
async fn sent(sender: &mut Option<Sender>) -> io::Result<bool> {
    let Some(rest) = sender else {
        return std::future::pending().await;
    };
    let is_coming = rest.is_coming();
    match rest.send().await {
        Ok(Sent::Part) => Ok(is_coming),
        Ok(Sent::All) => {
            *sender = None;
            Ok(is_coming)
        }
        Err(SendError::File(error)) => Err(error),
        // It may still answer.
        Err(SendError::Origin | SendError::Late) => {
            *sender = None;
            Ok(false)
        }
    }
}

fn converted(status: &http::StatusCode, fields: &http::HeaderMap) -> ResponseHead {
    ResponseHead {
        version: Version::Http2,
        status: status.as_u16(),
        reason: Bytes::new(),
        fields: section(fields),
    }
}

/// Fields of the `h2` crate as ours.
fn section(fields: &http::HeaderMap) -> Fields {
    let pairs = fields.iter();
    Fields::from_pairs(pairs.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
}
