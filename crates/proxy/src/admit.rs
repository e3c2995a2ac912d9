//! Which requests are let in: the rules that hold whatever the route, checked before anything is done for the client.
//!
//! HTTP/1.1 and HTTP/2 come through here alike, so what is refused in one is refused in the other. Nothing is repaired: a
//! request that can be read in two ways is refused (RFC 9112 §11.2).

use std::net::SocketAddr;

use message::{
    forwarded,
    head::{Method, RequestHead},
    target::{Form, Target},
};

use crate::{
    failure::Failure,
    plan::Plan,
    request::{Client, Peer, Request, RequestId},
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
    // TRACE reflects what a script may not read (RFC 9110 §9.3.8); CONNECT would make us an open relay (§9.3.6).
    if matches!(head.method, Method::Trace | Method::Connect) {
        return Err(Failure::Method { allow: ALLOW });
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
    let client = client(head, peer, plan);
    Ok(Request {
        head,
        target,
        client,
        id,
        user: None,
    })
}

/// Who asks: the peer, or whom a trusted proxy says it speaks for.
fn client(head: &RequestHead, peer: &Peer, plan: &Plan) -> Client {
    let direct = |address: Option<SocketAddr>| Client {
        address: address.map(|address| address.ip().to_canonical()),
        port: address.map_or(0, |address| address.port()),
        https: peer.tls.is_some(),
    };
    if plan.trusted_proxies.is_empty() {
        return direct(peer.address);
    }
    let trusted = |address| plan.trusts(address);
    let found = forwarded::client(
        peer.address,
        peer.tls.is_some(),
        &head.fields,
        trusted,
        false,
    );
    Client {
        address: found.address,
        port: found.port,
        https: found.https,
    }
}
