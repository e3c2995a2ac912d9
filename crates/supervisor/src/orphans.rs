//! The ends of those whom nobody waits for.
//!
//! The first process of a container gets every process there that has lost its parent, such as what an app has started with
//! a double fork. If it does not wait for them, each stays as a zombie until there is no process id left.

use std::{collections::BTreeSet, fs, io};

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::child;

/// Hears of orphans, where they come to us.
#[derive(Debug)]
pub struct Orphans {
    /// `None` where somebody else is the first process.
    ends: Option<Signal>,
}

impl Orphans {
    /// Starts listening; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a handler cannot be set.
    pub fn watch() -> io::Result<Self> {
        let is_first = std::process::id() == 1;
        let ends = is_first.then(|| signal(SignalKind::child()));
        Ok(Self {
            ends: ends.transpose()?,
        })
    }

    /// Resolves when one may have ended; never where they do not come to us. Cancel-safe.
    pub async fn ended(&mut self) {
        match &mut self.ends {
            // `None` only when the runtime's signal driver is gone, and then nobody awaits this any more.
            Some(ends) => drop(ends.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// Lets those go that have ended and that are no [`child::Child`]. Must be called on the thread that starts children: one that
/// is just being started is not known yet.
pub fn bury() {
    let ours = child::known();
    for pid in children().difference(&ours) {
        let Some(pid) = Pid::from_raw(*pid) else {
            continue;
        };
        // One that still lives is left alone, and one that somebody else has waited for is gone.
        let _ = rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}

/// All children of this process (proc_tid_children(5)).
fn children() -> BTreeSet<i32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = |list: String| -> Vec<i32> {
        let numbers = list.split_ascii_whitespace();
        numbers.filter_map(|pid| pid.parse().ok()).collect()
    };
    lists.flat_map(pids).collect()
}
