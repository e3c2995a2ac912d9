//! Finding, reading and judging the configuration: all that can be known of it short of binding and starting.

use std::path::{Path, PathBuf};

use config::{Loaded, error::Report};

use crate::{failure::Failure, serve::Invocation};

/// Where a configuration is looked for when none is named.
pub(crate) const PLACES: [&str; 3] = ["./site.toml", "./config/site.toml", "/etc/stack/site.toml"];

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// `stack up`.
    File(PathBuf),
    /// `stack serve`.
    Arguments(Box<Invocation>),
}

impl Source {
    /// Reads a configuration that is right in itself and for this machine.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        match self {
            Self::File(file) => load(file),
            Self::Arguments(invocation) => invocation.load(),
        }
    }
}

/// Reads a configuration that is right in itself and for this machine.
pub(crate) fn load(file: &Path) -> Result<Loaded, Failure> {
    judge(config::load(file, is_privileged()))
}

/// Whether we may listen below 1024.
pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Asks the machine for what the configuration needs.
pub(crate) fn judge(loaded: Result<Loaded, Report>) -> Result<Loaded, Failure> {
    let loaded = loaded.map_err(Failure::Config)?;
    let report = inspect(&loaded);
    if report.problems.is_empty() {
        Ok(loaded)
    } else {
        Err(Failure::Config(report))
    }
}

fn inspect(loaded: &Loaded) -> Report {
    let mut problems = config::machine::inspect(&loaded.site);
    problems.extend(::proxy::plan::check(&loaded.site));
    problems.extend(crate::identity::inspect(&loaded.site));
    loaded.report(problems)
}
