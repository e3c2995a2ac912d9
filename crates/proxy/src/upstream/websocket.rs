//! The opening handshake of a WebSocket as its client (RFC 6455 §4.1), for one that opened it over HTTP/2: there it has no key
//! (RFC 8441 §5), and whoever translates has the part of the client.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};

/// What `Sec-WebSocket-Accept` is made with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Key`: proof that the answer was made for this request, by somebody who knows the protocol.
#[derive(Debug)]
pub(super) struct Key(String);

impl Key {
    /// A new one.
    pub(super) fn new() -> Self {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).expect("the system has randomness");
        Self(BASE64_STANDARD.encode(nonce))
    }

    /// As it is sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether this is its `Sec-WebSocket-Accept`.
    pub(super) fn is_answered_by(&self, accept: Option<&[u8]>) -> bool {
        let answer = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[self.as_bytes(), GUID].concat());
        accept == Some(BASE64_STANDARD.encode(answer).as_bytes())
    }
}

/// Whether a field is the handshake's own, of which a client over HTTP/2 knows nothing.
pub(super) fn is_of_handshake(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"sec-websocket-key")
        || name.eq_ignore_ascii_case(b"sec-websocket-accept")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3 has this example.
    #[test]
    fn a_key_has_one_answer() {
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        assert!(key.is_answered_by(Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!key.is_answered_by(Some(b"s3pplmbitxaq9kygzzhzrbk+xoo=")));
        assert!(!key.is_answered_by(None));
        let (one, two) = (Key::new(), Key::new());
        assert_eq!(one.as_bytes().len(), 24);
        assert_ne!(one.as_bytes(), two.as_bytes());
    }
}
