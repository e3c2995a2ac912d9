//! Mechanism for supervising children: processes, users, descriptors, signals, readiness, back-off, scoreboards.
//!
//! It knows nothing of proxies, workers or configuration, decides nothing and logs nothing: its users do. It is the one
//! crate of the master that says `unsafe`, because `fork`, descriptor numbers and shared memory cannot be had without.
//!
//! Linux 5.11 or later is needed (`pidfd_open`, `P_PIDFD`, `CLOSE_RANGE_CLOEXEC`).

#![allow(
    unsafe_code,
    reason = "fork/exec, inherited descriptors, shared memory; each block says why it is sound"
)]

pub mod backoff;
pub mod child;
pub mod fds;
pub mod group;
pub mod limits;
pub mod notify;
pub mod oom;
pub mod orphans;
pub mod scoreboard;
pub mod signal;
pub mod title;
pub mod tmp;
pub mod user;
