//! Finding, reading and judging the configuration: all that can be known of it short of binding and starting.

use std::path::{Path, PathBuf};

use config::{Loaded, error::Report};

use crate::{develop, failure::Failure, serve::Invocation};

/// Where a configuration is looked for when none is named.
pub(crate) const PLACES: [&str; 3] = ["./site.toml", "./config/site.toml", "/etc/stack/site.toml"];

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// What says it.
    pub(crate) origin: Origin,
    /// Whether it is for who develops the site.
    pub(crate) dev: bool,
}

/// What says a configuration.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// `stack up`.
    File(PathBuf),
    /// `stack serve`.
    Arguments(Box<Invocation>),
}

impl Source {
    /// Reads a configuration that is right in itself and for this machine.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let mut loaded = match &self.origin {
            Origin::File(file) => config::load(file, is_privileged()),
            Origin::Arguments(invocation) => invocation.parse(),
        };
        if self.dev
            && let Ok(loaded) = &mut loaded
        {
            develop::adapt(&mut loaded.site);
        }
        judge(loaded)
    }

    /// The file, where there is one.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::File(file) => std::path::absolute(file).ok(),
            Origin::Arguments(_) => None,
        }
    }

    /// Further files that apps depend on.
    pub(crate) fn extra(&self) -> Vec<PathBuf> {
        match &self.origin {
            Origin::File(_) => Vec::new(),
            Origin::Arguments(invocation) => invocation.extra(),
        }
    }
}

/// Reads a configuration that is right in itself and for this machine.
pub(crate) fn load(file: &Path) -> Result<Loaded, Failure> {
    judge(config::load(file, is_privileged()))
}

/// Reads one that is right in itself. What it serves need not be there yet: a command of the app (`collectstatic`) may be what makes it.
pub(crate) fn read(file: &Path) -> Result<Loaded, Failure> {
    config::load(file, is_privileged()).map_err(Failure::Config)
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
