//! What of the two heads passes between a client and an origin, whichever origin it is.
//!
//! Only field names of letters, digits and hyphens go on: `X_Forwarded_For` would be the same variable to an app as
//! `X-Forwarded-For`. What a client says about itself in forwarding fields is replaced by what we know.

use message::field::{self, Fields};

use super::spool::Spooled;
use crate::{request::Request, response::FieldLines};

/// Writes what the client sent, but for what concerns its connection alone and what we write ourselves, such as what is `ours`
/// for this origin.
pub(crate) fn passed_on(out: &mut Vec<u8>, fields: &Fields, ours: impl Fn(&[u8]) -> bool) {
    let lists = lists_fields(fields);
    for (name, value) in fields.iter() {
        let of_this_hop = field::is_hop_by_hop(name) || lists && is_listed(fields, name);
        if field::is_forwardable(name) && !is_ours(name) && !of_this_hop && !ours(name) {
            line(out, name, value);
        }
    }
}

/// Writes how long the content is, if there is any.
pub(crate) fn content_length(out: &mut Vec<u8>, body: &Spooled) {
    if let Some(length) = body.stated() {
        let mut digits = itoa::Buffer::new();
        line(out, b"Content-Length", digits.format(length).as_bytes());
    }
}

/// The scheme that the client used.
pub(crate) fn scheme(request: &Request<'_>) -> &'static str {
    if request.client.https {
        "https"
    } else {
        "http"
    }
}

/// Writes a field line.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
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

/// Whether `Connection` lists any field that is not known to be of one hop. Most say whether the connection persists, and no more.
fn lists_fields(fields: &Fields) -> bool {
    field::connection_options(fields).any(|option| !field::is_hop_by_hop(option))
}

/// Whether `Connection` lists the field (RFC 9110 §7.6.1).
fn is_listed(fields: &Fields, name: &[u8]) -> bool {
    field::connection_options(fields).any(|option| option.eq_ignore_ascii_case(name))
}

/// The response's fields as the client gets them. Framing is made anew by whoever writes the response; `Date`, `Server` and
/// `X-Request-ID` are ours to say, and `X-Accel-Buffering` was said to us.
pub(crate) fn passed_back(fields: &Fields) -> FieldLines {
    let mut lines = FieldLines::with_capacity(256);
    let lists = lists_fields(fields);
    for (name, value) in fields.iter() {
        let of_this_hop = field::is_hop_by_hop(name) || lists && is_listed(fields, name);
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
