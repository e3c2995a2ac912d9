//! The proxy gives up what it has no use for, before the first byte of a visitor.
//!
//! Whoever takes over the proxy by a mistake of ours has the proxy's rights: its user's files, and every door of the kernel.
//! Landlock leaves it the files of the configuration; seccomp the system calls of a server; and nobody of the same user can
//! look into its memory, where keys are. None of it can be taken back, nor widened: a configuration that needs more files is
//! another process. What the kernel does not know is said and gone without: a server that does not start protects nobody.
//!
//! All of this must happen while the process has one thread: Landlock confines a thread and what it starts.

mod calls;
mod files;

use std::path::PathBuf;

use config::site::Site;
use tracing::{info, warn};

/// The folders that a proxy of this configuration keeps: one that is to serve another cannot get more, unless the whole
/// machine is its.
#[must_use]
pub fn folders(site: &Site) -> Vec<PathBuf> {
    if site.server.landlock {
        files::folders(site)
    } else {
        vec![PathBuf::from("/")]
    }
}

/// Gives up everything but what this configuration needs.
pub(crate) fn confine(site: &Site) {
    confine::hide_memory();
    if site.server.landlock {
        match files::confine(site) {
            Ok(said) => said.tell(),
            Err(error) => warn!("files: not confined, Landlock failed: {error}"),
        }
    } else {
        info!("files: not confined, as server.landlock says");
    }
    if site.server.seccomp {
        match calls::confine() {
            Ok(count) => info!("system calls: confined by seccomp to {count} kinds"),
            Err(error) => warn!("system calls: not confined, seccomp failed: {error}"),
        }
    } else {
        info!("system calls: not confined, as server.seccomp says");
    }
}
