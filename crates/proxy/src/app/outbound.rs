//! The two heads between us and a slot: what of a request the worker sees, and what of its response the client sees.
//!
//! Only field names of letters, digits and hyphens go to an app: `X_Forwarded_For` would be the same key in `environ` as
//! `X-Forwarded-For`. What a client says about itself in forwarding fields is replaced by what we know.

use std::io::Write;

use message::{
    field::{self, Fields},
    handoff::{self, Handoff, Scheme},
    target::Form,
};

use crate::{
    origin::spool::Spooled,
    request::{Peer, Request},
    response::FieldLines,
};

/// Writes the request's head as the worker gets it; content follows in the length that it states.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    peer: &Peer,
    mounted: Option<usize>,
    body: &Spooled,
) {
    out.clear();
    request_line(out, request);
    if let Some(length) = mounted {
        write!(out, "{}: {length}\r\n", handoff::SCRIPT).expect("a Vec takes every write");
    }
    if let Some(user) = &request.user {
        line(out, handoff::USER.as_bytes(), user.as_bytes());
    }
    let told = handoff_line(out, request, peer);
    let authority = &request.target.authority;
    // HTTP/1.0 may come without: an empty Host would be one that no app knows, none at all is what SERVER_NAME is for.
    if !authority.is_empty() {
        line(out, b"Host", authority);
    }
    let fields = &request.head.fields;
    let listed = fields.contains("connection");
    for (name, value) in fields.iter() {
        let of_this_hop = field::is_hop_by_hop(name) || listed && is_listed(fields, name);
        if field::is_forwardable(name) && !is_ours(name) && !of_this_hop {
            line(out, name, value);
        }
    }
    if let Some(client) = told {
        line(out, b"X-Forwarded-For", client.as_bytes());
    }
    line(out, b"X-Forwarded-Proto", scheme(request).as_bytes());
    if !authority.is_empty() {
        line(out, b"X-Forwarded-Host", authority);
    }
    match body {
        Spooled::None => {}
        body => {
            write!(out, "Content-Length: {}\r\n", body.length()).expect("a Vec takes every write");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The request line carries the path that was routed; what the client wrote instead stands in a field of ours.
fn request_line(out: &mut Vec<u8>, request: &Request<'_>) {
    let target = &request.target;
    out.extend_from_slice(request.head.method.as_bytes());
    out.push(b' ');
    let as_sent = target.form == Form::Origin && !target.path.changed();
    if as_sent || target.form == Form::Asterisk {
        out.extend_from_slice(&target.raw);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        return;
    }
    target.path.encode(out);
    if let Some(query) = &target.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    line(out, handoff::TARGET.as_bytes(), &target.raw);
}

/// What the app's `environ` says of the client and of us. Returns the client's address as text.
fn handoff_line(out: &mut Vec<u8>, request: &Request<'_>, peer: &Peer) -> Option<String> {
    let address = request.client.address.map(|address| address.to_string());
    let https = request.client.https;
    // SERVER_NAME and SERVER_PORT rebuild the URL (PEP 3333, URL Reconstruction), so they are what the client used.
    let default_port = if https { 443 } else { 80 };
    let implied = if request.target.authority.is_empty() {
        peer.local_port
    } else {
        None
    };
    let server_name = str::from_utf8(&request.target.host).unwrap_or("-");
    Handoff {
        client: address.as_deref().unwrap_or("-"),
        client_port: request.client.port,
        scheme: if https { Scheme::Https } else { Scheme::Http },
        server_name: if server_name.is_empty() {
            "-"
        } else {
            server_name
        },
        server_port: request.target.port.or(implied).unwrap_or(default_port),
        request_id: request.id.as_str(),
    }
    .encode(out);
    address
}

fn scheme(request: &Request<'_>) -> &'static str {
    if request.client.https {
        "https"
    } else {
        "http"
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Fields that we write ourselves, or have acted upon.
fn is_ours(name: &[u8]) -> bool {
    let any = |names: &[&str]| {
        names
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    };
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'h') => any(&["host"]),
        Some(b'c') => any(&["content-length"]),
        Some(b'e') => any(&["expect"]),
        Some(b'f') => any(&["forwarded"]),
        Some(b'x') => {
            any(&["x-real-ip", "x-request-id"])
                || name
                    .get(..12)
                    .is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
        }
        _ => false,
    }
}

/// Whether `Connection` lists the field (RFC 9110 §7.6.1).
fn is_listed(fields: &Fields, name: &[u8]) -> bool {
    field::connection_options(fields).any(|option| option.eq_ignore_ascii_case(name))
}

/// The response's fields as the client gets them. Framing is made anew by whoever writes the response; `Date`, `Server` and
/// `X-Request-ID` are ours to say, and `X-Accel-Buffering` was said to us.
pub(super) fn passed_back(fields: &Fields) -> FieldLines {
    let mut lines = FieldLines::with_capacity(256);
    let listed = fields.contains("connection");
    for (name, value) in fields.iter() {
        let of_this_hop = field::is_hop_by_hop(name) || listed && is_listed(fields, name);
        if !is_made_anew(name) && !of_this_hop {
            lines.push(name, value);
        }
    }
    lines
}

fn is_made_anew(name: &[u8]) -> bool {
    let any = |names: &[&str]| {
        names
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    };
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'_') => true,
        Some(b'c') => any(&["content-length"]),
        Some(b'd') => any(&["date"]),
        Some(b's') => any(&["server"]),
        Some(b'x') => any(&["x-request-id", "x-accel-buffering"]),
        _ => false,
    }
}
