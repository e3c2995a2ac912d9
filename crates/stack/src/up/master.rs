//! The master's life: it keeps one proxy and a pool of workers for each app, until it is told to stop.
//!
//! It reads what children and people say, decides, and tells others; it never waits for any one of them. Stopping goes from
//! the outside in: first the proxy stops accepting and finishes what runs, and only when it is gone the workers leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use ::proxy::control::{Order, Report, WorkerName};
use anyhow::Context;
use appserver::pool::{
    Load,
    keeper::{self, Keeper},
};
use config::site::Tls;
use supervisor::{
    backoff::Backoff,
    child::Exit,
    notify::{self, Notifier},
    signal::{Request, Requests},
};
use telemetry::{metrics, text::Elapsed};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use tracing::{error, info, warn};

use super::{
    BrokenApp,
    admin::{Admin, Asked},
    banner::Banner,
    credentials,
    figures::Figures,
    front::{self, Front},
    opened::Opened,
    roster::Roster,
    watchdog::Watchdog,
};
use crate::failure::Failure;

/// How long past the grace the proxy may take to cut what is left, and a worker to run its exit handlers.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// All that runs.
#[derive(Debug)]
pub(crate) struct Master {
    pub(super) opened: Opened,
    pub(super) started: Instant,
    /// The same by the clock on the wall.
    pub(super) begun: SystemTime,
    pub(super) figures: Figures,
    broken: BrokenApp,
    pub(super) phase: Phase,
    pub(super) front: FrontState,
    front_deaths: Backoff,
    /// Given to each proxy.
    front_reports: mpsc::UnboundedSender<front::Told>,
    /// By the app's name; who is not here any more has nobody left.
    pub(super) pools: BTreeMap<String, mpsc::UnboundedSender<keeper::Order>>,
    pub(super) roster: Roster,
    /// What runs each app, by its name.
    programs: BTreeMap<String, PathBuf>,
    notifier: Notifier,
    watchdog: Watchdog,
    /// When the files of certificates are looked at.
    looks: Interval,
    inbox: Inbox,
    /// Closed when the master ends.
    _admin: Admin,
}

/// Where everything that happens arrives.
#[derive(Debug)]
struct Inbox {
    requests: Requests,
    front: mpsc::UnboundedReceiver<front::Told>,
    pools: mpsc::UnboundedReceiver<(String, keeper::Told)>,
    admin: mpsc::Receiver<Asked>,
}

/// Questions that wait for the master, which answers at once or notes them down.
const QUESTIONS: usize = 32;

/// How far the master's life has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Not everything has been tried once.
    Starting {
        /// Apps whose first round is not decided.
        undecided: BTreeSet<String>,
    },
    /// Everything that can be served is.
    Serving,
    /// The proxy finishes what runs; new connections are not accepted.
    Draining {
        /// When the grace ends.
        deadline: Instant,
    },
    /// The proxy is gone; workers leave.
    Stopping,
}

/// The proxy.
#[derive(Debug)]
pub(super) enum FrontState {
    /// It has been told what to serve.
    Starting(Front),
    /// It serves.
    Serving(Front),
    /// It died and is started again at this time.
    Waiting(Instant),
    /// It is gone and stays gone.
    Gone,
}

impl Phase {
    /// For people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Serving => "serving",
            Self::Draining { .. } => "draining",
            Self::Stopping => "stopping",
        }
    }
}

impl FrontState {
    /// For people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Starting(_) => "starting",
            Self::Serving(_) => "serving",
            Self::Waiting(_) => "waiting",
            Self::Gone => "gone",
        }
    }

    /// Its process, if it has one.
    pub(super) fn front(&self) -> Option<&Front> {
        match self {
            Self::Starting(front) | Self::Serving(front) => Some(front),
            Self::Waiting(_) | Self::Gone => None,
        }
    }
}

impl Master {
    /// Starts the proxy and, at the same time, the workers. Must be called on the main thread, in a runtime of one thread.
    pub(crate) fn start(
        opened: Opened,
        started: Instant,
        admin_socket: PathBuf,
        broken: BrokenApp,
    ) -> Result<Self, Failure> {
        let requests = Requests::new().context("cannot listen for signals")?;
        let notifier = Notifier::from_env().context("cannot reach the service manager")?;
        let (front_reports, front) = mpsc::unbounded_channel();
        let (pool_reports, pools) = mpsc::unbounded_channel();
        let (ask, asked) = mpsc::channel(QUESTIONS);
        let shown = admin_socket.display().to_string();
        let admin =
            Admin::open(admin_socket, ask).with_context(|| format!("cannot listen on {shown}"))?;
        let apps = opened
            .templates
            .iter()
            .map(|template| template.app.name.clone());
        let mut master = Self {
            phase: Phase::Starting {
                undecided: apps.collect(),
            },
            front: FrontState::Gone,
            front_deaths: Backoff::new(),
            front_reports,
            pools: BTreeMap::new(),
            roster: Roster::default(),
            programs: BTreeMap::new(),
            notifier,
            watchdog: Watchdog::new(notify::watchdog()),
            looks: looks(),
            inbox: Inbox {
                requests,
                front,
                pools,
                admin: asked,
            },
            _admin: admin,
            opened,
            started,
            begun: SystemTime::now(),
            figures: Figures::default(),
            broken,
        };
        master.start_front()?;
        master.start_pools(&pool_reports);
        Ok(master)
    }

    /// Lives until it is told to stop and everybody is gone.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        while !self.is_over() {
            let wake = self.wake();
            tokio::select! {
                request = self.inbox.requests.next() => self.asked(request),
                Some(told) = self.inbox.front.recv() => self.front_told(told)?,
                Some((app, told)) = self.inbox.pools.recv() => self.pool_told(app, told)?,
                Some(asked) = self.inbox.admin.recv() => self.questioned(asked),
                () = self.watchdog.due() => self.show_life(),
                () = sleep_until(self.opened.logs.next_look()) => self.rotate_logs(),
                _ = self.looks.tick(), if self.has_tls() => self.look_at_credentials(),
                () = sleep_until(wake) => self.tick(),
            }
        }
        info!("stopped");
        Ok(())
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopping)
            && self.pools.is_empty()
            && matches!(self.front, FrontState::Gone)
    }

    fn start_front(&mut self) -> anyhow::Result<()> {
        let serve = self
            .opened
            .serve()
            .context("no descriptors for the proxy")?;
        let front = Front::start(
            serve,
            self.opened.identities.proxy(),
            self.front_reports.clone(),
        )?;
        for order in self.roster.orders() {
            front.tell(order);
        }
        self.front = FrontState::Starting(front);
        Ok(())
    }

    fn start_pools(&mut self, reports: &mpsc::UnboundedSender<(String, keeper::Told)>) {
        for template in std::mem::take(&mut self.opened.templates) {
            let (orders, obeyed) = mpsc::unbounded_channel();
            self.pools.insert(template.app.name.clone(), orders);
            tokio::spawn(Keeper::new(template, 0, reports.clone()).run(obeyed));
        }
    }

    fn wake(&self) -> Option<Instant> {
        match (&self.phase, &self.front) {
            (Phase::Draining { deadline }, _) => Some(*deadline + LAST_MOMENT),
            (_, FrontState::Waiting(until)) => Some(*until),
            _ => None,
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        match (&self.phase, &self.front) {
            (Phase::Draining { deadline }, front) if *deadline + LAST_MOMENT <= now => {
                warn!("the proxy has not stopped in time and is killed");
                if let Some(front) = front.front() {
                    front.kill();
                }
                self.phase = Phase::Stopping;
            }
            (Phase::Starting { .. } | Phase::Serving, FrontState::Waiting(until))
                if *until <= now =>
            {
                self.restart_front(now);
            }
            _ => {}
        }
    }

    fn has_tls(&self) -> bool {
        let hosts = &self.opened.loaded.site.hosts;
        hosts.iter().any(|host| host.tls.value != Tls::Off)
    }

    /// New certificates take the place of old ones without anybody's connection noticing.
    fn look_at_credentials(&mut self) {
        let site = &self.opened.loaded.site;
        if let Some(credentials) = self.opened.credentials.look(site) {
            self.tell_front(Order::Renew { credentials });
        }
    }

    /// A proxy that should serve answers for both of us; where there is none to ask we are at work on that.
    fn show_life(&self) {
        match (&self.phase, self.front.front()) {
            (Phase::Starting { .. } | Phase::Serving, Some(front)) => front.tell(Order::Ping),
            _ => self.notify(&[("WATCHDOG", "1")]),
        }
    }

    /// When it has no process, that is one more of its deaths: the workers and the sockets are worth waiting for.
    fn restart_front(&mut self, now: Instant) {
        if let Err(error) = self.start_front() {
            let again = self.front_deaths.died(now);
            let wait = Elapsed(again.saturating_duration_since(now));
            error!("the proxy cannot be started: {error:#}; next try in {wait}");
            self.front = FrontState::Waiting(again);
        }
    }

    fn asked(&mut self, request: Request) {
        match (request, &self.phase) {
            (Request::Terminate | Request::Interrupt, Phase::Starting { .. } | Phase::Serving) => {
                self.drain()
            }
            (Request::Interrupt, Phase::Draining { .. } | Phase::Stopping) | (Request::Quit, _) => {
                self.abort()
            }
            (Request::Terminate, Phase::Draining { .. } | Phase::Stopping) => {
                info!("already stopping; Ctrl-C or SIGQUIT does not wait for running requests");
            }
            (Request::HangUp, _) => {
                warn!(
                    "SIGHUP changes nothing: the configuration is read at the start; restart to read it again"
                );
            }
            (Request::Grow, _) => self.tell_pools(|| keeper::Order::Grow),
            (Request::Shrink, _) => self.tell_pools(|| keeper::Order::Shrink),
            (Request::ReopenLogs, _) => {
                self.opened.logs.reopen();
                self.hand_logs();
                info!("the logs are opened anew");
            }
        }
    }

    fn rotate_logs(&mut self) {
        if self.opened.logs.look(Instant::now()) {
            self.hand_logs();
        }
    }

    /// Gives the proxy the files that are open now; one that is not there gets them when it starts.
    fn hand_logs(&self) {
        let Some(front) = self.front.front() else {
            return;
        };
        match self.opened.logs.hand_over() {
            Ok((order, descriptors)) => front.hand(order, descriptors),
            Err(error) => warn!("cannot give the logs to the proxy: {error}"),
        }
    }

    /// Stops, if that has not begun.
    pub(super) fn drain_once(&mut self) {
        if matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            self.drain();
        }
    }

    /// Stops from the outside in.
    fn drain(&mut self) {
        let grace = self.opened.loaded.site.limits.drain_timeout;
        let deadline = Instant::now() + grace;
        info!(
            "stopping; running requests may take {} to finish",
            Elapsed(grace)
        );
        self.notify(&[("STOPPING", "1"), ("STATUS", "finishing what runs")]);
        self.phase = Phase::Draining { deadline };
        match self.front.front() {
            Some(front) => front.tell(Order::Drain),
            None => self.stop_pools(deadline),
        }
    }

    fn stop_pools(&mut self, deadline: Instant) {
        self.phase = Phase::Stopping;
        self.front = FrontState::Gone;
        // Even when the proxy has used up the grace, a worker may run its exit handlers.
        let deadline = deadline.max(Instant::now() + LAST_MOMENT);
        self.tell_pools(|| keeper::Order::Stop { deadline });
    }

    fn abort(&mut self) {
        info!("stopping at once");
        self.notify(&[("STOPPING", "1"), ("STATUS", "stopping at once")]);
        match self.front.front() {
            Some(front) => front.kill(),
            None => self.front = FrontState::Gone,
        }
        self.phase = Phase::Stopping;
        self.tell_pools(|| keeper::Order::Abort);
    }

    fn front_told(&mut self, told: front::Told) -> Result<(), Failure> {
        match told {
            front::Told::Report(Report::Serving { made }) => {
                self.opened.keep(made);
                self.front_serves();
            }
            // Whoever asked has it already.
            front::Told::Report(Report::Figures(_)) => {}
            front::Told::Report(Report::Alive) => self.notify(&[("WATCHDOG", "1")]),
            front::Told::Report(Report::Refused { why }) => self.front_refuses(&why)?,
            front::Told::Report(Report::Released { worker }) => {
                if self.roster.released(&worker) {
                    self.released(worker);
                }
            }
            front::Told::Report(Report::Load { app, waited, busy }) => {
                self.tell_pool(&app, keeper::Order::Load(Load { waited, busy }));
            }
            front::Told::Report(Report::Overdue { worker, request_id }) => {
                let WorkerName { app, number } = worker;
                self.tell_pool(&app, keeper::Order::Overdue { number, request_id });
            }
            front::Told::Exited(exit) => self.front_exited(exit),
        }
        Ok(())
    }

    fn front_serves(&mut self) {
        if let FrontState::Starting(front) = std::mem::replace(&mut self.front, FrontState::Gone) {
            self.front = FrontState::Serving(front);
        }
        self.front_deaths.up(Instant::now());
        self.announce_if_ready();
    }

    /// At the start that is the end. Later it is not: what the first proxy could serve a later one will again, once what is
    /// missing now (a folder, descriptors) is there again; meanwhile it is restarted as after any death.
    fn front_refuses(&self, why: &str) -> Result<(), Failure> {
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
        self.front = FrontState::Gone;
        for worker in self.roster.all_released() {
            self.released(worker);
        }
        match self.phase {
            Phase::Draining { deadline } => {
                if exit != Exit::Code(0) {
                    error!("the proxy (pid {pid}) died while it finished what ran: {exit}");
                }
                self.stop_pools(deadline);
            }
            Phase::Stopping => {
                // After the deadline of the grace nothing has told the workers yet; told twice is told once.
                self.stop_pools(Instant::now());
            }
            Phase::Starting { .. } | Phase::Serving => {
                let now = Instant::now();
                let again = self.front_deaths.died(now);
                let wait = Elapsed(again.saturating_duration_since(now));
                self.figures.add(&metrics::PROXY_DEATHS, []);
                error!(
                    "the proxy (pid {pid}) died: {exit}; every connection broke, another starts in {wait}"
                );
                self.front = FrontState::Waiting(again);
            }
        }
    }

    fn pool_told(&mut self, app: String, told: keeper::Told) -> Result<(), Failure> {
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
                let order = self
                    .roster
                    .ready(WorkerName { app, number }, socket, threads);
                self.tell_front(order);
            }
            keeper::Told::Release { number } => self.release(WorkerName { app, number }),
            keeper::Told::Gone { number, how } => {
                let labels = [app.as_str(), how.as_str()];
                self.figures.add(&metrics::WORKER_EXITS, labels);
                let order = self.roster.gone(WorkerName { app, number }, how);
                self.tell_front(order);
            }
            keeper::Told::Failed { why }
                if self.broken == BrokenApp::Ends
                    && matches!(self.phase, Phase::Starting { .. }) =>
            {
                return Err(Failure::User(format!("the app cannot start: {why}")));
            }
            keeper::Told::Failed { why } => {
                let order = self.roster.failed(app, why);
                self.tell_front(order);
            }
            keeper::Told::Decided => {
                if let Phase::Starting { undecided } = &mut self.phase {
                    undecided.remove(&app);
                }
                self.announce_if_ready();
            }
            // Nothing is staged before anybody asks for a reload.
            keeper::Told::Staged
            | keeper::Told::StageFailed { .. }
            | keeper::Told::Renewed
            | keeper::Told::RenewFailed { .. } => {}
            keeper::Told::Closed => drop(self.pools.remove(&app)),
        }
        Ok(())
    }

    /// Has the proxy let go of a worker; where there is no proxy, nobody holds it.
    fn release(&mut self, worker: WorkerName) {
        let order = self.roster.release(worker.clone());
        match self.front.front() {
            Some(front) => front.tell(order),
            None => {
                self.roster.released(&worker);
                self.released(worker);
            }
        }
    }

    fn released(&self, worker: WorkerName) {
        let WorkerName { app, number } = worker;
        self.tell_pool(&app, keeper::Order::Released { number });
    }

    fn tell_pool(&self, app: &str, order: keeper::Order) {
        if let Some(pool) = self.pools.get(app) {
            // One that has closed by itself is told of in a moment.
            let _ = pool.send(order);
        }
    }

    fn tell_pools(&self, order: impl Fn() -> keeper::Order) {
        for pool in self.pools.values() {
            let _ = pool.send(order());
        }
    }

    fn tell_front(&self, order: Order) {
        if let Some(front) = self.front.front() {
            front.tell(order);
        }
    }

    /// Once the proxy serves and each app has been tried: now we are ready, whatever became of the apps.
    fn announce_if_ready(&mut self) {
        let Phase::Starting { undecided } = &self.phase else {
            return;
        };
        if !undecided.is_empty() || !matches!(self.front, FrontState::Serving(_)) {
            return;
        }
        self.phase = Phase::Serving;
        let banner = Banner {
            loaded: &self.opened.loaded,
            listening: &self.opened.listening,
            failures: self.roster.failures(),
            programs: &self.programs,
            after: self.started.elapsed(),
        };
        banner.show();
        let names = |tls| {
            let ours = self
                .opened
                .listening
                .iter()
                .filter(|listening| listening.what.tls == tls);
            ours.map(|listening| listening.what.name.as_str())
                .collect::<Vec<_>>()
                .join(",")
        };
        self.notify(&[
            ("READY", "1"),
            ("STATUS", &banner.status()),
            ("MAINPID", &std::process::id().to_string()),
            ("X_STACK_HTTP", &names(false)),
            ("X_STACK_HTTPS", &names(true)),
        ]);
    }

    fn notify(&self, assignments: &[(&str, &str)]) {
        if let Err(error) = self.notifier.send(assignments) {
            warn!("cannot reach the service manager: {error}");
        }
    }
}

/// Whoever was stopped and goes on has not missed a look.
fn looks() -> Interval {
    let mut looks = tokio::time::interval(credentials::LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
