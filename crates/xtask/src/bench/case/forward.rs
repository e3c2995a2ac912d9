//! A request forwarded to another server over a Unix socket and its answer brought back: what a proxy itself takes. The server
//! behind, and its part of the CPU, are the same for all.

use super::{Case, Promise, Size};
use crate::bench::{
    load::{Request, websocket::Echoes, wrk::Wrk},
    servers,
};

const SIZE: Size = Size {
    workers: 1,
    threads: 1,
    connections: 32,
};

const WAYS: &str = "a WebSocket's message, in which nothing is read, takes nearly as much: it is the kernel's and the runtime's, \
                    for four system calls and two that wake another process";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "forward-hello",
        about: "the smallest answer of a server behind",
        peers: &[servers::FORWARDS, servers::FORWARD_FLOOR],
        entry: "app:app",
        size: SIZE,
        load: &Wrk(Request::get("/")),
        limit: None,
        promises: &[
            Promise::cpu("nginx", 0.85).because(WAYS),
            Promise::cpu("HAProxy", 0.85).because(WAYS),
        ],
    },
    Case {
        name: "forward-websocket",
        about: "messages of 64 bytes through a WebSocket (RFC 6455) to a server behind, and back; a request is one of them",
        peers: &[servers::WEBSOCKETS],
        entry: "app:app",
        size: SIZE,
        load: &Echoes,
        limit: None,
        // Bytes are passed on, nothing is read in them: no more than the best is all that can be said.
        promises: &[Promise::cpu("nginx", 1.0), Promise::cpu("HAProxy", 1.0)],
    },
];
