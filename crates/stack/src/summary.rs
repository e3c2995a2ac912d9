//! What the page shows: the figures of `stack top`, as data. Lists have an end, since a page is asked for each second.

use std::time::{Duration, Instant};

use serde::Serialize;
use telemetry::metrics::{self, Family, Observed};

use crate::{
    admin::{AppStatus, Status},
    maintenance,
    view::{self, Span, gauge},
};

/// Rows of a list, the first of its order.
const ROWS: usize = 100;

/// Younger looks are not looked past: a rate over a moment is noise.
const LOOK: Duration = Duration::from_millis(900);

/// The last two looks, between which rates are.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    before: Option<(Status, Instant)>,
    now: Option<(Status, Instant)>,
}

impl Looks {
    /// What is shown once this has been seen.
    pub(crate) fn see(&mut self, status: Status, at: Instant) -> Summary {
        let is_new = |(_, last): &(Status, Instant)| at.duration_since(*last) >= LOOK;
        if self.now.as_ref().is_none_or(is_new) {
            self.before = self.now.take();
        }
        let before = self.before.as_ref();
        // Another master counts from nothing.
        let before = before.filter(|(before, _)| before.pid == status.pid);
        let span = match before {
            Some((before, then)) => Span::between(before, &status, at - *then),
            None => Span::whole(&status),
        };
        let summary = Summary::of(&status, &span);
        self.now = Some((status, at));
        summary
    }
}

/// All of it. Times are in seconds, sizes in bytes, rates in a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    version: String,
    config: String,
    phase: String,
    uptime: u64,
    proxy: String,
    closed: Vec<String>,
    requests: f64,
    client_errors: f64,
    server_errors: f64,
    half: Option<f64>,
    most: Option<f64>,
    connections: u64,
    queue: u64,
    buffered: u64,
    memory: u64,
    cpu: f64,
    apps: Vec<App>,
    workers: Vec<Worker>,
    running: Vec<Running>,
    routes: Vec<Route>,
    failures: Vec<Failures>,
    certificates: Vec<Certificate>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct App {
    name: String,
    failed: Option<String>,
    workers: usize,
    busy: u64,
    slots: u64,
    waiting: u64,
    requests: f64,
    half: Option<f64>,
    most: Option<f64>,
    cpu: f64,
    memory: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Worker {
    name: String,
    pid: i32,
    state: String,
    age: u64,
    requests: u64,
    memory: u64,
    busy: usize,
    slots: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Running {
    slot: String,
    since: f64,
    id: String,
    request: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Route {
    site: String,
    route: String,
    all: u64,
    requests: f64,
    server_errors: f64,
    half: Option<f64>,
    most: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Failures {
    cause: String,
    meaning: &'static str,
    lately: f64,
    all: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Certificate {
    site: String,
    until: f64,
}

impl Summary {
    fn of(status: &Status, span: &Span<'_>) -> Self {
        let class = |class: char| {
            span.rate(&metrics::REQUESTS, move |labels| {
                labels[2].starts_with(class)
            })
        };
        let times = span.times(&metrics::DURATION, |_| true);
        let all = |family: &Family| gauge(status, family, |_| true);
        let processes = ["master", "proxy"].into_iter();
        let processes = processes.chain(status.apps.iter().map(|app| app.name.as_str()));
        Self {
            version: status.version.clone(),
            config: status.config.display().to_string(),
            phase: status.phase.clone(),
            uptime: status.uptime,
            proxy: status.proxy.state.clone(),
            closed: status.closed.iter().map(maintenance::line).collect(),
            requests: span.rate(&metrics::REQUESTS, |_| true),
            client_errors: class('4'),
            server_errors: class('5'),
            half: seconds(&times, 0.5),
            most: seconds(&times, 0.99),
            connections: all(&metrics::CONNECTIONS),
            queue: all(&metrics::QUEUE),
            buffered: all(&metrics::BUFFERED),
            memory: all(&metrics::MEMORY),
            cpu: processes.map(|process| span.cpu(process)).sum(),
            apps: first(status.apps.iter().map(|app| App::of(app, status, span))),
            workers: first(workers(status)),
            running: running(status),
            routes: routes(span),
            failures: failures(status, span),
            certificates: first(certificates(status)),
        }
    }
}

impl App {
    fn of(app: &AppStatus, status: &Status, span: &Span<'_>) -> Self {
        let here = |labels: &[String]| labels[0] == app.name;
        let times = span.times(&metrics::APP_DURATION, here);
        let (busy, slots) = view::slots(status, &app.name);
        let serves = app.workers.iter().any(|worker| worker.state == "ready");
        Self {
            name: app.name.clone(),
            failed: app.failed.clone().filter(|_| !serves),
            workers: app.workers.len(),
            busy,
            slots,
            waiting: gauge(status, &metrics::QUEUE, here),
            requests: view::per_second(&times, span),
            half: seconds(&times, 0.5),
            most: seconds(&times, 0.99),
            cpu: span.cpu(&app.name),
            memory: view::memory(app).0,
        }
    }
}

fn workers(status: &Status) -> impl Iterator<Item = Worker> {
    let all = status.apps.iter().flat_map(|app| &app.workers);
    all.map(|worker| Worker {
        name: worker.name.clone(),
        pid: worker.pid,
        state: worker.state.clone(),
        age: worker.age,
        requests: worker.requests,
        memory: worker.rss,
        busy: worker
            .slots
            .iter()
            .filter(|slot| slot.request.is_some())
            .count(),
        slots: worker.slots.len(),
    })
}

/// The longest first.
fn running(status: &Status) -> Vec<Running> {
    let workers = status.apps.iter().flat_map(|app| &app.workers);
    let slots = workers.flat_map(|worker| worker.slots.iter().map(move |slot| (worker, slot)));
    let mut running: Vec<_> = slots
        .filter_map(|(worker, slot)| {
            let request = slot.request.as_ref()?;
            Some(Running {
                slot: format!("{}/{}", worker.name, slot.slot),
                since: Duration::from_millis(request.since).as_secs_f64(),
                id: request.id.clone(),
                request: format!("{} {}", request.method, request.target),
            })
        })
        .collect();
    running.sort_by(|one, two| two.since.total_cmp(&one.since));
    running.truncate(ROWS);
    running
}

/// Those that are asked for most first.
fn routes(span: &Span<'_>) -> Vec<Route> {
    let mut places: Vec<(u64, String, String)> = span
        .places()
        .into_iter()
        .map(|(site, route)| {
            let here = |labels: &[String]| labels[0] == site && labels[1] == route;
            (span.count(&metrics::REQUESTS, here), site, route)
        })
        .collect();
    places.sort_by(|one, two| two.cmp(one));
    places.truncate(ROWS);
    let route = |(all, site, route): (u64, String, String)| {
        let here = |labels: &[String]| labels[0] == site && labels[1] == route;
        let errors = |labels: &[String]| here(labels) && labels[2].starts_with('5');
        let times = span.times(&metrics::DURATION, here);
        Route {
            all,
            requests: span.rate(&metrics::REQUESTS, here),
            server_errors: span.rate(&metrics::REQUESTS, errors),
            half: seconds(&times, 0.5),
            most: seconds(&times, 0.99),
            site: site.clone(),
            route: route.clone(),
        }
    };
    places.into_iter().map(route).collect()
}

fn failures(status: &Status, span: &Span<'_>) -> Vec<Failures> {
    let lately = span.failures();
    let failures = Span::whole(status).failures().into_iter();
    first(failures.map(|(cause, all)| {
        let recent = lately.iter().find(|(name, _)| *name == cause);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let lately = recent.map_or(0.0, |(_, count)| *count as f64) / span.seconds();
        Failures {
            meaning: telemetry::causes::index(&cause)
                .map_or("", |at| telemetry::causes::ALL[at].meaning),
            cause,
            lately,
            all,
        }
    }))
}

fn certificates(status: &Status) -> impl Iterator<Item = Certificate> {
    let ends = view::certificates(status).into_iter();
    ends.map(|(site, until)| Certificate { site, until })
}

fn first<T>(rows: impl Iterator<Item = T>) -> Vec<T> {
    rows.take(ROWS).collect()
}

fn seconds(times: &Observed, share: f64) -> Option<f64> {
    times.quantile(share).map(|time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let mut looks = Looks::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        looks.see(view::tests::example(1000), after(0));
        let summary = looks.see(view::tests::example(3000), after(2));
        assert!((summary.requests - 1100.0).abs() < 1e-9, "{summary:?}");
        assert!((summary.apps[0].requests - 1000.0).abs() < 1e-9);
        assert_eq!(summary.failures[0].cause, "queue-timeout");
        assert_eq!(summary.running[0].request, "GET /slow");
        assert_eq!(summary.certificates[0].site, "example.org");
        assert_eq!(summary.apps[1].failed.as_deref(), Some("ImportError: no"));
        // A look that comes at once is of the same time.
        let soon = looks.see(view::tests::example(3000), after(2));
        assert!((soon.requests - 1100.0).abs() < 1e-9, "{soon:?}");
        // Nothing has come since.
        let calm = looks.see(view::tests::example(3000), after(4));
        assert!(
            calm.requests.abs() < 1e-9 && calm.half.is_none(),
            "{calm:?}"
        );
    }
}
