//! The master's life: it keeps one proxy and a pool of workers for each app, until it is told to stop.
//!
//! It reads what children and people say, decides, and tells others; it never waits for any one of them. Stopping goes from
//! the outside in: first the proxy stops accepting and finishes what runs, and only when it is gone the workers leave.

mod certificates;
mod closing;
mod fronts;
mod manager;
mod stopping;
mod succession;
mod upkeep;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use ::proxy::control::{Closed, WorkerName};
use anyhow::Context;
use appserver::{pool::keeper, worker::Template};
use supervisor::{
    backoff::Backoff,
    notify::{self, Notifier},
    orphans::{self, Orphans},
    signal::{Request, Requests},
    title::Title,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Interval,
};
use tracing::{info, warn};

use super::{
    Beginnings, Setting,
    admin::{Admin, Answer, Asked},
    certificates::{self as office, Office},
    dev::{self, Dev},
    figures::Figures,
    front::{self, Front},
    opened::Opened,
    reload::{Came, Reload, Scope, Wanted},
    roster::Roster,
    upgrade::{self, Beginning},
    watchdog::Watchdog,
};
use crate::{failure::Failure, load::Source, summary::Looks};

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
    /// What the page has shown last.
    pub(super) looks_of_page: Arc<Mutex<Looks>>,
    /// What commands have closed for maintenance.
    pub(super) closed: Vec<Closed>,
    setting: Setting,
    beginning: Beginning,
    title: Title,
    upgrade: Upgrade,
    pub(super) phase: Phase,
    pub(super) front: FrontState,
    /// Of proxies that had served.
    front_deaths: Backoff,
    /// Of those that never did.
    front_failures: Backoff,
    /// Given to each proxy.
    pub(super) front_reports: front::Tell,
    /// A proxy that starts beside the one that serves.
    pub(super) coming: Option<Front>,
    /// Proxies that another has followed, and that finish what they have begun.
    leaving: Vec<Leaving>,
    /// Where the configuration comes from.
    pub(super) source: Source,
    /// What is done for who develops the site; `None` where it is served to everybody.
    pub(super) dev: Option<Dev>,
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
    /// Who gets certificates; `None` where nobody wants any, and before we serve.
    pub(super) office: Option<Office>,
    /// Given to it.
    office_reports: mpsc::UnboundedSender<office::Told>,
    /// What runs each app, by its name.
    programs: BTreeMap<String, PathBuf>,
    notifier: Notifier,
    watchdog: Watchdog,
    /// When the files of certificates and users are looked at.
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
    office: mpsc::UnboundedReceiver<office::Told>,
    came: mpsc::UnboundedReceiver<Came>,
    upgrades: mpsc::UnboundedReceiver<upgrade::End>,
    pools: mpsc::UnboundedReceiver<(String, keeper::Told)>,
    admin: mpsc::Receiver<Asked>,
}

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
            dev,
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
        let (office_reports, office) = mpsc::unbounded_channel();
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
            front_deaths: Backoff::up_to(fronts::MISSED),
            front_failures: Backoff::new(),
            front_reports,
            coming: None,
            leaving: Vec::new(),
            source,
            dev,
            reload: None,
            next_reload: None,
            came,
            templates: BTreeMap::new(),
            pool_reports,
            last_numbers: setting.numbers.clone(),
            upgraded,
            pools: BTreeMap::new(),
            roster: Roster::default(),
            office: None,
            office_reports,
            programs: BTreeMap::new(),
            notifier,
            watchdog: Watchdog::new(notify::watchdog()),
            looks: upkeep::looks(),
            inbox: Inbox {
                requests,
                orphans,
                front,
                office,
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
            looks_of_page: Arc::default(),
            closed: setting.closed.clone(),
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
                Some(told) = self.inbox.office.recv() => self.office_told(told),
                Some(came) = self.inbox.came.recv() => self.reload_came(came),
                Some(end) = self.inbox.upgrades.recv() => self.upgrade_ended(end),
                Some((app, told)) = self.inbox.pools.recv() => self.pool_told(app, told)?,
                Some(asked) = self.inbox.admin.recv() => self.questioned(asked),
                change = dev::next_change(self.dev.as_mut()) => self.saved(&change),
                () = self.inbox.orphans.ended() => orphans::bury(),
                () = self.watchdog.due() => self.show_life(),
                () = sleep_until(self.opened.logs.next_look()) => self.rotate_logs(),
                _ = self.looks.tick(), if self.has_files() => self.look_at_files(),
                () = sleep_until(wake) => self.tick(),
            }
        }
        info!("stopped");
        Ok(())
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopping)
            && self.pools.is_empty()
            && self.leaving.is_empty()
            && matches!(self.front, FrontState::Gone)
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
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
