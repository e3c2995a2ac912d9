//! The pools of workers: what they tell, and who must hear of it.

use ::proxy::control::{Order, WorkerName};
use appserver::pool::keeper::{self, Keeper};
use telemetry::metrics;
use tokio::sync::mpsc;

use super::{Master, Phase};
use crate::failure::Failure;
use crate::up::BrokenApp;

impl Master {
    pub(super) fn start_pools(&mut self) {
        for template in std::mem::take(&mut self.opened.templates) {
            let app = template.app.name.clone();
            let (orders, obeyed) = mpsc::unbounded_channel();
            let number = self.last_numbers.get(&app).copied().unwrap_or_default();
            self.templates.insert(app.clone(), template.clone());
            self.pools.insert(app, orders);
            tokio::spawn(Keeper::new(template, number, self.pool_reports.clone()).run(obeyed));
        }
    }

    pub(super) fn pool_told(&mut self, app: String, told: keeper::Told) -> Result<(), Failure> {
        match told {
            keeper::Told::Ready {
                number,
                socket,
                threads,
                program,
            } => {
                self.figures.add(&metrics::WORKER_STARTS, [app.as_str()]);
                if let Some(program) = program {
                    self.programs.insert(app.clone(), program);
                }
                self.works(&app);
                let last = self.last_numbers.entry(app.clone()).or_default();
                *last = number.max(*last);
                let order = self
                    .roster
                    .ready(WorkerName { app, number }, socket, threads);
                self.tell_front(order);
            }
            keeper::Told::Release { number } => self.release(WorkerName { app, number }),
            keeper::Told::Gone {
                number,
                how,
                reason,
            } => self.gone(WorkerName { app, number }, how, &reason),
            keeper::Told::Failed { why, .. }
                if self.setting.broken == BrokenApp::Ends
                    && matches!(self.phase, Phase::Starting { .. }) =>
            {
                return Err(Failure::User(format!("the app cannot start: {why}")));
            }
            keeper::Told::Failed { why, traceback } => {
                self.is_broken(&format!("{why}\n{traceback}"), Some(app.clone()));
                let order = self.roster.failed(app, why);
                self.tell_front(order);
            }
            keeper::Told::Decided => {
                if let Phase::Starting { undecided } = &mut self.phase {
                    undecided.remove(&app);
                }
                self.start_front_as_heir()?;
                self.announce_if_ready()?;
            }
            keeper::Told::Staged => self.staged(&app),
            keeper::Told::StageFailed { why, traceback } => self.stage_failed(&why, &traceback),
            keeper::Told::Renewed => self.renewed(&app, None),
            keeper::Told::RenewFailed { why } => self.renewed(&app, Some(why)),
            keeper::Told::Closed { number } => {
                self.pools.remove(&app);
                self.last_numbers.insert(app, number);
            }
        }
        Ok(())
    }

    fn gone(&mut self, worker: WorkerName, how: String, reason: &str) {
        let labels = [worker.app.as_str(), reason];
        self.figures.add(&metrics::WORKER_EXITS, labels);
        self.relieved(&worker);
        for leaving in &mut self.leaving {
            if leaving.workers.remove(&worker) {
                let (worker, how) = (worker.clone(), how.clone());
                leaving.front.tell(Order::WorkerDied { worker, how });
            }
        }
        let order = self.roster.gone(worker, how);
        self.tell_front(order);
    }

    /// Has the proxy let go of a worker; where there is no proxy, nobody holds it. One that leaves lets go when it is gone.
    fn release(&mut self, worker: WorkerName) {
        let mut leaving = self.leaving.iter();
        if leaving.any(|leaving| leaving.workers.contains(&worker)) {
            return;
        }
        let order = self.roster.release(worker.clone());
        match self.front.front() {
            Some(front) => {
                front.tell(order);
                self.relieving(worker);
            }
            None => {
                self.roster.released(&worker);
                self.released(worker);
            }
        }
    }

    pub(super) fn released(&mut self, worker: WorkerName) {
        self.relieved(&worker);
        let WorkerName { app, number } = worker;
        self.tell_pool(&app, keeper::Order::Released { number });
    }

    pub(in crate::up) fn tell_pool(&self, app: &str, order: keeper::Order) {
        if let Some(pool) = self.pools.get(app) {
            // One that has closed by itself is told of in a moment.
            let _ = pool.send(order);
        }
    }

    pub(super) fn tell_pools(&self, order: impl Fn() -> keeper::Order) {
        for pool in self.pools.values() {
            let _ = pool.send(order());
        }
    }
}
