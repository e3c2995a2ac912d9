//! What it costs that requests are read whole and responses taken ahead of their clients, where nothing needs it: small ones.

use super::{Case, Promise, site};
use crate::bench::{
    load::{Request, wrk::Wrk},
    servers,
};

const PROMISES: &[Promise] = &[Promise::cpu("stack, unbuffered", 1.05)];

const fn small(name: &'static str, about: &'static str, load: &'static Wrk) -> Case {
    Case {
        size: site::SIZE,
        ..Case::front(name, about, &[servers::BUFFERING], load, PROMISES)
    }
}

pub(super) const CASES: &[Case] = &[
    small(
        "buffering-hello",
        "the smallest response, kept back where its client is slow, and never",
        &Wrk(Request::get("/")),
    ),
    small(
        "buffering-form",
        "a form of 1 KiB, read whole before its slot is taken, and passed on as it comes",
        &Wrk(Request::post("/read", 1024)),
    ),
];
