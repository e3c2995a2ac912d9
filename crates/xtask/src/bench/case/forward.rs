//! A request forwarded to another server over a Unix socket and its answer brought back: what a proxy itself takes. The server
//! behind, and its part of the CPU, are the same for all.

use super::{Bound, Case, Promise, Size};
use crate::bench::{
    load::{Request, wrk::Wrk},
    report::CPU,
    servers,
};

const fn promise(peer: &'static str) -> Promise {
    Promise {
        column: CPU,
        peer: Some(peer),
        bound: Bound::AtMost(0.85),
    }
}

pub(super) const CASES: &[Case] = &[Case {
    name: "forward-hello",
    about: "the smallest answer of a server behind",
    peers: &[servers::FORWARDS, servers::FORWARD_FLOOR],
    entry: "app:app",
    size: Size {
        workers: 1,
        threads: 1,
        connections: 32,
    },
    load: &Wrk(Request::get("/")),
    limit: None,
    promises: &[promise("nginx"), promise("HAProxy")],
}];
