//! The pool of one app: which workers there should be, and what to do when one fails, dies, is late, is worn out or is
//! superseded by newer code.
//!
//! [`Pool`] is a state machine without I/O: it is told what happened and when, and answers with what to do. It starts no
//! process, writes no log and knows no clock; [`keeper`] does that for it.
//!
//! A pool has *seats*: one for each worker that there should be. Who sits there serves, or is on the way. *Recruits* are
//! started beside the seats, and take one when they are ready: the old one leaves only then. *Outgoing* are those who have
//! left their seats and whose processes have not ended.
//!
//! Its rules. A worker that dies is started again, after a wait that grows while its deaths come fast. When a worker
//! cannot start (the import fails, it dies or is late), the others wait: one at a time tries again, with a wait that grows,
//! until one is ready. A worn worker is replaced one at a time, the new one ready before the old one is released. A new
//! generation is *staged* beside the old one and takes over by [`Event::Commit`]; one that cannot start changes nothing.
//! A pool that stops starts nothing.

mod boot;
mod governor;
pub mod keeper;
#[cfg(test)]
mod tests;
mod traces;

use std::{
    cmp::Reverse,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

pub use config::site::{Strategy, Workers};
use supervisor::{backoff::Backoff, child::Exit};
use telemetry::text::Elapsed;

use self::{
    boot::Boot,
    governor::{Change, Governor},
};
pub use governor::Load;

/// How long a worker that has nothing left to finish may take to leave: one that failed, or whose every slot is stuck.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a worker that hangs gets to print where.
const LAST_STACK: Duration = Duration::from_secs(1);

/// How long a worker may run its exit handlers once its grace has ended.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Most workers that a person can ask for by hand (TTIN); the same as in the configuration.
const SEATS_MAX: usize = 1024;

/// What the pool is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many workers.
    pub workers: Workers,
    /// Slots of each.
    pub threads: u16,
    /// Time a worker may take until it is ready.
    pub boot_timeout: Duration,
    /// Time that running requests may take once their worker is to leave.
    pub grace: Duration,
    /// How old a worker may become, ± 10 %.
    pub max_age: Option<Duration>,
}

impl Settings {
    /// When a worker that is ready since then is old.
    fn due(&self, since: Instant, number: u32) -> Option<Instant> {
        let age = self.max_age?;
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Some(since + Duration::from_millis(jittered(millis, number)))
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed: see [`Pool::wake`].
    Tick,
    /// A worker that was to be started has no process.
    NotStarted {
        /// Which.
        number: u32,
        /// Why, in one line.
        why: String,
    },
    /// A worker has imported its app and accepts.
    Ready {
        /// Which.
        number: u32,
    },
    /// A worker says that it cannot serve its app; it leaves by itself.
    Failed {
        /// Which.
        number: u32,
        /// Why, in one line.
        why: String,
        /// As Python prints it; may be empty.
        traceback: String,
    },
    /// A worker's process has ended.
    Exited {
        /// Which.
        number: u32,
        /// How.
        exit: Exit,
    },
    /// The proxy has let go of a worker that was to be released: nothing of ours runs in it.
    Released {
        /// Which.
        number: u32,
    },
    /// A worker that serves is to be replaced.
    Worn {
        /// Which.
        number: u32,
        /// Why.
        why: Wear,
    },
    /// What the proxy saw of the app.
    Load(Load),
    /// A person wants one more.
    Grow,
    /// A person wants one less.
    Shrink,
    /// New settings for the workers that there are.
    Update {
        /// What the pool is to be from now on.
        settings: Settings,
    },
    /// Start a new generation beside this one.
    Stage {
        /// What the pool is to be with it.
        settings: Settings,
        /// All at once, or one at a time.
        strategy: Strategy,
    },
    /// The staged generation takes over.
    Commit,
    /// The staged generation is not wanted any more.
    Abandon,
    /// The app is not served any more: workers are to finish what they do and leave.
    Dissolve,
    /// We stop, and nobody sends requests any more: workers are to leave by this time.
    Stop {
        /// Who is still there then is killed.
        deadline: Instant,
    },
    /// Workers are to be gone now.
    Abort,
}

/// Why a worker that serves is to be replaced; what is worse comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wear {
    /// Its code or its settings are those of an earlier generation.
    Superseded,
    /// A person wants it.
    Asked,
    /// It has lived for `max_age`.
    Age,
    /// It has served `max_requests`.
    Requests,
    /// It has more memory than `max_rss`.
    Memory {
        /// How much, in bytes.
        rss: u64,
    },
    /// A request in it has not been answered within `timeout`.
    Stuck,
}

/// Why a worker that served is not to serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It is worn.
    Worn(Wear),
    /// Fewer workers are to be there.
    Fewer,
    /// The app, or all of us, stops.
    Stop,
    /// It did not leave when it was asked to, and was killed.
    Overdue,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker. Its end will be an event: [`Event::NotStarted`] or [`Event::Exited`].
    Start {
        /// Its number, never used before.
        number: u32,
        /// Of what.
        make: Make,
    },
    /// Have the proxy let go of a worker; [`Event::Released`] tells that it has.
    Release {
        /// Which.
        number: u32,
    },
    /// Ask a worker to leave.
    Drain {
        /// Which.
        number: u32,
    },
    /// Have a worker print where it is, whatever it does.
    Dump {
        /// Which.
        number: u32,
    },
    /// Kill a worker.
    Kill {
        /// Which.
        number: u32,
    },
    /// Tell whoever is interested.
    Announce(News),
}

/// Of what a worker is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Of what the pool is now.
    Current,
    /// Of what is staged.
    Staged,
}

/// What the rest of the master wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A worker is ready and serves from now on.
    Ready {
        /// Which.
        number: u32,
        /// How long it took.
        after: Duration,
    },
    /// A worker could not start.
    CannotStart {
        /// Which.
        number: u32,
        /// Why, in one line.
        why: String,
        /// The traceback, unless the same one was told since a worker was last ready.
        traceback: Option<String>,
        /// When there is another try, from now; `None` when the pool stops.
        again: Option<Duration>,
    },
    /// A worker that was ready is gone, and nobody had asked it to go.
    Died {
        /// Which.
        number: u32,
        /// How.
        exit: Exit,
        /// How long it had been ready.
        lived: Duration,
        /// When there will be another in its place, from now.
        again: Duration,
    },
    /// A worker is to be replaced, and another is started for its place.
    Replacing {
        /// Which.
        number: u32,
        /// Why.
        why: Wear,
    },
    /// A worker that had been asked to leave is gone.
    Left {
        /// Which.
        number: u32,
        /// Why it had been asked.
        parting: Parting,
        /// How.
        exit: Exit,
    },
    /// A worker that was asked to leave did not do so in time.
    Overdue {
        /// Which.
        number: u32,
    },
    /// No worker is ready and one has just failed to start.
    AppFailed {
        /// Why, in one line.
        why: String,
    },
    /// There are to be so many workers from now on.
    Resized {
        /// How many.
        workers: usize,
    },
    /// The first round is decided: all workers are ready, or one could not start. Told once.
    Decided,
    /// The new generation could take over now.
    Staged,
    /// The new generation cannot start; all is as it was.
    StageFailed {
        /// Whose fault.
        number: u32,
        /// Why, in one line.
        why: String,
        /// As Python prints it; may be empty.
        traceback: String,
    },
    /// After a commit: every worker that serves is of the new generation.
    Renewed,
    /// After a commit: a further worker of the new generation could not start. Those of the old serve on, and it is tried
    /// again.
    RenewFailed {
        /// How many workers are still of the old one.
        left: usize,
        /// Why, in one line.
        why: String,
    },
}

/// The workers of one app.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    seats: Vec<Seat>,
    recruits: Vec<Recruit>,
    outgoing: Vec<Outgoing>,
    /// The last number given.
    number: u32,
    boot: Boot,
    governor: Governor,
    round: Round,
    phase: Phase,
    stage: Option<Stage>,
    renewal: Renewal,
}

/// The place of one worker; whoever sits there changes.
#[derive(Debug)]
struct Seat {
    state: State,
    /// The deaths of those who had been ready.
    deaths: Backoff,
}

/// What is in a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody; a worker may be started from this time on.
    Vacant { from: Instant },
    /// A worker that is not ready yet.
    Starting { number: u32, since: Instant },
    /// A worker that serves.
    Ready {
        number: u32,
        since: Instant,
        /// When it is old.
        due: Option<Instant>,
        /// Why it is to be replaced, if it is.
        wear: Option<Wear>,
    },
}

/// A worker beside the seats.
#[derive(Clone, Copy, Debug)]
struct Recruit {
    number: u32,
    since: Instant,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It takes the place of this worker.
    Replace { old: u32, why: Wear },
    /// It belongs to the staged generation, and starts.
    Stage,
    /// It belongs to the staged generation, and has been ready after so long.
    Staged { after: Duration },
}

/// A worker that has left its seat.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    number: u32,
    farewell: Farewell,
    /// Why it leaves; `None` of one that had not served.
    parting: Option<Parting>,
}

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// The proxy lets go of it.
    Releasing { deadline: Instant },
    /// It was asked to leave.
    Leaving { deadline: Instant },
    /// It could not start, and its process still ends.
    Doomed { deadline: Instant },
    /// It was killed.
    Killed,
}

/// A generation that is to come.
#[derive(Clone, Copy, Debug)]
struct Stage {
    settings: Settings,
    strategy: Strategy,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Too many of earlier generations are still there.
    Waiting,
    /// Its recruits start.
    Starting,
    /// All of them are ready.
    Complete,
}

/// Whether the old generation is being replaced after a commit, and its end is still to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    Over,
    Going,
}

/// The workers that are started at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Open,
    Decided,
}

/// Whether the pool is kept full or emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Stopping,
}

impl State {
    fn number(self) -> Option<u32> {
        match self {
            Self::Starting { number, .. } | Self::Ready { number, .. } => Some(number),
            Self::Vacant { .. } => None,
        }
    }

    fn wear(self) -> Option<Wear> {
        match self {
            Self::Ready { wear, .. } => wear,
            _ => None,
        }
    }
}

impl Seat {
    fn vacant(now: Instant) -> Self {
        Self {
            state: State::Vacant { from: now },
            deaths: Backoff::new(),
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }
}

/// A figure for one worker, ± 10 %, so that those who were started together are not worn out together.
#[must_use]
pub fn jittered(figure: u64, number: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    number.hash(&mut hasher);
    let permille = 900 + u128::from(hasher.finish() % 201);
    u64::try_from(u128::from(figure) * permille / 1000).unwrap_or(figure)
}

impl Pool {
    /// A pool whose workers are all still to be started: the first [`Event::Tick`] does. `number` is the last one that an
    /// earlier master has given to a worker of this app.
    #[must_use]
    pub fn new(settings: Settings, number: u32, now: Instant) -> Self {
        let seats = std::iter::repeat_with(|| Seat::vacant(now));
        Self {
            seats: seats.take(settings.workers.least.into()).collect(),
            ..Self::empty(settings, number)
        }
    }

    /// A pool without workers: they come by [`Event::Stage`].
    #[must_use]
    pub fn empty(settings: Settings, number: u32) -> Self {
        Self {
            settings,
            seats: Vec::new(),
            recruits: Vec::new(),
            outgoing: Vec::new(),
            number,
            boot: Boot::Works,
            governor: Governor::default(),
            round: Round::Open,
            phase: Phase::Serving,
            stage: None,
            renewal: Renewal::Over,
        }
    }

    /// Takes note of an event and says what to do, in order. Events of workers that are gone are nothing.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let actions_ref = &mut actions;
        match event {
            Event::Tick => {}
            Event::NotStarted { number, why } => {
                self.not_started(now, number, why, actions_ref);
            }
            Event::Ready { number } => self.ready(now, number, actions_ref),
            Event::Failed {
                number,
                why,
                traceback,
            } => self.failed(now, number, why, traceback, actions_ref),
            Event::Exited { number, exit } => self.exited(now, number, exit, actions_ref),
            Event::Released { number } => self.released(now, number, actions_ref),
            Event::Worn { number, why } => self.worn(number, why),
            Event::Load(load) => self.load(now, load, actions_ref),
            Event::Grow => self.grow(now, SEATS_MAX, actions_ref),
            Event::Shrink => self.shrink(now, 1, actions_ref),
            Event::Update { settings } => self.update(now, settings, actions_ref),
            Event::Stage { settings, strategy } => self.stage(settings, strategy, actions_ref),
            Event::Commit => self.commit(now, actions_ref),
            Event::Abandon => self.abandon(actions_ref),
            Event::Dissolve => self.dissolve(now, actions_ref),
            Event::Stop { deadline } => self.stop(deadline, actions_ref),
            Event::Abort => self.abort(actions_ref),
        }
        self.enforce_deadlines(now, &mut actions);
        self.fill(now, &mut actions);
        self.replace(now, &mut actions);
        self.recruit_stage(now, &mut actions);
        self.decide(&mut actions);
        actions
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let seats = self
            .seats
            .iter()
            .filter_map(|seat| self.seat_wake(seat.state));
        let recruits = self
            .recruits
            .iter()
            .filter_map(|recruit| match recruit.purpose {
                Purpose::Replace { .. } => Some(recruit.since + self.settings.boot_timeout),
                Purpose::Stage => Some(recruit.since + self.staged_boot_timeout()),
                Purpose::Staged { .. } => None,
            });
        let outgoing = self
            .outgoing
            .iter()
            .filter_map(|one| one.farewell.deadline());
        let replacing = self.worst_worn().and_then(|_| self.boot.until());
        let replacing = replacing.filter(|_| self.may_replace());
        seats.chain(recruits).chain(outgoing).chain(replacing).min()
    }

    /// Whether everybody is gone and nobody will come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Stopping && self.outgoing.is_empty()
    }

    /// The last number that a worker has had.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.number
    }

    /// How many workers serve.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.seats.iter().filter(|seat| seat.is_ready()).count()
    }

    /// What a worker does, for people: `starting`, `ready`, `worn`, `staged`, `releasing`, `leaving`, `killed`.
    #[must_use]
    pub fn state(&self, number: u32) -> &'static str {
        if let Some(seat) = self
            .seats
            .iter()
            .find(|seat| seat.state.number() == Some(number))
        {
            return match seat.state {
                State::Ready { wear: None, .. } => "ready",
                State::Ready { .. } => "worn",
                _ => "starting",
            };
        }
        if let Some(recruit) = self
            .recruits
            .iter()
            .find(|recruit| recruit.number == number)
        {
            return match recruit.purpose {
                Purpose::Staged { .. } => "staged",
                _ => "starting",
            };
        }
        let outgoing = self.outgoing.iter().find(|one| one.number == number);
        match outgoing.map(|one| one.farewell) {
            Some(Farewell::Releasing { .. }) => "releasing",
            Some(Farewell::Leaving { .. } | Farewell::Doomed { .. }) => "leaving",
            Some(Farewell::Killed) => "killed",
            None => "gone",
        }
    }

    fn seat_wake(&self, state: State) -> Option<Instant> {
        match state {
            // Whatever becomes of the one that tries is an event.
            State::Vacant { .. } if self.boot.until().is_some() && self.someone_tries() => None,
            State::Vacant { from } => Some(self.boot.until().map_or(from, |until| from.max(until))),
            State::Starting { since, .. } => Some(since + self.settings.boot_timeout),
            State::Ready {
                wear: None, due, ..
            } => due,
            State::Ready { .. } => None,
        }
    }

    /// Whether a worker is on its way, or one that did not arrive still ends.
    fn someone_tries(&self) -> bool {
        let starts = |seat: &Seat| matches!(seat.state, State::Starting { .. });
        self.seats.iter().any(starts)
            || self.is_replacing()
            || self.outgoing.iter().any(|one| one.parting.is_none())
    }

    fn is_replacing(&self) -> bool {
        let replaces = |recruit: &Recruit| matches!(recruit.purpose, Purpose::Replace { .. });
        self.recruits.iter().any(replaces)
    }

    fn seat(&mut self, number: u32) -> Option<&mut Seat> {
        self.seats
            .iter_mut()
            .find(|seat| seat.state.number() == Some(number))
    }

    fn take_recruit(&mut self, number: u32) -> Option<Recruit> {
        let at = self
            .recruits
            .iter()
            .position(|recruit| recruit.number == number)?;
        Some(self.recruits.remove(at))
    }

    fn next_number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn staged_boot_timeout(&self) -> Duration {
        self.stage.map_or(self.settings.boot_timeout, |stage| {
            stage.settings.boot_timeout
        })
    }
}

/// What happens to workers.
impl Pool {
    fn ready(&mut self, now: Instant, number: u32, actions: &mut Vec<Action>) {
        let due = self.settings.due(now, number);
        if let Some(seat) = self.seat(number) {
            let State::Starting { since, .. } = seat.state else {
                return;
            };
            seat.take(number, now, due);
            self.boot = Boot::Works;
            let after = now.saturating_duration_since(since);
            actions.push(Action::Announce(News::Ready { number, after }));
            return;
        }
        let Some(recruit) = self.take_recruit(number) else {
            return;
        };
        let after = now.saturating_duration_since(recruit.since);
        match recruit.purpose {
            Purpose::Replace { old, .. } => {
                self.boot = Boot::Works;
                self.succeed(now, old, number, after, actions);
            }
            Purpose::Stage => {
                let purpose = Purpose::Staged { after };
                self.recruits.push(Recruit { purpose, ..recruit });
                self.check_stage(actions);
            }
            Purpose::Staged { .. } => self.recruits.push(recruit),
        }
    }

    /// The new one is ready, so the old one may go.
    fn succeed(
        &mut self,
        now: Instant,
        old: u32,
        number: u32,
        after: Duration,
        actions: &mut Vec<Action>,
    ) {
        let due = self.settings.due(now, number);
        let Some(seat) = self.seat(old) else {
            // The old one's death would have given its seat to the new one, and a smaller pool would have let it go.
            debug_assert!(false, "a recruit for nobody's seat");
            self.kill(number, None, actions);
            return;
        };
        let parting = Parting::Worn(seat.state.wear().unwrap_or(Wear::Asked));
        seat.take(number, now, due);
        actions.push(Action::Announce(News::Ready { number, after }));
        self.release(now, old, parting, actions);
        self.check_renewal(actions);
    }

    fn release(&mut self, now: Instant, number: u32, parting: Parting, actions: &mut Vec<Action>) {
        let deadline = now + self.settings.grace;
        self.outgoing.push(Outgoing {
            number,
            farewell: Farewell::Releasing { deadline },
            parting: Some(parting),
        });
        actions.push(Action::Release { number });
    }

    fn kill(&mut self, number: u32, parting: Option<Parting>, actions: &mut Vec<Action>) {
        self.outgoing.push(Outgoing {
            number,
            farewell: Farewell::Killed,
            parting,
        });
        actions.push(Action::Kill { number });
    }

    fn released(&mut self, now: Instant, number: u32, actions: &mut Vec<Action>) {
        let Some(one) = self.outgoing.iter_mut().find(|one| one.number == number) else {
            return;
        };
        if let Farewell::Releasing { deadline } = one.farewell {
            let deadline = if one.parting == Some(Parting::Worn(Wear::Stuck)) {
                // What still runs in it nobody waits for any more, and it may never end.
                deadline.min(now + LAST_WORDS)
            } else {
                deadline
            };
            one.farewell = Farewell::Leaving { deadline };
            actions.push(Action::Drain { number });
        }
    }

    fn not_started(&mut self, now: Instant, number: u32, why: String, actions: &mut Vec<Action>) {
        if let Some(seat) = self.seat(number) {
            if matches!(seat.state, State::Starting { .. }) {
                seat.state = State::Vacant { from: now };
                self.cannot_start(now, number, why, "", actions);
            }
        } else if let Some(recruit) = self.take_recruit(number) {
            self.recruit_failed(now, recruit, why, String::new(), actions);
        } else {
            self.outgoing.retain(|one| one.number != number);
        }
    }

    fn failed(
        &mut self,
        now: Instant,
        number: u32,
        why: String,
        traceback: String,
        actions: &mut Vec<Action>,
    ) {
        let deadline = now + LAST_WORDS;
        self.doom(now, number, deadline, why, traceback, actions);
    }

    /// A worker that was on its way will not arrive; its process ends by this time.
    fn doom(
        &mut self,
        now: Instant,
        number: u32,
        deadline: Instant,
        why: String,
        traceback: String,
        actions: &mut Vec<Action>,
    ) {
        let doomed = Outgoing {
            number,
            farewell: Farewell::Doomed { deadline },
            parting: None,
        };
        if let Some(seat) = self.seat(number) {
            if matches!(seat.state, State::Starting { .. }) {
                seat.state = State::Vacant { from: now };
                self.outgoing.push(doomed);
                self.cannot_start(now, number, why, &traceback, actions);
            }
            return;
        }
        let starts = |recruit: &Recruit| {
            recruit.number == number && !matches!(recruit.purpose, Purpose::Staged { .. })
        };
        if let Some(at) = self.recruits.iter().position(starts) {
            let recruit = self.recruits.remove(at);
            self.outgoing.push(doomed);
            self.recruit_failed(now, recruit, why, traceback, actions);
        }
    }

    fn recruit_failed(
        &mut self,
        now: Instant,
        recruit: Recruit,
        why: String,
        traceback: String,
        actions: &mut Vec<Action>,
    ) {
        let number = recruit.number;
        match recruit.purpose {
            Purpose::Replace { why: wear, .. } => {
                self.cannot_start(now, number, why.clone(), &traceback, actions);
                if wear == Wear::Superseded {
                    self.renewal_failed(why, actions);
                }
            }
            Purpose::Stage => self.stage_failed(number, why, traceback, actions),
            // Whether it is missed the commit decides.
            Purpose::Staged { .. } => {}
        }
    }

    fn exited(&mut self, now: Instant, number: u32, exit: Exit, actions: &mut Vec<Action>) {
        if let Some(at) = self.outgoing.iter().position(|one| one.number == number) {
            if let Some(parting) = self.outgoing.swap_remove(at).parting {
                actions.push(Action::Announce(News::Left {
                    number,
                    parting,
                    exit,
                }));
            }
            return;
        }
        if let Some(recruit) = self.take_recruit(number) {
            let why = match recruit.purpose {
                Purpose::Staged { .. } => exit.to_string(),
                _ => format!("{exit} before it was ready"),
            };
            self.recruit_failed(now, recruit, why, String::new(), actions);
            return;
        }
        let Some(seat) = self.seat(number) else {
            return;
        };
        match seat.state {
            State::Starting { .. } => {
                seat.state = State::Vacant { from: now };
                let why = format!("{exit} before it was ready");
                self.cannot_start(now, number, why, "", actions);
            }
            State::Ready { since, .. } => self.died(now, number, exit, since, actions),
            State::Vacant { .. } => {}
        }
    }

    fn died(
        &mut self,
        now: Instant,
        number: u32,
        exit: Exit,
        since: Instant,
        actions: &mut Vec<Action>,
    ) {
        let replaces = |recruit: &Recruit| matches!(recruit.purpose, Purpose::Replace { old, .. } if old == number);
        let heir = self.recruits.iter().position(replaces);
        let heir = heir.map(|at| self.recruits.remove(at));
        let seat = self.seat(number).expect("the caller has found it");
        let from = seat.deaths.died(now);
        seat.state = match heir {
            Some(heir) => State::Starting {
                number: heir.number,
                since: heir.since,
            },
            None => State::Vacant { from },
        };
        let again = match heir {
            Some(_) => Duration::ZERO,
            None => from.saturating_duration_since(now),
        };
        actions.push(Action::Announce(News::Died {
            number,
            exit,
            lived: now.saturating_duration_since(since),
            again,
        }));
        self.check_renewal(actions);
    }

    fn cannot_start(
        &mut self,
        now: Instant,
        number: u32,
        why: String,
        traceback: &str,
        actions: &mut Vec<Action>,
    ) {
        let is_new = self.boot.failed(now, traceback);
        let serving = self.phase == Phase::Serving;
        let until = self.boot.until().filter(|_| serving);
        let news = News::CannotStart {
            number,
            why: why.clone(),
            traceback: is_new.then(|| traceback.to_owned()),
            again: until.map(|until| until.saturating_duration_since(now)),
        };
        actions.push(Action::Announce(news));
        if self.ready_count() == 0 && serving {
            actions.push(Action::Announce(News::AppFailed { why }));
        }
        self.conclude(actions);
    }

    fn worn(&mut self, number: u32, why: Wear) {
        if let Some(seat) = self.seat(number)
            && let State::Ready { wear, .. } = &mut seat.state
        {
            *wear = (*wear).max(Some(why));
        }
    }
}

impl Seat {
    fn take(&mut self, number: u32, now: Instant, due: Option<Instant>) {
        self.state = State::Ready {
            number,
            since: now,
            due,
            wear: None,
        };
        self.deaths.up(now);
    }
}

impl Farewell {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Releasing { deadline }
            | Self::Leaving { deadline }
            | Self::Doomed { deadline } => Some(deadline),
            Self::Killed => None,
        }
    }
}

/// How many workers there are to be.
impl Pool {
    fn load(&mut self, now: Instant, load: Load, actions: &mut Vec<Action>) {
        let Workers { least, most } = self.settings.workers;
        if least == most || self.phase == Phase::Stopping {
            return;
        }
        let (ready, threads) = (self.ready_count(), self.settings.threads);
        match self.governor.judge(now, load, ready, threads) {
            // One that is on its way already may be all that is needed.
            Some(Change::Grow) if !self.someone_tries() => self.grow(now, most.into(), actions),
            Some(Change::Shrink) => self.shrink(now, least.into(), actions),
            _ => {}
        }
    }

    fn grow(&mut self, now: Instant, most: usize, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && self.seats.len() < most {
            self.seats.push(Seat::vacant(now));
            self.resized(actions);
        }
    }

    fn update(&mut self, now: Instant, settings: Settings, actions: &mut Vec<Action>) {
        if self.phase == Phase::Stopping {
            return;
        }
        let before = std::mem::replace(&mut self.settings, settings);
        if settings.workers != before.workers {
            let target = settings.workers.clamp(self.seats.len());
            while self.seats.len() < target {
                self.grow(now, target, actions);
            }
            while self.seats.len() > target {
                let count = self.seats.len();
                self.shrink(now, target, actions);
                if self.seats.len() == count {
                    break;
                }
            }
        }
        if settings.max_age != before.max_age {
            for at in 0..self.seats.len() {
                if let State::Ready { number, since, .. } = self.seats[at].state
                    && let State::Ready { due, .. } = &mut self.seats[at].state
                {
                    *due = settings.due(since, number);
                }
            }
        }
    }

    /// Lets go of one that does not serve, else of the youngest: the older ones have proved themselves.
    fn shrink(&mut self, now: Instant, least: usize, actions: &mut Vec<Action>) {
        if self.phase == Phase::Stopping || self.seats.len() <= least {
            return;
        }
        let dispensable = |(_, seat): &(usize, &Seat)| match seat.state {
            State::Vacant { .. } => (0, None),
            State::Starting { number, .. } => (1, Some(Reverse(number))),
            State::Ready { number, .. } => (2, Some(Reverse(number))),
        };
        let Some((at, seat)) = self.seats.iter().enumerate().min_by_key(dispensable) else {
            return;
        };
        if seat.is_ready() && self.ready_count() == 1 {
            return;
        }
        let state = self.seats.remove(at).state;
        self.retire(now, state, Parting::Fewer, actions);
        self.resized(actions);
        self.check_renewal(actions);
    }

    fn resized(&self, actions: &mut Vec<Action>) {
        let workers = self.seats.len();
        actions.push(Action::Announce(News::Resized { workers }));
    }

    /// Lets go of whoever has left a seat, and of who was to take it.
    fn retire(&mut self, now: Instant, state: State, parting: Parting, actions: &mut Vec<Action>) {
        match state {
            State::Vacant { .. } => {}
            State::Starting { number, .. } => self.kill(number, None, actions),
            State::Ready { number, wear, .. } => {
                let heir = |recruit: &Recruit| matches!(recruit.purpose, Purpose::Replace { old, .. } if old == number);
                if let Some(at) = self.recruits.iter().position(heir) {
                    let heir = self.recruits.remove(at).number;
                    self.kill(heir, None, actions);
                }
                // Whose request hangs is not waited for, whatever else it leaves for.
                let stuck = wear.filter(|wear| *wear == Wear::Stuck);
                self.release(now, number, stuck.map_or(parting, Parting::Worn), actions);
            }
        }
    }
}

/// The next generation.
impl Pool {
    fn stage(&mut self, settings: Settings, strategy: Strategy, actions: &mut Vec<Action>) {
        self.abandon(actions);
        if self.phase == Phase::Serving {
            self.stage = Some(Stage {
                settings,
                strategy,
                progress: Progress::Waiting,
            });
        } else {
            actions.push(Action::Announce(News::StageFailed {
                number: self.number,
                why: "the app is stopping".to_owned(),
                traceback: String::new(),
            }));
        }
    }

    /// Starts the recruits of the stage, as soon as there is room: deploys that follow each other faster than their requests
    /// end must not fill the memory with generations.
    fn recruit_stage(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(stage) = self
            .stage
            .filter(|stage| stage.progress == Progress::Waiting)
        else {
            return;
        };
        let (room, wanted) = match stage.strategy {
            Strategy::SideBySide => (
                self.outgoing.len() <= self.seats.len(),
                stage.settings.workers.clamp(self.seats.len()),
            ),
            Strategy::Rolling => (self.outgoing.is_empty() && !self.is_replacing(), 1),
        };
        if !room {
            return;
        }
        self.stage = Some(Stage {
            progress: Progress::Starting,
            ..stage
        });
        for _ in 0..wanted {
            let number = self.next_number();
            self.recruits.push(Recruit {
                number,
                since: now,
                purpose: Purpose::Stage,
            });
            let make = Make::Staged;
            actions.push(Action::Start { number, make });
        }
    }

    fn check_stage(&mut self, actions: &mut Vec<Action>) {
        let starts = |recruit: &Recruit| recruit.purpose == Purpose::Stage;
        if self.recruits.iter().any(starts) {
            return;
        }
        if let Some(stage) = &mut self.stage {
            stage.progress = Progress::Complete;
            actions.push(Action::Announce(News::Staged));
        }
    }

    fn stage_failed(
        &mut self,
        number: u32,
        why: String,
        traceback: String,
        actions: &mut Vec<Action>,
    ) {
        self.abandon(actions);
        actions.push(Action::Announce(News::StageFailed {
            number,
            why,
            traceback,
        }));
    }

    fn abandon(&mut self, actions: &mut Vec<Action>) {
        self.stage = None;
        for recruit in self.take_staged() {
            self.kill(recruit.number, None, actions);
        }
    }

    fn take_staged(&mut self) -> Vec<Recruit> {
        let staged = |recruit: &mut Recruit| !matches!(recruit.purpose, Purpose::Replace { .. });
        self.recruits.extract_if(.., staged).collect()
    }

    /// The recruits of the stage take their seats. Those of the old generation leave if somebody is there in their place;
    /// where the strategy is to replace one at a time, or where recruits have died since they were ready, the old ones
    /// serve on until their turn comes.
    fn commit(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(stage) = self.stage.take() else {
            return;
        };
        let old_grace = self.settings.grace;
        self.settings = stage.settings;
        self.boot = Boot::Works;
        self.governor = Governor::default();
        let replacements: Vec<u32> = self.recruits.iter().filter_map(Recruit::replaces).collect();
        for number in replacements {
            self.take_recruit(number);
            self.kill(number, None, actions);
        }
        let recruits = self.take_staged();
        let arrived = recruits.iter().any(Recruit::is_ready);
        let mut old = std::mem::take(&mut self.seats);
        let target = self.settings.workers.clamp(old.len());
        for recruit in recruits {
            let seat = self.install(now, recruit, actions);
            self.seats.push(seat);
        }
        let kept = match stage.strategy {
            Strategy::SideBySide if arrived => 0,
            _ => target.saturating_sub(self.seats.len()),
        };
        // Who serves stays longest.
        old.sort_by_key(|seat| !seat.is_ready());
        // Requests that run in the old ones were promised the old grace; the longer of the two harms nobody.
        self.settings.grace = self.settings.grace.max(old_grace);
        for seat in old.split_off(kept.min(old.len())) {
            self.retire(now, seat.state, Parting::Worn(Wear::Superseded), actions);
        }
        self.settings.grace = stage.settings.grace;
        for mut seat in old {
            self.supersede(now, &mut seat, actions);
            self.seats.push(seat);
        }
        while self.seats.len() < target {
            self.seats.push(Seat::vacant(now));
        }
        self.renewal = Renewal::Going;
        self.check_renewal(actions);
    }

    fn install(&mut self, now: Instant, recruit: Recruit, actions: &mut Vec<Action>) -> Seat {
        let mut seat = Seat::vacant(now);
        let Recruit { number, since, .. } = recruit;
        if let Purpose::Staged { after } = recruit.purpose {
            seat.take(number, now, self.settings.due(now, number));
            actions.push(Action::Announce(News::Ready { number, after }));
        } else {
            seat.state = State::Starting { number, since };
        }
        seat
    }

    /// A seat of the old generation that is kept: who serves is to be replaced, who does not is not waited for.
    fn supersede(&mut self, now: Instant, seat: &mut Seat, actions: &mut Vec<Action>) {
        match &mut seat.state {
            State::Ready { wear, .. } => *wear = (*wear).max(Some(Wear::Superseded)),
            State::Starting { number, .. } => {
                let number = *number;
                *seat = Seat::vacant(now);
                self.kill(number, None, actions);
            }
            State::Vacant { .. } => *seat = Seat::vacant(now),
        }
    }

    fn superseded(&self) -> usize {
        let old = |seat: &&Seat| {
            seat.state
                .wear()
                .is_some_and(|wear| wear >= Wear::Superseded)
        };
        self.seats.iter().filter(old).count()
    }

    fn check_renewal(&mut self, actions: &mut Vec<Action>) {
        if self.renewal == Renewal::Going && self.superseded() == 0 {
            self.renewal = Renewal::Over;
            actions.push(Action::Announce(News::Renewed));
        }
    }

    fn renewal_failed(&mut self, why: String, actions: &mut Vec<Action>) {
        if self.renewal == Renewal::Going {
            self.renewal = Renewal::Over;
            let left = self.superseded();
            actions.push(Action::Announce(News::RenewFailed { left, why }));
        }
    }
}

impl Recruit {
    /// Its number, if it is to take a seat of this generation.
    fn replaces(&self) -> Option<u32> {
        matches!(self.purpose, Purpose::Replace { .. }).then_some(self.number)
    }

    fn is_ready(&self) -> bool {
        matches!(self.purpose, Purpose::Staged { .. })
    }
}

/// The end.
impl Pool {
    fn dissolve(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        self.abandon(actions);
        for seat in std::mem::take(&mut self.seats) {
            self.retire(now, seat.state, Parting::Stop, actions);
        }
    }

    fn stop(&mut self, deadline: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        // They serve nobody, and Python that imports hears nothing.
        for recruit in std::mem::take(&mut self.recruits) {
            self.kill(recruit.number, None, actions);
        }
        self.stage = None;
        for seat in std::mem::take(&mut self.seats) {
            match seat.state {
                State::Vacant { .. } => {}
                State::Starting { number, .. } => self.kill(number, None, actions),
                State::Ready { number, .. } => {
                    self.outgoing.push(Outgoing {
                        number,
                        farewell: Farewell::Leaving { deadline },
                        parting: Some(Parting::Stop),
                    });
                    actions.push(Action::Drain { number });
                }
            }
        }
        for one in &mut self.outgoing {
            let number = one.number;
            match one.farewell {
                // What runs in them has its time already.
                Farewell::Releasing { deadline: own } => {
                    let deadline = own.min(deadline);
                    one.farewell = Farewell::Leaving { deadline };
                    actions.push(Action::Drain { number });
                }
                Farewell::Leaving { deadline: own } => {
                    let deadline = own.min(deadline);
                    one.farewell = Farewell::Leaving { deadline };
                }
                Farewell::Doomed { .. } => {
                    one.farewell = Farewell::Killed;
                    actions.push(Action::Kill { number });
                }
                Farewell::Killed => {}
            }
        }
    }

    fn abort(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        self.stage = None;
        for one in &mut self.outgoing {
            one.farewell = Farewell::Killed;
            actions.push(Action::Kill { number: one.number });
        }
        for recruit in std::mem::take(&mut self.recruits) {
            self.kill(recruit.number, None, actions);
        }
        for seat in std::mem::take(&mut self.seats) {
            if let Some(number) = seat.state.number() {
                let parting = seat.is_ready().then_some(Parting::Stop);
                self.kill(number, parting, actions);
            }
        }
    }
}

/// What time does, and what is always to be done.
impl Pool {
    fn enforce_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.enforce_boot(now, actions);
        for seat in &mut self.seats {
            if let State::Ready {
                wear: wear @ None,
                due: Some(due),
                ..
            } = &mut seat.state
                && *due <= now
            {
                *wear = Some(Wear::Age);
            }
        }
        for one in &mut self.outgoing {
            let number = one.number;
            match one.farewell {
                Farewell::Releasing { deadline } if deadline <= now => {
                    let deadline = now + LAST_MOMENT;
                    one.farewell = Farewell::Leaving { deadline };
                    actions.push(Action::Drain { number });
                }
                Farewell::Leaving { deadline } if deadline <= now => {
                    one.farewell = Farewell::Killed;
                    one.parting = one.parting.map(|_| Parting::Overdue);
                    actions.push(Action::Announce(News::Overdue { number }));
                    actions.push(Action::Kill { number });
                }
                Farewell::Doomed { deadline } if deadline <= now => {
                    one.farewell = Farewell::Killed;
                    actions.push(Action::Kill { number });
                }
                _ => {}
            }
        }
    }

    fn enforce_boot(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let current = self.settings.boot_timeout;
        let staged = self.staged_boot_timeout();
        let seats = self.seats.iter().filter_map(|seat| match seat.state {
            State::Starting { number, since } => Some((number, since, current)),
            _ => None,
        });
        let recruits = self.recruits.iter().filter_map(|recruit| {
            let patience = match recruit.purpose {
                Purpose::Replace { .. } => current,
                Purpose::Stage => staged,
                Purpose::Staged { .. } => return None,
            };
            Some((recruit.number, recruit.since, patience))
        });
        let late: Vec<(u32, Duration)> = seats
            .chain(recruits)
            .filter(|(_, since, patience)| *since + *patience <= now)
            .map(|(number, _, patience)| (number, patience))
            .collect();
        for (number, patience) in late {
            // The first of a generation has ended it for the others.
            if self.outgoing.iter().any(|one| one.number == number) {
                continue;
            }
            actions.push(Action::Dump { number });
            let why = format!("not ready within {}", Elapsed(patience));
            self.doom(now, number, now + LAST_STACK, why, String::new(), actions);
        }
    }

    fn fill(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.seats.len() {
            let State::Vacant { from } = self.seats[index].state else {
                continue;
            };
            let held = self
                .boot
                .until()
                .is_some_and(|until| until > now || self.someone_tries());
            if from <= now && !held {
                let number = self.next_number();
                self.seats[index].state = State::Starting { number, since: now };
                let make = Make::Current;
                actions.push(Action::Start { number, make });
            }
        }
    }

    /// Starts a recruit for the worker that needs it most.
    fn replace(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let held = self.boot.until().is_some_and(|until| until > now);
        let Some((old, why)) = self.worst_worn().filter(|_| !held && self.may_replace()) else {
            return;
        };
        let number = self.next_number();
        self.recruits.push(Recruit {
            number,
            since: now,
            purpose: Purpose::Replace { old, why },
        });
        actions.push(Action::Announce(News::Replacing { number: old, why }));
        let make = Make::Current;
        actions.push(Action::Start { number, make });
    }

    /// The worker that is to be replaced next. An empty seat comes before: there somebody is missing already.
    fn worst_worn(&self) -> Option<(u32, Wear)> {
        let worn = self.seats.iter().filter_map(|seat| match seat.state {
            State::Ready {
                number,
                since,
                wear: Some(wear),
                ..
            } => Some((wear, Reverse(since), number)),
            _ => None,
        });
        worn.max().map(|(wear, _, number)| (number, wear))
    }

    /// One at a time, and the one before must be gone: who sets `max_rss` has no memory for three. A worker that is stuck
    /// does not wait for that, as it may be the only one and its leaving takes as long as its other requests.
    fn may_replace(&self) -> bool {
        if self.phase == Phase::Stopping || self.is_replacing() {
            return false;
        }
        if self.boot.until().is_some() && self.someone_tries() {
            return false;
        }
        match self.worst_worn() {
            Some((_, Wear::Stuck)) => self.outgoing.len() < self.seats.len(),
            _ => self.outgoing.is_empty(),
        }
    }

    fn decide(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && self.ready_count() == self.seats.len() {
            self.conclude(actions);
        }
    }

    fn conclude(&mut self, actions: &mut Vec<Action>) {
        if self.round == Round::Open {
            self.round = Round::Decided;
            actions.push(Action::Announce(News::Decided));
        }
    }
}
