//! Pages of other origins that ask from a browser (Fetch Standard §3.2, the CORS protocol).

use bytes::Bytes;
use config::site;
use message::head::{Method, RequestHead};

use crate::response::{Content, FieldLines, Response};

/// How long a browser may keep what it was told in a preflight: what Chromium keeps at most.
const MAX_AGE: &str = "7200";

/// What such pages may do.
#[derive(Debug)]
pub(crate) struct Cors {
    /// Empty: every page, but without cookies.
    origins: Vec<String>,
}

impl Cors {
    pub(crate) fn new(cors: &site::Cors) -> Self {
        let origins = match cors {
            site::Cors::Any => Vec::new(),
            site::Cors::Origins(origins) => origins.clone(),
        };
        Self { origins }
    }

    /// The answer to a browser that asks what it may ask; it sends no password with that question.
    pub(crate) fn preflight(&self, head: &RequestHead) -> Option<Response> {
        let method = head.fields.get("access-control-request-method")?;
        if head.method != Method::Options || !head.fields.contains("origin") {
            return None;
        }
        let mut response = Response::new(204, Content::None);
        if self.granted(head).is_some() {
            response = response
                .with("Access-Control-Allow-Methods", method)
                .with("Access-Control-Max-Age", MAX_AGE);
            if let Some(fields) = head.fields.get("access-control-request-headers") {
                response = response.with("Access-Control-Allow-Headers", fields);
            }
        }
        Some(response.with(
            "Vary",
            "Access-Control-Request-Method, Access-Control-Request-Headers",
        ))
    }

    /// Says so in a response, in place of what the app may have said.
    pub(crate) fn mark(&self, head: &RequestHead, fields: &mut FieldLines) {
        fields.retain(|name, _| {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            !is(b"Access-Control-Allow-Origin") && !is(b"Access-Control-Allow-Credentials")
        });
        if let Some(origin) = self.granted(head) {
            fields.push(b"Access-Control-Allow-Origin", &origin);
            if !self.origins.is_empty() {
                fields.push(b"Access-Control-Allow-Credentials", b"true");
            }
        }
        if !self.origins.is_empty() {
            // A cache must not hand one origin's answer to another.
            fields.push(b"Vary", b"Origin");
        }
    }

    fn granted(&self, head: &RequestHead) -> Option<Bytes> {
        if self.origins.is_empty() {
            return Some(Bytes::from_static(b"*"));
        }
        let origin = head.fields.get("origin")?;
        let known = self.origins.iter().any(|known| known.as_bytes() == origin);
        known.then(|| Bytes::copy_from_slice(origin))
    }
}
