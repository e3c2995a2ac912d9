//! What answers behind us, be it a slot of a worker or a member of an upstream: one way to speak to both.
//!
//! [`head`] is what passes of the two heads; [`spool`] reads a request's content whole, at the client's speed, and [`live`] brings
//! content that goes on beside its response; [`wire`] is a connection and what was read from it, [`encrypted`] one over TLS;
//! [`interim`] passes on what comes before the response; [`relay`] writes the request and takes the response at the origin's
//! speed. Who the origin is, how a connection to it is found and what its end means is known to `app` and `upstream`, which share
//! nothing else.

pub(crate) mod encrypted;
pub(crate) mod head;
pub(crate) mod interim;
pub(crate) mod live;
pub(crate) mod relay;
pub(crate) mod spool;
pub(crate) mod wire;

use std::{future::Future, sync::Arc, time::Duration};

use message::refusal::Refusal;

use crate::{buffer::stalls::Stalls, failure::Failure, timer::Timer};
use wire::Wire;

/// A connection that can carry a request.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket, and what was read from it.
    pub(crate) wire: Wire,
    /// Where a request's head is put together; kept for its memory.
    pub(crate) out: Vec<u8>,
    /// One timer for all waits.
    pub(crate) timer: Timer,
}

/// A connection that belongs to one request. Unless it is [freed](Self::free), dropping it closes the connection.
pub(crate) trait Origin: Send + Sync + 'static {
    /// The connection.
    fn connection(&mut self) -> &mut Connection;

    /// The response has been read to its last byte, and the request written to its: another may have the connection.
    fn free(self);

    /// How long the origin may be silent inside a response; `None` for ever.
    fn silence(&self) -> Option<Duration> {
        None
    }

    /// Nothing came for so long.
    fn late(&self, waited: Duration) -> Failure;

    /// The response breaks a rule.
    fn broke(&self, rule: Refusal) -> Failure;

    /// What bounds how many of its kind wait for their clients; `None`: nothing does.
    fn stalls(&self) -> Option<&Arc<Stalls>> {
        None
    }

    /// The connection ended before the response did. Lets go of it; why it ended may take a moment to be known.
    fn ended(self) -> impl Future<Output = Failure> + Send;
}
