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
mod course;
mod duties;
mod end;
mod event;
mod generation;
mod governor;
pub mod keeper;
mod size;
#[cfg(test)]
mod tests;
mod traces;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

pub use config::site::{Strategy, Workers};
use supervisor::backoff::Backoff;

pub use self::event::{Action, Event, Make, News, Parting, Wear};
use self::{boot::Boot, governor::Governor};
pub use governor::Load;

/// How long a worker that has nothing left to finish may take to leave: one that failed, or whose every slot is stuck.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a worker that hangs gets to print where.
const LAST_STACK: Duration = Duration::from_secs(1);

/// How long a worker may run its exit handlers once its grace has ended.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The longest wait until a worker that had been ready is followed by another. Visitors wait in its place, and an app that
/// starts well is no crash loop that has to be slowed down: with waits of half a minute, somebody who killed a worker every
/// half second would have starved the queue. One that cannot even start waits longer ([`Boot`]).
const MISSED: Duration = Duration::from_secs(1);

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
            deaths: Backoff::up_to(MISSED),
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
