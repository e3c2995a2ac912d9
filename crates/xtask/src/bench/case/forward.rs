//! A request forwarded to another server over a Unix socket and its answer brought back: what a proxy itself takes. The server
//! behind, and its part of the CPU, are the same for all.

use super::{Case, Promise};
use crate::bench::{
    load::{Request, websocket::Echoes, wrk::Wrk},
    servers,
};

const WAYS: &str = "more than half is the kernel's, for four system calls and two that wake another process; the rest runs through \
                    more code than the first instruction cache holds";

pub(super) const CASES: &[Case] = &[
    Case::front(
        "forward-hello",
        "the smallest answer of a server behind",
        &[servers::FORWARDS, servers::FORWARD_FLOOR],
        &Wrk(Request::get("/")),
        &[
            Promise::cpu("nginx", 0.85).because(WAYS),
            Promise::cpu("HAProxy", 0.85),
        ],
    ),
    Case::front(
        "forward-websocket",
        "messages of 64 bytes through a WebSocket (RFC 6455) to a server behind, and back; a request is one of them",
        &[servers::WEBSOCKETS],
        &Echoes,
        // Bytes are passed on, nothing is read in them: no more than the best is all that can be said.
        &[Promise::cpu("nginx", 1.0), Promise::cpu("HAProxy", 1.0)],
    ),
];
