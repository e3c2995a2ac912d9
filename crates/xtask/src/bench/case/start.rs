//! A site that was just started, and one that was asked for a while and rests: how long until the first page, how much memory.

use super::{Bound, Case, Figure, Promise, site};
use crate::bench::{
    load::{Request, still::Still},
    report::{Column, MEMORY, START, UNASKED},
    servers,
};

const fn no_more(column: Column) -> Promise {
    let figure = Figure::Times("nginx + gunicorn gthread");
    Promise::new(column, figure, Bound::AtMost(1.0))
}

const PROMISES: &[Promise] = &[no_more(START), no_more(UNASKED), no_more(MEMORY)];

const STILL: &Still = &Still(Request::get("/"));

const fn start(name: &'static str, about: &'static str, entry: &'static str) -> Case {
    Case {
        name,
        about,
        peers: &[servers::SITES, servers::APPS],
        entry,
        size: site::SIZE,
        load: STILL,
        limit: None,
        promises: PROMISES,
    }
}

pub(super) const CASES: &[Case] = &[
    start(
        "start-hello",
        "from start to the first page, and memory at rest (before it was asked anything, and after), with the smallest app",
        "app:app",
    ),
    start("start-flask", "the same with Flask", "flask_app:app"),
];
