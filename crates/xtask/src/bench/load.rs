//! What is asked of a server, and what came of it.

pub(crate) mod still;
pub(crate) mod tls;
pub(crate) mod unix;
pub(crate) mod visitors;
pub(crate) mod websocket;
pub(crate) mod wrk;

use std::time::Duration;

use anyhow::Result;

use super::{peer::Running, process::Cpu, report::Column};

/// A way of asking. Anything other than the answer that was asked for is an error, which ends the run: a server that fails
/// is fast.
pub(crate) trait Load: Sync {
    /// Whether a server is to be asked for a while before anything is counted.
    fn warms_up(&self) -> bool {
        true
    }

    /// Asks for a while.
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome>;
}

/// What came of it.
pub(crate) struct Outcome {
    /// Requests that were answered; 0 where they are not what this is about.
    pub(crate) requests: u64,
    /// CPU time of the servers by the first of them and by the last, where other things came before or after.
    pub(crate) cpu: Option<(Cpu, Cpu)>,
    /// What the load itself has measured.
    pub(crate) figures: Vec<(Column, f64)>,
}

/// A request that is made again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Its target.
    pub(crate) path: &'static str,
    /// How many bytes are posted; 0 asks with GET.
    pub(crate) body: usize,
}

impl Request {
    /// A GET.
    pub(crate) const fn get(path: &'static str) -> Self {
        Self { path, body: 0 }
    }

    /// A POST of so many bytes.
    pub(crate) const fn post(path: &'static str, body: usize) -> Self {
        Self { path, body }
    }
}
