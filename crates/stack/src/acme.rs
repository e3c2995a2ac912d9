//! `stack acme`: the process that gets certificates. `up` starts it and gives it one descriptor.

use std::os::fd::RawFd;

use supervisor::{fds, title::Title};
use telemetry::log::{DEFAULT_FILTER, Format, Process, Settings};

use crate::failure::Failure;

/// What the process is called in `ps` and `top`.
pub(crate) const TITLE: &str = "stack: acme";

/// Where it finds its end of the channel to the master.
pub(crate) const CONTROL_FD: RawFd = 3;

/// Gets certificates until the master is gone.
pub(crate) fn run() -> Result<(), Failure> {
    // First of all: nothing may take the number before.
    let control = fds::inherited(CONTROL_FD).map_err(|_| {
        Failure::User("`stack acme` is what `stack up` starts; start that instead".to_owned())
    })?;
    crate::small_pages();
    // It was started as /proc/self/exe, which would make it `exe` in `top`.
    Title::find().set(TITLE, &[TITLE]);
    telemetry::log::init(Settings {
        process: Process::Acme,
        // The master says, in the environment.
        filter: DEFAULT_FILTER.to_owned(),
        format: Format::from_env(),
    })?;
    ::acme::run(control).map_err(anyhow::Error::from)?;
    Ok(())
}
