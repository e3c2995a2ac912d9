//! A whole site, as a client sees it: TCP, the proxy, the workers.

use super::{Bound, Case, Promise, Size};
use crate::bench::{
    load::{Request, wrk::Wrk},
    report::CPU,
    servers,
};

/// More connections than slots, so that some requests wait.
pub(super) const SIZE: Size = Size {
    workers: 2,
    threads: 4,
    connections: 32,
};

const fn at_most(peer: &'static str, times: f64) -> Promise {
    Promise {
        column: CPU,
        peer: Some(peer),
        bound: Bound::AtMost(times),
    }
}

/// What is promised of the smallest app, and of Flask's.
const HELLO: &[Promise] = &[
    at_most("nginx + gunicorn gthread", 0.15),
    at_most("nginx + granian", 0.55),
];
const FLASK: &[Promise] = &[
    at_most("nginx + gunicorn gthread", 0.27),
    at_most("nginx + granian", 0.60),
];

/// An app behind a proxy.
const fn app(
    name: &'static str,
    about: &'static str,
    entry: &'static str,
    load: &'static Wrk,
    promises: &'static [Promise],
) -> Case {
    Case {
        name,
        about,
        peers: &[servers::SITES, servers::APPS],
        entry,
        size: SIZE,
        load,
        limit: None,
        promises,
    }
}

pub(super) const CASES: &[Case] = &[
    app(
        "hello",
        "the smallest app: what the servers themselves take",
        "app:app",
        &Wrk(Request::get("/")),
        HELLO,
    ),
    app(
        "flask",
        "Flask's own first example",
        "flask_app:app",
        &Wrk(Request::get("/")),
        FLASK,
    ),
    app(
        "post-64k",
        "an upload that the app reads",
        "app:app",
        &Wrk(Request::post("/read", 64 * 1024)),
        &[],
    ),
    app(
        "response-1m",
        "a response of one block",
        "app:app",
        &Wrk(Request::get("/mib")),
        &[],
    ),
    app(
        "busy-1ms",
        "an app that computes for a millisecond",
        "app:app",
        &Wrk(Request::get("/busy")),
        &[],
    ),
];
