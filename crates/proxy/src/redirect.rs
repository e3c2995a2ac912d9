//! Responses that lead to another place: by a route, from plain HTTP to TLS, from a path to the same with a slash.
//!
//! What is taken over from the request stays a path and a query: it cannot become a part of the host.

use bytes::Bytes;
use config::site::{Location, LocationPart};
use message::target::Target;

use crate::response::{Content, Response};

/// The response; 308 and 307 keep the method, the others need not (RFC 9110 §15.4).
pub(crate) fn response(status: u16, to: Vec<u8>) -> Response {
    Response::new(status, Content::Bytes(Bytes::new())).with("Location", to)
}

/// Where a route leads that names the first `prefix` bytes of the path.
pub(crate) fn location(to: &Location, target: &Target, prefix: usize) -> Vec<u8> {
    let mut location = Vec::new();
    for part in &to.0 {
        match part {
            LocationPart::Text(text) => location.extend_from_slice(text.as_bytes()),
            LocationPart::Path => target.write_location(0, &mut location),
            LocationPart::Rest => target.write_location(prefix, &mut location),
            LocationPart::Query => target.write_query(&mut location),
        }
    }
    location
}

/// The same place by TLS.
pub(crate) fn to_https(target: &Target, port: u16) -> Vec<u8> {
    let mut location = b"https://".to_vec();
    location.extend_from_slice(&target.host);
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    target.write_location(0, &mut location);
    target.write_query(&mut location);
    location
}

/// The same place with a slash at the end of its path.
pub(crate) fn with_slash(target: &Target) -> Vec<u8> {
    let mut location = Vec::new();
    target.write_location(0, &mut location);
    location.push(b'/');
    target.write_query(&mut location);
    location
}
