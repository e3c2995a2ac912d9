//! A reload: another configuration and new code take over from a running one, or nothing changes.
//!
//! Its steps, in this order: read and judge the file; open what it needs beside what is open; have the proxy make a plan of
//! it; run the errands of the apps (`before_reload`); start a new generation of workers beside the old one. Until all of that
//! has gone well the old serves on, and whatever fails is the end of it: what was begun is taken back, and whoever asked is
//! told why. Then, in one step, the proxy's plan and the generations change.
//!
//! There is one reload at a time. Those who ask meanwhile share the next one, which reads the file after they have asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ::proxy::control::{Order, WorkerName};
use appserver::{
    pool::keeper::{self, Keeper},
    worker::Template,
};
use config::Loaded;
use telemetry::{metrics, text::Elapsed};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::{
    admin::Answer,
    errand::{self, Errand},
    front::Front,
    master::{Master, Phase},
    opened::Opened,
};
use crate::{admin::Reloaded, check::plural, failure::Failure, identity::Identities};

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

/// What must go well before anything changes.
impl Master {
    fn open_next(&mut self, loaded: Loaded, identities: Identities) {
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

    fn next(&self) -> Option<&Next> {
        self.reload.as_ref()?.next.as_deref()
    }

    fn step(&mut self, step: Step) {
        if let Some(reload) = &mut self.reload {
            reload.step = step;
        }
    }

    /// Has the proxy make a plan, if it is to serve it.
    fn plan(&mut self, then: Then) {
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
    pub(super) fn planned(&mut self, pid: i32) {
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
    pub(super) fn plan_refused(&mut self, why: &str) -> bool {
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
    pub(super) fn plan_again(&mut self) {
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
    fn stage(&mut self) {
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
    pub(super) fn staged(&mut self, app: &str) {
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
    pub(super) fn stage_failed(&mut self, why: &str, traceback: &str) {
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
    fn fail_reload(&mut self, why: &str) {
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
    pub(super) fn supersede_reload(&mut self) {
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
    pub(super) fn drop_reload(&mut self) {
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

impl Wanted {
    fn answer(self, answer: &Answer) {
        for asker in self.askers {
            // Whoever asked may have gone.
            let _ = asker.send(answer.clone());
        }
    }
}

/// The change.
impl Master {
    fn commit_if_staged(&mut self) {
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
    pub(super) fn switched(&mut self) {
        if let Some(front) = self.coming.take() {
            self.replace_front(front);
            self.commit();
        }
    }

    /// The other proxy does not serve.
    pub(super) fn not_switched(&mut self, why: &str) {
        if self.coming.take().is_some() {
            self.fail_reload(&format!(
                "the other proxy cannot serve this configuration: {why}"
            ));
        }
    }

    fn commit(&mut self) {
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
    pub(super) fn plan_serves(&mut self) {
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
    pub(super) fn relieving(&mut self, worker: WorkerName) {
        if let Some(Reload {
            step: Step::Renewing { relieving, .. },
            ..
        }) = &mut self.reload
        {
            relieving.insert(worker);
        }
    }

    /// An old worker gets no request any more: whoever has reloaded is to see nothing of it afterwards.
    pub(super) fn relieved(&mut self, worker: &WorkerName) {
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
    pub(super) fn renewed(&mut self, app: &str, failure: Option<String>) {
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
