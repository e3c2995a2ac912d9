//! The agent's life: it waits for the next moment at which a certificate needs something, and does it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;
use tracing::info;

use crate::{
    channel,
    client::{Client, TrustError},
    confine::confine,
    link::Link,
    message::{Order, Report, Setup},
    site::{Act, Site},
    work::Work,
};

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The channel to the master broke.
    #[error("the channel to the master broke: {0}")]
    Channel(#[source] io::Error),
    /// The master said nothing, or not what it must.
    #[error("the master did not say what to do")]
    Protocol,
    /// The authority cannot be known.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Orders that wait; the master sends few, and the same ones.
const ORDERS: usize = 8;

/// Longest sleep: the clock on the wall may be set, or a machine have slept.
const LOOK: Duration = Duration::from_secs(60);

/// Does the master's orders until it is gone. Blocks.
///
/// # Errors
/// When it cannot begin, or has lost its master.
pub fn run(control: OwnedFd) -> Result<(), Error> {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)
    };
    // The first order says whether to give up files, which must happen before there is a second thread.
    let same = control.try_clone().map_err(Error::Channel)?;
    let (setup, heard) = runtime()?.block_on(first(same))?;
    confine(setup.landlock);
    telemetry::log::never_wait().map_err(Error::Runtime)?;
    runtime()?.block_on(live(control, heard, setup))
}

/// The first order, and what was read past it.
async fn first(control: OwnedFd) -> Result<(Setup, Vec<u8>), Error> {
    let (sender, mut receiver) = channel::new(control).map_err(Error::Channel)?;
    sender.leave();
    match receiver.receive().await.map_err(Error::Channel)? {
        Some(Order::Begin(setup)) => Ok((*setup, receiver.into_rest())),
        _ => Err(Error::Protocol),
    }
}

async fn live(control: OwnedFd, heard: Vec<u8>, setup: Setup) -> Result<(), Error> {
    let (sender, receiver) = channel::resumed(control, heard).map_err(Error::Channel)?;
    let link = Arc::new(Link::new(sender));
    let (orders, mut inbox) = mpsc::channel(ORDERS);
    let client = Client::new(&setup.authorities)?;
    let hearing = link.hear(receiver, orders);
    let working = async {
        let sites: Vec<Site> = setup.sites.iter().cloned().map(Site::new).collect();
        let mut work = Work::new(setup, client, Arc::clone(&link));
        serve(sites, &mut work, &mut inbox).await;
    };
    tokio::select! {
        heard = hearing => heard.map_err(Error::Channel),
        () = working => Ok(()),
    }
}

/// Does what is due, one thing after the other: an authority likes no crowd, and neither do small servers.
async fn serve(mut sites: Vec<Site>, work: &mut Work, inbox: &mut mpsc::Receiver<Order>) {
    loop {
        let now = SystemTime::now();
        for site in &mut sites {
            site.tell(now, &work.link).await;
        }
        let next = (sites.iter_mut())
            .map(|site| (site.next(now), site))
            .min_by_key(|((at, _), _)| *at);
        match next {
            Some(((at, act), site)) if at <= now => {
                work.link.tell(Report::Busy).await;
                work.act(act, site).await;
                work.link.tell(Report::Idle).await;
            }
            other => {
                let wait = other.map(|((at, _), _)| at.duration_since(now).unwrap_or_default());
                let sleep = tokio::time::sleep(wait.unwrap_or(LOOK).min(LOOK));
                tokio::select! {
                    () = sleep => {}
                    order = inbox.recv() => match order {
                        Some(order) => obey(order, &mut sites, work).await,
                        None => return,
                    },
                }
            }
        }
    }
}

async fn obey(order: Order, sites: &mut Vec<Site>, work: &mut Work) {
    match order {
        Order::Now => {
            if sites.iter_mut().filter_map(Site::forgive).count() > 0 {
                info!("what has failed is tried again");
            }
        }
        Order::Care(wanted) => sites.push(Site::new(*wanted)),
        Order::Rehearse => {
            work.link.tell(Report::Busy).await;
            work.rehearse(sites).await;
            work.link.tell(Report::Idle).await;
        }
        // Answers go to who has asked.
        Order::Begin(_) | Order::Saved { .. } | Order::Answering { .. } => {}
    }
}

impl Act {
    /// For the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Renew => "renew",
            Self::AskWindow => "ask when to renew",
            Self::Keep => "keep what was got",
        }
    }
}
