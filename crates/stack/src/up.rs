//! `stack up`: from a file to a site that is served, and back.
//!
//! This module opens what only the master may open and then hands over to [`master`], which lives until it is told to
//! stop. The order matters: whatever the user can have got wrong comes before anything is started.

mod admin;
mod banner;
mod front;
mod listen;
mod master;
mod opened;
mod roster;
pub(crate) mod rundir;

use std::time::Instant;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telemetry::log::{Process, Settings};

use crate::{
    args::ConfigFile,
    failure::Failure,
    load,
    up::{master::Master, opened::Opened, rundir::RunDirectory},
};

/// Serves the configuration until told to stop.
pub(crate) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let started = Instant::now();
    let loaded = load::load(&file.path()?)?;
    telemetry::log::init(Settings {
        process: Process::Master,
    })?;
    raise_open_files()?;
    let mut run_directory = RunDirectory::open(&loaded.site.file)?;
    let opened = Opened::open(loaded, run_directory.path())?;
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
    runtime.block_on(async { Master::start(opened, started, admin)?.run().await })
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
