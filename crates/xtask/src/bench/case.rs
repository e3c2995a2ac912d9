//! What is measured: which servers, what they serve, what is asked of them, and what we have promised of the outcome.
//!
//! A new case goes into the list of its group, a new group into [`all`]. A load that is not here yet is a type that
//! implements [`Load`], a server that is not is a [`Peer`] in a list of `servers`.

mod buffering;
mod extras;
mod files;
mod forward;
mod rest;
mod site;
mod tls;
mod worker;

use super::{limit::Limit, load::Load, peer::Peer, report::Column};

/// One case.
pub(crate) struct Case {
    /// Its name on the command line and above its table.
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) about: &'static str,
    /// Who takes part, ours first, in one or more lists.
    pub(crate) peers: &'static [&'static [Peer]],
    /// What the servers import; see [`super::apps`].
    pub(crate) entry: &'static str,
    /// Unless the command line says otherwise.
    pub(crate) size: Size,
    /// What is asked of them.
    pub(crate) load: &'static dyn Load,
    /// What no server can get below.
    pub(crate) limit: Option<Limit>,
    /// What we have said of the outcome.
    pub(crate) promises: &'static [Promise],
}

impl Case {
    /// Who takes part, ours first.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &'static Peer> {
        self.peers.iter().copied().flatten()
    }
}

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Processes of each Python server.
    pub(crate) workers: usize,
    /// Threads of each, where it has threads.
    pub(crate) threads: usize,
    /// Connections that stay open at once.
    pub(crate) connections: usize,
}

/// What our median of a column is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    /// The column.
    pub(crate) column: Column,
    /// As a multiple of whose figure; `None`: as it is.
    pub(crate) peer: Option<&'static str>,
    /// The bound.
    pub(crate) bound: Bound,
}

/// A bound of our figure, or of ours over theirs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

/// All of them.
pub(crate) fn all() -> Vec<&'static Case> {
    [
        site::CASES,
        files::CASES,
        buffering::CASES,
        extras::CASES,
        forward::CASES,
        tls::CASES,
        rest::CASES,
        worker::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}
