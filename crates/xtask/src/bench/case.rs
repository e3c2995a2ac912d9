//! What is measured: which servers, what they serve, what is asked of them, and what we have promised of the outcome.
//!
//! A new case goes into the list of its group, a new group into [`all`]. A load that is not here yet is a type that
//! implements [`Load`], a server that is not is a [`Peer`] in a list of `servers`.

mod buffering;
mod cost;
mod extras;
mod files;
mod forward;
mod rest;
mod site;
mod start;
mod tls;
mod worker;

use super::{
    limit::Limit,
    load::Load,
    peer::Peer,
    report::{CPU, Column},
};

/// How many sites and routes there are where there are many.
pub(crate) const MANY_SITES: usize = 1000;

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
    /// One of a front, by itself or before the smallest app, for whose cost there is no floor.
    const fn front(
        name: &'static str,
        about: &'static str,
        peers: &'static [&'static [Peer]],
        load: &'static dyn Load,
        promises: &'static [Promise],
    ) -> Self {
        Self {
            name,
            about,
            peers,
            entry: "app:app",
            size: Size::FRONT,
            load,
            limit: None,
            promises,
        }
    }

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

impl Size {
    /// Where it is not Python that is measured.
    const FRONT: Self = Self {
        workers: 1,
        threads: 1,
        connections: 32,
    };
}

/// What the medians of a column are to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    /// The column.
    pub(crate) column: Column,
    /// What is looked at in it.
    pub(crate) figure: Figure,
    /// The bound.
    pub(crate) bound: Bound,
    /// Why it is missed, where it is and that is known: the page says so.
    pub(crate) why: &'static str,
}

/// What a promise speaks of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Figure {
    /// Ours, as it is.
    Ours,
    /// Ours as a multiple of theirs.
    Times(&'static str),
    /// What one row is of another.
    Growth(Growth),
    /// The first growth as a multiple of the second.
    Steeper(Growth, Growth),
}

/// From one row to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// The name of the one.
    pub(crate) from: &'static str,
    /// The name of the other.
    pub(crate) to: &'static str,
}

impl Promise {
    const fn new(column: Column, figure: Figure, bound: Bound) -> Self {
        Self {
            column,
            figure,
            bound,
            why: "",
        }
    }

    /// CPU for each request, as a multiple of theirs.
    const fn cpu(peer: &'static str, times: f64) -> Self {
        Self::new(CPU, Figure::Times(peer), Bound::AtMost(times))
    }

    /// CPU for each request, from one row to another.
    const fn growth(growth: Growth, times: f64) -> Self {
        Self::new(CPU, Figure::Growth(growth), Bound::AtMost(times))
    }

    const fn because(self, why: &'static str) -> Self {
        Self { why, ..self }
    }
}

/// A bound of that.
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
        start::CASES,
        rest::CASES,
        cost::CASES,
        worker::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}
