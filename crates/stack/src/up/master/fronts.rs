//! The proxies: the one that serves, one that comes, and those that finish what they have begun.

use std::time::{Duration, Instant};

use ::proxy::control::{Order, Report, WorkerName};
use anyhow::Context;
use appserver::pool::{Load, keeper};
use supervisor::child::Exit;
use telemetry::{metrics, text::Elapsed};
use tracing::error;

use super::{FrontState, Leaving, Master, Phase};
use crate::failure::Failure;
use crate::up::{
    dev::Dev,
    front::{self, Front},
};

/// The longest wait until a proxy that had served is followed by another. Everybody waits in its place, in the backlog of the
/// sockets, and what has served will serve again; with waits up to half a minute, a proxy that died every few seconds left
/// visitors of files waiting for as long. One that cannot even start waits longer.
pub(super) const MISSED: Duration = Duration::from_secs(1);

impl Master {
    pub(super) fn start_front(&mut self) -> anyhow::Result<()> {
        let serve = self
            .opened
            .serve(&self.closed)
            .context("no descriptors for the proxy")?;
        let front = Front::start(
            serve,
            self.opened.identities.proxy(),
            self.front_reports.clone(),
        )?;
        let broken = self.dev.as_ref().and_then(Dev::order);
        for order in self.roster.orders().into_iter().chain(broken) {
            front.tell(order);
        }
        self.front = FrontState::Starting(front);
        self.hand_challenges();
        Ok(())
    }

    /// When it has no process, that is one more of its failures: the workers and the sockets are worth waiting for.
    pub(super) fn restart_front(&mut self, now: Instant) {
        if let Err(error) = self.start_front() {
            let again = self.front_failures.died(now);
            let wait = Elapsed(again.saturating_duration_since(now));
            error!("the proxy cannot be started: {error:#}; next try in {wait}");
            self.front = FrontState::Waiting(again);
        }
    }

    /// A proxy that should serve answers for both of us; where there is none to ask we are at work on that.
    pub(super) fn show_life(&self) {
        match (&self.phase, self.front.front()) {
            (Phase::Starting { .. } | Phase::Serving, Some(front)) => front.tell(Order::Ping),
            _ => self.notify(&[("WATCHDOG", "1")]),
        }
    }

    pub(in crate::up) fn leaving_fronts(&self) -> impl Iterator<Item = &Front> {
        self.leaving.iter().map(|leaving| &leaving.front)
    }

    pub(super) fn front_told(&mut self, pid: i32, told: front::Told) -> Result<(), Failure> {
        match told {
            front::Told::Report(report) => self.front_reports(pid, report)?,
            front::Told::Exited(exit) => {
                let is = |front: &Front| front.pid == pid;
                if self.coming.as_ref().is_some_and(is) {
                    self.not_switched(&exit.to_string());
                } else if self.front.front().is_some_and(is) {
                    self.front_exited(exit);
                } else {
                    self.left(pid, exit);
                }
            }
        }
        Ok(())
    }

    fn front_reports(&mut self, pid: i32, report: Report) -> Result<(), Failure> {
        let is_coming = self.coming.as_ref().is_some_and(|front| front.pid == pid);
        match report {
            Report::Serving { made } if is_coming => {
                self.switched();
                self.opened.keep(made);
            }
            Report::Serving { made } => {
                self.opened.keep(made);
                self.front_serves()?;
            }
            Report::Prepared => self.planned(pid),
            // Whoever asked has it already.
            Report::Figures(_) => {}
            Report::Answering { number } => self.challenges_answered(number),
            Report::Alive => self.notify(&[("WATCHDOG", "1")]),
            Report::Refused { why } if is_coming => self.not_switched(&why),
            Report::Refused { why } => self.front_refuses(&why)?,
            Report::Asked { id, question } => self.asked_through(pid, id, question),
            Report::Relieved { worker } => self.relieved(&worker),
            Report::Released { worker } => {
                if self.roster.released(&worker) {
                    self.released(worker);
                }
            }
            Report::Load { app, waited, busy } => {
                self.tell_pool(&app, keeper::Order::Load(Load { waited, busy }));
            }
            Report::Overdue { worker, request_id } => {
                let WorkerName { app, number } = worker;
                self.tell_pool(&app, keeper::Order::Overdue { number, request_id });
            }
        }
        Ok(())
    }

    /// Another proxy serves in the place of the one that did, which finishes what it has begun with the workers it knows.
    pub(in crate::up) fn replace_front(&mut self, front: Front) {
        let before = std::mem::replace(&mut self.front, FrontState::Serving(front));
        let workers = self.roster.hand_over();
        self.hand_challenges();
        match before {
            FrontState::Starting(front) | FrontState::Serving(front) => {
                front.tell(Order::Retire);
                self.leaving.push(Leaving { front, workers });
            }
            FrontState::Waiting(_) | FrontState::Gone => {
                for worker in workers {
                    self.released(worker);
                }
            }
        }
    }

    /// A proxy that another has followed is gone.
    fn left(&mut self, pid: i32, exit: Exit) {
        let Some(at) = self
            .leaving
            .iter()
            .position(|leaving| leaving.front.pid == pid)
        else {
            return;
        };
        if exit != Exit::Code(0) {
            error!("the old proxy (pid {pid}) died while it finished what ran: {exit}");
        }
        for worker in self.leaving.swap_remove(at).workers {
            self.released(worker);
        }
        if let Phase::Draining { deadline } = self.phase {
            self.stop_pools_if_alone(deadline);
        }
    }

    fn front_serves(&mut self) -> Result<(), Failure> {
        self.front = match std::mem::replace(&mut self.front, FrontState::Gone) {
            FrontState::Starting(front) => FrontState::Serving(front),
            other => other,
        };
        let now = Instant::now();
        self.front_deaths.up(now);
        self.front_failures.up(now);
        self.open_office();
        self.announce_if_ready()?;
        self.plan_serves();
        self.plan_again();
        Ok(())
    }

    /// At the start that is the end. Later it is not: what the first proxy could serve a later one will again, once what is
    /// missing now (a folder, descriptors) is there again; meanwhile it is restarted as after any death.
    fn front_refuses(&mut self, why: &str) -> Result<(), Failure> {
        if self.plan_refused(why) {
            return Ok(());
        }
        let message = format!("the proxy cannot serve this configuration: {why}");
        if matches!(self.phase, Phase::Starting { .. }) {
            return Err(Failure::User(message));
        }
        error!("{message}");
        Ok(())
    }

    fn front_exited(&mut self, exit: Exit) {
        let pid = self.front.front().map_or(0, |front| front.pid);
        self.figures.buried(pid);
        let had_served = matches!(self.front, FrontState::Serving(_));
        self.front = FrontState::Gone;
        for worker in self.roster.all_released() {
            self.released(worker);
        }
        match self.phase {
            Phase::Draining { deadline } => {
                if exit != Exit::Code(0) {
                    error!("the proxy (pid {pid}) died while it finished what ran: {exit}");
                }
                self.stop_pools_if_alone(deadline);
            }
            Phase::Stopping => {
                // After the deadline of the grace nothing has told the workers yet; told twice is told once.
                self.stop_pools(Instant::now());
            }
            Phase::Starting { .. } | Phase::Serving => {
                let now = Instant::now();
                let again = match had_served {
                    true => self.front_deaths.died(now),
                    false => self.front_failures.died(now),
                };
                let wait = Elapsed(again.saturating_duration_since(now));
                self.figures.add(&metrics::PROXY_DEATHS, []);
                error!(
                    "the proxy (pid {pid}) died: {exit}; every connection broke, another starts in {wait}"
                );
                self.front = FrontState::Waiting(again);
                // The next one begins with what is new.
                self.plan_serves();
            }
        }
    }

    pub(in crate::up) fn tell_front(&self, order: Order) {
        if let Some(front) = self.front.front() {
            front.tell(order);
        }
    }
}
