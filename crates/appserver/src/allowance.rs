//! What the workers of an app may take of the machine: what the configuration asks for, as far as this machine allows it.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use config::site::App;
use supervisor::{
    child::Command,
    group::{Delegation, Group},
    limits,
    tmp::PrivateTmp,
};
use telemetry::text::Size;
use tracing::{info, warn};

/// What each worker of an app may take.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    open_files: Option<u64>,
    memory_max: Option<u64>,
    tmp: Option<Arc<PrivateTmp>>,
    groups: Option<Arc<Delegation>>,
    /// Whether it was said already that groups cannot be made.
    complained: Arc<AtomicBool>,
}

impl Allowance {
    /// What this app's workers may take: temporary files in `tmp`, and groups in `groups`, where there are such.
    #[must_use]
    pub fn new(app: &App, tmp: Option<Arc<PrivateTmp>>, groups: Option<Arc<Delegation>>) -> Self {
        Self {
            open_files: app.nofile.map(limits::open_files),
            memory_max: app.memory_max,
            tmp,
            groups,
            complained: Arc::default(),
        }
    }

    /// Says in the log what came of what was asked for.
    pub fn tell(&self, app: &App) {
        let name = &app.name;
        if let (Some(wanted), Some(allowed)) = (app.nofile, self.open_files)
            && allowed < wanted
        {
            warn!(
                "app {name}: its workers get {allowed} descriptors, and not the {wanted} of `nofile`: more only root can give \
                 (LimitNOFILE= in the unit)"
            );
        }
        let mut said = String::new();
        if let Some(most) = self.memory_max {
            let how = if self.has_memory_group() {
                "of a control group of its own"
            } else {
                "by RLIMIT_DATA, as there is no control group to divide"
            };
            let _ = write!(said, ", {} of memory ({how})", Size(most));
        }
        if let Some(most) = self.open_files {
            let _ = write!(said, ", {most} descriptors");
        }
        if let Some(tmp) = &self.tmp {
            let how = if tmp.is_mounted() {
                "/tmp of its own"
            } else {
                "TMPDIR of its own"
            };
            let _ = write!(said, ", {how}");
        }
        if let Some(said) = said.strip_prefix(", ") {
            info!("app {name}: each worker has {said}");
        }
    }

    fn has_memory_group(&self) -> bool {
        self.groups
            .as_ref()
            .is_some_and(|groups| groups.has_memory())
    }

    /// A group for one worker, where there are such.
    pub(crate) fn group(&self, app: &str, number: u32) -> Option<Group> {
        // Two masters have workers while one takes over from the other.
        let name = format!("{app}.{number}.{}", std::process::id());
        match self.groups.as_ref()?.group(&name, self.memory_max) {
            Ok(group) => Some(group),
            Err(error) => {
                if !self.complained.swap(true, Ordering::Relaxed) {
                    warn!("app {app}: no control groups for its workers: {error}");
                }
                None
            }
        }
    }

    /// To a worker that is to be in this group, if there is one.
    pub(crate) fn apply(&self, mut command: Command, group: Option<&Group>) -> Command {
        if let Some(most) = self.open_files {
            command = command.open_files(most);
        }
        let is_limited = group.is_some() && self.has_memory_group();
        if let Some(most) = self.memory_max.filter(|_| !is_limited) {
            command = command.data(most);
        }
        command
    }

    /// To a worker whose environment has not been set yet: what the configuration says of `TMPDIR` wins.
    pub(crate) fn apply_tmp(&self, command: Command) -> Command {
        match &self.tmp {
            Some(tmp) => command.private_tmp(tmp),
            None => command,
        }
    }
}
