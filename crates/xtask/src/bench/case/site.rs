//! A whole site, as a client sees it: TCP, the proxy, the workers.

use super::{Case, Promise, Size};
use crate::bench::{
    limit::Limit,
    load::{Request, wrk::Wrk},
    servers,
};

/// More connections than slots, so that some requests wait.
pub(super) const SIZE: Size = Size {
    workers: 2,
    threads: 4,
    connections: 32,
};

/// What is promised of the smallest app, and of Flask's.
const HELLO: &[Promise] = &[
    Promise::cpu("nginx + gunicorn gthread", 0.15),
    Promise::cpu("nginx + granian", 0.55).because(
        "two thirds of what our proxy takes is the kernel's, for four messages that each wake another process",
    ),
];
const FLASK: &[Promise] = &[
    Promise::cpu("nginx + gunicorn gthread", 0.27).because(FRAMEWORK),
    Promise::cpu("nginx + granian", 0.60).because(FRAMEWORK),
];
const FRAMEWORK: &str = "Flask itself takes most of what was promised: its row shows it";

/// What is promised of all: that nothing is slower than what it replaces.
const ANY: &[Promise] = &[
    Promise::cpu("nginx + gunicorn gthread", 1.0),
    Promise::cpu("nginx + granian", 1.0),
];

/// An app behind a proxy.
const fn app(
    name: &'static str,
    about: &'static str,
    entry: &'static str,
    load: &'static Wrk,
    limit: Option<Limit>,
    promises: &'static [Promise],
) -> Case {
    Case {
        name,
        about,
        peers: &[servers::SITES, servers::APPS],
        entry,
        size: SIZE,
        load,
        limit,
        promises,
    }
}

pub(super) const CASES: &[Case] = &[
    app(
        "hello",
        "the smallest app: what the servers themselves take",
        "app:app",
        &Wrk(Request::get("/")),
        Some(Limit(Request::get("/"))),
        HELLO,
    ),
    app(
        "flask",
        "Flask's own first example",
        "flask_app:app",
        &Wrk(Request::get("/")),
        Some(Limit(Request::get("/"))),
        FLASK,
    ),
    app(
        "template",
        "a page of 4 KiB that Flask makes of a Jinja template with a list of 40 things",
        "flask_app:app",
        &Wrk(Request::get("/page")),
        Some(Limit(Request::get("/page"))),
        ANY,
    ),
    app(
        "json",
        "1 KiB of JSON, by Flask's `jsonify`",
        "flask_app:app",
        &Wrk(Request::get("/json")),
        Some(Limit(Request::get("/json"))),
        ANY,
    ),
    app(
        "post-64k",
        "an upload that the app reads",
        "app:app",
        &Wrk(Request::post("/read", 64 * 1024)),
        None,
        ANY,
    ),
    app(
        "response-1m",
        "a response of one block",
        "app:app",
        &Wrk(Request::get("/mib")),
        None,
        ANY,
    ),
    app(
        "busy-1ms",
        "an app that computes for a millisecond",
        "app:app",
        &Wrk(Request::get("/busy")),
        None,
        ANY,
    ),
];
