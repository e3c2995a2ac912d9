//! The proxy process: it takes orders from the master, owns the plan and the pools, and ends when it is told to.
//!
//! Here is its life. [`kept`] has what outlives a configuration and does what it is told, [`offer`] what is to come.

mod kept;
mod offer;

use std::{
    future::Future,
    io,
    num::NonZero,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use telemetry::{panics::Vital, text::Elapsed};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};

use self::kept::{Kept, Then};
use crate::{
    buffer::budget::Budget,
    channel::{Channel, Receiver, Sender},
    confine::confine,
    control::{Order, Report},
    door::{self, Door},
    figures::Figures,
    memory::{GiveBack, Tide},
    operators::{Bulletins, Places},
    plan::Plan,
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
    let kept = Kept::new(descriptors, reports);
    let server = kept.begin(first).await?;
    tokio::spawn(tide.watch(Arc::clone(&server)));
    // One for all turns of the loop: a sleep of each would begin anew with each order, and end never where they come often.
    let mut loads = interval_at(Instant::now() + LOADS, LOADS);
    loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = loop {
        tokio::select! {
            biased;
            order = next(&mut orders) => if let Then::Leave(stop) = kept.follow(&server, order?)? {
                break stop;
            },
            _ = loads.tick(), if !server.plan().adaptive.is_empty() => {
                kept.report_loads(&server).await;
            }
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
