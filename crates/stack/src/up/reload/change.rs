//! The change: in one step the proxy's plan and the generations, or another proxy; then the old workers are released.

use std::{collections::BTreeSet, time::Instant};

use ::proxy::control::{Order, WorkerName};
use appserver::pool::keeper;
use telemetry::{metrics, text::Elapsed};
use tracing::{info, warn};

use super::{Next, PROXY_PATIENCE, Reload, Step, Then};
use crate::{
    admin::Reloaded,
    check::plural,
    up::{admin::Answer, front::Front, master::Master, opened::Opened},
};

impl Master {
    pub(super) fn commit_if_staged(&mut self) {
        let Some(Reload {
            step: Step::Staging { missing },
            next: Some(next),
            ..
        }) = &self.reload
        else {
            return;
        };
        if !missing.is_empty() {
            return;
        }
        let pid = self.front.front().map(|front| front.pid);
        if next.another {
            self.switch();
        } else if pid.is_none() || pid == next.planned_by {
            self.commit();
        } else {
            self.plan(Then::Commit);
        }
    }

    /// Starts another proxy beside the one that runs, on the same sockets.
    fn switch(&mut self) {
        let Some(next) = self.next() else { return };
        let begin = || {
            let serve = next.opened.serve(&self.closed)?;
            let user = next.opened.identities.proxy();
            Front::start(serve, user, self.front_reports.clone())
        };
        match begin() {
            Ok(front) => {
                info!("the configuration needs more than the proxy has kept: another one starts");
                self.coming = Some(front);
                let until = Instant::now() + PROXY_PATIENCE;
                self.step(Step::Switching { until });
            }
            Err(error) => self.fail_reload(&format!("another proxy cannot be started: {error:#}")),
        }
    }

    /// The other proxy serves: now it is the one, and the old one finishes what it has begun, with the old workers.
    pub(in crate::up) fn switched(&mut self) {
        if let Some(front) = self.coming.take() {
            self.replace_front(front);
            self.commit();
        }
    }

    /// The other proxy does not serve.
    pub(in crate::up) fn not_switched(&mut self, why: &str) {
        if self.coming.take().is_some() {
            self.fail_reload(&format!(
                "the other proxy cannot serve this configuration: {why}"
            ));
        }
    }

    pub(super) fn commit(&mut self) {
        let Some(mut reload) = self.reload.take() else {
            return;
        };
        let Some(next) = reload.next.take() else {
            return;
        };
        let Next {
            opened,
            templates,
            renewed,
            another,
            ..
        } = *next;
        let before = std::mem::replace(&mut self.opened, opened);
        self.adopt_log(&before.loaded);
        let Opened {
            loaded,
            credentials,
            ..
        } = &mut self.opened;
        let got = credentials.catch_up(&loaded.site, &before.credentials);
        self.open_office();
        self.try_certificates_again();
        self.figures.add(&metrics::RELOADS, ["done"]);
        // From here on a proxy that dies is followed by one that begins with the new configuration.
        let plan = !another && self.front.front().is_some();
        if plan {
            self.tell_front(Order::Commit);
        }
        if let Some(credentials) = got {
            self.tell_front(Order::Renew { credentials });
        }
        for (app, template) in &templates {
            let order = match renewed.contains(app) {
                true => keeper::Order::Commit,
                false => keeper::Order::Update(Box::new(template.clone())),
            };
            self.tell_pool(app, order);
        }
        for app in self
            .pools
            .keys()
            .filter(|app| !templates.contains_key(*app))
        {
            info!("app {app} is served no more");
            self.tell_pool(app, keeper::Order::Dissolve);
        }
        self.roster
            .forget_failures(|app| templates.contains_key(app));
        self.templates = templates;
        reload.step = Step::Renewing {
            missing: renewed,
            plan,
            relieving: BTreeSet::new(),
            failed: Vec::new(),
        };
        let logs_moved = std::mem::take(&mut reload.logs_moved);
        self.reload = Some(reload);
        if logs_moved {
            self.reopen_logs();
        }
        let owed = self.next_reload.as_ref();
        let owed = owed.map(|wanted| wanted.scope.clone());
        self.is_mended(owed);
        self.finish_if_renewed();
    }

    /// The proxy serves the new plan.
    pub(in crate::up) fn plan_serves(&mut self) {
        if let Some(Reload {
            step: Step::Renewing { plan, .. },
            ..
        }) = &mut self.reload
        {
            *plan = false;
            self.finish_if_renewed();
        }
    }

    /// The proxy is to let go of an old worker.
    pub(in crate::up) fn relieving(&mut self, worker: WorkerName) {
        if let Some(Reload {
            step: Step::Renewing { relieving, .. },
            ..
        }) = &mut self.reload
        {
            relieving.insert(worker);
        }
    }

    /// An old worker gets no request any more: whoever has reloaded is to see nothing of it afterwards.
    pub(in crate::up) fn relieved(&mut self, worker: &WorkerName) {
        if let Some(Reload {
            step: Step::Renewing { relieving, .. },
            ..
        }) = &mut self.reload
            && relieving.remove(worker)
        {
            self.finish_if_renewed();
        }
    }

    /// An app has only new workers, or for now no more than those.
    pub(in crate::up) fn renewed(&mut self, app: &str, failure: Option<String>) {
        if let Some(Reload {
            step: Step::Renewing {
                missing, failed, ..
            },
            ..
        }) = &mut self.reload
            && missing.remove(app)
        {
            failed.extend(failure);
            self.finish_if_renewed();
        }
    }

    fn finish_if_renewed(&mut self) {
        let Some(Reload {
            step:
                Step::Renewing {
                    missing,
                    plan: false,
                    relieving,
                    failed,
                },
            since,
            ..
        }) = &self.reload
        else {
            return;
        };
        if !missing.is_empty() || !relieving.is_empty() {
            return;
        }
        let took = since.elapsed();
        let answer = if failed.is_empty() {
            let apps = plural(self.templates.len(), "app");
            info!("reloaded in {}: {apps}", Elapsed(took));
            Answer::json(&Reloaded {
                config: self.opened.loaded.title(),
                took: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            })
        } else {
            let why = failed.join("\n");
            warn!("the reload is not complete: {why}");
            Answer::conflict(format!("not all workers are new yet: {why}"))
        };
        if let Some(reload) = self.reload.take() {
            reload.wanted.answer(&answer);
        }
        self.notify_reloaded();
        self.begin_reload();
    }
}
