//! The proxy process: it takes orders from the master, owns the plan and the pools, and ends when it is told to.

use std::{
    collections::HashMap,
    future::Future,
    io::{self, IsTerminal},
    num::NonZero,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use config::site::{LogFormat, LogTarget, Site};
use telemetry::{
    access::{Format, Log, Pattern, Redaction},
    metrics::{self, Snapshot},
    panics::{Vital, lock},
    text::Elapsed,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
};

use crate::{
    access::Limiters,
    app::pool::Pool,
    buffer::budget::Budget,
    challenges::Challenges,
    channel::{Channel, Receiver, Sender},
    closed::Closures,
    confine::confine,
    control::{Credentials, Listener, Order, Report},
    dev::Dev,
    door::{self, Door},
    figures::Figures,
    listener::Listening,
    memory::{GiveBack, Tide},
    operators::{Bulletins, Places},
    plan::{Given, Plan},
    tls::SelfSigned,
};

/// Reports that wait for the master to read them; it reads at once, so more than a few means that it is gone.
const REPORTS: usize = 1024;

/// Resolves when the server stops accepting. For one task: it asks to be woken once, and a look at a flag is all that
/// further polls cost.
pub(crate) struct Stopping {
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    asked: bool,
    stopped: Arc<AtomicBool>,
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked && !self.stopped.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.asked = true;
        self.wait.as_mut().poll(cx)
    }
}

/// Why the proxy process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The channel to the master broke.
    #[error("the channel to the master broke: {0}")]
    Channel(#[source] io::Error),
    /// The master is gone.
    #[error("the master is gone")]
    Orphaned,
    /// The master did not say what it must, or not when it must.
    #[error("the master gave an order that is out of place")]
    Protocol,
    /// The configuration cannot be served.
    #[error("{0}")]
    Refused(String),
}

/// Runs the proxy until the master tells it to drain, or is gone. Blocks. `drains` is called once it has been told, on this
/// thread; `give_back` after a rush, on each that has worked.
///
/// # Errors
/// When it cannot begin to serve, or has lost its master.
pub fn run(control: OwnedFd, drains: impl FnOnce(), give_back: GiveBack) -> Result<(), Error> {
    let descriptors = door::raise_descriptors();
    // Before confinement: what control groups allow is read from files.
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let first = receive_first(&control)?;
    if let Order::Serve { site, .. } = &first.0 {
        confine(site);
    }
    telemetry::log::never_wait().map_err(Error::Runtime)?;
    let tide = Tide::new(give_back);
    let resting = Arc::clone(&tide);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(threads)
        .thread_name("proxy")
        .on_thread_park(move || resting.rest())
        .build()
        .map_err(Error::Runtime)?;
    let result = runtime.block_on(async {
        let (sender, receiver) = Channel::new(control).map_err(Error::Channel)?.split();
        obey(sender, receiver, first, descriptors, drains, tide).await
    });
    // Connections that outlived the grace end here.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// The first order, received before there is a second thread: the confinement that it decides is one thread's, and of
/// those that this one starts.
fn receive_first(control: &OwnedFd) -> Result<(Order, Vec<OwnedFd>), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(async {
        // The channel never reads past a message, so another one can go on where it ended.
        let control = control.try_clone().map_err(Error::Channel)?;
        let (_, mut orders) = Channel::new(control).map_err(Error::Channel)?.split();
        next(&mut orders).await
    })
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    plan: ArcSwap<Plan>,
    /// Who may come in.
    pub(crate) door: Door,
    /// What all requests and responses hold.
    pub(crate) budget: Arc<Budget>,
    /// What is counted.
    pub(crate) figures: Arc<Figures>,
    /// What the master says to operators.
    pub(crate) bulletins: Arc<Bulletins>,
    /// Places for operators.
    pub(crate) places: Places,
    stop: watch::Sender<Stop>,
    /// Whether it stops at all, for who only looks.
    stopped: Arc<AtomicBool>,
    /// Turns at the expensive part of a handshake: as many as there are threads, so that a crowd of newcomers waits here, in
    /// order, and not among the work for those who are inside.
    pub(crate) turns: Semaphore,
}

/// Whether the server stops, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It serves.
    No,
    /// Another one serves in its place.
    Retiring,
    /// Nobody does.
    Now,
}

/// How long a connection without a request is kept by a server that retires: its client may be writing the next one in this
/// very moment, and would find it closed. With the answer it learns that it is the last.
const LINGER: Duration = Duration::from_secs(5);

impl Server {
    /// What is being served now.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Resolves when the server stops. To be polled until it is ready, and no more.
    pub(crate) fn stopping(&self) -> Stopping {
        let mut stop = self.stop.subscribe();
        let wait = Box::pin(async move {
            // The sender lives as long as the server, which outlives its connections; its end means stop as well.
            let _ = stop.wait_for(|stop| *stop != Stop::No).await;
        });
        self.watch(wait)
    }

    /// Resolves when a connection without a request is not kept any longer. To be polled until it is ready, and no more.
    pub(crate) fn idle_ends(&self) -> Stopping {
        let mut stop = self.stop.subscribe();
        self.watch(Box::pin(async move {
            let how = stop.wait_for(|stop| *stop != Stop::No).await;
            let retires = how.is_ok_and(|how| *how == Stop::Retiring);
            if retires {
                let now = stop.wait_for(|stop| *stop == Stop::Now);
                // Either way it is time.
                let _ = tokio::time::timeout(LINGER, now).await;
            }
        }))
    }

    fn watch(&self, wait: Pin<Box<dyn Future<Output = ()> + Send>>) -> Stopping {
        Stopping {
            wait,
            asked: false,
            stopped: Arc::clone(&self.stopped),
        }
    }

    /// Whether the server is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// What an order leaves to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Serve,
    /// Finish what runs, and leave.
    Leave(Stop),
}

/// What outlives a configuration.
#[derive(Debug)]
struct Kept {
    /// How many descriptors there may be.
    descriptors: u64,
    build: OnceLock<Arc<str>>,
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    self_signed: SelfSigned,
    /// What all requests and responses may hold.
    budget: Arc<Budget>,
    limiters: Limiters,
    closures: Arc<Closures>,
    bulletins: Arc<Bulletins>,
    /// Whether it stops with nobody to follow.
    draining: Arc<AtomicBool>,
    challenges: Arc<Challenges>,
    figures: Arc<Figures>,
    /// What is known of the newest code, where somebody develops it.
    dev: Arc<Dev>,
    /// Access logs that are open, by the path of their file.
    logs: Mutex<Vec<(PathBuf, Weak<Log>)>>,
    /// Lines that access logs of earlier configurations have lost.
    dropped: AtomicU64,
    reports: mpsc::Sender<Report>,
    /// What accepts.
    accepting: Mutex<HashMap<Listener, AbortHandle>>,
    /// What is being served.
    serving: Mutex<Option<Box<Site>>>,
    /// What is to come.
    offer: Mutex<Option<Offer>>,
}

impl Kept {
    /// The pool of an app, made when it is first named.
    fn pool(&self, app: &str) -> Arc<Pool> {
        let mut pools = lock(&self.pools);
        let pool = pools.entry(app.to_owned()).or_insert_with(|| {
            let build = self.build.get().cloned().unwrap_or_default();
            Pool::new(app, build, self.reports.clone())
        });
        Arc::clone(pool)
    }

    /// Lets one of the threads that serve say something: that it does, for instance.
    fn report(&self, report: Report) {
        let reports = self.reports.clone();
        // Nobody reads only when the master is gone.
        tokio::spawn(async move { drop(reports.send(report).await) });
    }

    /// All that was counted, and how things are now.
    fn snapshot(&self, server: &Server) -> Snapshot {
        let mut snapshot = self.figures.snapshot();
        for pool in lock(&self.pools).values() {
            pool.tell(&mut snapshot);
        }
        for (name, account) in [("memory", &self.budget.memory), ("disk", &self.budget.disk)] {
            snapshot.count(&metrics::BUFFERED, [name], account.used());
            snapshot.count(&metrics::BUFFERED_LIMIT, [name], account.most());
        }
        let dropped = self.dropped.load(Ordering::Relaxed) + server.plan().log.dropped();
        snapshot.count(&metrics::LOG_DROPPED, [], dropped);
        snapshot.count(
            &metrics::STDERR_DROPPED,
            ["proxy"],
            telemetry::log::dropped(),
        );
        snapshot
    }

    /// What cannot be used the master has not sent; were it so, what is used stays.
    fn renew(&self, server: &Server, credentials: &Credentials) {
        if let Some(tls) = &server.plan().tls
            && let Err(error) = tls.renew(credentials, &self.self_signed)
        {
            tracing::error!("the certificates stay as they are: {error}");
        }
    }

    /// Remembers an access log, to go on in another file when that is moved aside. A plan that another has followed lives as
    /// long as what it has begun.
    fn remember(&self, site: &Site, log: &Arc<Log>) {
        let mut logs = lock(&self.logs);
        logs.retain(|(_, log)| log.strong_count() > 0);
        if let LogTarget::File(path) = &site.server.access_log.to {
            logs.push((path.value.clone(), Arc::downgrade(log)));
        }
    }

    /// Goes on in the files that the master has opened in the place of those that were moved aside.
    fn reopen_logs(
        &self,
        access_log: Option<&Path>,
        log: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        let mut descriptors = descriptors.into_iter();
        if let Some(path) = access_log {
            let file = descriptors.next().ok_or(Error::Protocol)?;
            for (to, log) in lock(&self.logs).iter() {
                if let Some(log) = log.upgrade().filter(|_| to == path) {
                    log.reopen(file.try_clone().map_err(Error::Channel)?);
                }
            }
        }
        if log {
            let file = descriptors.next().ok_or(Error::Protocol)?;
            telemetry::log::redirect(file).map_err(Error::Channel)?;
        }
        Ok(())
    }

    /// The access log that is open, if the configuration wants the same one.
    fn same_log(&self, site: &Site, before: &Plan) -> Option<Arc<Log>> {
        let serving = lock(&self.serving);
        let now = &serving.as_ref()?.server;
        let same =
            now.access_log.is_same(&site.server.access_log) && now.redact == site.server.redact;
        same.then(|| Arc::clone(&before.log))
    }

    /// Serves what was offered from here on.
    fn take(&self, server: &Arc<Server>, offer: Offer) {
        let Offer {
            site,
            plan,
            listening,
        } = offer;
        let limits = &site.limits;
        self.budget.set(limits.buffers_memory, limits.buffers_disk);
        server
            .door
            .resize(door::connections(&site, self.descriptors));
        let before = server.plan.swap(Arc::new(plan));
        if !Arc::ptr_eq(&before.log, &server.plan().log) {
            self.dropped
                .fetch_add(before.log.dropped(), Ordering::Relaxed);
        }
        self.accept(server, listening);
        let wanted = |app: &str| site.app(app).is_some();
        lock(&self.pools).retain(|app, pool| wanted(app) || !pool.is_empty());
        let made = self.self_signed.made(&site);
        *lock(&self.serving) = Some(site);
        self.report(Report::Serving { made });
    }

    /// Accepts on these sockets and no others. One that accepts already goes on: a connection that waits there is not lost.
    fn accept(&self, server: &Arc<Server>, listening: Vec<Listening>) {
        let mut accepting = lock(&self.accepting);
        let mut before = std::mem::take(&mut *accepting);
        for listening in listening {
            let what = listening.what().clone();
            let task = match before.remove(&what) {
                Some(task) => task,
                None => tokio::spawn(listening.run(Arc::clone(server))).abort_handle(),
            };
            accepting.insert(what, task);
        }
        for task in before.into_values() {
            task.abort();
        }
    }

    /// Does what the master says.
    fn follow(
        &self,
        server: &Arc<Server>,
        (order, descriptors): (Order, Vec<OwnedFd>),
    ) -> Result<Then, Error> {
        match order {
            Order::ReopenLogs { access_log, log } => {
                self.reopen_logs(access_log.as_deref(), log, descriptors)?;
            }
            Order::LogFilter { filter } => {
                if let Err(error) = telemetry::log::set_filter(&filter) {
                    tracing::warn!("{error}");
                }
            }
            Order::Users { users } => {
                server.plan().renew_users(&users);
                if let Some(offer) = &*lock(&self.offer) {
                    offer.plan.renew_users(&users);
                }
            }
            Order::Answer { id, said } => self.bulletins.answered(id, said),
            Order::Close { closed } => self.closures.set(closed),
            Order::Drain => {
                self.draining.store(true, Ordering::Relaxed);
                return Ok(Then::Leave(Stop::Now));
            }
            Order::Retire => return Ok(Then::Leave(Stop::Retiring)),
            Order::Ping => self.report(Report::Alive),
            Order::Figures => self.report(Report::Figures(Box::new(self.snapshot(server)))),
            Order::Renew { credentials } => self.renew(server, &credentials),
            Order::Challenges { number, challenges } => {
                self.challenges.set(challenges);
                self.report(Report::Answering { number });
            }
            order @ Order::Serve { .. } => {
                let before = server.plan();
                let report = match Offer::open(self, order, descriptors, Some(&before))? {
                    Ok(offer) => {
                        *lock(&self.offer) = Some(offer);
                        Report::Prepared
                    }
                    Err(why) => Report::Refused { why },
                };
                self.report(report);
            }
            Order::Commit => {
                let offer = lock(&self.offer).take().ok_or(Error::Protocol)?;
                self.take(server, offer);
            }
            Order::Forget => drop(lock(&self.offer).take()),
            Order::WorkerReady {
                worker,
                socket,
                threads,
            } => self.pool(&worker.app).add(worker, socket, threads),
            Order::ReleaseWorker { worker } => self.pool(&worker.app).release(&worker),
            Order::WorkerDied { worker, how } => self.pool(&worker.app).bury(&worker, &how),
            Order::AppFailed { app, why } => self.pool(&app).fail(&why),
            Order::Broken { why } => self.dev.set_broken(why),
        }
        Ok(Then::Serve)
    }
}

/// A configuration of which everything is ready, and nothing is served yet.
#[derive(Debug)]
struct Offer {
    site: Box<Site>,
    plan: Plan,
    listening: Vec<Listening>,
}

impl Offer {
    /// Makes it ready, or says why it cannot be served. What is the same as in `before`, which is being served, goes on.
    fn open(
        kept: &Kept,
        order: Order,
        descriptors: Vec<OwnedFd>,
        before: Option<&Plan>,
    ) -> Result<Result<Self, String>, Error> {
        let Order::Serve {
            site,
            build,
            listeners,
            credentials,
            users,
            closed,
            access_log,
        } = order
        else {
            return Err(Error::Protocol);
        };
        kept.build.get_or_init(|| build.into());
        kept.closures.set(closed);
        let mut descriptors = descriptors.into_iter();
        let listening = listeners
            .iter()
            .map(|what| {
                let socket = descriptors.next().ok_or(Error::Protocol)?;
                Listening::new(socket, what.clone()).map_err(Error::Channel)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let file = match access_log {
            true => Some(descriptors.next().ok_or(Error::Protocol)?),
            false => None,
        };
        let log = match before.and_then(|before| kept.same_log(&site, before)) {
            Some(log) => log,
            None => {
                let log = Arc::new(open_log(&site, file).map_err(Error::Channel)?);
                kept.remember(&site, &log);
                log
            }
        };
        let given = Given {
            listeners: &listeners,
            credentials: &credentials,
            users: &users,
            self_signed: &kept.self_signed,
            limiters: &kept.limiters,
            closures: &kept.closures,
            draining: &kept.draining,
            challenges: &kept.challenges,
            budget: &kept.budget,
            before,
            log,
            figures: &kept.figures,
            dev: &kept.dev,
        };
        let pool = |app: &config::site::App| kept.pool(&app.name);
        Ok(match Plan::new(&site, given, pool) {
            Ok(plan) => Ok(Self {
                site,
                plan,
                listening,
            }),
            Err(error) => Err(error.to_string()),
        })
    }
}

async fn obey(
    sender: Sender,
    mut orders: Receiver,
    first: (Order, Vec<OwnedFd>),
    descriptors: u64,
    drains: impl FnOnce(),
    tide: Arc<Tide>,
) -> Result<(), Error> {
    let (reports, outbox) = mpsc::channel(REPORTS);
    tokio::spawn(tell(sender, outbox));
    let kept = Kept {
        descriptors,
        build: OnceLock::new(),
        pools: Mutex::default(),
        self_signed: SelfSigned::default(),
        budget: Arc::default(),
        limiters: Limiters::default(),
        closures: Arc::default(),
        bulletins: Arc::new(Bulletins::new(reports.clone())),
        draining: Arc::default(),
        challenges: Arc::default(),
        figures: Arc::default(),
        dev: Arc::default(),
        logs: Mutex::default(),
        dropped: AtomicU64::new(0),
        reports,
        accepting: Mutex::default(),
        serving: Mutex::default(),
        offer: Mutex::default(),
    };
    let server = begin(&kept, first).await?;
    tokio::spawn(tide.watch(Arc::clone(&server)));
    let stop = loop {
        tokio::select! {
            biased;
            order = next(&mut orders) => if let Then::Leave(stop) = kept.follow(&server, order?)? {
                break stop;
            },
            () = load_is_due(&server) => report_loads(&kept, &server).await,
        }
    };
    drains();
    // What still runs or waits needs to hear of workers: of one that died inside it, of another that comes in its place.
    let listen = async {
        loop {
            let then = kept.follow(&server, next(&mut orders).await?)?;
            if then == Then::Leave(Stop::Now) {
                server.stop.send_replace(Stop::Now);
            }
        }
    };
    tokio::select! {
        () = drain(&server, stop) => Ok(()),
        broken = listen => broken,
    }
}

/// How often the master hears of the load of apps whose number of workers follows it: often enough for a visitor's patience,
/// and too seldom to be seen in a profile.
const LOADS: Duration = Duration::from_secs(1);

/// Resolves when the load is to be told; never where nothing follows it.
async fn load_is_due(server: &Server) {
    if server.plan().adaptive.is_empty() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LOADS).await;
}

async fn report_loads(kept: &Kept, server: &Server) {
    for app in &server.plan().adaptive {
        // The master is gone; the next order will say so.
        let _ = kept.reports.send(kept.pool(app).load()).await;
    }
}

async fn next(orders: &mut Receiver) -> Result<(Order, Vec<OwnedFd>), Error> {
    orders
        .receive()
        .await
        .map_err(Error::Channel)?
        .ok_or(Error::Orphaned)
}

async fn tell(mut sender: Sender, mut outbox: mpsc::Receiver<Report>) {
    let _vital = Vital::new("a word to the master");
    while let Some(report) = outbox.recv().await {
        if let Err(error) = sender.send(&report, &[]).await {
            tracing::error!("cannot tell the master: {error}");
            return;
        }
    }
}

/// Serves the first configuration.
async fn begin(
    kept: &Kept,
    (order, descriptors): (Order, Vec<OwnedFd>),
) -> Result<Arc<Server>, Error> {
    let offer = match Offer::open(kept, order, descriptors, None)? {
        Ok(offer) => offer,
        Err(why) => {
            let refused = Report::Refused { why: why.clone() };
            // The master may be gone; the error says the same.
            let _ = kept.reports.send(refused).await;
            return Err(Error::Refused(why));
        }
    };
    let Offer {
        site,
        plan,
        listening,
    } = offer;
    let limits = &site.limits;
    kept.budget.set(limits.buffers_memory, limits.buffers_disk);
    let server = Arc::new(Server {
        plan: ArcSwap::from_pointee(plan),
        door: Door::new(door::connections(&site, kept.descriptors)),
        budget: Arc::clone(&kept.budget),
        figures: Arc::clone(&kept.figures),
        bulletins: Arc::clone(&kept.bulletins),
        places: Places::default(),
        stop: watch::Sender::new(Stop::No),
        stopped: Arc::default(),
        turns: Semaphore::new(Handle::current().metrics().num_workers()),
    });
    kept.accept(&server, listening);
    let made = kept.self_signed.made(&site);
    *lock(&kept.serving) = Some(site);
    kept.reports
        .send(Report::Serving { made })
        .await
        .map_err(|_| Error::Orphaned)?;
    Ok(server)
}

/// The sink of access records: the file that the master opened, or standard output.
fn open_log(site: &Site, file: Option<OwnedFd>) -> io::Result<Log> {
    let settings = &site.server.access_log;
    let stdout = io::stdout();
    let terminal = file.is_none() && stdout.is_terminal();
    let colour = terminal && telemetry::log::colour(&stdout);
    let format = match &settings.format {
        Some(LogFormat::Pretty) => Format::Pretty { colour },
        None if terminal => Format::Pretty { colour },
        Some(LogFormat::Combined) | None => Format::Combined,
        Some(LogFormat::Json) => Format::Json,
        Some(LogFormat::Own(text)) => {
            Format::Own(Arc::new(Pattern::parse(text).map_err(io::Error::other)?))
        }
    };
    let log = match (&settings.to, file) {
        (LogTarget::Off, _) => Log::off(),
        (_, Some(file)) => Log::new(file, format)?,
        (_, None) => Log::new(rustix::io::dup(stdout)?, format)?,
    };
    Ok(log.redacted(Redaction::new(&site.server.redact)))
}

/// Stops accepting and waits for what runs, within the grace.
async fn drain(server: &Server, how: Stop) {
    server.stopped.store(true, Ordering::Release);
    server.stop.send_replace(how);
    let plan = server.plan();
    let done = server.door.empty();
    if tokio::time::timeout(plan.limits.drain_timeout, done)
        .await
        .is_err()
    {
        let left = server.door.inside();
        let whose = if left == 1 {
            "connection"
        } else {
            "connections"
        };
        tracing::warn!(
            "{left} {whose} cut: not finished within {}",
            Elapsed(plan.limits.drain_timeout)
        );
    }
    if let Some(spans) = &plan.spans {
        spans.flush().await;
    }
    plan.log.flush();
}
