//! The pool of workers and a slot's loop.

pub mod allowance;
pub mod application;
pub mod assignment;
pub mod content;
pub mod crew;
mod output;
pub mod pool;
pub mod request;
pub mod response;
pub mod serve;
pub mod worker;
