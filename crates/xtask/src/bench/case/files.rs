//! Files that the front serves itself, in the clear and by TLS, against nginx as its own documentation makes it fast: sendfile,
//! an open-file cache, a buffered access log.

use super::{Bound, Case, Promise, Size};
use crate::bench::{
    apps,
    load::{Load, Request, tls, wrk},
    report::CPU,
    servers,
};

const SIZE: Size = Size {
    workers: 1,
    threads: 1,
    connections: 32,
};

const fn at_most(ratio: f64) -> [Promise; 1] {
    [Promise {
        column: CPU,
        peer: Some("nginx"),
        bound: Bound::AtMost(ratio),
    }]
}

const SMALL: &[Promise] = &at_most(0.65);
const LARGE: &[Promise] = &at_most(1.0);
const SMALL_BY_TLS: &[Promise] = &at_most(0.9);

const fn case(
    name: &'static str,
    about: &'static str,
    load: &'static dyn Load,
    promises: &'static [Promise],
) -> Case {
    Case {
        name,
        about,
        peers: &[servers::FILES],
        entry: "app:app",
        size: SIZE,
        load,
        limit: None,
        promises,
    }
}

/// A small file, beside what the kernel alone takes for one.
const fn small(name: &'static str, about: &'static str, load: &'static dyn Load) -> Case {
    Case {
        peers: &[servers::FILES, servers::FILE_FLOOR],
        ..case(name, about, load, SMALL)
    }
}

pub(super) const CASES: &[Case] = &[
    small(
        "file-1k",
        "a small file",
        &wrk::Wrk(Request::get("/static/1k")),
    ),
    small(
        "file-304",
        "a small file that the client has already",
        &wrk::Unchanged("/static/1k"),
    ),
    case(
        "file-100k",
        "a picture",
        &wrk::Wrk(Request::get("/static/100k")),
        LARGE,
    ),
    case(
        "file-10m",
        "a download",
        &wrk::Wrk(Request::get("/static/10m")),
        LARGE,
    ),
    case(
        "file-many",
        "ten thousand small files in turn",
        &wrk::Each {
            folder: "/static/many/",
            count: apps::MANY,
        },
        LARGE,
    ),
    case(
        "file-tls-1k",
        "a small file by TLS",
        &tls::Wrk(Request::get("/static/1k")),
        SMALL_BY_TLS,
    ),
    case(
        "file-tls-100k",
        "a picture by TLS",
        &tls::Wrk(Request::get("/static/100k")),
        LARGE,
    ),
];
