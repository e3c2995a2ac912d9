//! What `stack` says about itself: one access record for each exchange, and the log for everything else.
//!
//! Nothing here reads a configuration or decides what is worth saying; it knows how things are written, and that
//! writing must not hold up whoever says them.

pub mod access;
pub mod causes;
mod clock;
pub mod log;
pub mod metrics;
mod outlet;
pub mod panics;
pub mod text;
