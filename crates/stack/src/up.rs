//! `stack up`: from a file to a site that is served, and back.
//!
//! This module opens what only the master may open and then hands over to [`master`], which lives until it is told to
//! stop. The order matters: whatever the user can have got wrong comes before anything is started.

mod admin;
mod allowances;
mod banner;
mod certificates;
mod credentials;
mod dev;
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
mod upgrade;
mod users;
mod watchdog;

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use ::proxy::control::Closed;
use anyhow::Context;
use config::{
    Loaded,
    site::{ErrorLogFormat, Site},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use supervisor::title::Title;
use telemetry::log::{Format, Process, Settings};

use crate::{
    args::Up,
    failure::Failure,
    identity::{self, Identities},
    load::{Origin, Source},
    up::{
        dev::Dev,
        listen::Given,
        master::Master,
        opened::Opened,
        pidfile::PidFile,
        rundir::RunDirectory,
        upgrade::{Beginning, Heir, Will},
    },
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
    let source = Source {
        origin: Origin::File(up.config.path()?),
        dev: up.dev,
    };
    let options = Options {
        pid: up.pid,
        ..Options::default()
    };
    run(&source, options)
}

/// Serves the configuration until told to stop.
pub(crate) fn run(source: &Source, options: Options) -> Result<(), Failure> {
    // First of all: nothing may take the numbers of what we were given.
    let heir = Heir::take()?;
    let will = heir.as_ref().map(|heir| heir.control.try_clone());
    let will = will.transpose().context("no descriptors")?;
    let end = serve(source, options, heir);
    // The old master serves on, and says why.
    if let (Some(will), Err(failure)) = (will, &end) {
        will.failed(&failure.text());
    }
    end
}

fn serve(source: &Source, options: Options, heir: Option<Heir>) -> Result<(), Failure> {
    let started = Instant::now();
    let beginning = Beginning::now().context("cannot find out where this program is")?;
    // The arguments have been read, and are remembered.
    let title = Title::find();
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
    telemetry::log::never_wait().context("cannot start the log's thread")?;
    raise_open_files()?;
    let identities = match Identities::of(&loaded.site) {
        Ok(identities) => identities,
        Err(problems) => return Err(Failure::Config(loaded.report(problems))),
    };
    if identity::is_all_root(&loaded.site) {
        tracing::warn!(
            "the proxy runs as root, and so does every app without a `user`: name one in [server], such as `user = \"www-data\"`"
        );
    }
    let (opened, mut setting) = open(loaded, identities, options, heir)?;
    opened
        .logs
        .take_stderr()
        .context("cannot write to the file of the log")?;
    if setting.will.is_none() {
        setting.show(&opened.loaded.site)?;
    }
    // One thread: children must be started by the thread that lives as long as we do (`PR_SET_PDEATHSIG`).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let source = source.clone();
    let dev = Dev::start(&opened.loaded.site, &source);
    runtime.block_on(async {
        let beginnings = Beginnings {
            started,
            source,
            dev,
            beginning,
            setting,
            title,
        };
        Master::start(opened, beginnings)?.run().await
    })
}

/// Opens everything, and what shows on the machine that we serve.
fn open(
    loaded: Loaded,
    identities: Identities,
    options: Options,
    heir: Option<Heir>,
) -> Result<(Opened, Setting), Failure> {
    let Options { pid, broken } = options;
    let Some(mut heir) = heir else {
        let given = Given::take()?;
        let run_directory = RunDirectory::open(&loaded.site.file, identities.proxy())?;
        let opened = Opened::open(loaded, identities, given, &run_directory.sockets())?;
        let setting = Setting {
            run_directory,
            pid,
            pid_file: None,
            broken,
            will: None,
            numbers: BTreeMap::new(),
            closed: Vec::new(),
        };
        return Ok((opened, setting));
    };
    let opened = Opened::open_as_heir(loaded, identities, &heir)?;
    let lock = heir.lock.take().context("the lock is taken once")?;
    let Heir {
        estate, control, ..
    } = heir;
    let setting = Setting {
        run_directory: RunDirectory::adopt(estate.run_directory, estate.made, lock),
        pid,
        pid_file: None,
        broken: BrokenApp::Ends,
        will: Some(control),
        numbers: estate.numbers,
        closed: estate.closed,
    };
    Ok((opened, setting))
}

/// What a master is to know besides what is open.
#[derive(Debug)]
struct Beginnings {
    started: Instant,
    source: Source,
    dev: Option<Dev>,
    beginning: Beginning,
    setting: Setting,
    title: Title,
}

/// Where it shows that we serve.
#[derive(Debug)]
struct Setting {
    run_directory: RunDirectory,
    /// Where our process id is to be written.
    pid: Option<PathBuf>,
    pid_file: Option<PidFile>,
    broken: BrokenApp,
    /// The way to the master that we are to follow.
    will: Option<Will>,
    /// The last number that it gave to a worker of each app.
    numbers: BTreeMap<String, u32>,
    /// What it had closed for maintenance.
    closed: Vec<Closed>,
}

impl Setting {
    /// Shows it.
    fn show(&mut self, site: &Site) -> Result<(), Failure> {
        let pid = self.pid.clone();
        self.pid_file = match self.will {
            None => pid.map(PidFile::write).transpose()?,
            Some(_) => pid.map(PidFile::replace).transpose()?,
        };
        let admin = self.admin(site);
        self.run_directory
            .sign(&site.file, &admin)
            .context("cannot write into the run directory")?;
        Ok(())
    }

    fn admin(&self, site: &Site) -> PathBuf {
        admin::place(site, self.run_directory.path())
    }
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
