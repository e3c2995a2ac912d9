//! A server that was started and is left alone, is asked for a while, and is left alone again: what it holds.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Load, Outcome, Request, wrk};
use crate::bench::{peer::Running, report::UNASKED};

/// Asks between two rests.
pub(crate) struct Still(pub(crate) Request);

/// No server is changed by more than this while it rests.
const MIB: f64 = 0.1;

/// For so long it does not change, or it never rests.
const REST: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

impl Load for Still {
    /// It is to have been asked nothing yet.
    fn warms_up(&self) -> bool {
        false
    }

    /// No requests are counted: what they cost is told elsewhere.
    fn run(&self, server: &Running, connections: usize, time: Duration) -> Result<Outcome> {
        let unasked = at_rest(server)?;
        wrk::run(self.0, &server.url()?, &server.folder, connections, time)?;
        at_rest(server)?;
        Ok(Outcome {
            requests: 0,
            cpu: None,
            figures: vec![(UNASKED, unasked)],
        })
    }
}

/// The memory of all its processes, once it does not change any more.
fn at_rest(server: &Running) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = server.memory()?;
    loop {
        thread::sleep(REST);
        let now = server.memory()?;
        if (now - last).abs() < MIB || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}
