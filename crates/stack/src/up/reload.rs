//! A reload: another configuration and new code take over from a running one, or nothing changes.
//!
//! Its steps, in this order: read and judge the file; open what it needs beside what is open; have the proxy make a plan of
//! it; run the errands of the apps (`before_reload`); start a new generation of workers beside the old one. Until all of that
//! has gone well (`prepare`) the old serves on, and whatever fails is the end of it: what was begun is taken back, and whoever asked is
//! told why. Then, in one step, the proxy's plan and the generations change (`change`).
//!
//! There is one reload at a time. Those who ask meanwhile share the next one, which reads the file after they have asked.

mod change;
mod prepare;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ::proxy::control::WorkerName;
use appserver::worker::Template;
use config::Loaded;
use tokio::sync::oneshot;
use tracing::info;

use super::{
    admin::Answer,
    errand,
    master::{Master, Phase},
    opened::Opened,
};
use crate::{failure::Failure, identity::Identities};

/// What is to be new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The configuration, and the workers of all apps: whether code has changed cannot be told from outside.
    Everything,
    /// The configuration, the workers of these apps, and of those that it makes different.
    Apps(BTreeSet<String>),
}

/// A reload that somebody wants.
#[derive(Debug)]
pub(super) struct Wanted {
    scope: Scope,
    askers: Vec<oneshot::Sender<Answer>>,
}

/// A reload that is going on.
#[derive(Debug)]
pub(super) struct Reload {
    wanted: Wanted,
    since: Instant,
    step: Step,
    /// What is to be served, once it is open.
    next: Option<Box<Next>>,
    /// Whether the files of the logs have been moved aside since it was opened.
    logs_moved: bool,
}

/// The configuration that is to come.
#[derive(Debug)]
struct Next {
    opened: Opened,
    templates: BTreeMap<String, Template>,
    /// Apps that get new workers.
    renewed: BTreeSet<String>,
    /// Of them, those that there were not before.
    new: BTreeSet<String>,
    /// The proxy that has a plan of it.
    planned_by: Option<i32>,
    /// Whether it is served by another proxy, because the one that runs has confined itself to less.
    another: bool,
}

/// How far it has come.
#[derive(Debug)]
enum Step {
    /// The file is being read.
    Reading,
    /// The proxy makes a plan.
    Planning { until: Instant, then: Then },
    /// Errands are run.
    Errands,
    /// New workers start.
    Staging { missing: BTreeSet<String> },
    /// Another proxy starts.
    Switching { until: Instant },
    /// It has taken over; old workers are still being replaced.
    Renewing {
        missing: BTreeSet<String>,
        /// Whether the proxy is still to say that it serves the new plan.
        plan: bool,
        /// Old workers that still get requests, until the new ones have a free slot.
        relieving: BTreeSet<WorkerName>,
        failed: Vec<String>,
    },
}

/// What follows a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Errands,
    Commit,
}

/// What comes back of work that was done elsewhere, with the time at which its reload began.
#[derive(Debug)]
pub(super) enum Came {
    /// The file was read.
    Read(Instant, Box<Result<(Loaded, Identities), Failure>>),
    /// The errands were run.
    Errands(Instant, Result<(), errand::Error>),
}

/// How long a proxy may take to make a plan, or to start. It takes milliseconds; one that hangs must not keep a reload from
/// ever ending.
const PROXY_PATIENCE: Duration = Duration::from_secs(60);

impl Scope {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Apps(mut one), Self::Apps(two)) => {
                one.extend(two);
                Self::Apps(one)
            }
            _ => Self::Everything,
        }
    }

    fn includes(&self, app: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Apps(apps) => apps.contains(app),
        }
    }
}

/// Asking, and the beginning.
impl Master {
    /// Somebody wants a reload.
    pub(super) fn want_reload(&mut self, scope: Scope, asker: Option<oneshot::Sender<Answer>>) {
        if matches!(self.phase, Phase::Draining { .. } | Phase::Stopping) {
            if let Some(asker) = asker {
                let _ = asker.send(Answer::conflict("it is stopping"));
            }
            return;
        }
        let mut askers: Vec<_> = asker.into_iter().collect();
        let scope = match self.next_reload.take() {
            Some(wanted) => {
                askers.extend(wanted.askers);
                wanted.scope.and(scope)
            }
            None => scope,
        };
        self.next_reload = Some(Wanted { scope, askers });
        self.begin_reload();
    }

    /// Begins the next one, if it may.
    pub(super) fn begin_reload(&mut self) {
        if self.reload.is_some() || !matches!(self.phase, Phase::Serving) {
            return;
        }
        let Some(wanted) = self.next_reload.take() else {
            return;
        };
        info!("reloading {}", self.opened.loaded.title());
        self.notify_reloading();
        let since = Instant::now();
        self.reload = Some(Reload {
            wanted,
            since,
            step: Step::Reading,
            next: None,
            logs_moved: false,
        });
        let (source, came) = (self.source.clone(), self.came.clone());
        // Files, users and interpreters are looked up, and any of that may block.
        tokio::task::spawn_blocking(move || {
            let read = source
                .load()
                .and_then(|loaded| match Identities::of(&loaded.site) {
                    Ok(identities) => Ok((loaded, identities)),
                    Err(problems) => Err(Failure::Config(loaded.report(problems))),
                });
            // Nobody listens only when the master is gone.
            let _ = came.send(Came::Read(since, Box::new(read)));
        });
    }

    /// The files of the logs are others now; what is to come may have opened the ones before.
    pub(super) fn reload_missed_logs(&mut self) {
        if let Some(reload) = &mut self.reload {
            reload.logs_moved = true;
        }
    }

    /// When [`Self::reload_tick`] is due.
    pub(super) fn reload_wake(&self) -> Option<Instant> {
        match self.reload.as_ref()?.step {
            Step::Planning { until, .. } | Step::Switching { until } => Some(until),
            _ => None,
        }
    }

    /// Gives up a proxy that does not answer.
    pub(super) fn reload_tick(&mut self, now: Instant) {
        if self.reload_wake().is_some_and(|until| until <= now) {
            self.fail_reload("the proxy does not answer");
        }
    }

    /// Work that was done elsewhere has come to its end.
    pub(super) fn reload_came(&mut self, came: Came) {
        let Some(reload) = &self.reload else {
            return;
        };
        match came {
            Came::Read(since, read) if since == reload.since => match *read {
                Ok((loaded, identities)) => self.open_next(loaded, identities),
                Err(failure) => self.fail_reload(&failure.text()),
            },
            Came::Errands(since, end) if since == reload.since => match end {
                Ok(()) => self.stage(),
                Err(error) => self.fail_reload(&error.to_string()),
            },
            // Of a reload that has been given up.
            Came::Read(..) | Came::Errands(..) => {}
        }
    }
}

impl Wanted {
    fn answer(self, answer: &Answer) {
        for asker in self.askers {
            // Whoever asked may have gone.
            let _ = asker.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_together_gets_what_all_have_asked_for() {
        let apps =
            |names: &[&str]| Scope::Apps(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(apps(&["a"]).and(apps(&["b"])), apps(&["a", "b"]));
        assert_eq!(apps(&[]).and(apps(&[])), apps(&[]));
        assert_eq!(apps(&["a"]).and(Scope::Everything), Scope::Everything);
        assert!(Scope::Everything.includes("a"));
        assert!(!apps(&[]).includes("a"));
    }
}
