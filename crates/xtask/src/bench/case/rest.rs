//! Connections that have had an answer and rest, as most connections of browsers do most of the time: what they hold.

use super::{Bound, Case, Figure, Promise, Size};
use crate::bench::{
    load::{Request, visitors::Resting},
    report::RESTING,
    servers,
};

/// Below what most systems let a process have of descriptors.
const SIZE: Size = Size {
    workers: 1,
    threads: 1,
    connections: 15_000,
};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "rest-plain",
        about: "connections at rest, plain",
        peers: &[servers::FORWARDS],
        entry: "app:app",
        size: SIZE,
        load: &Resting {
            request: Request::get("/"),
            tls: false,
        },
        limit: None,
        promises: &[Promise::new(RESTING, Figure::Ours, Bound::AtMost(60.0))],
    },
    Case {
        name: "rest-tls",
        about: "connections at rest, with TLS",
        peers: &[servers::FILES],
        entry: "app:app",
        size: SIZE,
        load: &Resting {
            request: Request::get("/static/1k"),
            tls: true,
        },
        limit: None,
        promises: &[Promise::new(
            RESTING,
            Figure::Times("nginx"),
            Bound::AtMost(1.0),
        )],
    },
];
