//! `stack up`: from a file to a site that is served, and back.
//!
//! This module opens what only the master may open and then hands over to [`master`], which lives until it is told to
//! stop. The order matters: whatever the user can have got wrong comes before anything is started.

mod admin;
mod banner;
mod credentials;
mod errand;
mod figures;
mod front;
mod listen;
mod logs;
mod master;
mod opened;
mod pidfile;
mod questions;
mod reload;
mod roster;
pub(crate) mod rundir;
mod watchdog;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use config::site::ErrorLogFormat;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telemetry::log::{Format, Process, Settings};

use crate::{
    args::Up,
    failure::Failure,
    identity::{self, Identities},
    load::Source,
    up::{listen::Given, master::Master, opened::Opened, pidfile::PidFile, rundir::RunDirectory},
};

/// What the command line says besides the configuration.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Where to write our process id.
    pub(crate) pid: Option<PathBuf>,
    /// What becomes of us when an app cannot start at the start.
    pub(crate) broken: BrokenApp,
}

/// What becomes of a start when an app cannot start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BrokenApp {
    /// Its routes answer 503 while it is tried again: other apps and files may be served.
    #[default]
    IsTriedAgain,
    /// So do we: nothing else is served.
    Ends,
}

/// `stack up`.
pub(crate) fn from_arguments(up: Up) -> Result<(), Failure> {
    let source = Source::File(up.config.path()?);
    let options = Options {
        pid: up.pid,
        ..Options::default()
    };
    run(&source, options)
}

/// Serves the configuration until told to stop.
pub(crate) fn run(source: &Source, options: Options) -> Result<(), Failure> {
    let started = Instant::now();
    crate::small_pages();
    let loaded = source.load()?;
    let log = &loaded.site.server.log;
    telemetry::log::init(Settings {
        process: Process::Master,
        filter: log.level.clone(),
        format: match log.format {
            ErrorLogFormat::Text => Format::Text,
            ErrorLogFormat::Json => Format::Json,
        },
    })?;
    raise_open_files()?;
    let given = Given::take()?;
    let identities = match Identities::of(&loaded.site) {
        Ok(identities) => identities,
        Err(problems) => return Err(Failure::Config(loaded.report(problems))),
    };
    if identity::is_all_root(&loaded.site) {
        tracing::warn!(
            "the proxy runs as root, and so does every app without a `user`: name one in [server], such as `user = \"www-data\"`"
        );
    }
    let mut run_directory = RunDirectory::open(&loaded.site.file, identities.proxy())?;
    let _pid = options.pid.clone().map(PidFile::write).transpose()?;
    let opened = Opened::open(loaded, identities, given, run_directory.path())?;
    opened
        .logs
        .take_stderr()
        .context("cannot write to the file of the log")?;
    let site = &opened.loaded.site;
    let admin = admin::place(site, run_directory.path());
    run_directory
        .sign(&site.file, &admin)
        .context("cannot write into the run directory")?;
    // One thread: children must be started by the thread that lives as long as we do (`PR_SET_PDEATHSIG`).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        Master::start(opened, started, admin, source.clone(), options.broken)?
            .run()
            .await
    })
}

/// The usual soft limit of 1024 is for programs that call `select`; each connection of a visitor needs a descriptor.
fn raise_open_files() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    Ok(())
}
