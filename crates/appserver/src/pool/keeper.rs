//! Runs a pool: feeds its state machine with what happens, does what it says, and writes the log.
//!
//! Everything here lives on the master's main thread, which is the one that may start children.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use telemetry::text::Elapsed;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Action, Event, News, Pool, Settings};
use crate::worker::{self, Template, Worker};

/// What a pool can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what runs and leave by this time.
    Stop {
        /// Who is still there then is killed.
        deadline: Instant,
    },
    /// Leave now.
    Abort,
}

/// What a pool tells the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A worker accepts.
    Ready {
        /// Which.
        number: u32,
        /// Its socket.
        socket: PathBuf,
        /// How many slots it has.
        threads: u16,
        /// The program that it really runs, behind scripts and links; `None` when it is gone already.
        program: Option<PathBuf>,
    },
    /// A worker that was ready is gone.
    Gone {
        /// Which.
        number: u32,
        /// For people: `killed by SIGSEGV`.
        how: String,
    },
    /// No worker is ready and one has just failed to start.
    Failed {
        /// Why, in one line.
        why: String,
    },
    /// The first round is decided: all workers are ready, or one could not start.
    Decided,
    /// Everybody is gone; this is the last one.
    Closed,
}

/// A pool and its processes.
#[derive(Debug)]
pub struct Keeper {
    template: Template,
    pool: Pool,
    workers: BTreeMap<u32, Live>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Given to each worker.
    report_to: mpsc::UnboundedSender<Event>,
    told: mpsc::UnboundedSender<(String, Told)>,
}

/// A worker that has a process.
#[derive(Debug)]
struct Live {
    pid: i32,
    orders: mpsc::UnboundedSender<worker::Order>,
}

impl Keeper {
    /// A keeper of a pool that has no workers yet; it tells `told`, with the app's name, what the master must know.
    #[must_use]
    pub fn new(template: Template, told: mpsc::UnboundedSender<(String, Told)>) -> Self {
        let settings = Settings {
            workers: template.app.workers,
            boot_timeout: template.app.boot_timeout,
        };
        let (report_to, events) = mpsc::unbounded_channel();
        let pool = Pool::new(settings, Instant::now());
        Self {
            template,
            pool,
            workers: BTreeMap::new(),
            events,
            report_to,
            told,
        }
    }

    /// Keeps the pool until it is told to stop and everybody is gone. When `orders` ends, it aborts.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.step(Event::Tick);
        let mut obeys = true;
        while !self.pool.is_closed() {
            let event = tokio::select! {
                Some(event) = self.events.recv() => event,
                order = orders.recv(), if obeys => match order {
                    Some(Order::Stop { deadline }) => Event::Stop { deadline },
                    Some(Order::Abort) => Event::Abort,
                    None => {
                        obeys = false;
                        Event::Abort
                    }
                },
                () = sleep_until(self.pool.wake()) => Event::Tick,
            };
            self.step(event);
        }
        self.tell(Told::Closed);
    }

    fn step(&mut self, event: Event) {
        let ended = match event {
            Event::Exited { number, .. } | Event::NotStarted { number, .. } => Some(number),
            _ => None,
        };
        for action in self.pool.step(Instant::now(), event) {
            self.act(action);
        }
        // Only now: what is said about its end names its process.
        if let Some(number) = ended {
            self.workers.remove(&number);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { number } => self.start(number),
            Action::Drain { number } => self.order(number, worker::Order::Drain),
            Action::Kill { number } => self.order(number, worker::Order::Kill),
            Action::Announce(news) => self.announce(news),
        }
    }

    fn start(&mut self, number: u32) {
        match Worker::start(&self.template, number) {
            Ok(worker) => {
                let (orders, obeyed) = mpsc::unbounded_channel();
                self.workers.insert(
                    number,
                    Live {
                        pid: worker.pid(),
                        orders,
                    },
                );
                tokio::spawn(worker.run(obeyed, self.report_to.clone()));
            }
            Err(error) => {
                let event = Event::NotStarted {
                    number,
                    why: error.to_string(),
                };
                // As an event of its own: the pool is not to be stepped within a step.
                self.report_to
                    .send(event)
                    .expect("the receiving end is ours");
            }
        }
    }

    fn order(&self, number: u32, order: worker::Order) {
        if let Some(worker) = self.workers.get(&number) {
            // One that has just ended does not listen, and need not.
            let _ = worker.orders.send(order);
        }
    }

    fn announce(&mut self, news: News) {
        self.log(&news);
        match news {
            News::Ready { number, .. } => {
                self.tell(Told::Ready {
                    number,
                    socket: self.template.socket(number),
                    threads: self.template.app.threads,
                    program: self.program(number),
                });
            }
            News::Died { number, exit, .. } | News::Left { number, exit } => {
                self.tell(Told::Gone {
                    number,
                    how: exit.to_string(),
                });
            }
            News::AppFailed { why } => self.tell(Told::Failed { why }),
            News::Decided => self.tell(Told::Decided),
            News::CannotStart { .. } | News::Overdue { .. } => {}
        }
    }

    fn tell(&self, told: Told) {
        // Nobody listens only when the master is gone.
        let _ = self.told.send((self.template.app.name.clone(), told));
    }

    fn program(&self, number: u32) -> Option<PathBuf> {
        let pid = self.workers.get(&number)?.pid;
        std::fs::read_link(format!("/proc/{pid}/exe")).ok()
    }

    /// `web·3 (pid 4711)`.
    fn who(&self, number: u32) -> String {
        let name = self.template.name(number);
        match self.workers.get(&number) {
            Some(worker) => format!("{name} (pid {})", worker.pid),
            None => name,
        }
    }

    fn log(&self, news: &News) {
        match news {
            News::Ready { number, after } => {
                info!("{} is ready after {}", self.who(*number), Elapsed(*after));
            }
            News::CannotStart {
                number,
                why,
                traceback,
                again,
            } => {
                let again = again.map_or_else(String::new, |wait| {
                    format!("; next try in {}", Elapsed(wait))
                });
                match traceback {
                    Some(traceback) => {
                        let root = self.template.app.root.display();
                        let who = self.who(*number);
                        error!("{who} in {root} cannot start: {why}{again}\n{traceback}");
                    }
                    None => error!("{} cannot start: {why}{again}", self.template.name(*number)),
                }
            }
            News::Died {
                number,
                exit,
                lived,
                again,
            } => error!(
                "{} died: {exit}, after {}; another starts in {}",
                self.who(*number),
                Elapsed(*lived),
                Elapsed(*again),
            ),
            News::Left { number, exit } => info!("{} has left: {exit}", self.who(*number)),
            News::Overdue { number } => {
                warn!(
                    "{} has not finished in time and is killed",
                    self.who(*number)
                );
            }
            // The line of the worker says it.
            News::AppFailed { .. } | News::Decided => {}
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
