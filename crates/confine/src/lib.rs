//! How a process of ours gives up what it has no use for, before the first byte of a stranger: its memory to others of the same
//! user, and by Landlock all files but those that it names. What it keeps is each process's own to say; what is alike is here.
//!
//! What the kernel does not know is said and gone without. All of this must happen while the process has one thread: Landlock
//! confines a thread and what it starts.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, path_beneath_rules,
};
pub use landlock::{
    AccessFs, BitFlags, LandlockStatus, RestrictionStatus, RulesetError, RulesetStatus,
};
use tracing::warn;

/// The newest that was tried. What the kernel lacks of it is left out.
const KNOWN: ABI = ABI::V7;

/// What the C library reads to look up a name: its configuration, which whoever manages the network replaces at any time by
/// another file, and its modules.
pub const RESOLVER: [&str; 7] = [
    "/etc",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/lib",
    "/lib64",
    "/usr/lib",
];

/// To open what is there and to look what there is.
#[must_use]
pub fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Other processes of the same user, such as an app's, can neither trace this one nor read its memory (proc(5), ptrace(2)).
pub fn hide_memory() {
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(hidden) {
        warn!("memory: open to processes of the same user: {error}");
    }
}

/// Leaves these paths with what is below them, for these uses, and every port that is bound already: none of ours has another to
/// bind. Neither sockets without a path nor signals reach anybody outside. A path that is not there is left out: whoever
/// needs it says so better.
///
/// # Errors
/// When the kernel refuses what it says that it knows.
pub fn keep_files(
    kept: &[(&[PathBuf], BitFlags<AccessFs>)],
) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for (paths, uses) in kept {
        rules = rules.add_rules(path_beneath_rules(*paths, *uses))?;
    }
    rules.restrict_self()
}
