//! Whose end somebody waits for.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::Pid;

/// Those whose end somebody waits for: see [`crate::orphans`].
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The process ids of all children that were started here, and not dropped.
pub(crate) fn known() -> BTreeSet<i32> {
    lock_known().clone()
}

fn lock_known() -> MutexGuard<'static, BTreeSet<i32>> {
    // A set of numbers is whole whatever happens to its holder.
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of a child among [`KNOWN`].
#[derive(Debug)]
pub(super) struct Entry(i32);

impl Entry {
    pub(super) fn of(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero().get();
        lock_known().insert(pid);
        Self(pid)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock_known().remove(&self.0);
    }
}
