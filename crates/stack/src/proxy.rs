//! `stack proxy`: the process that the internet meets. `up` starts it and gives it one descriptor.

use std::os::fd::RawFd;

use anyhow::Context;
use supervisor::fds;
use telemetry::log::{DEFAULT_FILTER, Format, Process, Settings};

use crate::failure::Failure;

/// Where the proxy finds its end of the channel to the master.
pub(crate) const CONTROL_FD: RawFd = 3;

/// Serves until the master says otherwise.
pub(crate) fn run() -> Result<(), Failure> {
    // First of all: nothing may take the number before.
    let control = fds::inherited(CONTROL_FD).map_err(|_| {
        Failure::User("`stack proxy` is what `stack up` starts; start that instead".to_owned())
    })?;
    crate::small_pages();
    // It was started as /proc/self/exe, which would make it `exe` in `ps` and `top`.
    rustix::thread::set_name(c"stack proxy").context("cannot name this process")?;
    telemetry::log::init(Settings {
        process: Process::Proxy,
        // The master says, in the environment.
        filter: DEFAULT_FILTER.to_owned(),
        format: Format::from_env(),
    })?;
    ::proxy::run(control)?;
    Ok(())
}
