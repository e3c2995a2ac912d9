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
use appserver::{
    pool::{
        Load,
        keeper::{self, Keeper},
    },
    worker::Template,
};
use config::{
    Loaded,
    site::{ErrorLog, Tls},
};
use supervisor::{
    backoff::Backoff,
    child::Exit,
    notify::{self, Notifier},
    orphans::{self, Orphans},
    signal::{Request, Requests},
    title::Title,
};
use telemetry::{metrics, text::Elapsed};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior},
};
use tracing::{error, info, warn};

use super::{
    Beginnings, BrokenApp, Setting,
    admin::{Admin, Answer, Asked},
    banner::Banner,
    credentials,
    figures::Figures,
    front::{self, Front},
    listen::Listening,
    opened::Opened,
    reload::{Came, Reload, Scope, Wanted},
    roster::Roster,
    upgrade::{self, Beginning, Estate},
    watchdog::Watchdog,
};
use crate::{admin::Upgraded, failure::Failure, load::Source};

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
    setting: Setting,
    beginning: Beginning,
    title: Title,
    upgrade: Upgrade,
    pub(super) phase: Phase,
    pub(super) front: FrontState,
    front_deaths: Backoff,
    /// Given to each proxy.
    pub(super) front_reports: front::Tell,
    /// A proxy that starts beside the one that serves.
    pub(super) coming: Option<Front>,
    /// Proxies that another has followed, and that finish what they have begun.
    leaving: Vec<Leaving>,
    /// Where the configuration comes from.
    pub(super) source: Source,
    pub(super) reload: Option<Reload>,
    /// What is wanted once that one is over.
    pub(super) next_reload: Option<Wanted>,
    upgraded: mpsc::UnboundedSender<upgrade::End>,
    /// Given to work that is done elsewhere for a reload.
    pub(super) came: mpsc::UnboundedSender<Came>,
    /// What each app's workers are made of.
    pub(super) templates: BTreeMap<String, Template>,
    /// Given to each pool.
    pub(super) pool_reports: mpsc::UnboundedSender<(String, keeper::Told)>,
    /// The last number of a worker of each app whose pool has ended.
    pub(super) last_numbers: BTreeMap<String, u32>,
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
    /// Given to the admin socket.
    ask: mpsc::Sender<Asked>,
    /// Closed when the master ends.
    admin: Option<Admin>,
}

/// Where everything that happens arrives.
#[derive(Debug)]
struct Inbox {
    requests: Requests,
    orphans: Orphans,
    front: mpsc::UnboundedReceiver<(i32, front::Told)>,
    came: mpsc::UnboundedReceiver<Came>,
    upgrades: mpsc::UnboundedReceiver<upgrade::End>,
    pools: mpsc::UnboundedReceiver<(String, keeper::Told)>,
    admin: mpsc::Receiver<Asked>,
}

/// How long another master may take for everything but its apps.
const UPGRADE: Duration = Duration::from_secs(30);

/// Questions that wait for the master, which answers at once or notes them down.
const QUESTIONS: usize = 32;

/// A proxy that another has followed.
#[derive(Debug)]
struct Leaving {
    front: Front,
    /// Those of its workers that are still there. No other proxy knows of them.
    workers: BTreeSet<WorkerName>,
}

/// Whether another master takes over.
#[derive(Debug)]
enum Upgrade {
    /// Nobody has asked for that.
    No,
    /// It starts; these wait to hear of it.
    Starting(Vec<oneshot::Sender<Answer>>),
    /// It has: what is on the machine is its own.
    Done,
}

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
    pub(crate) fn start(opened: Opened, beginnings: Beginnings) -> Result<Self, Failure> {
        let Beginnings {
            started,
            source,
            beginning,
            setting,
            title,
        } = beginnings;
        let requests = Requests::new().context("cannot listen for signals")?;
        let orphans = Orphans::watch().context("cannot listen for signals")?;
        let notifier = Notifier::from_env().context("cannot reach the service manager")?;
        let (front_reports, front) = mpsc::unbounded_channel();
        let (pool_reports, pools) = mpsc::unbounded_channel();
        let (came, comes) = mpsc::unbounded_channel();
        let (upgraded, upgrades) = mpsc::unbounded_channel();
        let (ask, asked) = mpsc::channel(QUESTIONS);
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
            coming: None,
            leaving: Vec::new(),
            source,
            reload: None,
            next_reload: None,
            came,
            templates: BTreeMap::new(),
            pool_reports,
            last_numbers: setting.numbers.clone(),
            upgraded,
            pools: BTreeMap::new(),
            roster: Roster::default(),
            programs: BTreeMap::new(),
            notifier,
            watchdog: Watchdog::new(notify::watchdog()),
            looks: looks(),
            inbox: Inbox {
                requests,
                orphans,
                front,
                came: comes,
                upgrades,
                pools,
                admin: asked,
            },
            ask,
            admin: None,
            opened,
            started,
            begun: SystemTime::now(),
            figures: Figures::default(),
            setting,
            beginning,
            title,
            upgrade: Upgrade::No,
        };
        master.show_title("");
        // An heir has no visitor before its apps are ready.
        if master.setting.will.is_none() {
            master.open_admin()?;
            master.start_front()?;
        }
        master.start_pools();
        master.start_front_as_heir()?;
        Ok(master)
    }

    /// Lives until it is told to stop and everybody is gone.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        while !self.is_over() {
            let wake = self.wake();
            tokio::select! {
                request = self.inbox.requests.next() => self.asked(request),
                Some((pid, told)) = self.inbox.front.recv() => self.front_told(pid, told)?,
                Some(came) = self.inbox.came.recv() => self.reload_came(came),
                Some(end) = self.inbox.upgrades.recv() => self.upgrade_ended(end),
                Some((app, told)) = self.inbox.pools.recv() => self.pool_told(app, told)?,
                Some(asked) = self.inbox.admin.recv() => self.questioned(asked),
                () = self.inbox.orphans.ended() => orphans::bury(),
                () = self.watchdog.due() => self.show_life(),
                () = sleep_until(self.opened.logs.next_look()) => self.rotate_logs(),
                _ = self.looks.tick(), if self.has_tls() => self.look_at_credentials(),
                () = sleep_until(wake) => self.tick(),
            }
        }
        info!("stopped");
        if matches!(self.upgrade, Upgrade::Done) {
            // The run directory, the paths of sockets and the admin socket are another's.
            std::mem::forget(self);
        }
        Ok(())
    }

    /// For `ps`: what this process is, what it serves, and how.
    fn show_title(&self, how: &str) {
        const NAME: &str = "stack: master";
        let full = format!("{NAME} {}{how}", self.opened.loaded.title());
        let short = format!("{NAME}{how}");
        self.title.set(NAME, &[&full, &short, NAME]);
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopping)
            && self.pools.is_empty()
            && self.leaving.is_empty()
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

    fn start_pools(&mut self) {
        for template in std::mem::take(&mut self.opened.templates) {
            let app = template.app.name.clone();
            let (orders, obeyed) = mpsc::unbounded_channel();
            let number = self.last_numbers.get(&app).copied().unwrap_or_default();
            self.templates.insert(app.clone(), template.clone());
            self.pools.insert(app, orders);
            tokio::spawn(Keeper::new(template, number, self.pool_reports.clone()).run(obeyed));
        }
    }

    fn wake(&self) -> Option<Instant> {
        let own = match (&self.phase, &self.front) {
            (Phase::Draining { deadline }, _) => Some(*deadline + LAST_MOMENT),
            (_, FrontState::Waiting(until)) => Some(*until),
            _ => None,
        };
        own.into_iter().chain(self.reload_wake()).min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.reload_tick(now);
        match (&self.phase, &self.front) {
            (Phase::Draining { deadline }, front) if *deadline + LAST_MOMENT <= now => {
                warn!("the proxy has not stopped in time and is killed");
                for front in front.front().into_iter().chain(self.leaving_fronts()) {
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
            (Request::HangUp, _) => self.want_reload(Scope::Everything, None),
            (Request::Upgrade, _) => self.upgrade(None),
            (Request::Grow, _) => self.tell_pools(|| keeper::Order::Grow),
            (Request::Shrink, _) => self.tell_pools(|| keeper::Order::Shrink),
            (Request::ReopenLogs, _) => {
                self.reopen_logs();
                info!("the logs are opened anew");
            }
        }
    }

    fn rotate_logs(&mut self) {
        if self.opened.logs.look(Instant::now()) {
            self.hand_logs();
            self.reload_missed_logs();
        }
    }

    /// Somebody has moved the files aside.
    pub(super) fn reopen_logs(&mut self) {
        self.opened.logs.reopen();
        self.hand_logs();
        self.reload_missed_logs();
    }

    /// Gives the proxies the files that are open now: the one that serves, and those that finish what they have begun. One
    /// that is not there gets them when it starts.
    fn hand_logs(&self) {
        for front in self.front.front().into_iter().chain(self.leaving_fronts()) {
            match self.opened.logs.hand_over() {
                Ok((order, descriptors)) => front.hand(order, descriptors),
                Err(error) => warn!("cannot give the logs to the proxy: {error}"),
            }
        }
    }

    /// Stops, if that has not begun.
    pub(super) fn drain_once(&mut self) {
        if matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            self.drain();
        }
    }

    fn open_admin(&mut self) -> Result<(), Failure> {
        let path = self.setting.admin(&self.opened.loaded.site);
        let shown = path.display().to_string();
        let admin = Admin::open(path, self.ask.clone());
        self.admin = Some(admin.with_context(|| format!("cannot listen on {shown}"))?);
        Ok(())
    }

    /// The apps of an heir are ready: now it may have visitors.
    fn start_front_as_heir(&mut self) -> Result<(), Failure> {
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
    fn take_over(&mut self) -> Result<(), Failure> {
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
    pub(super) fn upgrade(&mut self, asker: Option<oneshot::Sender<Answer>>) {
        let refusal = match (&mut self.upgrade, &self.phase) {
            (Upgrade::Starting(askers), _) => return askers.extend(asker),
            (Upgrade::No, Phase::Serving) if self.reload.is_none() => None,
            (Upgrade::No, Phase::Serving) => Some("a reload is going on: try again after it"),
            _ => Some("it is not serving"),
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
            ..Estate::default()
        }
    }

    /// As long as the slowest app may take, and a moment for the rest.
    fn upgrade_patience(&self) -> Duration {
        let apps = self.opened.loaded.site.apps.iter();
        let slowest = apps.map(|app| app.boot_timeout).max().unwrap_or_default();
        slowest + UPGRADE
    }

    fn upgrade_ended(&mut self, end: upgrade::End) {
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
    fn hand_over(&mut self, pid: i32) {
        info!("the master of process {pid} has taken over");
        // Only the process that the manager knows may name another.
        self.notify(&[("MAINPID", &pid.to_string())]);
        if let Some(admin) = &mut self.admin {
            admin.let_go();
        }
        self.upgrade = Upgrade::Done;
        self.drain_once();
    }

    fn leaving_fronts(&self) -> impl Iterator<Item = &Front> {
        self.leaving.iter().map(|leaving| &leaving.front)
    }

    /// Stops from the outside in.
    fn drain(&mut self) {
        let grace = self.opened.loaded.site.limits.drain_timeout;
        let deadline = Instant::now() + grace;
        info!(
            "stopping; running requests may take {} to finish",
            Elapsed(grace)
        );
        if !matches!(self.upgrade, Upgrade::Done) {
            self.notify(&[("STOPPING", "1"), ("STATUS", "finishing what runs")]);
        }
        self.drop_reload();
        self.show_title(" (draining)");
        self.phase = Phase::Draining { deadline };
        for front in self.front.front().into_iter().chain(self.leaving_fronts()) {
            front.tell(match self.upgrade {
                Upgrade::Done => Order::Retire,
                _ => Order::Drain,
            });
        }
        if self.front.front().is_none() {
            self.front = FrontState::Gone;
        }
        self.stop_pools_if_alone(deadline);
    }

    /// Once no proxy is left that could want anything of them.
    fn stop_pools_if_alone(&mut self, deadline: Instant) {
        if self.leaving.is_empty() && matches!(self.front, FrontState::Gone) {
            self.stop_pools(deadline);
        }
    }

    fn stop_pools(&mut self, deadline: Instant) {
        self.phase = Phase::Stopping;
        // Even when the proxy has used up the grace, a worker may run its exit handlers.
        let deadline = deadline.max(Instant::now() + LAST_MOMENT);
        self.tell_pools(|| keeper::Order::Stop { deadline });
    }

    fn abort(&mut self) {
        info!("stopping at once");
        self.notify(&[("STOPPING", "1"), ("STATUS", "stopping at once")]);
        self.drop_reload();
        for front in self.leaving_fronts() {
            front.kill();
        }
        match self.front.front() {
            Some(front) => front.kill(),
            None => self.front = FrontState::Gone,
        }
        self.phase = Phase::Stopping;
        self.tell_pools(|| keeper::Order::Abort);
    }

    fn front_told(&mut self, pid: i32, told: front::Told) -> Result<(), Failure> {
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
            Report::Alive => self.notify(&[("WATCHDOG", "1")]),
            Report::Refused { why } if is_coming => self.not_switched(&why),
            Report::Refused { why } => self.front_refuses(&why)?,
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
    pub(super) fn replace_front(&mut self, front: Front) {
        let before = std::mem::replace(&mut self.front, FrontState::Serving(front));
        let workers = self.roster.hand_over();
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
        self.front_deaths.up(Instant::now());
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
                let again = self.front_deaths.died(now);
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
            keeper::Told::Failed { why }
                if self.setting.broken == BrokenApp::Ends
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

    fn released(&mut self, worker: WorkerName) {
        self.relieved(&worker);
        let WorkerName { app, number } = worker;
        self.tell_pool(&app, keeper::Order::Released { number });
    }

    pub(super) fn tell_pool(&self, app: &str, order: keeper::Order) {
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

    pub(super) fn tell_front(&self, order: Order) {
        if let Some(front) = self.front.front() {
            front.tell(order);
        }
    }

    /// The log as the new configuration has it.
    pub(super) fn adopt_log(&mut self, before: &Loaded) {
        let (now, before) = (&self.opened.loaded.site.server.log, &before.site.server.log);
        // The environment wins, as at the start.
        let is_ours = std::env::var_os(telemetry::log::FILTER_VARIABLE).is_none();
        if now.level != before.level && is_ours {
            let filter = now.level.clone();
            match telemetry::log::set_filter(&filter) {
                Ok(()) => self.tell_front(Order::LogFilter { filter }),
                Err(error) => warn!("{error}"),
            }
        }
        let file = |log: &ErrorLog| log.file.as_ref().map(|file| file.value.clone());
        if file(now) != file(before) {
            if let Err(error) = self.opened.logs.take_stderr() {
                warn!("cannot write to the file of the log: {error}");
            }
            self.hand_logs();
        }
    }

    /// What a service manager wants to know (sd_notify(3), `Type=notify-reload`).
    pub(super) fn notify_reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.notify(&[("RELOADING", "1"), ("MONOTONIC_USEC", &micros.to_string())]);
    }

    /// It serves, be it the old or the new.
    pub(super) fn notify_reloaded(&self) {
        let status = self.banner().status();
        self.notify(&[("READY", "1"), ("STATUS", &status)]);
        self.notify_addresses();
    }

    fn banner(&self) -> Banner<'_> {
        Banner {
            loaded: &self.opened.loaded,
            listening: &self.opened.listening,
            failures: self.roster.failures(),
            programs: &self.programs,
            after: self.started.elapsed(),
        }
    }

    fn notify_addresses(&self) {
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
            ("X_STACK_HTTP", &names(false)),
            ("X_STACK_HTTPS", &names(true)),
        ]);
    }

    /// Once the proxy serves and each app has been tried: now we are ready, whatever became of the apps.
    fn announce_if_ready(&mut self) -> Result<(), Failure> {
        let Phase::Starting { undecided } = &self.phase else {
            return Ok(());
        };
        if !undecided.is_empty() || !matches!(self.front, FrontState::Serving(_)) {
            return Ok(());
        }
        self.phase = Phase::Serving;
        if self.setting.will.is_some() {
            self.take_over()?;
        }
        let banner = self.banner();
        banner.show();
        self.notify_addresses();
        self.notify(&[
            ("READY", "1"),
            ("STATUS", &banner.status()),
            ("MAINPID", &std::process::id().to_string()),
        ]);
        // Somebody may have been faster than we.
        self.begin_reload();
        Ok(())
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
