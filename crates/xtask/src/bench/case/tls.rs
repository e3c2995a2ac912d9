//! TLS and HTTP/2 before files of one KiB, against nginx with the same certificate and group: what encryption and the
//! protocols take, without any Python.

use super::{Case, Promise};
use crate::bench::{
    load::{Load, Request, tls, visitors},
    servers,
};

const PROMISES: &[Promise] = &[Promise::cpu("nginx", 1.0)];

const fn case(name: &'static str, about: &'static str, load: &'static dyn Load) -> Case {
    Case::front(name, about, &[servers::FILES], load, PROMISES)
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
