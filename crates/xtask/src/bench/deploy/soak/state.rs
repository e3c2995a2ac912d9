//! What a server holds.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{super::server::Trial, ground::Ground};
use crate::bench::process;

/// At one moment.
#[derive(Debug)]
pub(super) struct State {
    workers: usize,
    /// Of the master, those included that have ended and not been asked how.
    children: usize,
    /// That live, of all that were ever started for the server, whoever's children they are.
    processes: usize,
    of_master: usize,
    of_proxy: usize,
    /// Files that have no name any more, which is what spools are.
    spools: usize,
    /// Files with names, where temporary ones and sockets are.
    files: Vec<PathBuf>,
    /// Of the proxy, in KiB.
    resident: u64,
    /// Of the master, in KiB.
    of_masters: u64,
}

/// More than before, and still no leak: connections to workers that were not there, logs that were moved.
const DESCRIPTORS: usize = 16;

/// How much larger the proxy may stay.
const GROWN: u64 = 32 * 1024;

/// And the master.
const MASTER_GROWN: u64 = 16 * 1024;

impl State {
    pub(super) fn of(trial: &Trial<'_>, ground: &Ground) -> Result<Self> {
        let proxy = *trial.fronts().first().context("there is no proxy")?;
        Ok(Self {
            workers: trial.workers().len(),
            children: process::children(trial.master()).len(),
            processes: process::with_variable(&format!("{RUN}{}", ground.path("run").display()))
                .len(),
            of_master: process::descriptors(trial.master()),
            of_proxy: process::descriptors(proxy),
            spools: deleted(proxy)?,
            files: [files(&ground.path("spool"))?, files(&ground.path("run"))?].concat(),
            resident: resident(proxy)?,
            of_masters: resident(trial.master())?,
        })
    }

    /// Whether this is no more than that; all that is.
    pub(super) fn is_like(&self, first: &Self) -> Result<()> {
        let left = format!(
            "files are left behind: {:?} became {:?}",
            first.files, self.files
        );
        let complaints: Vec<&str> = [
            (self.workers == 0, "there is no worker"),
            (
                self.children != self.workers + 1,
                "the master has other children than its proxy and its workers",
            ),
            (
                self.processes != self.children + 1,
                "there are processes that the master does not know",
            ),
            // Each worker has a socket.
            (
                self.files.len() + first.workers > first.files.len() + self.workers,
                left.as_str(),
            ),
            (
                self.of_master > first.of_master + DESCRIPTORS,
                "the master keeps descriptors",
            ),
            (
                self.of_proxy > first.of_proxy + DESCRIPTORS,
                "the proxy keeps descriptors",
            ),
            (self.spools != 0, "the proxy keeps spooled files"),
            (
                self.resident > first.resident + GROWN,
                "the proxy keeps memory",
            ),
            (
                self.of_masters > first.of_masters + MASTER_GROWN,
                "the master keeps memory",
            ),
        ]
        .into_iter()
        .filter_map(|(is_so, complaint)| is_so.then_some(complaint))
        .collect();
        ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        Ok(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} workers, {} children, {} processes, descriptors {} + {}, spooled files {}, files {}, master {} KiB, proxy {} KiB",
            self.workers,
            self.children,
            self.processes,
            self.of_master,
            self.of_proxy,
            self.spools,
            self.files.len(),
            self.of_masters,
            self.resident
        )
    }
}

/// What the environment of a soak says, and so that of all that it has started.
const RUN: &str = "XDG_RUNTIME_DIR=";

/// All files below a folder, folders included.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        all.push(entry.path());
        if entry.file_type()?.is_dir() {
            all.extend(files(&entry.path())?);
        }
    }
    Ok(all)
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
