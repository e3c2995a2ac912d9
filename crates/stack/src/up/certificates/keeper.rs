//! Keeps an agent alive, keeps what it gets, and passes the rest on to the master.
//!
//! It lives on the master's main thread, which is the one that may start children; files are written on other threads.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    time::{Duration, Instant},
};

use ::acme::{
    channel,
    message::{self, Answer, Keep, Report, Scene, Setup, Standing, Wanted},
};
use ::proxy::control::Challenge;
use supervisor::{
    backoff::Backoff,
    child::{Child, Exit, Signal},
    fds,
};
use telemetry::text::Elapsed;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::{
    Plan,
    store::{Got, Store},
};
use crate::role::Role;

/// What the master tells it.
#[derive(Debug)]
pub(crate) enum Order {
    /// The proxy answers challenges as the order with this number says.
    Answering {
        /// Its number.
        number: u64,
    },
    /// What has failed is to be tried again.
    Now,
    /// Rehearse.
    Rehearse,
    /// The log goes elsewhere, or says more or less: what an agent begins with. Another one is started once this one is idle.
    Anew,
}

/// What it tells the master.
#[derive(Debug)]
pub(crate) enum Told {
    /// Challenges are to be answered so; [`Order::Answering`] is the answer.
    Challenges {
        /// The number of this order.
        number: u64,
        /// All of them.
        challenges: Vec<Challenge>,
    },
    /// There is a certificate.
    Got {
        /// Whose.
        id: String,
        /// It.
        got: Got,
    },
    /// How one is.
    Standing {
        /// Whose.
        id: String,
        /// How.
        standing: Standing,
    },
    /// An order has come to its end.
    Ordered {
        /// Whose.
        id: String,
        /// Whether well.
        done: bool,
    },
    /// The rehearsal is over.
    Rehearsed(Vec<Scene>),
    /// Whether another stack gets a certificate.
    Elsewhere(String, bool),
    /// The agent is gone; another one starts, and begins anew.
    Died,
}

/// How often a lock that another stack holds is tried.
const LOCK_AGAIN: Duration = Duration::from_secs(2);

/// The longest wait after the death of an agent.
const LONGEST: Duration = Duration::from_secs(300);

/// Keeps an agent.
#[derive(Debug)]
pub(super) struct Keeper {
    plan: Plan,
    told: mpsc::UnboundedSender<Told>,
    /// Counts agents: what one has asked is not answered to the next.
    life: u32,
    /// Whether it would leave something half done.
    busy: bool,
    /// Whether another one is wanted.
    anew: bool,
}

type Orders = mpsc::UnboundedReceiver<Order>;

impl Keeper {
    pub(super) fn new(plan: Plan, told: mpsc::UnboundedSender<Told>) -> Self {
        Self {
            plan,
            told,
            life: 0,
            busy: false,
            anew: false,
        }
    }

    /// Keeps one until it is dropped.
    pub(super) async fn run(mut self, mut orders: Orders) {
        let store = self.plan.store.clone();
        if let Err(error) = blocking(move || store.sweep()).await {
            warn!("old certificates cannot be removed: {error}");
        }
        let mut locks = Locks::new(&self.plan);
        let mut deaths = Backoff::up_to(LONGEST);
        loop {
            // Without a lock there is nothing to do.
            locks.take_more(&self.told).await;
            while locks.held.is_empty() {
                tokio::time::sleep(LOCK_AGAIN).await;
                locks.take_more(&self.told).await;
            }
            deaths.up(Instant::now());
            let why = match self.live(&mut orders, &mut locks).await {
                Ok(Some(exit)) => exit.to_string(),
                Ok(None) => {
                    // Who waits for a rehearsal must ask the next one.
                    self.tell(Told::Died);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            self.tell(Told::Died);
            let again = deaths.died(Instant::now());
            let wait = Elapsed(again.saturating_duration_since(Instant::now()));
            error!("the process that gets certificates is gone: {why}; another starts in {wait}");
            tokio::time::sleep_until(again.into()).await;
        }
    }

    fn tell(&self, told: Told) {
        // Nobody hears it only when the master is gone.
        let _ = self.told.send(told);
    }

    /// The life of one agent, and how it ended; `None` where another one is wanted.
    async fn live(&mut self, orders: &mut Orders, locks: &mut Locks) -> io::Result<Option<Exit>> {
        self.life = self.life.wrapping_add(1);
        (self.busy, self.anew) = (false, false);
        let (store, mut setup) = (self.plan.store.clone(), self.plan.setup.clone());
        setup.sites.retain(|site| locks.held.contains_key(&site.id));
        let setup = blocking(move || filled(setup, &store)).await?;
        let (mut child, ours) = self.start()?;
        let (mut sender, mut receiver) = channel::new(ours)?;
        sender.send(&message::Order::Begin(Box::new(setup))).await?;
        let mut speaks = true;
        let mut look = tokio::time::interval(LOCK_AGAIN);
        loop {
            if self.anew && !self.busy {
                // It is killed when it is dropped.
                return Ok(None);
            }
            let answers = tokio::select! {
                exit = child.wait() => return exit.map(Some),
                report = receiver.receive(), if speaks => match report {
                    Ok(Some(report)) => self.heard(report).await.into_iter().collect(),
                    Ok(None) => {
                        speaks = false;
                        Vec::new()
                    }
                    Err(error) => {
                        speaks = false;
                        // One that was killed leaves unread answers behind, which resets the channel.
                        if error.kind() != io::ErrorKind::ConnectionReset {
                            error!("the process that gets certificates cannot be understood: {error}");
                        }
                        child.signal(Signal::KILL)?;
                        Vec::new()
                    }
                },
                Some(order) = orders.recv() => self.order(order).into_iter().collect(),
                _ = look.tick(), if locks.lacks() => {
                    let more = locks.take_more(&self.told).await;
                    self.care(more).await?
                }
            };
            for answer in answers {
                if let Err(error) = sender.send(&answer).await {
                    // It is gone, or about to be, and its end says how.
                    debug!("cannot tell the process that gets certificates: {error}");
                    child.signal(Signal::KILL)?;
                    break;
                }
            }
        }
    }

    /// What an agent is told of certificates that are ours to get from now on.
    async fn care(&self, ids: Vec<String>) -> io::Result<Vec<message::Order>> {
        let sites = self.plan.setup.sites.iter();
        let mut wanted: Vec<Wanted> = sites
            .filter(|site| ids.contains(&site.id))
            .cloned()
            .collect();
        let store = self.plan.store.clone();
        let wanted = blocking(move || {
            wanted.iter_mut().try_for_each(|site| fill(site, &store))?;
            Ok(wanted)
        });
        let care = |site| message::Order::Care(Box::new(site));
        Ok(wanted.await?.into_iter().map(care).collect())
    }

    fn start(&self) -> io::Result<(Child, std::os::fd::OwnedFd)> {
        let (ours, theirs) = fds::socket_pair()?;
        let command = Role::ACME.command(theirs, self.plan.user.as_ref());
        let child = command.spawn().map_err(io::Error::other)?;
        Ok((child, ours))
    }

    fn order(&mut self, order: Order) -> Option<message::Order> {
        match order {
            Order::Answering { number } => {
                let of_this_life = number >> 32 == u64::from(self.life);
                let number = number & u64::from(u32::MAX);
                of_this_life.then_some(message::Order::Answering { number })
            }
            Order::Now => Some(message::Order::Now),
            Order::Rehearse => {
                self.busy = true;
                Some(message::Order::Rehearse)
            }
            Order::Anew => {
                self.anew = true;
                None
            }
        }
    }

    /// Does what the agent asks; what it is answered at once.
    async fn heard(&mut self, report: Report) -> Option<message::Order> {
        match report {
            Report::Save { number, what } => {
                let trouble = self.keep(what).await.err().map(|error| error.to_string());
                return Some(message::Order::Saved { number, trouble });
            }
            Report::Answers { number, answers } => self.tell(Told::Challenges {
                number: u64::from(self.life) << 32 | number & u64::from(u32::MAX),
                challenges: answers.into_iter().map(challenge).collect(),
            }),
            Report::Standing { id, standing } => self.tell(Told::Standing { id, standing }),
            Report::Busy => self.busy = true,
            Report::Idle => self.busy = false,
            Report::Ordered { id, done } => self.tell(Told::Ordered { id, done }),
            Report::Rehearsed { scenes } => self.tell(Told::Rehearsed(scenes)),
        }
        None
    }

    async fn keep(&self, what: Keep) -> io::Result<()> {
        let store = self.plan.store.clone();
        let is_ours = |id: &str| self.plan.setup.sites.iter().any(|site| site.id == id);
        match what {
            Keep::Account(text) => blocking(move || store.keep_account(&text)).await,
            Keep::Progress { id, progress } if is_ours(&id) => {
                blocking(move || store.keep_progress(&id, &progress)).await
            }
            Keep::Certificate { id, chain, key } if is_ours(&id) => {
                let got = Got { chain, key };
                // It is used at once, whether it can be kept or not.
                let (whose, new) = (id.clone(), got.clone());
                self.tell(Told::Got {
                    id: whose,
                    got: new,
                });
                blocking(move || store.keep_certificate(&id, &got)).await
            }
            // What a child says is input, and becomes the name of a file.
            Keep::Progress { .. } | Keep::Certificate { .. } => {
                Err(io::Error::other("nobody wants this certificate"))
            }
        }
    }
}

/// The locks of certificates. As long as another stack has one, that one gets the certificate, and both show it.
struct Locks {
    store: Store,
    ids: Vec<String>,
    held: BTreeMap<String, File>,
    /// Which are known to be another's, or not to be had, and why.
    said: BTreeMap<String, String>,
    /// Whether a master that we have followed may just be about to let go of them.
    first: bool,
}

impl Locks {
    fn new(plan: &Plan) -> Self {
        Self {
            store: plan.store.clone(),
            ids: plan
                .setup
                .sites
                .iter()
                .map(|site| site.id.clone())
                .collect(),
            held: BTreeMap::new(),
            said: BTreeMap::new(),
            first: true,
        }
    }

    fn lacks(&self) -> bool {
        self.held.len() < self.ids.len()
    }

    /// Takes those that are free, and says whose the others are; the new ones.
    async fn take_more(&mut self, told: &mpsc::UnboundedSender<Told>) -> Vec<String> {
        let missing = self.ids.iter().filter(|id| !self.held.contains_key(*id));
        let mut more = Vec::new();
        for id in missing.cloned().collect::<Vec<_>>() {
            let (store, name) = (self.store.clone(), id.clone());
            let trouble = match blocking(move || store.lock(&name)).await {
                Ok(Some(lock)) => {
                    if self.said.remove(&id).is_some() {
                        info!("certificate {id} is got by this stack from now on");
                    }
                    let _ = told.send(Told::Elsewhere(id.clone(), false));
                    more.push(id.clone());
                    self.held.insert(id, lock);
                    continue;
                }
                Ok(None) => {
                    let _ = told.send(Told::Elsewhere(id.clone(), true));
                    "another stack gets it, with the same state directory; this one shows what is there".to_owned()
                }
                Err(error) => format!("its lock cannot be taken: {error}"),
            };
            if !self.first && self.said.get(&id) != Some(&trouble) {
                warn!("certificate {id}: {trouble}");
                self.said.insert(id, trouble);
            }
        }
        self.first = false;
        more
    }
}

/// With what is in the store.
fn filled(mut setup: Setup, store: &Store) -> io::Result<Setup> {
    setup.account = store.account()?;
    setup
        .sites
        .iter_mut()
        .try_for_each(|site| fill(site, store))?;
    Ok(setup)
}

fn fill(site: &mut Wanted, store: &Store) -> io::Result<()> {
    let got = store.certificate(&site.id)?;
    site.chain = got.map(|got| got.leaf().to_owned());
    site.progress = store.progress(&site.id);
    Ok(())
}

fn challenge(answer: Answer) -> Challenge {
    match answer {
        Answer::Http { token, text } => Challenge::Http { token, text },
        Answer::Tls {
            name,
            certificate,
            key,
        } => Challenge::Tls {
            name,
            certificate,
            key,
        },
    }
}

/// Off the master's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
