//! Upgrade (RFC 9110 §7.8): another protocol on the same connection, such as a WebSocket (RFC 6455).
//!
//! Nothing is a tunnel before the origin has said so with 101: bytes that a client sends early, in the hope of one, would
//! otherwise reach the origin past every rule. `h2c` and `TLS` are never offered: they would carry requests of their own
//! through the tunnel, which nobody could admit (h2c smuggling).
//!
//! A client of HTTP/2 asks for a tunnel in a stream (RFC 8441). Of those only WebSockets are known here: each protocol has a
//! translation of its own into an upgrade.

use message::{
    field::{self, Fields},
    framing::Body,
    head::{Method, ResponseHead, Version},
    refusal::Refusal,
};

use super::websocket::{Key, is_of_handshake};
use crate::{put::put_line, request::Request};

/// The protocols that a client offers to go on with.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// As one list.
    offered: Vec<u8>,
    /// For a client of HTTP/2, whose handshake is ours.
    key: Option<Key>,
}

impl Upgrade {
    /// What the client wants, if that is something that may be.
    pub(super) fn wanted(request: &Request<'_>, framing: Body) -> Option<Self> {
        let (head, fields) = (request.head, &request.head.fields);
        if let Some(protocol) = head.tunnel() {
            return protocol.eq_ignore_ascii_case(b"websocket").then(|| Self {
                offered: protocol.to_vec(),
                key: Some(Key::new()),
            });
        }
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
        said.then_some(Self { offered, key: None })
    }

    /// Whether a field of the client's or the origin's is not for the other, since that handshake is ours.
    pub(super) fn keeps(&self, name: &[u8]) -> bool {
        self.key.is_some() && is_of_handshake(name)
    }

    /// Whether a response that means success to its client can be none but a tunnel.
    pub(super) fn is_tunnel_or_nothing(&self) -> bool {
        self.key.is_some()
    }

    /// Writes the fields that ask for it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_line(out, b"Connection", b"Upgrade");
        put_line(out, b"Upgrade", &self.offered);
        if let Some(key) = &self.key {
            put_line(out, b"Sec-WebSocket-Key", key.as_bytes());
        }
    }

    /// Which of the offered protocols a 101 chose.
    ///
    /// # Errors
    /// When it is none of them, or no answer to our handshake.
    pub(super) fn chosen<'head>(&self, head: &'head ResponseHead) -> Result<&'head [u8], Refusal> {
        let chosen = head.fields.get("upgrade").unwrap_or_default();
        if !field::list(&self.offered).any(|offered| offered.eq_ignore_ascii_case(chosen)) {
            return Err(Refusal::UnaskedUpgrade);
        }
        let accept = head.fields.get("sec-websocket-accept");
        match &self.key {
            Some(key) if !key.is_answered_by(accept) => Err(Refusal::WebSocketAccept),
            _ => Ok(chosen),
        }
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
