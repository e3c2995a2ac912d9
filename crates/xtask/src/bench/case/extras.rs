//! What it costs that each request is told of, and that each client's rate is bounded.

use super::{Case, Promise, site};
use crate::bench::{
    load::{Request, wrk::Wrk},
    peer::Peer,
    servers,
};

const HELLO: &Wrk = &Wrk(Request::get("/"));

const fn hello(
    name: &'static str,
    about: &'static str,
    peers: &'static [&'static [Peer]],
    promises: &'static [Promise],
) -> Case {
    Case {
        size: site::SIZE,
        ..Case::front(name, about, peers, HELLO, promises)
    }
}

pub(super) const CASES: &[Case] = &[
    hello(
        "logged-hello",
        "the smallest app with an access log and all that is counted, and without the log",
        &[servers::LOGGED],
        &[Promise::cpu("stack, without a log", 1.05)],
    ),
    hello(
        "limited-hello",
        "the smallest app where each client's rate is bounded, and where it is not",
        &[servers::LIMITED],
        &[Promise::cpu("stack", 1.02)],
    ),
];
