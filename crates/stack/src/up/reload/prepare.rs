//! What must go well before anything changes: opening, a plan, errands, new workers beside the old ones. And taking it back.

use std::{collections::BTreeMap, time::Instant};

use ::proxy::control::Order;
use appserver::{
    pool::keeper::{self, Keeper},
    worker::Template,
};
use config::Loaded;
use telemetry::metrics;
use tokio::sync::mpsc;
use tracing::error;

use super::{Came, Next, PROXY_PATIENCE, Reload, Scope, Step, Then};
use crate::{
    failure::Failure,
    identity::Identities,
    up::{admin::Answer, errand::Errand, master::Master},
};

impl Master {
    pub(super) fn open_next(&mut self, loaded: Loaded, identities: Identities) {
        match self.opened_next(loaded, identities) {
            Ok(next) => {
                if let Some(reload) = &mut self.reload {
                    reload.next = Some(Box::new(next));
                }
                self.plan(Then::Errands);
            }
            Err(failure) => self.fail_reload(&failure.text()),
        }
    }

    fn opened_next(&self, loaded: Loaded, identities: Identities) -> Result<Next, Failure> {
        self.refuse_what_needs_a_restart(&loaded, &identities)?;
        let mut opened = self.opened.open_beside(loaded, identities)?;
        let site = &opened.loaded.site;
        let scope = self.reload.as_ref().map(|reload| &reload.wanted.scope);
        if let Some(Scope::Apps(apps)) = scope
            && let Some(app) = apps.iter().find(|app| site.app(app).is_none())
        {
            let file = opened.loaded.title();
            return Err(Failure::User(format!("there is no app {app:?} in {file}")));
        }
        let front = self.front.front();
        let another = front.is_some_and(|front| !front.can_serve(site));
        let templates = std::mem::take(&mut opened.templates);
        let templates: BTreeMap<_, _> = templates
            .into_iter()
            .map(|template| (template.app.name.clone(), template))
            .collect();
        let is_new = |app: &&String| !self.pools.contains_key(*app);
        let wanted = |(app, template): &(&String, &Template)| {
            let before = self.templates.get(*app);
            another
                || scope.is_some_and(|scope| scope.includes(app))
                || is_new(app)
                || before.is_none_or(|before| !before.makes_same(template))
        };
        let renewed = templates.iter().filter(wanted);
        Ok(Next {
            renewed: renewed.map(|(app, _)| app.clone()).collect(),
            new: templates.keys().filter(is_new).cloned().collect(),
            templates,
            opened,
            planned_by: None,
            another,
        })
    }

    fn refuse_what_needs_a_restart(
        &self,
        loaded: &Loaded,
        identities: &Identities,
    ) -> Result<(), Failure> {
        let (now, next) = (&self.opened.loaded.site.server, &loaded.site.server);
        let admin =
            |server: &config::site::Server| server.admin.as_ref().map(|it| it.value.clone());
        let what = if identities.proxy_uid() != self.opened.identities.proxy_uid() {
            "the proxy's user"
        } else if admin(now) != admin(next) {
            "the place of the admin socket"
        } else {
            return Ok(());
        };
        Err(Failure::User(format!(
            "{what} cannot change while it runs: restart for that, or take the change back"
        )))
    }

    pub(super) fn next(&self) -> Option<&Next> {
        self.reload.as_ref()?.next.as_deref()
    }

    pub(super) fn step(&mut self, step: Step) {
        if let Some(reload) = &mut self.reload {
            reload.step = step;
        }
    }

    /// Has the proxy make a plan, if it is to serve it.
    pub(super) fn plan(&mut self, then: Then) {
        let Some(next) = self.next() else { return };
        let Some(front) = self.front.front().filter(|_| !next.another) else {
            return self.follow(then);
        };
        match next.opened.serve(&self.closed) {
            Ok((order, descriptors)) => front.hand(order, descriptors),
            Err(error) => {
                return self.fail_reload(&format!("no descriptors for the proxy: {error}"));
            }
        }
        let until = Instant::now() + PROXY_PATIENCE;
        self.step(Step::Planning { until, then });
    }

    fn follow(&mut self, then: Then) {
        match then {
            Then::Errands => self.run_errands(),
            Then::Commit => self.commit(),
        }
    }

    /// The proxy has a plan.
    pub(in crate::up) fn planned(&mut self, pid: i32) {
        let Some(reload) = &mut self.reload else {
            return;
        };
        if let Some(next) = &mut reload.next {
            next.planned_by = Some(pid);
        }
        if let Step::Planning { then, .. } = reload.step {
            self.follow(then);
        }
    }

    /// A proxy cannot serve what is to come. Says whether it was that.
    pub(in crate::up) fn plan_refused(&mut self, why: &str) -> bool {
        let planning = self
            .reload
            .as_ref()
            .is_some_and(|reload| matches!(reload.step, Step::Planning { .. }));
        if planning {
            self.fail_reload(&format!("the proxy cannot serve this configuration: {why}"));
        }
        planning
    }

    /// A proxy has died and another serves: it has no plan of what is to come.
    pub(in crate::up) fn plan_again(&mut self) {
        if let Some(Reload {
            step: Step::Planning { then, .. },
            ..
        }) = self.reload
        {
            self.plan(then);
        }
    }

    fn run_errands(&mut self) {
        if self.has_no_errands() {
            return self.stage();
        }
        let Some(next) = self.next() else { return };
        let errands = next.renewed.iter().filter_map(|app| {
            let errand = Errand::start(&next.templates[app]);
            errand.transpose()
        });
        let errands = match errands.collect::<Result<Vec<_>, _>>() {
            Ok(errands) if errands.is_empty() => return self.stage(),
            Ok(errands) => errands,
            Err(error) => return self.fail_reload(&error.to_string()),
        };
        self.step(Step::Errands);
        let since = self.reload.as_ref().map(|reload| reload.since);
        let (since, came) = (since.unwrap_or_else(Instant::now), self.came.clone());
        tokio::spawn(async move {
            let mut end = Ok(());
            for errand in errands {
                end = end.and(errand.finish().await);
            }
            let _ = came.send(Came::Errands(since, end));
        });
    }

    /// Starts the new generations.
    pub(super) fn stage(&mut self) {
        let Some(next) = self.next() else { return };
        let begun: Vec<Template> = next
            .renewed
            .iter()
            .map(|app| next.templates[app].clone())
            .collect();
        let missing = next.renewed.clone();
        self.step(Step::Staging { missing });
        for template in begun {
            let app = template.app.name.clone();
            if !self.pools.contains_key(&app) {
                self.found(template.clone());
            }
            self.tell_pool(&app, keeper::Order::Stage(Box::new(template)));
        }
        self.commit_if_staged();
    }

    /// A pool for an app that there was not before.
    fn found(&mut self, template: Template) {
        let app = template.app.name.clone();
        let (orders, obeyed) = mpsc::unbounded_channel();
        let number = self.last_numbers.get(&app).copied().unwrap_or_default();
        let keeper = Keeper::empty(template, number, self.pool_reports.clone());
        self.pools.insert(app, orders);
        tokio::spawn(keeper.run(obeyed));
    }

    /// A new generation could take over.
    pub(in crate::up) fn staged(&mut self, app: &str) {
        if let Some(Reload {
            step: Step::Staging { missing },
            ..
        }) = &mut self.reload
        {
            missing.remove(app);
            self.commit_if_staged();
        }
    }

    /// A new generation cannot start.
    pub(in crate::up) fn stage_failed(&mut self, why: &str, traceback: &str) {
        let staging = self
            .reload
            .as_ref()
            .is_some_and(|reload| matches!(reload.step, Step::Staging { .. }));
        if staging {
            let why = match traceback.trim_end() {
                "" => why.to_owned(),
                traceback => format!("{why}\n{traceback}"),
            };
            self.fail_reload(&why);
        }
    }

    /// Nothing has changed, and nothing of it is left.
    pub(super) fn fail_reload(&mut self, why: &str) {
        let Some(reload) = self.reload.take() else {
            return;
        };
        self.take_back(reload.next.as_deref());
        self.figures.add(&metrics::RELOADS, ["refused"]);
        error!("the reload has failed, and nothing has changed: {why}");
        self.is_broken(why, None);
        reload.wanted.answer(&Answer::conflict(why));
        self.notify_reloaded();
        self.begin_reload();
    }

    /// Something else was saved meanwhile: workers that nobody waits for and that would be out of date are not started, though
    /// their code may take its time to say that it is broken.
    pub(in crate::up) fn supersede_reload(&mut self) {
        let is_out_of_date = |reload: &mut Reload| {
            let starts_apps = reload.next.as_ref().is_some_and(|next| next.new.is_empty());
            starts_apps
                && reload.wanted.askers.is_empty()
                && matches!(reload.step, Step::Staging { .. })
        };
        if let Some(reload) = self.reload.take_if(is_out_of_date) {
            self.take_back(reload.next.as_deref());
            self.notify_reloaded();
        }
    }

    fn take_back(&mut self, next: Option<&Next>) {
        // A proxy that was to serve it is killed when it is dropped.
        self.coming = None;
        let Some(next) = next else { return };
        self.tell_front(Order::Forget);
        for app in &next.renewed {
            let end = match next.new.contains(app) {
                true => keeper::Order::Abort,
                false => keeper::Order::Abandon,
            };
            self.tell_pool(app, end);
        }
    }

    /// We stop: whatever was begun ends with us.
    pub(in crate::up) fn drop_reload(&mut self) {
        let answer = Answer::conflict("it is stopping");
        if let Some(reload) = self.reload.take() {
            self.take_back(reload.next.as_deref());
            reload.wanted.answer(&answer);
        }
        if let Some(wanted) = self.next_reload.take() {
            wanted.answer(&answer);
        }
    }
}
