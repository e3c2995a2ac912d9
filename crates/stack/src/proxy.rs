//! `stack proxy`: the process that the internet meets. `up` starts it and gives it one descriptor.

use crate::{failure::Failure, role::Role};

/// Serves until the master says otherwise.
pub(crate) fn run() -> Result<(), Failure> {
    let (control, title) = Role::PROXY.begin()?;
    let name = Role::PROXY.title;
    let drains = || title.set(name, &[&format!("{name} (draining)"), name]);
    ::proxy::run(control, drains, allocator::give_back)?;
    Ok(())
}
