//! What the master answers on the admin socket.
//!
//! What it knows itself it says at once. What only a pool knows is asked of the pools, and put together by a task of its own:
//! the master goes on meanwhile.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ::proxy::{
    control::{self, Order},
    tls::Shown,
};
use appserver::{
    assignment::BUILD_ID,
    pool::keeper::{self, WorkerTrace},
};
use telemetry::metrics::{self, Format, Snapshot};
use telemetry::panics::lock;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::{
    admin::{Answer, Asked, Question},
    figures::Process,
    front::Front,
    master::{FrontState, Master, Phase},
};
use crate::admin::{
    AppStatus, CertificateStatus, Done, ListenerStatus, Logged, ProxyStatus, Status, Trace,
};

/// What health checks read.
const TEXT: &str = "text/plain; charset=utf-8";

/// A pool answers at once, unless it has just ended.
const PATIENCE: Duration = Duration::from_secs(5);

type Orders = mpsc::UnboundedSender<keeper::Order>;

impl Master {
    /// Answers, or has it answered.
    pub(super) fn questioned(&mut self, Asked { question, answer }: Asked) {
        let now = match question {
            Question::Status => {
                let whole = self.whole();
                tokio::spawn(async move {
                    // Whoever asked may have gone; so everywhere here.
                    let _ = answer.send(Answer::json(&whole.await));
                });
                return;
            }
            Question::Metrics(format) => {
                let whole = self.whole();
                tokio::spawn(async move {
                    let text = metrics::encode(&whole.await.figures, format);
                    let _ = answer.send(Answer::text(200, format.content_type(), text));
                });
                return;
            }
            Question::Summary => {
                let (whole, looks) = (self.whole(), Arc::clone(&self.looks_of_page));
                tokio::spawn(async move {
                    let status = whole.await;
                    let seen = lock(&looks).see(status, Instant::now());
                    let _ = answer.send(Answer::json(&seen));
                });
                return;
            }
            Question::Reload(scope) => return self.want_reload(scope, Some(answer)),
            Question::Upgrade => return self.upgrade(Some(answer)),
            Question::Rehearse => return self.rehearse(answer),
            Question::Trace { app } => {
                let orders = self.orders(app.as_deref());
                match app.filter(|_| orders.is_empty()) {
                    Some(app) => Answer::conflict(format!("there is no app {app:?}")),
                    None => return drop(tokio::spawn(trace(orders, answer))),
                }
            }
            Question::Live => Answer::text(200, TEXT, "live\n"),
            Question::Ready => match self.unready() {
                None => Answer::text(200, TEXT, "ready\n"),
                Some(why) => Answer::text(503, TEXT, format!("not ready: {why}\n")),
            },
            Question::Log { filter } => self.log_by(filter),
            Question::Maintenance(asked) => self.maintain(asked),
            Question::Recycle { worker } => self.recycle(&worker),
            Question::Drain => {
                self.drain_once();
                Answer::json(&self.status())
            }
        };
        let _ = answer.send(now);
    }

    /// An operator asks at an address of theirs, through a proxy.
    pub(super) fn asked_through(&mut self, pid: i32, id: u64, question: control::Question) {
        let question = match question {
            control::Question::Metrics => Question::Metrics(Format::Prometheus),
            control::Question::OpenMetrics => Question::Metrics(Format::OpenMetrics),
            control::Question::Live => Question::Live,
            control::Question::Ready => Question::Ready,
            control::Question::Summary => Question::Summary,
        };
        let leaving = self.leaving_fronts();
        let asking = self.front.front().into_iter().chain(leaving);
        let teller = asking
            .filter(|front| front.pid == pid)
            .map(Front::teller)
            .next();
        let Some(teller) = teller else {
            return;
        };
        let (answer, answered) = oneshot::channel();
        self.questioned(Asked { question, answer });
        tokio::spawn(async move {
            if let Ok(answer) = answered.await {
                let said = answer.into_said();
                teller.tell(Order::Answer { id, said });
            }
        });
    }

    /// Why visitors are not served as they should be.
    fn unready(&self) -> Option<String> {
        if !matches!(self.phase, Phase::Serving) {
            return Some(self.phase.name().to_owned());
        }
        if !matches!(self.front, FrontState::Serving(_)) {
            return Some(format!("the proxy is {}", self.front.name()));
        }
        let failed = self.roster.failures().iter().next();
        failed.map(|(app, why)| format!("app {app} cannot start: {why}"))
    }

    fn recycle(&self, worker: &str) -> Answer {
        let split = worker.rsplit_once(['·', '.']);
        let named = split.and_then(|(app, number)| Some((app, number.parse::<u32>().ok()?)));
        let Some((app, number)) = named.filter(|(app, number)| self.roster.has(app, *number))
        else {
            return Answer::conflict(format!("there is no worker {worker:?} that is ready"));
        };
        self.tell_pool(app, keeper::Order::Recycle { number });
        Answer::json(&Done {
            done: format!("{app}·{number} is replaced"),
        })
    }

    fn log_by(&self, filter: Option<String>) -> Answer {
        let configured = || self.opened.loaded.site.server.log.level.clone();
        let filter = filter.unwrap_or_else(configured);
        if let Err(error) = telemetry::log::set_filter(&filter) {
            return Answer::conflict(error.to_string());
        }
        if let Some(front) = self.front.front() {
            let filter = filter.clone();
            front.tell(Order::LogFilter { filter });
        }
        self.renew_agent();
        info!("what is logged: {filter}");
        Answer::json(&Logged { level: filter })
    }

    /// How all of it is, once everybody has said so.
    fn whole(&self) -> impl Future<Output = Status> + use<> {
        let counting = self.front.front().map(|front| (front.pid, front.figures()));
        let (status, orders) = (self.status(), self.orders(None));
        let (figures, begun) = (self.figures.clone(), self.begun);
        async move {
            let mut status = with_workers(status, orders).await;
            if let Some((pid, counting)) = counting
                && let Ok(Ok(counted)) = tokio::time::timeout(PATIENCE, counting).await
            {
                figures.told(pid, counted);
            }
            status.figures = figures.all(begun, &processes(&status));
            count_workers(&mut status);
            count_certificates(&mut status);
            for closed in &status.closed {
                let what = [closed.what.as_str()];
                status.figures.count(&metrics::CLOSED, what, 1);
            }
            count_orders(&mut status);
            status
        }
    }

    /// The ways to the pools of all apps, or of one.
    fn orders(&self, app: Option<&str>) -> Vec<(String, Orders)> {
        let wanted = self
            .pools
            .iter()
            .filter(|(name, _)| app.is_none_or(|app| app == *name));
        wanted
            .map(|(name, orders)| (name.clone(), orders.clone()))
            .collect()
    }

    /// All but the workers.
    fn status(&self) -> Status {
        let listening = self.opened.listening.iter();
        let listeners = listening.map(|listening| ListenerStatus {
            name: listening.what.name.clone(),
            tls: listening.what.tls,
            figures: listening.what.figures,
        });
        let apps = self.opened.loaded.site.apps.iter();
        let apps = apps.map(|app| AppStatus {
            name: app.name.clone(),
            failed: self.roster.failures().get(&app.name).cloned(),
            workers: Vec::new(),
        });
        Status {
            version: BUILD_ID.to_owned(),
            pid: std::process::id(),
            config: self.opened.loaded.site.file.clone(),
            phase: self.phase.name().to_owned(),
            uptime: self.started.elapsed().as_secs(),
            proxy: ProxyStatus {
                pid: self.front.front().map(|front| front.pid),
                state: self.front.name().to_owned(),
            },
            listeners: listeners.collect(),
            certificates: self.certificates(),
            acme: self.acme_status(),
            apps: apps.collect(),
            closed: self.closed_status(),
            log: telemetry::log::filter(),
            figures: Snapshot::default(),
        }
    }

    fn certificates(&self) -> Vec<CertificateStatus> {
        let shown = self.opened.credentials.shown().iter();
        let status = |shown: &Shown| CertificateStatus {
            hosts: shown.hosts.clone(),
            subject: shown.subject.clone(),
            serial: shown.serial.clone(),
            not_after: shown
                .not_after
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        shown.map(status).collect()
    }
}

/// What the pools know.
async fn with_workers(mut status: Status, orders: Vec<(String, Orders)>) -> Status {
    for (name, orders) in orders {
        let Some(workers) = ask(&orders, keeper::Order::Status).await else {
            continue;
        };
        match status.apps.iter_mut().find(|app| app.name == name) {
            Some(app) => app.workers = workers,
            // Its last workers still leave.
            None => status.apps.push(AppStatus {
                name,
                failed: None,
                workers,
            }),
        }
    }
    status
}

fn processes(status: &Status) -> Vec<Process> {
    let of = |name: &str, pid| Process {
        name: name.to_owned(),
        pid,
    };
    let mut processes = vec![of("master", i32::try_from(status.pid).unwrap_or_default())];
    processes.extend(status.proxy.pid.map(|pid| of("proxy", pid)));
    for app in &status.apps {
        processes.extend(app.workers.iter().map(|worker| of(&app.name, worker.pid)));
    }
    processes
}

/// Of several certificates of a site, the first that ends.
fn count_certificates(status: &mut Status) {
    let mut ends = BTreeMap::new();
    for certificate in &status.certificates {
        let end = ends
            .entry(certificate.hosts.join(","))
            .or_insert(certificate.not_after);
        *end = certificate.not_after.min(*end);
    }
    for (site, end) in ends {
        let labels = [site.as_str()];
        status.figures.count(&metrics::CERTIFICATE, labels, end);
    }
}

fn count_orders(status: &mut Status) {
    for acme in &status.acme {
        if let Some(standing) = &acme.standing {
            let site = acme.hosts.join(",");
            let labels = [site.as_str()];
            status
                .figures
                .count(&metrics::ACME_NEXT, labels, standing.at);
            let failures = u64::from(standing.failures);
            status
                .figures
                .count(&metrics::ACME_FAILURES, labels, failures);
        }
    }
}

fn count_workers(status: &mut Status) {
    for app in &status.apps {
        let ready = app.workers.iter().filter(|worker| worker.state == "ready");
        let ready = u64::try_from(ready.count()).unwrap_or(u64::MAX);
        let name = app.name.as_str();
        status.figures.count(&metrics::WORKERS, [name], ready);
        let failed = u64::from(app.failed.is_some());
        status.figures.count(&metrics::APP_FAILED, [name], failed);
    }
}

async fn trace(orders: Vec<(String, Orders)>, answer: oneshot::Sender<Answer>) {
    let mut workers: Vec<WorkerTrace> = Vec::new();
    // All at once: each may take its time.
    let asked: Vec<_> = orders
        .iter()
        .map(|(_, orders)| {
            let orders = orders.clone();
            tokio::spawn(async move { ask(&orders, keeper::Order::Trace).await })
        })
        .collect();
    for asked in asked {
        workers.extend(asked.await.ok().flatten().unwrap_or_default());
    }
    // Whoever asked may have gone.
    let _ = answer.send(Answer::json(&Trace { workers }));
}

async fn ask<T>(
    orders: &Orders,
    question: impl FnOnce(oneshot::Sender<T>) -> keeper::Order,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    orders.send(question(answer)).ok()?;
    tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
}
