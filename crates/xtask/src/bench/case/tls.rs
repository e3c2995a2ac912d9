//! TLS and HTTP/2 before files of one KiB, against nginx with the same certificate and group: what encryption and the
//! protocols take, without any Python.

use super::{Case, Promise, Size};
use crate::bench::{
    load::{Load, Request, tls, visitors},
    servers,
};

const SIZE: Size = Size {
    workers: 1,
    threads: 1,
    connections: 32,
};

const PROMISES: &[Promise] = &[Promise::cpu("nginx", 1.0)];

const fn case(name: &'static str, about: &'static str, load: &'static dyn Load) -> Case {
    Case {
        name,
        about,
        peers: &[servers::FILES],
        entry: "app:app",
        size: SIZE,
        load,
        limit: None,
        promises: PROMISES,
    }
}

const FILE: Request = Request::get("/static/1k");

pub(super) const CASES: &[Case] = &[
    case(
        "tls-handshake",
        "whole handshakes (ECDSA P-256, X25519), a request on each",
        &visitors::Handshakes(FILE),
    ),
    case(
        "h2-1k",
        "a small file over HTTP/2, ten requests at once on each connection",
        &tls::H2load {
            request: FILE,
            streams: 10,
        },
    ),
    case(
        "h2-1k-single",
        "the same, one request at a time",
        &tls::H2load {
            request: FILE,
            streams: 1,
        },
    ),
];
