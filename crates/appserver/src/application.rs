//! What a slot calls: the application behind the wire.
//!
//! The connection ([`crate::serve`]) knows HTTP/1.1 and nothing of Python; whoever implements [`Application`] knows Python and
//! nothing of sockets. Tests put a plain Rust type here.

use crate::{request::Request, response::Response};

/// Answers requests, one at a time.
pub trait Application {
    /// Answers one request through `response`.
    ///
    /// Every failure of the application itself is this method's to report and to turn into [`Response::fail`]; an error
    /// of the connection is remembered by `response`, and the loop looks there.
    fn respond(&mut self, request: &Request<'_>, response: &mut Response);

    /// Does what may wait for the connection. An application that holds a lock meanwhile gives it up for so long.
    fn wait<T: Send>(&mut self, act: impl FnOnce() -> T + Send) -> T {
        act()
    }
}
