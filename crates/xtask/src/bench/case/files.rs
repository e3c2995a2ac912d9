//! Files that the front serves itself, in the clear and by TLS, against nginx as its own documentation makes it fast: sendfile,
//! an open-file cache, a buffered access log.

use super::{Case, Promise};
use crate::bench::{
    apps,
    load::{Load, Request, tls, wrk},
    servers,
};

const SMALL: &[Promise] = &[Promise::cpu("nginx", 0.65)];
const UNCHANGED: &[Promise] = &[Promise::cpu("nginx", 0.65).because(
    "most of what nginx takes is the kernel's, for two system calls that nobody can leave out: their row shows it",
)];
const LARGE: &[Promise] = &[Promise::cpu("nginx", 1.0)];
const SMALL_BY_TLS: &[Promise] = &[Promise::cpu("nginx", 0.9)];

const fn case(
    name: &'static str,
    about: &'static str,
    load: &'static dyn Load,
    promises: &'static [Promise],
) -> Case {
    Case::front(name, about, &[servers::FILES], load, promises)
}

/// A small file, beside what the kernel alone takes for one.
const fn small(
    name: &'static str,
    about: &'static str,
    load: &'static dyn Load,
    promises: &'static [Promise],
) -> Case {
    let peers = &[servers::FILES, servers::FILE_FLOOR];
    Case::front(name, about, peers, load, promises)
}

pub(super) const CASES: &[Case] = &[
    small(
        "file-1k",
        "a small file",
        &wrk::Wrk(Request::get("/static/1k")),
        SMALL,
    ),
    small(
        "file-304",
        "a small file that the client has already",
        &wrk::Unchanged("/static/1k"),
        UNCHANGED,
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
