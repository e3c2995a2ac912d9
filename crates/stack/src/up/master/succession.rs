//! One master after another: this one as the heir of an earlier one, and as the one that leaves an estate.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{FrontState, Master, Phase, Upgrade};
use crate::up::{
    admin::{Admin, Answer},
    listen::Listening,
    upgrade::{self, Estate},
};
use crate::{admin::Upgraded, failure::Failure};

impl Master {
    pub(super) fn open_admin(&mut self) -> Result<(), Failure> {
        let path = self.setting.admin(&self.opened.loaded.site);
        let shown = path.display().to_string();
        let admin = Admin::open(path, self.ask.clone());
        self.admin = Some(admin.with_context(|| format!("cannot listen on {shown}"))?);
        Ok(())
    }

    /// The apps of an heir are ready: now it may have visitors.
    pub(super) fn start_front_as_heir(&mut self) -> Result<(), Failure> {
        let Phase::Starting { undecided } = &self.phase else {
            return Ok(());
        };
        let waits = self.setting.will.is_some() && matches!(self.front, FrontState::Gone);
        if !waits || !undecided.is_empty() {
            return Ok(());
        }
        if let Some((app, why)) = self.roster.failures().iter().next() {
            return Err(Failure::User(format!("app {app} cannot start: {why}")));
        }
        Ok(self.start_front()?)
    }

    /// An heir serves: what shows on the machine is its own from here on, and the old master may go.
    pub(super) fn take_over(&mut self) -> Result<(), Failure> {
        self.setting.show(&self.opened.loaded.site)?;
        self.open_admin()?;
        self.setting.run_directory.claim();
        self.opened.listening.iter().for_each(Listening::claim);
        if let Some(will) = self.setting.will.take() {
            will.ready().context("the old master is gone")?;
        }
        Ok(())
    }

    /// Somebody wants another master to take over, of the program that is there by now.
    pub(in crate::up) fn upgrade(&mut self, asker: Option<oneshot::Sender<Answer>>) {
        let refusal = match (&mut self.upgrade, &self.phase) {
            (Upgrade::Starting(askers), _) => return askers.extend(asker),
            (Upgrade::No, Phase::Serving) if self.reload.is_none() => None,
            (Upgrade::No, Phase::Serving) => Some("a reload is going on: try again after it"),
            (Upgrade::No, Phase::Starting { .. }) => {
                Some("not all apps have been tried yet: try again once it is ready")
            }
            _ => Some("it is leaving"),
        };
        let refusal = refusal.or_else(|| {
            (std::process::id() == 1).then_some(
                "it is the first process of a container, which ends with it: start a new container",
            )
        });
        if let Some(why) = refusal {
            warn!("no upgrade: {why}");
            drop(asker.map(|asker| asker.send(Answer::conflict(why))));
            return;
        }
        let started = upgrade::start(
            &self.beginning,
            self.estate(),
            &self.opened.listening,
            self.setting.run_directory.lock(),
            self.upgrade_patience(),
            self.upgraded.clone(),
        );
        self.upgrade = Upgrade::Starting(asker.into_iter().collect());
        match started {
            Ok(pid) => info!("another master starts (pid {pid}), to take over"),
            Err(error) => self.upgrade_ended(upgrade::End::Failed(format!("{error:#}"))),
        }
    }

    fn estate(&self) -> Estate {
        let (certificates, tickets) = self.opened.inheritance();
        Estate {
            run_directory: self.setting.run_directory.path().to_owned(),
            made: self.setting.run_directory.is_made(),
            numbers: self.last_numbers.clone(),
            certificates,
            tickets,
            closed: self.closed.clone(),
            ..Estate::default()
        }
    }

    /// As long as the slowest app may take, and a moment for the rest.
    fn upgrade_patience(&self) -> Duration {
        let apps = self.opened.loaded.site.apps.iter();
        let slowest = apps.map(|app| app.boot_timeout).max().unwrap_or_default();
        slowest + UPGRADE
    }

    pub(super) fn upgrade_ended(&mut self, end: upgrade::End) {
        let Upgrade::Starting(askers) = std::mem::replace(&mut self.upgrade, Upgrade::No) else {
            return;
        };
        let answer = match end {
            upgrade::End::Ready(successor) => {
                let pid = successor.pid();
                successor.let_go();
                self.hand_over(pid);
                Answer::json(&Upgraded { pid })
            }
            upgrade::End::Failed(why) => {
                error!("the upgrade has failed, and nothing has changed: {why}");
                Answer::conflict(why)
            }
        };
        for asker in askers {
            // Whoever asked may have gone.
            let _ = asker.send(answer.clone());
        }
    }

    /// Another master serves: we finish what we have begun, and leave.
    pub(super) fn hand_over(&mut self, pid: i32) {
        info!("the master of process {pid} has taken over");
        // Only the process that the manager knows may name another.
        self.notify(&[("MAINPID", &pid.to_string())]);
        // What shows on the machine is another's; all else goes with us.
        if let Some(admin) = &mut self.admin {
            admin.let_go();
        }
        self.setting.run_directory.let_go();
        self.opened.listening.iter().for_each(Listening::let_go);
        self.upgrade = Upgrade::Done;
        self.drain_once();
    }
}

/// How long another master may take for everything but its apps.
const UPGRADE: Duration = Duration::from_secs(30);
