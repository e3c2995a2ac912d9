//! Finding, reading and judging the configuration: all that can be known of it short of binding and starting.

use std::path::Path;

use config::{Loaded, error::Report};

use crate::failure::Failure;

/// Where a configuration is looked for when none is named.
pub(crate) const PLACES: [&str; 3] = ["./site.toml", "./config/site.toml", "/etc/stack/site.toml"];

/// Reads a configuration that is right in itself and for this machine.
pub(crate) fn load(file: &Path) -> Result<Loaded, Failure> {
    let privileged = rustix::process::geteuid().is_root();
    let loaded = config::load(file, privileged).map_err(Failure::Config)?;
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
    loaded.report(problems)
}
