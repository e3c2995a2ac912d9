//! What outlives a configuration, and what the master may order.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use config::site::{LogTarget, Site};
use telemetry::{
    access::Log,
    metrics::{self, Snapshot},
    panics::lock,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
};

use super::{Error, Server, Stop, offer::Offer};
use crate::{
    access::Limiters,
    app::pool::Pool,
    buffer::budget::Budget,
    challenges::Challenges,
    closed::Closures,
    control::{Credentials, Listener, Order, Report},
    dev::Dev,
    door::{self, Door},
    figures::Figures,
    listener::Listening,
    operators::{Bulletins, Places},
    plan::Plan,
    tls::SelfSigned,
};

/// What an order leaves to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Serve,
    /// Finish what runs, and leave.
    Leave(Stop),
}

/// What outlives a configuration.
#[derive(Debug)]
pub(super) struct Kept {
    /// How many descriptors there may be.
    descriptors: u64,
    pub(super) build: OnceLock<Arc<str>>,
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    pub(super) self_signed: SelfSigned,
    /// What all requests and responses may hold.
    pub(super) budget: Arc<Budget>,
    pub(super) limiters: Limiters,
    pub(super) closures: Arc<Closures>,
    bulletins: Arc<Bulletins>,
    /// Whether it stops with nobody to follow.
    pub(super) draining: Arc<AtomicBool>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) figures: Arc<Figures>,
    /// What is known of the newest code, where somebody develops it.
    pub(super) dev: Arc<Dev>,
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
    /// Nothing is served yet.
    pub(super) fn new(descriptors: u64, reports: mpsc::Sender<Report>) -> Self {
        Self {
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
        }
    }

    /// Serves the first configuration.
    pub(super) async fn begin(
        &self,
        (order, descriptors): (Order, Vec<OwnedFd>),
    ) -> Result<Arc<Server>, Error> {
        let Offer {
            site,
            plan,
            listening,
        } = match Offer::open(self, order, descriptors, None)? {
            Ok(offer) => offer,
            Err(why) => {
                let refused = Report::Refused { why: why.clone() };
                // The master may be gone; the error says the same.
                let _ = self.reports.send(refused).await;
                return Err(Error::Refused(why));
            }
        };
        let limits = &site.limits;
        self.budget.set(limits.buffers_memory, limits.buffers_disk);
        let server = Arc::new(Server {
            plan: ArcSwap::from_pointee(plan),
            door: Door::new(door::connections(&site, self.descriptors)),
            budget: Arc::clone(&self.budget),
            figures: Arc::clone(&self.figures),
            bulletins: Arc::clone(&self.bulletins),
            places: Places::default(),
            stop: watch::Sender::new(Stop::No),
            stopped: Arc::default(),
            turns: Semaphore::new(Handle::current().metrics().num_workers()),
        });
        self.accept(&server, listening);
        let made = self.self_signed.made(&site);
        *lock(&self.serving) = Some(site);
        self.reports
            .send(Report::Serving { made })
            .await
            .map_err(|_| Error::Orphaned)?;
        Ok(server)
    }

    /// Tells the load of the apps whose number of workers follows it.
    pub(super) async fn report_loads(&self, server: &Server) {
        for app in &server.plan().adaptive {
            // The master is gone; the next order will say so.
            let _ = self.reports.send(self.pool(app).load()).await;
        }
    }

    /// The pool of an app, made when it is first named.
    pub(super) fn pool(&self, app: &str) -> Arc<Pool> {
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
    pub(super) fn remember(&self, site: &Site, log: &Arc<Log>) {
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
    pub(super) fn same_log(&self, site: &Site, before: &Plan) -> Option<Arc<Log>> {
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
    pub(super) fn follow(
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
