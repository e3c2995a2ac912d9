//! `stack proxy`: the process that the internet meets. `up` starts it and gives it one descriptor.

use std::os::fd::RawFd;

use supervisor::{fds, title::Title};
use telemetry::log::{DEFAULT_FILTER, Format, Process, Settings};

use crate::failure::Failure;

/// What the process is called in `ps` and `top`.
pub(crate) const TITLE: &str = "stack: proxy";

/// Where the proxy finds its end of the channel to the master.
pub(crate) const CONTROL_FD: RawFd = 3;

/// Serves until the master says otherwise.
pub(crate) fn run() -> Result<(), Failure> {
    // First of all: nothing may take the number before.
    let control = fds::inherited(CONTROL_FD).map_err(|_| {
        Failure::User("`stack proxy` is what `stack up` starts; start that instead".to_owned())
    })?;
    crate::small_pages();
    // It was started as /proc/self/exe, which would make it `exe` in `top`.
    let title = Title::find();
    title.set(TITLE, &[TITLE]);
    telemetry::log::init(Settings {
        process: Process::Proxy,
        // The master says, in the environment.
        filter: DEFAULT_FILTER.to_owned(),
        format: Format::from_env(),
    })?;
    let drains = || title.set(TITLE, &[&format!("{TITLE} (draining)"), TITLE]);
    ::proxy::run(control, drains, allocator::give_back)?;
    Ok(())
}
