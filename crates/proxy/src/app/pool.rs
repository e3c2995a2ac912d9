//! The pool of an app's slots, and the queue of requests that wait for one.
//!
//! The pool keeps `threads` greeted connections to every worker. A request takes an idle one, or waits in the
//! [queue](super::queue), no longer than `limits.queue_timeout`. A waiting request that is dropped, because its client left,
//! has left the queue.

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use telemetry::{
    metrics::{self, Snapshot},
    panics,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Settings,
    queue::{Asker, Bounds, Full, Queue, Ticket},
    slot::{Greeted, Life, Slot, Worker},
};
use crate::{
    buffer::stalls::Stalls,
    control::{Report, WorkerName},
    failure::Failure,
    journal::Journal,
    origin::Origin,
};

/// First pause before a connection to a worker is tried again; doubles up to [`RETRY_MAX`]. A worker that listens accepts
/// at once, so a failure mostly means that it has just died and the master is about to say so.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The slots of one app.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The app's name.
    pub(crate) app: Arc<str>,
    /// What routes of this app are called in the access log.
    pub(crate) label: Arc<str>,
    build: Arc<str>,
    reports: mpsc::Sender<Report>,
    /// Slots that wait for slow clients.
    pub(super) stalls: Arc<Stalls>,
    inner: Mutex<Inner>,
    /// Somebody may wait for less time than [`Inner::ward`] goes by.
    sooner: Notify,
    /// Streams of which it is not known yet which worker will have them.
    streams: Arc<AtomicUsize>,
    /// The longest that anybody has waited since the last [`Pool::load`], in milliseconds.
    waited: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    members: Vec<Member>,
    /// Those that were let go of, as long as somebody has been in them: how they died is for them.
    departed: Vec<Weak<Worker>>,
    waiting: Queue<oneshot::Sender<Turn>>,
    /// When it is looked next who has waited for too long; `None`: nobody looks ([`Pool::ward`]).
    ward: Option<Instant>,
    /// What bounded it last.
    bounds: Bounds,
    /// How many slots run a request, and the most since the last [`Pool::load`].
    busy: u32,
    peak: u32,
    /// Why no worker could start; `None` while one may still come.
    failed: Option<Arc<str>>,
}

/// How a wait ends.
#[derive(Debug)]
enum Turn {
    /// A slot is free.
    Slot(Slot),
    /// It has lasted too long for what there is to do.
    Shed(Duration),
    /// It has lasted for as long as it may.
    Late,
}

/// A place in the queue, which is given up when this is dropped.
struct Waiting<'p> {
    pool: &'p Pool,
    ticket: Ticket,
    turn: oneshot::Receiver<Turn>,
    /// Whether it is over, and there is nothing to give up.
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let left = self.pool.lock().waiting.leave(self.ticket);
        // Its turn may have come in this very moment; then the slot has not seen a byte of the request.
        if left.is_none()
            && let Ok(Turn::Slot(slot)) = self.turn.try_recv()
        {
            slot.free();
        }
    }
}

/// A live response, or an upload that is passed on as it comes, until this is dropped. It is counted with the worker that has
/// it, once that is known.
#[derive(Debug)]
pub(super) struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn counted(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }

    /// It is in this worker.
    pub(super) fn of(self, worker: &Worker) -> Self {
        Self::counted(&worker.streams)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker and its connections.
#[derive(Debug)]
struct Member {
    worker: Arc<Worker>,
    /// Last in, first out: what was used last is still in the caches.
    idle: Vec<Greeted>,
    /// How many connections run a request.
    busy: usize,
    /// How many are being made.
    opening: usize,
    /// It is to leave. Its [`Life`] says so to who waits for that; this is for who has the lock, and looks often.
    releasing: bool,
    /// Whether it gets no further request, and that was told.
    relieved: bool,
}

impl Member {
    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.busy == 0 && self.opening == 0
    }
}

impl Pool {
    /// An empty pool. `build` is what workers must greet with, `reports` leads to the master.
    pub(crate) fn new(app: &str, build: Arc<str>, reports: mpsc::Sender<Report>) -> Arc<Self> {
        let label: Arc<str> = format!("app {app}").into();
        Arc::new(Self {
            app: app.into(),
            stalls: Stalls::new(Arc::clone(&label)),
            label,
            build,
            reports,
            inner: Mutex::default(),
            sooner: Notify::new(),
            streams: Arc::default(),
            waited: AtomicU64::new(0),
        })
    }

    /// What the app has been asked to do since this was called last: what decides how many workers it gets.
    pub(crate) fn load(&self) -> Report {
        let (age, busy) = {
            let mut inner = self.lock();
            let age = inner.waiting.age(Instant::now());
            let busy = inner.busy;
            (age, std::mem::replace(&mut inner.peak, busy))
        };
        let waited = self.waited.swap(0, Ordering::Relaxed);
        Report::Load {
            app: self.app.to_string(),
            waited: age.max(Duration::from_millis(waited)),
            busy,
        }
    }

    /// How many wait, and what the slots do.
    pub(crate) fn tell(&self, snapshot: &mut Snapshot) {
        let inner = self.lock();
        let sum = |of: fn(&Member) -> usize| inner.members.iter().map(of).sum::<usize>();
        let app = &*self.app;
        for (state, slots) in [
            ("idle", sum(|member| member.idle.len())),
            ("busy", sum(|member| member.busy)),
            ("opening", sum(|member| member.opening)),
        ] {
            let slots = u64::try_from(slots).unwrap_or(u64::MAX);
            snapshot.count(&metrics::SLOTS, [app, state], slots);
        }
        let waiting = u64::try_from(inner.waiting.len()).unwrap_or(u64::MAX);
        snapshot.count(&metrics::QUEUE, [app], waiting);
        let streams = u64::try_from(self.streams.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        snapshot.count(&metrics::STREAMS, [app], streams);
        snapshot.count(&metrics::STALLED, [app], self.stalls.count());
    }

    /// Whether it has no worker.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().members.is_empty()
    }

    /// Tells the master, if it can still be told anything.
    pub(crate) fn report(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            tracing::warn!(
                "the master does not take reports; one about app {} is lost",
                self.app
            );
        }
    }

    /// A slot, at once or from the queue.
    pub(crate) async fn take(
        self: &Arc<Self>,
        settings: &Settings,
        asker: Asker,
        journal: &mut Journal,
    ) -> Result<Slot, Failure> {
        let (ticket, turn) = {
            let mut inner = self.lock();
            if let Some(slot) = self.idle(&mut inner) {
                return Ok(slot);
            }
            self.enqueue(&mut inner, asker, &settings.queue)?
        };
        journal.queue();
        let mut waiting = Waiting {
            pool: self,
            ticket,
            turn,
            over: false,
        };
        let turn = (&mut waiting.turn).await;
        waiting.over = true;
        let took = journal.dequeue();
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.waited.fetch_max(took, Ordering::Relaxed);
        match turn {
            Ok(Turn::Slot(slot)) => Ok(slot),
            Ok(Turn::Shed(waited)) => Err(Failure::QueueShed {
                app: Arc::clone(&self.app),
                waited,
                retry_after: self.queue_age(),
            }),
            Ok(Turn::Late) => Err(Failure::QueueTimeout {
                app: Arc::clone(&self.app),
                waited: settings.queue.timeout,
                retry_after: self.queue_age(),
            }),
            Err(_) => Err(self.not_ready()),
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        inner: &mut Inner,
        asker: Asker,
        bounds: &Bounds,
    ) -> Result<(Ticket, oneshot::Receiver<Turn>), Failure> {
        let app = || Arc::clone(&self.app);
        if let (Some(why), true) = (&inner.failed, inner.members.is_empty()) {
            let why = Arc::clone(why);
            return Err(Failure::AppNotReady { app: app(), why });
        }
        let now = Instant::now();
        inner.shed(bounds, now);
        let (turn, receiver) = oneshot::channel();
        let retry_after = inner.waiting.age(now);
        match inner.waiting.enter(turn, asker, bounds, now) {
            Ok(ticket) => {
                self.see_to(inner, now + bounds.timeout);
                Ok((ticket, receiver))
            }
            Err(Full::Length(length)) => Err(Failure::QueueFull {
                app: app(),
                length,
                retry_after,
            }),
            Err(Full::Overload) => Err(Failure::QueueShed {
                app: app(),
                waited: Duration::ZERO,
                retry_after,
            }),
            Err(Full::Client(count)) => Err(Failure::QueueClient {
                app: app(),
                count,
                retry_after,
            }),
        }
    }

    /// Somebody waits until then at most. One timer is for all who wait: to arm and disarm one for each takes the runtime's lock
    /// of timers twice a request.
    fn see_to(self: &Arc<Self>, inner: &mut Inner, until: Instant) {
        match inner.ward {
            None => {
                inner.ward = Some(until);
                tokio::spawn(Arc::clone(self).ward());
            }
            Some(next) if until < next => self.sooner.notify_one(),
            Some(_) => {}
        }
    }

    /// Tells those who have waited for as long as they may, until nobody waits.
    async fn ward(self: Arc<Self>) {
        loop {
            let next = {
                let mut inner = self.lock();
                let now = Instant::now();
                for turn in inner.waiting.late(now) {
                    // One who has left meanwhile need not be told.
                    let _ = turn.send(Turn::Late);
                }
                inner.ward = inner.waiting.next_late();
                inner.ward
            };
            let Some(next) = next else {
                return;
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// About how long one would wait who came now.
    fn queue_age(&self) -> Duration {
        self.lock().waiting.age(Instant::now())
    }

    fn not_ready(&self) -> Failure {
        let why = self
            .lock()
            .failed
            .clone()
            .unwrap_or_else(|| "its workers have ended".into());
        Failure::AppNotReady {
            app: Arc::clone(&self.app),
            why,
        }
    }

    /// An idle slot of the worker that has the fewest busy ones: workers do not share a GIL, slots of one do.
    fn idle(self: &Arc<Self>, inner: &mut Inner) -> Option<Slot> {
        loop {
            let idle = inner
                .members
                .iter_mut()
                .filter(|member| !member.idle.is_empty());
            let member = idle.min_by_key(|member| member.busy)?;
            let connection = member.idle.pop().expect("it was not empty");
            if connection.is_open() {
                member.busy += 1;
                let worker = Arc::clone(&member.worker);
                inner.occupy();
                return Some(Slot::new(connection, worker, Arc::clone(self)));
            }
            // It died before anything was written to it, so nothing is lost: the next one is taken.
            drop(connection);
            self.reopen(member);
        }
    }

    /// A slot is free again, or (`None`) its connection is gone.
    pub(super) fn give_back(self: &Arc<Self>, connection: Option<Greeted>, worker: &Arc<Worker>) {
        let mut unwanted = None;
        {
            let mut inner = self.lock();
            let holds = inner.holds();
            let Some(member) = inner.member(&worker.name) else {
                return;
            };
            member.busy -= 1;
            match connection {
                connection if member.releasing && !holds => unwanted = connection,
                Some(connection) => unwanted = self.offer(&mut inner, connection, worker),
                None if member.releasing => {}
                None => self.reopen(member),
            }
            inner.busy -= 1;
            self.settle(&mut inner, worker);
        }
        drop(unwanted);
    }

    /// Hands a free connection to the first request that still waits, or keeps it. What comes back is to be dropped
    /// outside the lock.
    fn offer(
        self: &Arc<Self>,
        inner: &mut Inner,
        connection: Greeted,
        worker: &Arc<Worker>,
    ) -> Option<Greeted> {
        let Some(at) = inner.position(&worker.name) else {
            return Some(connection);
        };
        let next = inner.next();
        let member = &mut inner.members[at];
        match next {
            None => member.idle.push(connection),
            Some(turn) => {
                member.busy += 1;
                inner.occupy();
                let slot = Slot::new(connection, Arc::clone(worker), Arc::clone(self));
                if let Err(Turn::Slot(slot)) = turn.send(Turn::Slot(slot)) {
                    // Nobody takes it. Freeing takes the lock that we hold: do it on its own.
                    tokio::spawn(async move { slot.free() });
                }
            }
        }
        None
    }

    /// A worker is ready: open its connections.
    pub(crate) fn add(self: &Arc<Self>, name: WorkerName, socket: PathBuf, threads: u16) {
        let worker = Arc::new(Worker {
            label: name.to_string().into(),
            name,
            socket,
            life: watch::Sender::new(Life::Serving),
            streams: Arc::default(),
        });
        let mut inner = self.lock();
        inner.failed = None;
        let mut member = Member {
            worker,
            idle: Vec::new(),
            busy: 0,
            opening: 0,
            releasing: false,
            relieved: false,
        };
        for _ in 0..threads {
            self.reopen(&mut member);
        }
        inner.members.push(member);
        self.stalls.set_slots(inner.slots());
    }

    /// A worker is to leave; the master hears when its last connection is closed. Until a slot of the one that comes in its
    /// place is free, requests still go to this one: nobody waits for the change.
    pub(crate) fn release(&self, name: &WorkerName) {
        let let_go = {
            let mut inner = self.lock();
            let Some(member) = inner.member(name) else {
                drop(inner);
                self.report(Report::Released {
                    worker: name.clone(),
                });
                return;
            };
            member.releasing = true;
            member.worker.life.send_replace(Life::Releasing);
            let worker = Arc::clone(&member.worker);
            self.stalls.set_slots(inner.slots());
            let let_go = self.let_go(&mut inner);
            self.settle(&mut inner, &worker);
            let_go
        };
        drop(let_go);
    }

    /// Gives up the idle connections of those who are to leave, unless they are still needed. What comes back is to be dropped
    /// outside the lock.
    fn let_go(&self, inner: &mut Inner) -> Vec<Greeted> {
        if inner.holds() {
            return Vec::new();
        }
        let mut connections = Vec::new();
        let mut workers = Vec::new();
        for member in &mut inner.members {
            if member.releasing && !member.relieved {
                member.relieved = true;
                let worker = member.worker.name.clone();
                self.report(Report::Relieved { worker });
            }
            if member.releasing && !member.idle.is_empty() {
                connections.append(&mut member.idle);
                workers.push(Arc::clone(&member.worker));
            }
        }
        for worker in workers {
            self.settle(inner, &worker);
        }
        connections
    }

    /// A worker died; the requests inside it are told how.
    pub(crate) fn bury(&self, name: &WorkerName, how: &str) {
        let mut inner = self.lock();
        if let Some(at) = inner.position(name) {
            let member = inner.members.swap_remove(at);
            member.worker.life.send_replace(Life::Dead(how.into()));
            inner.busy -= u32::try_from(member.busy).unwrap_or(u32::MAX);
            inner.refuse_if_hopeless();
            let slots = inner.slots();
            self.stalls.set_slots(slots);
            if slots == 0 {
                inner.waiting.pause();
            }
            // It may have been the one that the others were to make room for.
            let let_go = self.let_go(&mut inner);
            drop(inner);
            drop(let_go);
            return;
        }
        // One that died on its way out: its last connection, which broke, has let it go before the news came.
        for worker in inner.departed.iter().filter_map(Weak::upgrade) {
            if worker.name == *name {
                worker.life.send_replace(Life::Dead(how.into()));
            }
        }
    }

    /// Whether there is a worker that is ready.
    pub(crate) fn has_workers(&self) -> bool {
        !self.lock().members.is_empty()
    }

    /// No worker could start: nobody needs to wait, unless one still serves.
    pub(crate) fn fail(&self, why: &str) {
        let mut inner = self.lock();
        inner.failed = Some(why.into());
        inner.refuse_if_hopeless();
    }

    /// Forgets a releasing worker whose last connection is gone.
    fn settle(&self, inner: &mut Inner, worker: &Worker) {
        let gone = inner.members.iter().position(|member| {
            member.worker.name == worker.name && member.releasing && member.is_empty()
        });
        if let Some(at) = gone {
            let member = inner.members.swap_remove(at);
            inner.departed.retain(|worker| worker.strong_count() > 0);
            inner.departed.push(Arc::downgrade(&member.worker));
            inner.refuse_if_hopeless();
            self.report(Report::Released {
                worker: worker.name.clone(),
            });
        }
    }

    /// Makes one more connection to the worker, in the background.
    fn reopen(self: &Arc<Self>, member: &mut Member) {
        member.opening += 1;
        let (pool, worker) = (Arc::clone(self), Arc::clone(&member.worker));
        tokio::spawn(async move {
            let mut life = worker.life.subscribe();
            let connection = tokio::select! {
                biased;
                _ = life.wait_for(|life| *life != Life::Serving) => None,
                connection = pool.open(&worker) => Some(connection),
            };
            pool.opened(connection, &worker);
        });
    }

    async fn open(&self, worker: &Worker) -> Greeted {
        let mut pause = RETRY_FIRST;
        loop {
            match Greeted::open(&worker.socket, &self.build).await {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!("{}: {error}", worker.label),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn opened(self: &Arc<Self>, connection: Option<Greeted>, worker: &Arc<Worker>) {
        let mut unwanted = None;
        let let_go;
        {
            let mut inner = self.lock();
            let Some(member) = inner.member(&worker.name) else {
                return;
            };
            member.opening -= 1;
            match connection {
                Some(connection) if !member.releasing => {
                    unwanted = self.offer(&mut inner, connection, worker);
                }
                other => unwanted = unwanted.or(other),
            }
            self.settle(&mut inner, worker);
            let_go = self.let_go(&mut inner);
        }
        drop((unwanted, let_go));
    }

    /// One live response or upload more; `None` if there are as many as there may be. Those of workers that are to leave do not
    /// count: after a reload their clients come back to those that take over.
    pub(super) fn stream(&self, most: Option<usize>) -> Option<Stream> {
        let inner = self.lock();
        let most = most.unwrap_or_else(|| (inner.slots() / 2).max(1));
        let serving = inner.members.iter().filter(|member| !member.releasing);
        let counts = serving.map(|member| &member.worker.streams);
        let before: usize = counts
            .chain([&self.streams])
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        (before < most).then(|| Stream::counted(&self.streams))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        panics::lock(&self.inner)
    }
}

impl Inner {
    /// The queue is for a slot that may come. When the last worker is gone and no other could start, none will.
    fn refuse_if_hopeless(&mut self) {
        if self.failed.is_some() && self.members.is_empty() {
            self.waiting.clear();
        }
    }

    fn member(&mut self, name: &WorkerName) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.worker.name == *name)
    }

    fn position(&self, name: &WorkerName) -> Option<usize> {
        self.members
            .iter()
            .position(|member| member.worker.name == *name)
    }

    /// One more slot runs a request.
    fn occupy(&mut self) {
        self.busy += 1;
        self.peak = self.peak.max(self.busy);
    }

    /// Whether those who are to leave are still needed: somebody is to come in their place, and has no slot free yet.
    fn holds(&self) -> bool {
        let mut opening = false;
        for member in self.members.iter().filter(|member| !member.releasing) {
            if member.busy > 0 || !member.idle.is_empty() {
                return false;
            }
            opening = opening || member.opening > 0;
        }
        opening
    }

    /// How many slots serve, or will in a moment.
    fn slots(&self) -> usize {
        let serving = self.members.iter().filter(|member| !member.releasing);
        serving
            .map(|member| member.idle.len() + member.busy + member.opening)
            .sum()
    }

    /// Whose turn it is, if anybody waits.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        if self.waiting.is_empty() {
            return None;
        }
        let (bounds, now) = (self.bounds, Instant::now());
        self.shed(&bounds, now);
        self.waiting.next(now)
    }

    /// Tells those to leave who have waited for too long.
    fn shed(&mut self, bounds: &Bounds, now: Instant) {
        self.bounds = *bounds;
        let slots = self.slots();
        while let Some((turn, waited)) = self.waiting.shed(slots, bounds, now) {
            // One who has left meanwhile need not be told.
            let _ = turn.send(Turn::Shed(waited));
        }
    }
}
