//! The agent gives up what it has no use for, before the first byte of the internet: it keeps the network, and of files what the C
//! library reads to look up a name.

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use tracing::{debug, warn};

/// The newest that was tried. What the kernel lacks of it is left out.
const KNOWN: ABI = ABI::V7;

/// Its configuration, which whoever manages the network replaces at any time by another file, its modules, and the time zone of
/// the log.
const READABLE: [&str; 8] = [
    "/etc",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/share/zoneinfo",
];

/// What the kernel does not know is said and gone without. Must be called while the process has one thread.
pub(crate) fn confine(landlock: bool) {
    // Neither traced nor looked into by processes of the same user.
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(hidden) {
        warn!("memory: open to processes of the same user: {error}");
    }
    if !landlock {
        return;
    }
    match files() {
        Ok(RulesetStatus::NotEnforced) => warn!("files: not confined by Landlock"),
        Ok(_) => debug!(
            "files: confined by Landlock to reading {}",
            READABLE.join(", ")
        ),
        Err(error) => warn!("files: not confined, Landlock failed: {error}"),
    }
}

fn files() -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, read))?
        .restrict_self()?;
    Ok(status.ruleset)
}
