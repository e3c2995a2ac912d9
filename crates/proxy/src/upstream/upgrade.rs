//! Upgrade (RFC 9110 §7.8): another protocol on the same connection, such as a WebSocket (RFC 6455).
//!
//! Nothing is a tunnel before the origin has said so with 101: bytes that a client sends early, in the hope of one, would
//! otherwise reach the origin past every rule. `h2c` and `TLS` are never offered: they would carry requests of their own
//! through the tunnel, which nobody could admit (h2c smuggling).

use message::{
    field::{self, Fields},
    framing::Body,
    head::{Method, ResponseHead, Version},
};

use crate::{origin::head::line, request::Request};

/// The protocols that a client offers to go on with, as one list.
#[derive(Debug)]
pub(super) struct Upgrade(Vec<u8>);

impl Upgrade {
    /// What the client wants, if that is something that may be.
    pub(super) fn wanted(request: &Request<'_>, framing: Body) -> Option<Self> {
        let (head, fields) = (request.head, &request.head.fields);
        let empty = matches!(framing, Body::None | Body::Length(0));
        if head.version != Version::Http11 || head.method == Method::Head || !empty {
            return None;
        }
        let mut offered = Vec::new();
        for protocol in protocols(fields).filter(|protocol| is_tunnel(protocol)) {
            if !offered.is_empty() {
                offered.extend_from_slice(b", ");
            }
            offered.extend_from_slice(protocol);
        }
        let said = !offered.is_empty()
            && field::connection_options(fields)
                .any(|option| option.eq_ignore_ascii_case(b"upgrade"));
        said.then_some(Self(offered))
    }

    /// Writes the two fields that ask for it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        line(out, b"Connection", b"Upgrade");
        line(out, b"Upgrade", &self.0);
    }

    /// Which of the offered protocols a 101 chose.
    pub(super) fn chosen<'head>(&self, head: &'head ResponseHead) -> Option<&'head [u8]> {
        let chosen = head.fields.get("upgrade")?;
        field::list(&self.0)
            .any(|offered| offered.eq_ignore_ascii_case(chosen))
            .then_some(chosen)
    }
}

fn protocols(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields.all("upgrade").flat_map(field::list)
}

fn is_tunnel(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next();
    let name = name.unwrap_or_default();
    ![&b"h2c"[..], b"h2", b"http", b"tls"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}
