//! The head of a request as a member of an upstream sees it: what the client sent, and who the client is.

use super::upgrade::Upgrade;
use crate::{
    address::AddressText,
    origin::{
        head::{content_length, passed_on, scheme},
        spool::Spooled,
    },
    put::{put, put_line},
    request::Request,
};

/// Writes the head; content follows in the length that it states. `stripped` bytes of the path are not for the member.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    stripped: Option<usize>,
    upgrade: Option<&Upgrade>,
    body: &Spooled,
) {
    out.clear();
    request_line(out, request, stripped.unwrap_or(0));
    put_line(out, b"Host", host(request));
    fields(out, request, stripped, upgrade, body);
    put(out, b"\r\n");
}

/// All fields but Host.
pub(super) fn fields(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    stripped: Option<usize>,
    upgrade: Option<&Upgrade>,
    body: &Spooled,
) {
    let ours = |name: &[u8]| {
        request.vouched.covers(name)
            || request.trace.covers(name)
            || upgrade.is_some_and(|upgrade| upgrade.keeps(name))
    };
    passed_on(out, &request.head.fields, ours);
    request.vouched.fields.write_to(out);
    request.trace.write(out);
    forwarded(out, request, stripped);
    put_line(out, b"X-Request-ID", request.id.as_bytes());
    // RFC 9110 §7.6.3: a gateway says that it has passed a request on.
    put_line(out, b"Via", b"1.1 stack");
    if let Some(upgrade) = upgrade {
        upgrade.write(out);
    }
    content_length(out, body);
}

fn request_line(out: &mut Vec<u8>, request: &Request<'_>, stripped: usize) {
    let target = &request.target;
    put(out, request.head.method.as_bytes());
    put(out, b" ");
    target.write_path(stripped, out);
    target.write_query(out);
    put(out, b" HTTP/1.1\r\n");
}

/// HTTP/1.0 may come without, HTTP/1.1 goes on with one, be it empty (RFC 9112 §3.2).
fn host<'r>(request: &'r Request<'_>) -> &'r [u8] {
    &request.target.authority
}

/// Who asks and how, in the fields that servers behind proxies look for.
pub(super) fn forwarded(out: &mut Vec<u8>, request: &Request<'_>, stripped: Option<usize>) {
    if let Some(address) = request.client.address.map(AddressText::new) {
        put_line(out, b"X-Forwarded-For", address.as_bytes());
        put_line(out, b"X-Real-IP", address.as_bytes());
    }
    put_line(out, b"X-Forwarded-Proto", scheme(request).as_bytes());
    if !request.target.authority.is_empty() {
        put_line(out, b"X-Forwarded-Host", host(request));
    }
    let default = if request.client.https { 443 } else { 80 };
    let port = request.target.port.unwrap_or(default);
    let mut digits = itoa::Buffer::new();
    put_line(out, b"X-Forwarded-Port", digits.format(port).as_bytes());
    if let Some(length) = stripped {
        out.extend_from_slice(b"X-Forwarded-Prefix: ");
        request.target.path.encode_until(length, out);
        out.extend_from_slice(b"\r\n");
    }
}
