//! Runs a pool: feeds its state machine with what happens, does what it says, and writes the log.
//!
//! Everything here lives on the master's main thread, which is the one that may start children.

mod log;
mod status;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use config::site::Strategy;
use supervisor::{child::Exit, oom::Kills, scoreboard::Board};
use telemetry::panics::Vital;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

pub use self::status::{RequestStatus, SlotStatus, SlotTrace, WorkerStatus, WorkerTrace};
use super::{
    Action, Event, Load, Make, News, Parting, Pool, Settings, Wear,
    traces::{Purpose, Traces},
};
use crate::worker::{self, Said, Template, Worker};

/// How often memory is looked at, where `max_rss` says that it matters.
const WEIGHING: Duration = Duration::from_secs(1);

/// What a pool can be told.
#[derive(Debug)]
pub enum Order {
    /// Start a new generation beside this one; [`Told::Staged`] or [`Told::StageFailed`] is the answer.
    Stage(Box<Template>),
    /// The staged generation takes over; [`Told::Renewed`] or [`Told::RenewFailed`] is the answer.
    Commit,
    /// The staged generation is not wanted any more.
    Abandon,
    /// New settings that no worker need be restarted for.
    Update(Box<Template>),
    /// The proxy has let go of a worker.
    Released {
        /// Which.
        number: u32,
    },
    /// A request has not been answered in time.
    Overdue {
        /// By which worker.
        number: u32,
        /// Which request.
        request_id: String,
    },
    /// What the proxy saw of the app.
    Load(Load),
    /// A person wants a worker replaced.
    Recycle {
        /// Which.
        number: u32,
    },
    /// A person wants one worker more.
    Grow,
    /// A person wants one worker less.
    Shrink,
    /// How are you?
    Status(oneshot::Sender<Vec<WorkerStatus>>),
    /// Where are you?
    Trace(oneshot::Sender<Vec<WorkerTrace>>),
    /// The app is no more: finish what runs and leave.
    Dissolve,
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
    /// The proxy is to let go of a worker; [`Order::Released`] is the answer.
    Release {
        /// Which.
        number: u32,
    },
    /// A worker that was ready is gone.
    Gone {
        /// Which.
        number: u32,
        /// For people: `killed by SIGSEGV`.
        how: String,
        /// Why it is gone, for figures: one of few words, or how it died.
        reason: String,
    },
    /// No worker is ready and one has just failed to start.
    Failed {
        /// Why, in one line.
        why: String,
        /// As Python prints it; may be empty.
        traceback: String,
    },
    /// The first round is decided: all workers are ready, or one could not start.
    Decided,
    /// The new generation could take over now.
    Staged,
    /// The new generation cannot start; all is as it was.
    StageFailed {
        /// Why, in one line, with the worker's name.
        why: String,
        /// As Python prints it, or where it hangs; may be empty.
        traceback: String,
    },
    /// Every worker that serves is of the new generation.
    Renewed,
    /// A further worker of the new generation could not start; it is tried again.
    RenewFailed {
        /// Why, in one line.
        why: String,
    },
    /// Everybody is gone; this is the last one.
    Closed {
        /// The last number that a worker has had.
        number: u32,
    },
}

/// A pool and its processes.
#[derive(Debug)]
pub struct Keeper {
    /// What workers are made of.
    template: Arc<Template>,
    staged: Option<Arc<Template>>,
    pool: Pool,
    workers: BTreeMap<u32, Live>,
    traces: Traces,
    kills: Kills,
    weighing: Instant,
    said: mpsc::UnboundedReceiver<Said>,
    /// Given to each worker.
    say_to: mpsc::UnboundedSender<Said>,
    told: mpsc::UnboundedSender<(String, Told)>,
}

/// A worker that has a process.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) pid: i32,
    pub(super) board: Arc<Board>,
    born: Instant,
    socket: PathBuf,
    threads: u16,
    max_rss: Option<u64>,
    orders: mpsc::UnboundedSender<worker::Order>,
}

impl Live {
    pub(super) fn order(&self, order: worker::Order) {
        // One that has just ended does not listen, and need not.
        let _ = self.orders.send(order);
    }

    /// The requests that are inside it, for people; empty when there are none.
    fn running(&self) -> String {
        let entries = self.board.read();
        let running: Vec<String> = entries
            .iter()
            .filter_map(RequestStatus::of)
            .map(|request| request.to_string())
            .collect();
        running.join(", ")
    }
}

fn settings(template: &Template) -> Settings {
    let app = &template.app;
    Settings {
        workers: app.workers,
        threads: app.threads,
        boot_timeout: app.boot_timeout,
        grace: template.grace,
        max_age: app.max_age,
    }
}

impl Keeper {
    /// A keeper of a pool whose workers start as soon as it runs; it tells `told`, with the app's name, what the master must
    /// know. `number` is the last one that an earlier master has given to a worker of this app.
    #[must_use]
    pub fn new(
        template: Template,
        number: u32,
        told: mpsc::UnboundedSender<(String, Told)>,
    ) -> Self {
        let pool = Pool::new(settings(&template), number, Instant::now());
        Self::of(Arc::new(template), pool, told)
    }

    /// A keeper of a pool without workers, for an app that a new configuration brings: they come by [`Order::Stage`].
    #[must_use]
    pub fn empty(
        template: Template,
        number: u32,
        told: mpsc::UnboundedSender<(String, Told)>,
    ) -> Self {
        let pool = Pool::empty(settings(&template), number);
        Self::of(Arc::new(template), pool, told)
    }

    fn of(
        template: Arc<Template>,
        pool: Pool,
        told: mpsc::UnboundedSender<(String, Told)>,
    ) -> Self {
        let (say_to, said) = mpsc::unbounded_channel();
        Self {
            template,
            staged: None,
            pool,
            workers: BTreeMap::new(),
            traces: Traces::default(),
            kills: Kills::watch(),
            weighing: Instant::now() + WEIGHING,
            said,
            say_to,
            told,
        }
    }

    /// Keeps the pool until it is told to stop and everybody is gone. When `orders` ends, it aborts.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let _vital = Vital::new("who keeps an app's workers");
        self.step(Event::Tick);
        let mut obeys = true;
        while !self.pool.is_closed() {
            let wake = self.wake();
            tokio::select! {
                Some(said) = self.said.recv() => self.hear(said),
                order = orders.recv(), if obeys => match order {
                    Some(order) => self.obey(order),
                    None => {
                        obeys = false;
                        self.step(Event::Abort);
                    }
                },
                () = sleep_until(wake) => self.tick(),
            }
        }
        let number = self.pool.last_number();
        self.tell(Told::Closed { number });
    }

    fn wake(&self) -> Option<Instant> {
        let weighing = self.weighs().then_some(self.weighing);
        let wakes = [self.pool.wake(), weighing, self.traces.wake()];
        wakes.into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.traces.give_up(now, &self.workers);
        if self.weighs() && self.weighing <= now {
            self.weighing = now + WEIGHING;
            self.weigh();
        }
        self.step(Event::Tick);
    }

    fn weighs(&self) -> bool {
        self.workers.values().any(|worker| worker.max_rss.is_some())
    }

    /// Finds those that have become too large.
    fn weigh(&mut self) {
        let heavy = |(number, worker): (&u32, &Live)| {
            let rss = rss(worker.pid)?;
            (rss > worker.max_rss?).then_some((*number, rss))
        };
        let heavy: Vec<_> = self.workers.iter().filter_map(heavy).collect();
        for (number, rss) in heavy {
            let why = Wear::Memory { rss };
            self.step(Event::Worn { number, why });
        }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Event(event) => self.step(event),
            Said::Stacks { number, stacks } => {
                if let Some(worker) = self.workers.get(&number) {
                    self.traces.stacks(number, worker, stacks);
                }
            }
            Said::Dump { number, text } => {
                let name = self.template.name(number);
                let text = String::from_utf8_lossy(&text).into_owned();
                self.traces.dump(number, &name, text);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stage(template) => self.stage(*template),
            Order::Commit => {
                if let Some(staged) = self.staged.take() {
                    self.template = staged;
                }
                self.step(Event::Commit);
            }
            Order::Abandon => {
                self.staged = None;
                self.step(Event::Abandon);
            }
            Order::Update(template) => self.update(*template),
            Order::Released { number } => self.step(Event::Released { number }),
            Order::Overdue { number, request_id } => self.overdue(number, request_id),
            Order::Load(load) => self.step(Event::Load(load)),
            Order::Recycle { number } => {
                let why = Wear::Asked;
                self.step(Event::Worn { number, why });
            }
            Order::Grow => self.step(Event::Grow),
            Order::Shrink => self.step(Event::Shrink),
            // Whoever asked may have gone.
            Order::Status(answer) => drop(answer.send(self.status())),
            Order::Trace(answer) => self.trace(answer),
            Order::Dissolve => self.step(Event::Dissolve),
            Order::Stop { deadline } => self.step(Event::Stop { deadline }),
            Order::Abort => self.step(Event::Abort),
        }
    }

    fn stage(&mut self, template: Template) {
        let event = Event::Stage {
            settings: settings(&template),
            strategy: template.app.reload,
        };
        if template.app.reload == Strategy::Rolling {
            info!(
                "app {}: replacing its workers one at a time",
                template.app.name
            );
        }
        self.staged = Some(Arc::new(template));
        self.step(event);
    }

    fn update(&mut self, template: Template) {
        let settings = settings(&template);
        for worker in self.workers.values_mut() {
            worker.max_rss = template.app.max_rss;
        }
        self.template = Arc::new(template);
        self.step(Event::Update { settings });
    }

    fn overdue(&mut self, number: u32, request_id: String) {
        if let Some(worker) = self.workers.get(&number) {
            let purpose = Purpose::Overdue { request_id };
            let name = self.template.name(number);
            self.traces.ask(number, name, worker, purpose);
        }
        let why = Wear::Stuck;
        self.step(Event::Worn { number, why });
    }

    fn trace(&mut self, answer: oneshot::Sender<Vec<WorkerTrace>>) {
        let template = &self.template;
        let all = self.workers.iter();
        let all = all.map(|(number, worker)| (*number, template.name(*number), worker));
        self.traces.ask_all(all, answer);
    }

    fn status(&self) -> Vec<WorkerStatus> {
        let status = |(number, worker): (&u32, &Live)| {
            let slots: Vec<_> = worker.board.read().iter().map(SlotStatus::from).collect();
            WorkerStatus {
                name: self.template.name(*number),
                pid: worker.pid,
                state: self.pool.state(*number).to_owned(),
                age: worker.born.elapsed().as_secs(),
                rss: rss(worker.pid).unwrap_or_default(),
                requests: slots.iter().map(|slot| slot.requests).sum(),
                slots,
            }
        };
        self.workers.iter().map(status).collect()
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
            self.traces.forget(number);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { number, make } => self.start(number, make),
            Action::Release { number } => {
                self.order(number, worker::Order::Retire);
                self.tell(Told::Release { number });
            }
            Action::Drain { number } => self.order(number, worker::Order::Drain),
            Action::Dump { number } => {
                if let Some(worker) = self.workers.get(&number) {
                    let name = self.template.name(number);
                    self.traces.hangs(number, name, worker);
                }
            }
            Action::Kill { number } => self.order(number, worker::Order::Kill),
            Action::Announce(news) => self.announce(news),
        }
    }

    fn start(&mut self, number: u32, make: Make) {
        let template = match (make, &self.staged) {
            (Make::Staged, Some(staged)) => Arc::clone(staged),
            _ => Arc::clone(&self.template),
        };
        match Worker::start(&template, number) {
            Ok(worker) => {
                let (orders, obeyed) = mpsc::unbounded_channel();
                self.workers.insert(
                    number,
                    Live {
                        pid: worker.pid(),
                        board: worker.board(),
                        born: Instant::now(),
                        socket: template.socket(number),
                        threads: template.app.threads,
                        max_rss: template.app.max_rss,
                        orders,
                    },
                );
                tokio::spawn(worker.run(obeyed, self.say_to.clone()));
            }
            Err(error) => {
                let event = Event::NotStarted {
                    number,
                    why: error.to_string(),
                };
                // As an event of its own: the pool is not to be stepped within a step.
                self.say_to
                    .send(Said::Event(event))
                    .expect("the receiving end is ours");
            }
        }
    }

    fn order(&self, number: u32, order: worker::Order) {
        if let Some(worker) = self.workers.get(&number) {
            worker.order(order);
        }
    }

    fn announce(&mut self, news: News) {
        let cause = self.cause(&news);
        self.log(&news, &cause);
        match news {
            News::Ready { number, .. } => {
                self.kills.forget();
                if let Some(told) = self.is_ready(number) {
                    self.tell(told);
                }
            }
            News::Died { number, exit, .. } | News::Left { number, exit, .. } => {
                let how = exit.to_string();
                self.tell(Told::Gone {
                    number,
                    how,
                    reason: cause,
                });
            }
            News::AppFailed { why, traceback } => self.tell(Told::Failed { why, traceback }),
            News::Decided => self.tell(Told::Decided),
            News::Staged => self.tell(Told::Staged),
            News::StageFailed {
                number,
                why,
                traceback,
            } => self.stage_failed(number, &why, traceback),
            News::Renewed => self.tell(Told::Renewed),
            News::RenewFailed { why, .. } => self.tell(Told::RenewFailed { why }),
            News::CannotStart { .. }
            | News::Overdue { .. }
            | News::Replacing { .. }
            | News::Resized { .. } => {}
        }
    }

    fn is_ready(&self, number: u32) -> Option<Told> {
        let worker = self.workers.get(&number)?;
        Some(Told::Ready {
            number,
            socket: worker.socket.clone(),
            threads: worker.threads,
            program: fs::read_link(format!("/proc/{}/exe", worker.pid)).ok(),
        })
    }

    fn stage_failed(&mut self, number: u32, why: &str, traceback: String) {
        self.staged = None;
        let why = format!("{}: {why}", self.template.name(number));
        self.tell(Told::StageFailed { why, traceback });
    }

    fn tell(&self, told: Told) {
        // Nobody listens only when the master is gone.
        let _ = self.told.send((self.template.app.name.clone(), told));
    }

    /// `web·3 (pid 4711)`.
    fn who(&self, number: u32) -> String {
        let name = self.template.name(number);
        match self.workers.get(&number) {
            Some(worker) => format!("{name} (pid {})", worker.pid),
            None => name,
        }
    }

    /// `; it was running …`, or nothing.
    fn running(&self, number: u32) -> String {
        let running = self.workers.get(&number).map(Live::running);
        match running {
            Some(running) if !running.is_empty() => format!("; it was running {running}"),
            _ => String::new(),
        }
    }

    /// Why a worker is gone: in a word where it has left as it was told, else how it died, and of what. Of other news, nothing.
    fn cause(&mut self, news: &News) -> String {
        let exit = match news {
            News::Died { exit, .. } => *exit,
            News::Left { parting, exit, .. } => match orderly(*parting, *exit) {
                Some(word) => return word.to_owned(),
                None => *exit,
            },
            _ => return String::new(),
        };
        let killed = matches!(exit, Exit::Signal { number: 9, .. });
        if killed && self.kills.explain() {
            return format!("{exit} by the kernel: out of memory");
        }
        exit.to_string()
    }
}

/// Why a worker has left, for figures; `None` where it died of something else on its way.
fn orderly(parting: Parting, exit: Exit) -> Option<&'static str> {
    match (parting, exit) {
        // It was killed, or was too late even for that.
        (Parting::Overdue, _) => Some("overdue"),
        (Parting::Stop, Exit::Signal { number: 9, .. }) => Some("stop"),
        (_, Exit::Signal { .. } | Exit::Code(1..)) => None,
        (Parting::Fewer, _) => Some("fewer"),
        (Parting::Stop, _) => Some("stop"),
        (Parting::Worn(wear), _) => Some(match wear {
            Wear::Superseded => "reload",
            Wear::Asked => "asked",
            Wear::Age => "max_age",
            Wear::Requests => "max_requests",
            Wear::Memory { .. } => "max_rss",
            Wear::Stuck => "stuck",
        }),
    }
}

/// The resident set of a process, in bytes.
fn rss(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
