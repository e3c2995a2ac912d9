//! One worker alone, over a Unix socket, asked by blocking clients that keep their connections where the server lets them:
//! what Python's side of a request costs, whatever proxy stands before it.

use super::{
    Bound::{self, AtLeast, AtMost},
    Case, Figure, Promise, Size,
};
use crate::bench::{
    limit::Limit,
    load::{Request, unix::Unix},
    report::{self, Column},
    servers,
};

/// As many connections as threads: what a proxy would keep open to it.
const SIZE: Size = Size {
    workers: 1,
    threads: 4,
    connections: 4,
};

const fn promise(column: Column, peer: &'static str, bound: Bound) -> Promise {
    Promise::new(column, Figure::Times(peer), bound)
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "worker-hello",
        about: "the smallest app",
        peers: &[servers::WORKERS, servers::BARE],
        entry: "app:app",
        size: SIZE,
        load: &Unix(Request::get("/")),
        limit: Some(Limit(Request::get("/"))),
        promises: &[
            Promise::cpu("granian", 0.40),
            Promise::cpu("gunicorn sync", 0.10),
        ],
    },
    Case {
        name: "worker-flask",
        about: "Flask's own first example",
        peers: &[servers::WORKERS],
        entry: "flask_app:app",
        size: SIZE,
        load: &Unix(Request::get("/")),
        limit: Some(Limit(Request::get("/"))),
        promises: &[
            Promise::cpu("granian", 0.70),
            Promise::cpu("gunicorn sync", 0.33),
        ],
    },
    Case {
        name: "worker-post-64k",
        about: "an upload that the app reads",
        peers: &[servers::WORKERS],
        entry: "app:app",
        size: SIZE,
        load: &Unix(Request::post("/read", 64 * 1024)),
        limit: Some(Limit(Request::post("/read", 64 * 1024))),
        promises: &[Promise::cpu("granian", 0.50)],
    },
    Case {
        name: "worker-response-1m",
        about: "a response of one block",
        peers: &[servers::WORKERS],
        entry: "app:app",
        size: SIZE,
        load: &Unix(Request::get("/mib")),
        limit: Some(Limit(Request::get("/mib"))),
        promises: &[Promise::cpu("granian", 1.0)],
    },
    Case {
        name: "worker-busy-1ms",
        about: "threads that compete for the GIL: an app that computes for a millisecond",
        peers: &[servers::WORKERS],
        entry: "app:app",
        size: SIZE,
        load: &Unix(Request::get("/busy")),
        limit: None,
        promises: &[
            promise(report::RATE, "gunicorn gthread", AtLeast(1.0)),
            promise(report::P99, "gunicorn gthread", AtMost(1.0)),
        ],
    },
];
