//! What a server holds.

use std::{fmt, fs};

use anyhow::{Context, Result, ensure};

use super::super::server::Trial;
use crate::bench::process;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    workers: usize,
    of_master: usize,
    of_proxy: usize,
    /// Files that have no name any more, which is what spools are.
    spools: usize,
    /// Of the proxy, in KiB.
    resident: u64,
}

/// More than before, and still no leak: connections to workers that were not there, logs that were moved.
const DESCRIPTORS: usize = 16;

/// How much larger the proxy may stay.
const GROWN: u64 = 32 * 1024;

impl State {
    pub(super) fn of(trial: &Trial<'_>) -> Result<Self> {
        let proxy = *trial.fronts().first().context("there is no proxy")?;
        Ok(Self {
            workers: trial.workers().len(),
            of_master: process::descriptors(trial.master()),
            of_proxy: process::descriptors(proxy),
            spools: deleted(proxy)?,
            resident: resident(proxy)?,
        })
    }

    /// Whether this is no more than that.
    pub(super) fn is_like(&self, first: &Self) -> Result<()> {
        ensure!(self.workers > 0, "there is no worker");
        ensure!(
            self.of_master <= first.of_master + DESCRIPTORS,
            "the master keeps descriptors"
        );
        ensure!(
            self.of_proxy <= first.of_proxy + DESCRIPTORS,
            "the proxy keeps descriptors"
        );
        ensure!(self.spools == 0, "the proxy keeps spooled files");
        ensure!(
            self.resident <= first.resident + GROWN,
            "the proxy keeps memory"
        );
        Ok(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} workers, descriptors {} + {}, spooled files {}, proxy {} KiB",
            self.workers, self.of_master, self.of_proxy, self.spools, self.resident
        )
    }
}

fn deleted(pid: u32) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is closed meanwhile is not counted.
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        count += usize::from(target.contains("/#") && target.ends_with("(deleted)"));
    }
    Ok(count)
}

fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse()?)
}
