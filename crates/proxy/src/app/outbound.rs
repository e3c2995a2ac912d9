//! The head between us and a slot: what of a request the worker sees, and what it is told beside it.

use std::io::Write;

use message::{
    handoff::{self, Certificate, Handoff, Scheme},
    target::Form,
};

use crate::{
    address::AddressText,
    origin::{
        head::{content_length, passed_on, scheme},
        spool::Spooled,
    },
    put::{put, put_line},
    request::{Peer, Request},
    tls::Presented,
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
        put_line(out, handoff::USER.as_bytes(), user.as_bytes());
    }
    if let Some(presented) = &peer.presented {
        certificate_line(out, presented);
    }
    let told = handoff_line(out, request, peer);
    let authority = &request.target.authority;
    // HTTP/1.0 may come without: an empty Host would be one that no app knows, none at all is what SERVER_NAME is for.
    if !authority.is_empty() {
        put_line(out, b"Host", authority);
    }
    passed_on(out, &request.head.fields, |name| {
        request.vouched.covers(name) || request.trace.covers(name)
    });
    request.trace.write(out);
    request.vouched.fields.write_to(out);
    if let Some(client) = told {
        put_line(out, b"X-Forwarded-For", client.as_bytes());
    }
    put_line(out, b"X-Forwarded-Proto", scheme(request).as_bytes());
    if !authority.is_empty() {
        put_line(out, b"X-Forwarded-Host", authority);
    }
    content_length(out, body);
    put(out, b"\r\n");
}

/// The request line carries the path that was routed; what the client wrote instead stands in a field of ours.
fn request_line(out: &mut Vec<u8>, request: &Request<'_>) {
    let target = &request.target;
    put(out, request.head.method.as_bytes());
    put(out, b" ");
    let as_sent = target.form == Form::Origin && !target.path.changed();
    if as_sent || target.form == Form::Asterisk {
        put(out, &target.raw);
        put(out, b" HTTP/1.1\r\n");
        return;
    }
    target.path.encode(out);
    if let Some(query) = &target.query {
        put(out, b"?");
        put(out, query);
    }
    put(out, b" HTTP/1.1\r\n");
    put_line(out, handoff::TARGET.as_bytes(), &target.raw);
}

/// What the app's `environ` says of the client and of us. Returns the client's address as text.
fn handoff_line(out: &mut Vec<u8>, request: &Request<'_>, peer: &Peer) -> Option<AddressText> {
    let address = request.client.address.map(AddressText::new);
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
        client: address.as_ref().map_or("-", AddressText::as_str),
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

fn certificate_line(out: &mut Vec<u8>, presented: &Presented) {
    let certificate = presented.certificate.as_ref();
    let certificate = certificate.map(|(facts, fingerprint)| Certificate {
        subject: &facts.subject,
        issuer: &facts.issuer,
        serial: &facts.serial,
        fingerprint,
    });
    Certificate::encode(certificate.as_ref(), out);
}
