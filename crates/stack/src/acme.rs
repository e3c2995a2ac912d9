//! `stack acme`: the process that gets certificates. `up` starts it and gives it one descriptor.

use crate::{failure::Failure, role::Role};

/// Gets certificates until the master is gone.
pub(crate) fn run() -> Result<(), Failure> {
    let (control, _title) = Role::ACME.begin()?;
    ::acme::run(control).map_err(anyhow::Error::from)?;
    Ok(())
}
