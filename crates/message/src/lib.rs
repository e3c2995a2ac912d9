//! HTTP semantics that both sides of stack share: the proxy towards clients, the proxy towards workers, the workers.
//!
//! Sans-IO: everything here works on bytes that somebody else has read. Nothing is repaired and nothing is guessed; what
//! RFC 9110 and 9112 leave open in a way that two readers could differ about is a [`refusal::Refusal`].

pub mod coding;
pub mod condition;
pub mod digits;
pub mod field;
pub mod forwarded;
pub mod frame;
pub mod framing;
pub mod handoff;
pub mod head;
pub mod hpack;
pub mod mark;
pub mod proxy_protocol;
pub mod pseudo;
pub mod range;
pub mod refusal;
pub mod status;
pub mod target;
pub mod trace;
