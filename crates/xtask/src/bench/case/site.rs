//! A whole site, as a client sees it: TCP, the proxy, the workers.

use super::{Case, Size};
use crate::bench::{
    load::{Request, wrk::Wrk},
    servers,
};

/// More connections than slots, so that some requests wait.
const SIZE: Size = Size {
    workers: 2,
    threads: 4,
    connections: 32,
};

/// An app behind a proxy.
const fn app(
    name: &'static str,
    about: &'static str,
    entry: &'static str,
    load: &'static Wrk,
) -> Case {
    Case {
        name,
        about,
        peers: &[servers::SITES, servers::APPS],
        entry,
        size: SIZE,
        load,
        limit: None,
        promises: &[],
    }
}

pub(super) const CASES: &[Case] = &[
    app(
        "hello",
        "the smallest app: what the servers themselves take",
        "app:app",
        &Wrk(Request::get("/")),
    ),
    app(
        "flask",
        "Flask's own first example",
        "flask_app:app",
        &Wrk(Request::get("/")),
    ),
    app(
        "post-64k",
        "an upload that the app reads",
        "app:app",
        &Wrk(Request::post("/read", 64 * 1024)),
    ),
    app(
        "response-1m",
        "a response of one block",
        "app:app",
        &Wrk(Request::get("/mib")),
    ),
    app(
        "busy-1ms",
        "an app that computes for a millisecond",
        "app:app",
        &Wrk(Request::get("/busy")),
    ),
];
