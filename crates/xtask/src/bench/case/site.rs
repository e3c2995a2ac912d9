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

/// A file that the proxy serves itself.
const fn file(name: &'static str, about: &'static str, load: &'static Wrk) -> Case {
    Case {
        peers: &[servers::SITES],
        ..app(name, about, "app:app", load)
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
    file("file-1k", "a small file", &Wrk(Request::get("/static/1k"))),
    file("file-100k", "a picture", &Wrk(Request::get("/static/100k"))),
    file("file-10m", "a download", &Wrk(Request::get("/static/10m"))),
];
