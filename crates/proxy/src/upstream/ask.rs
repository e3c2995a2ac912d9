//! What we ask and tell members ourselves: beside a request, whether it may come in; and what has been recorded of requests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use config::site;
use tokio::time::{Instant, timeout_at};

use super::{Upstream, UpstreamRoute, begin, outbound::forwarded};
use crate::{
    buffer::Store,
    failure::Failure,
    origin::{
        Origin,
        head::{passed_back, passed_on},
        interim::Interims,
        relay::{Unanswered, answer, content},
        spool::Spooled,
        wire::HeadError,
    },
    put::put_line,
    request::{Request, RequestId},
    response::Response,
};

/// Who is asked, and for what.
#[derive(Debug)]
pub(crate) struct Inquiry {
    route: UpstreamRoute,
    host: Box<[u8]>,
    target: Box<[u8]>,
    timeout: Duration,
}

impl Inquiry {
    /// Of this upstream, as `forward` says. `limits` are those of its answers, which go to clients where they refuse.
    pub(crate) fn new(
        forward: &site::Forward,
        upstream: Arc<Upstream>,
        limits: &site::Limits,
        store: &Arc<Store>,
    ) -> Self {
        Self {
            route: UpstreamRoute::new(upstream, limits, store, true, None),
            host: forward.host.as_bytes().into(),
            target: forward.target.as_bytes().into(),
            timeout: forward.timeout,
        }
    }

    /// Asks, and brings the answer, whatever it is.
    pub(crate) async fn ask(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let write = |out: &mut Vec<u8>| self.write(out, request);
        exchange(&self.route, self.timeout, Spooled::None, request.id, write).await
    }

    /// The head of the question: GET, with the fields of the request that are not about its content, and in the names that
    /// nginx's and Traefik's users know what the request is. The path is the one that was routed, however it was written.
    fn write(&self, out: &mut Vec<u8>, request: &Request<'_>) {
        out.clear();
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(&self.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        put_line(out, b"Host", &self.host);
        passed_on(out, &request.head.fields, |name| {
            is_about_content(name)
                || is_said_here(name)
                || is_vouched(request, name)
                || request.trace.covers(name)
        });
        request.trace.write(out);
        forwarded(out, request, None);
        let method = request.head.method.as_bytes();
        put_line(out, b"X-Forwarded-Method", method);
        let mut asked = Vec::with_capacity(request.target.raw.len());
        request.target.path.encode(&mut asked);
        request.target.write_query(&mut asked);
        put_line(out, b"X-Forwarded-Uri", &asked);
        put_line(out, b"X-Original-Method", method);
        let host = &request.target.authority;
        let scheme: &[u8] = if request.client.https {
            b"https://"
        } else {
            b"http://"
        };
        put_line(
            out,
            b"X-Original-URL",
            &[scheme, &host[..], &asked].concat(),
        );
        put_line(out, b"X-Request-ID", request.id.as_bytes());
        put_line(out, b"Via", b"1.1 stack");
        out.extend_from_slice(b"\r\n");
    }
}

/// Something of ours that is told to a member.
#[derive(Debug)]
pub(crate) struct Post {
    route: UpstreamRoute,
    /// All but the length.
    head: Vec<u8>,
}

/// How long a message may take; who sends it may be less patient.
const PATIENCE: Duration = Duration::from_secs(30);

impl Post {
    /// To this upstream, as `traces` says.
    pub(crate) fn new(
        traces: &site::Traces,
        upstream: Arc<Upstream>,
        limits: &site::Limits,
        store: &Arc<Store>,
    ) -> Self {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(b"POST ");
        head.extend_from_slice(traces.target.as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\n");
        put_line(&mut head, b"Host", traces.host.as_bytes());
        put_line(&mut head, b"Content-Type", b"application/json");
        for (name, value) in &traces.headers {
            put_line(&mut head, name.as_bytes(), value.as_bytes());
        }
        Self {
            route: UpstreamRoute::new(upstream, limits, store, true, None),
            head,
        }
    }

    /// Sends it, and says what status came.
    pub(crate) async fn send(&self, content: Bytes) -> Result<u16, Failure> {
        let length = content.len();
        let write = |out: &mut Vec<u8>| {
            out.clear();
            out.extend_from_slice(&self.head);
            put_line(out, b"Content-Length", length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        let body = Spooled::Memory(content);
        let answer = exchange(&self.route, PATIENCE, body, RequestId::new(), write).await?;
        Ok(answer.status)
    }
}

/// One request of ours, whole, and the answer to it.
async fn exchange(
    route: &UpstreamRoute,
    patience: Duration,
    body: Spooled,
    id: RequestId,
    write: impl Fn(&mut Vec<u8>),
) -> Result<Response, Failure> {
    let upstream = &route.upstream;
    let deadline = Instant::now() + patience;
    let begun = async {
        let place = match upstream.place_now() {
            Some(place) => place,
            None => upstream.place_later(route).await?,
        };
        begin(upstream, place, &body, write).await
    };
    let begun = timeout_at(deadline, begun).await;
    let (mut lease, written) = begun.map_err(|_| Failure::UpstreamTimeout {
        member: Arc::clone(&upstream.label),
        waited: patience,
    })??;
    let nobody = Interims::default();
    let answered = answer(lease.connection(), body, written, deadline, &nobody);
    let (head, unsent) = match answered.await {
        Ok(answered) => answered,
        Err(Unanswered::Late) => return Err(lease.late(patience)),
        Err(Unanswered::Head(HeadError::Ended)) => return Err(lease.ended().await),
        Err(Unanswered::Head(HeadError::Broken(rule))) => return Err(lease.broke(rule)),
        Err(Unanswered::Spool(error)) => return Err(Failure::Spool(error)),
    };
    lease.answered(head.keep_alive());
    Ok(Response {
        status: head.status,
        fields: passed_back(&head.fields),
        content: content(lease, &head, false, unsent, &route.holding, id)?,
    })
}

/// The question has no content, its answer is never a part or "not modified", and goes to the client as it is.
fn is_about_content(name: &[u8]) -> bool {
    const NAMES: [&str; 9] = [
        "accept-encoding",
        "content-encoding",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
    ];
    is_any(name, &NAMES)
}

/// What we say ourselves; other such fields begin with `X-Forwarded-`.
fn is_said_here(name: &[u8]) -> bool {
    is_any(
        name,
        &["x-original-method", "x-original-url", "x-original-uri"],
    )
}

/// Nobody forges an answer by putting it into the question. What a client logs in with is what the question is about.
fn is_vouched(request: &Request<'_>, name: &[u8]) -> bool {
    !name.eq_ignore_ascii_case(b"authorization") && request.vouched.covers(name)
}

fn is_any(name: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}
