//! The agent gives up what it has no use for, before the first byte of the internet: it keeps the network, and of files what the C
//! library reads to look up a name, and the time zone of the log.

use std::path::{Path, PathBuf};

use confine::{RESOLVER, RulesetStatus};
use tracing::{debug, warn};

const ZONES: &str = "/usr/share/zoneinfo";

/// What the kernel does not know is said and gone without. Must be called while the process has one thread.
pub(crate) fn confine(landlock: bool) {
    confine::hide_memory();
    if !landlock {
        return;
    }
    let readable: Vec<PathBuf> = RESOLVER
        .into_iter()
        .chain([ZONES])
        .map(Into::into)
        .collect();
    match confine::keep_files(&[(&readable, confine::reading())]) {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            warn!("files: not confined by Landlock");
        }
        Ok(_) => {
            let shown: Vec<_> = readable.iter().map(|path| Path::display(path)).collect();
            debug!("files: confined by Landlock to reading {shown:?}");
        }
        Err(error) => warn!("files: not confined, Landlock failed: {error}"),
    }
}
