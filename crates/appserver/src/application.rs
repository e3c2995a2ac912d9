//! What a slot calls: the application behind the wire.
//!
//! The loop ([`crate::serve`]) knows HTTP/1.1 and nothing of Python; whoever implements [`Application`] knows Python and
//! nothing of sockets. Tests put a plain Rust type here.

use crate::{request::Request, response::Response};

/// Answers requests, one at a time.
pub trait Application {
    /// Answers one request through `response`.
    ///
    /// Every failure of the application itself is this method's to report and to turn into [`Response::fail`]; an error
    /// of the connection is remembered by `response`, and the loop looks there.
    fn respond(&mut self, request: &Request<'_>, response: &mut Response);
}
