//! Which requests are let in: the rules that hold whatever the route, checked before anything is done for the client.
//!
//! HTTP/1.1 and HTTP/2 come through here alike, so what is refused in one is refused in the other. Nothing is repaired: a
//! request that can be read in two ways is refused (RFC 9112 §11.2).

use bytes::Bytes;
use message::{
    forwarded,
    head::{Method, RequestHead},
    target::{Form, Target},
};

use crate::{
    failure::Failure,
    origin::interim::Interims,
    plan::Plan,
    request::{Client, Peer, Request, RequestId, Trace, Vouched},
};

/// The methods any target may take; the rest of the table is the application's.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Lets the request in, or says why not.
pub(crate) fn admit<'head>(
    head: &'head RequestHead,
    peer: &Peer,
    plan: &Plan,
    id: RequestId,
) -> Result<Request<'head>, Failure> {
    match head.method {
        // It reflects what a script may not read (RFC 9110 §9.3.8).
        Method::Trace => return Err(Failure::Method { allow: ALLOW }),
        // It would make us an open relay (RFC 9110 §9.3.6).
        Method::Connect => return Err(Failure::Connect { allow: ALLOW }),
        _ => {}
    }
    let target = Target::of(head)?;
    if target.form == Form::Asterisk && head.method != Method::Options {
        return Err(Failure::Method { allow: "OPTIONS" });
    }
    // RFC 9110 §10.1.1: an expectation that is not understood is refused.
    if head
        .fields
        .all("expect")
        .any(|value| !value.eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Failure::Expectation);
    }
    let (client, host) = client(head, peer, plan);
    let target = match host {
        // The host that a trusted proxy was asked for: the one in the request is the proxy's own for us.
        Some((host, port)) => target.asked_of(host, port)?,
        None => target,
    };
    Ok(Request {
        head,
        target,
        client,
        id,
        user: None,
        vouched: Vouched {
            everywhere: plan.vouched.clone(),
            ..Vouched::default()
        },
        trace: Trace::of(head),
        interims: Interims::default(),
    })
}

/// Who asks: the peer, or whom a trusted proxy says it speaks for; and the host and port it asked for, if the proxy says so.
fn client(head: &RequestHead, peer: &Peer, plan: &Plan) -> (Client, Option<(Bytes, Option<u16>)>) {
    if plan.trust.is_empty() {
        let client = Client {
            address: peer.address.map(|address| address.ip().to_canonical()),
            port: peer.address.map_or(0, |address| address.port()),
            https: peer.https(),
        };
        return (client, None);
    }
    let found = forwarded::client(
        forwarded::Peer {
            address: peer.address,
            https: peer.https(),
        },
        &head.fields,
        plan.tongue,
        |address| plan.trust.covers(address),
        plan.trust.covers_unix(),
    );
    let client = Client {
        address: found.address,
        port: found.port,
        https: found.https,
    };
    let asked = head.fields.get("host").map(Bytes::copy_from_slice);
    let host = match (found.host, found.host_port) {
        (None, None) => None,
        (Some(host), port) => Some((host, port)),
        (None, port) => asked.map(|host| (host, port)),
    };
    (client, host)
}
