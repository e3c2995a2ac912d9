//! A question to a member beside a request: may it come in? It carries what the client said and where it wants to, and no content.

use std::{sync::Arc, time::Duration};

use config::site;
use tokio::time::{Instant, timeout_at};

use super::{Upstream, UpstreamRoute, begin, outbound::forwarded};
use crate::{
    buffer::Store,
    failure::Failure,
    origin::{
        Origin,
        head::{line, passed_back, passed_on},
        interim::Interims,
        relay::{Unanswered, answer, content},
        spool::Spooled,
        wire::HeadError,
    },
    request::Request,
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
        let upstream = &self.route.upstream;
        let deadline = Instant::now() + self.timeout;
        let begun = async {
            let place = match upstream.place_now() {
                Some(place) => place,
                None => upstream.place_later(&self.route).await?,
            };
            begin(upstream, place, &Spooled::None, |out| {
                self.write(out, request);
            })
            .await
        };
        let begun = timeout_at(deadline, begun).await;
        let (mut lease, written) = begun.map_err(|_| Failure::UpstreamTimeout {
            member: Arc::clone(&upstream.label),
            waited: self.timeout,
        })??;
        let nobody = Interims::default();
        let answered = answer(
            lease.connection(),
            Spooled::None,
            written,
            deadline,
            &nobody,
        );
        let (head, unsent) = match answered.await {
            Ok(answered) => answered,
            Err(Unanswered::Late) => return Err(lease.late(self.timeout)),
            Err(Unanswered::Head(HeadError::Ended)) => return Err(lease.ended().await),
            Err(Unanswered::Head(HeadError::Broken(rule))) => return Err(lease.broke(rule)),
            Err(Unanswered::Spool(error)) => return Err(Failure::Spool(error)),
        };
        lease.answered(head.keep_alive());
        Ok(Response {
            status: head.status,
            fields: passed_back(&head.fields),
            content: content(lease, &head, false, unsent, &self.route.holding, request.id)?,
        })
    }

    /// The head of the question: GET, with the fields of the request that are not about its content, and in the names that
    /// nginx's and Traefik's users know what the request is. The path is the one that was routed, however it was written.
    fn write(&self, out: &mut Vec<u8>, request: &Request<'_>) {
        out.clear();
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(&self.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        line(out, b"Host", &self.host);
        passed_on(out, &request.head.fields, |name| {
            is_about_content(name)
                || is_said_here(name)
                || is_vouched(request, name)
                || request.trace.covers(name)
        });
        request.trace.write(out);
        forwarded(out, request, None);
        let method = request.head.method.as_bytes();
        line(out, b"X-Forwarded-Method", method);
        let mut asked = Vec::with_capacity(request.target.raw.len());
        request.target.path.encode(&mut asked);
        request.target.write_query(&mut asked);
        line(out, b"X-Forwarded-Uri", &asked);
        line(out, b"X-Original-Method", method);
        let host = &request.target.authority;
        let scheme: &[u8] = if request.client.https {
            b"https://"
        } else {
            b"http://"
        };
        line(
            out,
            b"X-Original-URL",
            &[scheme, &host[..], &asked].concat(),
        );
        line(out, b"X-Request-ID", request.id.as_str().as_bytes());
        line(out, b"Via", b"1.1 stack");
        out.extend_from_slice(b"\r\n");
    }
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
