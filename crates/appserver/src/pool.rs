//! The pool of one app: which workers there should be, and what to do when one fails, dies or is late.
//!
//! [`Pool`] is a state machine without I/O: it is told what happened and when, and answers with what to do. It starts no
//! process, writes no log and knows no clock; [`keeper`] does that for it.
//!
//! Its rules. A worker that dies is started again, after a wait that grows while its deaths come fast. When a worker
//! cannot start (the import fails, it dies or is late), the others wait: one at a time tries again, with a wait that grows,
//! until one is ready. A pool that stops starts nothing.

pub mod keeper;

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use supervisor::{backoff::Backoff, child::Exit};
use telemetry::text::Elapsed;

/// How long a worker that has said that it failed may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the pool is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many workers.
    pub workers: u16,
    /// Time a worker may take until it is ready.
    pub boot_timeout: Duration,
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
    /// Workers are to finish what they do and leave by this time.
    Stop {
        /// Who is still there then is killed.
        deadline: Instant,
    },
    /// Workers are to be gone now.
    Abort,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker. Its end will be an event: [`Event::NotStarted`] or [`Event::Exited`].
    Start {
        /// Its number, never used before.
        number: u32,
    },
    /// Ask a worker to finish what it does and leave.
    Drain {
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

/// What the rest of the master wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A worker is ready.
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
    /// A worker that was asked to leave is gone.
    Left {
        /// Which.
        number: u32,
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
    /// The first round is decided: all workers are ready, or one could not start. Told once.
    Decided,
}

/// The workers of one app.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    seats: Vec<Seat>,
    /// The last number given.
    number: u32,
    boot: Boot,
    round: Round,
    phase: Phase,
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
    /// A worker that could not start, and whose process still ends.
    Doomed { number: u32, deadline: Instant },
    /// A worker that serves.
    Ready { number: u32, since: Instant },
    /// A worker that was asked to leave.
    Leaving { number: u32, deadline: Instant },
    /// A worker that was killed.
    Killed { number: u32 },
    /// Nobody, and nobody will come.
    Closed,
}

/// Whether workers can start at all.
#[derive(Debug)]
enum Boot {
    /// As far as is known they can: seats are filled at once.
    Works,
    /// The last one could not: one at a time, and not before this time.
    Fails {
        until: Instant,
        failures: Backoff,
        /// Digests of the last tracebacks that were told, the newest first.
        told: VecDeque<u64>,
    },
}

/// Workers of one app fail in few ways; an app whose every traceback is new (a time, an address) must not fill our memory.
const TOLD_MAX: usize = 16;

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
            Self::Starting { number, .. }
            | Self::Doomed { number, .. }
            | Self::Ready { number, .. }
            | Self::Leaving { number, .. }
            | Self::Killed { number } => Some(number),
            Self::Vacant { .. } | Self::Closed => None,
        }
    }
}

impl Pool {
    /// A pool whose workers are all still to be started: the first [`Event::Tick`] does.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let seat = || Seat {
            state: State::Vacant { from: now },
            deaths: Backoff::new(),
        };
        Self {
            settings,
            seats: std::iter::repeat_with(seat)
                .take(settings.workers.into())
                .collect(),
            number: 0,
            boot: Boot::Works,
            round: Round::Open,
            phase: Phase::Serving,
        }
    }

    /// Takes note of an event and says what to do, in order. Events of workers that are gone are nothing.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::NotStarted { number, why } => self.not_started(now, number, why, &mut actions),
            Event::Ready { number } => self.ready(now, number, &mut actions),
            Event::Failed {
                number,
                why,
                traceback,
            } => {
                self.failed(now, number, why, &traceback, &mut actions);
            }
            Event::Exited { number, exit } => self.exited(now, number, exit, &mut actions),
            Event::Stop { deadline } => self.stop(deadline, &mut actions),
            Event::Abort => self.abort(&mut actions),
        }
        self.enforce_deadlines(now, &mut actions);
        self.fill(now, &mut actions);
        self.decide(&mut actions);
        actions
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        self.seats
            .iter()
            .filter_map(|seat| self.wake_of(seat.state))
            .min()
    }

    /// Whether everybody is gone and nobody will come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.seats.iter().all(|seat| seat.state == State::Closed)
    }

    /// How many workers serve.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.count(|state| matches!(state, State::Ready { .. }))
    }

    fn wake_of(&self, state: State) -> Option<Instant> {
        match state {
            State::Vacant { from } => match &self.boot {
                Boot::Works => Some(from),
                // Whatever becomes of the one that tries is an event.
                Boot::Fails { .. } if self.someone_tries() => None,
                Boot::Fails { until, .. } => Some(from.max(*until)),
            },
            State::Starting { since, .. } => Some(since + self.settings.boot_timeout),
            State::Doomed { deadline, .. } | State::Leaving { deadline, .. } => Some(deadline),
            State::Ready { .. } | State::Killed { .. } | State::Closed => None,
        }
    }

    fn count(&self, is: impl Fn(State) -> bool) -> usize {
        self.seats.iter().filter(|seat| is(seat.state)).count()
    }

    fn someone_tries(&self) -> bool {
        self.count(|state| matches!(state, State::Starting { .. })) > 0
    }

    fn seat(&mut self, number: u32) -> Option<&mut Seat> {
        self.seats
            .iter_mut()
            .find(|seat| seat.state.number() == Some(number))
    }

    fn ready(&mut self, now: Instant, number: u32, actions: &mut Vec<Action>) {
        let Some(seat) = self.seat(number) else {
            return;
        };
        let State::Starting { since, .. } = seat.state else {
            return;
        };
        seat.state = State::Ready { number, since: now };
        seat.deaths.up(now);
        self.boot = Boot::Works;
        let after = now.saturating_duration_since(since);
        actions.push(Action::Announce(News::Ready { number, after }));
    }

    fn not_started(&mut self, now: Instant, number: u32, why: String, actions: &mut Vec<Action>) {
        let vacated = self.vacated(now);
        let Some(seat) = self.seat(number) else {
            return;
        };
        let was = std::mem::replace(&mut seat.state, vacated);
        if matches!(was, State::Starting { .. }) {
            self.cannot_start(now, number, why, "", actions);
        }
    }

    fn failed(
        &mut self,
        now: Instant,
        number: u32,
        why: String,
        traceback: &str,
        actions: &mut Vec<Action>,
    ) {
        let Some(seat) = self.seat(number) else {
            return;
        };
        if matches!(seat.state, State::Starting { .. }) {
            seat.state = State::Doomed {
                number,
                deadline: now + LAST_WORDS,
            };
            self.cannot_start(now, number, why, traceback, actions);
        }
    }

    fn exited(&mut self, now: Instant, number: u32, exit: Exit, actions: &mut Vec<Action>) {
        let vacated = self.vacated(now);
        let Some(seat) = self.seat(number) else {
            return;
        };
        match std::mem::replace(&mut seat.state, vacated) {
            State::Starting { .. } => {
                let why = format!("{exit} before it was ready");
                self.cannot_start(now, number, why, "", actions);
            }
            State::Ready { since, .. } => {
                let from = seat.deaths.died(now);
                seat.state = State::Vacant { from };
                let lived = now.saturating_duration_since(since);
                let again = from.saturating_duration_since(now);
                actions.push(Action::Announce(News::Died {
                    number,
                    exit,
                    lived,
                    again,
                }));
            }
            State::Leaving { .. } => actions.push(Action::Announce(News::Left { number, exit })),
            // Why they go was said when it was decided.
            State::Doomed { .. } | State::Killed { .. } | State::Vacant { .. } | State::Closed => {}
        }
    }

    /// What a seat becomes when its worker has ended.
    fn vacated(&self, now: Instant) -> State {
        match self.phase {
            Phase::Serving => State::Vacant { from: now },
            Phase::Stopping => State::Closed,
        }
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
        let again = match (&self.boot, self.phase) {
            (Boot::Fails { until, .. }, Phase::Serving) => {
                Some(until.saturating_duration_since(now))
            }
            _ => None,
        };
        let traceback = is_new.then(|| traceback.to_owned());
        let news = News::CannotStart {
            number,
            why: why.clone(),
            traceback,
            again,
        };
        actions.push(Action::Announce(news));
        if self.ready_count() == 0 && self.phase == Phase::Serving {
            actions.push(Action::Announce(News::AppFailed { why }));
        }
        self.conclude(actions);
    }

    fn stop(&mut self, deadline: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        for seat in &mut self.seats {
            match seat.state {
                State::Ready { number, .. } => {
                    seat.state = State::Leaving { number, deadline };
                    actions.push(Action::Drain { number });
                }
                // It serves nobody, and Python that imports hears nothing.
                State::Starting { number, .. } | State::Doomed { number, .. } => {
                    seat.state = State::Killed { number };
                    actions.push(Action::Kill { number });
                }
                State::Leaving { number, .. } => seat.state = State::Leaving { number, deadline },
                State::Vacant { .. } => seat.state = State::Closed,
                State::Killed { .. } | State::Closed => {}
            }
        }
    }

    fn abort(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        for seat in &mut self.seats {
            match seat.state.number() {
                Some(number) => {
                    seat.state = State::Killed { number };
                    actions.push(Action::Kill { number });
                }
                None => seat.state = State::Closed,
            }
        }
    }

    fn enforce_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.seats.len() {
            match self.seats[index].state {
                State::Starting { number, since } if since + self.settings.boot_timeout <= now => {
                    self.seats[index].state = State::Killed { number };
                    actions.push(Action::Kill { number });
                    let why = format!("not ready within {}", Elapsed(self.settings.boot_timeout));
                    self.cannot_start(now, number, why, "", actions);
                }
                State::Doomed { number, deadline } if deadline <= now => {
                    self.seats[index].state = State::Killed { number };
                    actions.push(Action::Kill { number });
                }
                State::Leaving { number, deadline } if deadline <= now => {
                    self.seats[index].state = State::Killed { number };
                    actions.push(Action::Announce(News::Overdue { number }));
                    actions.push(Action::Kill { number });
                }
                _ => {}
            }
        }
    }

    fn fill(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.seats.len() {
            let State::Vacant { from } = self.seats[index].state else {
                continue;
            };
            let held = match &self.boot {
                Boot::Works => false,
                Boot::Fails { until, .. } => *until > now || self.someone_tries(),
            };
            if from <= now && !held {
                self.number += 1;
                self.seats[index].state = State::Starting {
                    number: self.number,
                    since: now,
                };
                actions.push(Action::Start {
                    number: self.number,
                });
            }
        }
    }

    fn decide(&mut self, actions: &mut Vec<Action>) {
        if self.ready_count() == self.seats.len() {
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

impl Boot {
    /// One could not start. Returns whether its traceback is worth telling.
    fn failed(&mut self, now: Instant, traceback: &str) -> bool {
        if let Self::Works = self {
            *self = Self::Fails {
                until: now,
                failures: Backoff::new(),
                told: VecDeque::new(),
            };
        }
        let Self::Fails {
            until,
            failures,
            told,
        } = self
        else {
            return false;
        };
        // Those who were started together fail together, and are one failure.
        if *until <= now {
            *until = failures.died(now);
        }
        let mut digest = DefaultHasher::new();
        traceback.hash(&mut digest);
        let digest = digest.finish();
        let is_new = !traceback.is_empty() && !told.contains(&digest);
        if is_new {
            told.truncate(TOLD_MAX - 1);
            told.push_front(digest);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const BOOT: Duration = Duration::from_secs(60);
    const SEGV: Exit = Exit::Signal {
        number: 11,
        core: false,
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A pool, its clock, and words for what happens.
    struct Story {
        pool: Pool,
        now: Instant,
    }

    impl Story {
        fn of(workers: u16) -> Self {
            let now = Instant::now();
            Self {
                pool: Pool::new(
                    Settings {
                        workers,
                        boot_timeout: BOOT,
                    },
                    now,
                ),
                now,
            }
        }

        fn on(&mut self, event: Event) -> Vec<Action> {
            self.pool.step(self.now, event)
        }

        fn after(&mut self, time: Duration) -> Vec<Action> {
            self.now += time;
            self.on(Event::Tick)
        }

        fn failed(&mut self, number: u32, traceback: &str) -> Vec<Action> {
            self.on(Event::Failed {
                number,
                why: "no".to_owned(),
                traceback: traceback.to_owned(),
            })
        }

        fn wait(&self) -> Option<Duration> {
            self.pool
                .wake()
                .map(|at| at.saturating_duration_since(self.now))
        }
    }

    fn start(number: u32) -> Action {
        Action::Start { number }
    }

    fn told(news: News) -> Action {
        Action::Announce(news)
    }

    fn ready(number: u32, after: Duration) -> Action {
        told(News::Ready { number, after })
    }

    fn cannot_start(number: u32, why: &str, traceback: Option<&str>, again: Option<u64>) -> Action {
        let traceback = traceback.map(str::to_owned);
        told(News::CannotStart {
            number,
            why: why.to_owned(),
            traceback,
            again: again.map(millis),
        })
    }

    fn app_failed(why: &str) -> Action {
        told(News::AppFailed {
            why: why.to_owned(),
        })
    }

    #[test]
    fn all_start_at_once_and_the_last_to_be_ready_decides_the_round() {
        let mut story = Story::of(2);
        assert_eq!(story.wait(), Some(Duration::ZERO));
        assert_eq!(story.on(Event::Tick), [start(1), start(2)]);
        assert_eq!(story.wait(), Some(BOOT));
        story.now += millis(80);
        assert_eq!(story.on(Event::Ready { number: 2 }), [ready(2, millis(80))]);
        assert_eq!(
            story.on(Event::Ready { number: 1 }),
            [ready(1, millis(80)), told(News::Decided)]
        );
        assert_eq!(story.wait(), None);
        assert_eq!(story.pool.ready_count(), 2);
    }

    #[test]
    fn a_dead_worker_is_followed_by_one_with_a_new_number() {
        let mut story = Story::of(1);
        story.on(Event::Tick);
        story.on(Event::Ready { number: 1 });
        story.now += seconds(60);
        let died = News::Died {
            number: 1,
            exit: SEGV,
            lived: seconds(60),
            again: millis(100),
        };
        assert_eq!(
            story.on(Event::Exited {
                number: 1,
                exit: SEGV
            }),
            [told(died)]
        );
        assert_eq!(story.wait(), Some(millis(100)));
        assert_eq!(story.after(millis(99)), []);
        assert_eq!(story.after(millis(1)), [start(2)]);
        assert_eq!(
            story.on(Event::Ready { number: 2 }),
            [ready(2, Duration::ZERO)]
        );
        let died = News::Died {
            number: 2,
            exit: SEGV,
            lived: Duration::ZERO,
            again: millis(200),
        };
        assert_eq!(
            story.on(Event::Exited {
                number: 2,
                exit: SEGV
            }),
            [told(died)],
            "the wait grows"
        );
    }

    #[test]
    fn one_at_a_time_tries_again_and_a_traceback_is_told_once() {
        let mut story = Story::of(2);
        story.on(Event::Tick);
        let first = [
            cannot_start(1, "no", Some("Traceback"), Some(100)),
            app_failed("no"),
            told(News::Decided),
        ];
        assert_eq!(story.failed(1, "Traceback"), first);
        assert_eq!(
            story.failed(2, "Traceback"),
            [cannot_start(2, "no", None, Some(100)), app_failed("no")],
            "both are one failure"
        );
        story.on(Event::Exited {
            number: 1,
            exit: Exit::Code(1),
        });
        story.on(Event::Exited {
            number: 2,
            exit: Exit::Code(1),
        });
        assert_eq!(story.after(millis(100)), [start(3)]);
        assert_eq!(story.wait(), Some(BOOT));
        let again = [cannot_start(3, "no", None, Some(200)), app_failed("no")];
        assert_eq!(story.failed(3, "Traceback"), again);
        story.on(Event::Exited {
            number: 3,
            exit: Exit::Code(1),
        });
        assert_eq!(story.after(millis(200)), [start(4)]);
        let other = [
            cannot_start(4, "no", Some("Other"), Some(400)),
            app_failed("no"),
        ];
        assert_eq!(story.failed(4, "Other"), other);
        story.on(Event::Exited {
            number: 4,
            exit: Exit::Code(1),
        });
        assert_eq!(story.after(millis(400)), [start(5)]);
        assert_eq!(
            story.on(Event::Ready { number: 5 }),
            [ready(5, Duration::ZERO), start(6)],
            "once one is ready the others follow"
        );
    }

    #[test]
    fn silence_death_and_a_missing_interpreter_are_failures_to_start() {
        let mut story = Story::of(1);
        story.on(Event::Tick);
        let not_started = Event::NotStarted {
            number: 1,
            why: "cannot run x".to_owned(),
        };
        let expected = [
            cannot_start(1, "cannot run x", None, Some(100)),
            app_failed("cannot run x"),
            told(News::Decided),
        ];
        assert_eq!(story.on(not_started), expected);
        assert_eq!(story.after(millis(100)), [start(2)]);
        let why = "killed by SIGSEGV before it was ready";
        let expected = [cannot_start(2, why, None, Some(200)), app_failed(why)];
        assert_eq!(
            story.on(Event::Exited {
                number: 2,
                exit: SEGV
            }),
            expected
        );
        assert_eq!(story.after(millis(200)), [start(3)]);
        let why = "not ready within 1 min 0 s";
        let expected = [
            Action::Kill { number: 3 },
            cannot_start(3, why, None, Some(400)),
            app_failed(why),
        ];
        assert_eq!(story.after(BOOT), expected);
        assert_eq!(story.on(Event::Ready { number: 3 }), [], "too late");
        let killed = Exit::Signal {
            number: 9,
            core: false,
        };
        assert_eq!(
            story.on(Event::Exited {
                number: 3,
                exit: killed
            }),
            []
        );
        assert_eq!(story.after(millis(400)), [start(4)]);
    }

    #[test]
    fn who_failed_and_does_not_leave_is_killed() {
        let mut story = Story::of(1);
        story.on(Event::Tick);
        story.failed(1, "");
        assert_eq!(story.after(LAST_WORDS), [Action::Kill { number: 1 }]);
        assert_eq!(story.wait(), None);
    }

    #[test]
    fn while_another_serves_a_failure_to_start_is_not_the_apps() {
        let mut story = Story::of(2);
        story.on(Event::Tick);
        story.on(Event::Ready { number: 1 });
        let expected = [
            cannot_start(2, "no", Some("Traceback"), Some(100)),
            told(News::Decided),
        ];
        assert_eq!(story.failed(2, "Traceback"), expected);
    }

    #[test]
    fn stopping_drains_who_serves_kills_who_starts_and_starts_nobody() {
        let mut story = Story::of(3);
        story.on(Event::Tick);
        story.on(Event::Ready { number: 1 });
        story.on(Event::Ready { number: 2 });
        let deadline = story.now + seconds(30);
        let expected = [
            Action::Drain { number: 1 },
            Action::Drain { number: 2 },
            Action::Kill { number: 3 },
        ];
        assert_eq!(story.on(Event::Stop { deadline }), expected);
        assert_eq!(
            story.on(Event::Exited {
                number: 3,
                exit: SEGV
            }),
            []
        );
        let left = News::Left {
            number: 1,
            exit: Exit::Code(0),
        };
        assert_eq!(
            story.on(Event::Exited {
                number: 1,
                exit: Exit::Code(0)
            }),
            [told(left)]
        );
        assert!(!story.pool.is_closed());
        assert_eq!(story.wait(), Some(seconds(30)));
        let expected = [
            told(News::Overdue { number: 2 }),
            Action::Kill { number: 2 },
        ];
        assert_eq!(story.after(seconds(30)), expected);
        assert_eq!(
            story.on(Event::Exited {
                number: 2,
                exit: SEGV
            }),
            []
        );
        assert!(story.pool.is_closed());
        assert_eq!(story.after(seconds(60)), []);
    }

    #[test]
    fn aborting_kills_everybody_whatever_they_do() {
        let mut story = Story::of(2);
        story.on(Event::Tick);
        story.on(Event::Ready { number: 1 });
        story.on(Event::Stop {
            deadline: story.now + seconds(30),
        });
        let expected = [Action::Kill { number: 1 }, Action::Kill { number: 2 }];
        assert_eq!(story.on(Event::Abort), expected);
    }

    /// What the world may do next.
    #[derive(Clone, Copy, Debug)]
    enum Move {
        Wait(u64),
        /// The event is about the n-th of the live workers.
        Ready(usize),
        Failed(usize),
        Exited(usize),
        NotStarted(usize),
        Stop(u64),
        Abort,
    }

    fn moves() -> impl Strategy<Value = Move> {
        prop_oneof![
            8 => (0u64..70_000).prop_map(Move::Wait),
            8 => (0usize..8).prop_map(Move::Ready),
            4 => (0usize..8).prop_map(Move::Failed),
            8 => (0usize..8).prop_map(Move::Exited),
            2 => (0usize..8).prop_map(Move::NotStarted),
            1 => (0u64..40_000).prop_map(Move::Stop),
            1 => Just(Move::Abort),
        ]
    }

    /// What the world knows of a live worker.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Alive {
        Started,
        Ready,
        Going,
    }

    /// Runs a pool against random events and checks, at every step, what must always be true.
    struct World {
        story: Story,
        workers: usize,
        alive: BTreeMap<u32, Alive>,
        highest: u32,
        stopping: bool,
        decided: bool,
    }

    impl World {
        fn apply(&mut self, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::Start { number } => {
                        assert!(!self.stopping, "started {number} while stopping");
                        assert!(number > self.highest, "{number} was used before");
                        self.highest = number;
                        self.alive.insert(number, Alive::Started);
                    }
                    Action::Drain { number } | Action::Kill { number } => {
                        let going = self.alive.insert(number, Alive::Going);
                        assert!(going.is_some(), "{number} is not alive");
                    }
                    Action::Announce(News::Ready { number, .. }) => {
                        assert_eq!(
                            self.alive.insert(number, Alive::Ready),
                            Some(Alive::Started)
                        );
                    }
                    Action::Announce(News::AppFailed { .. }) => {
                        assert!(!self.alive.values().any(|state| *state == Alive::Ready));
                    }
                    Action::Announce(News::Decided) => {
                        assert!(!self.decided, "decided twice");
                        self.decided = true;
                    }
                    Action::Announce(_) => {}
                }
            }
            self.check();
        }

        fn check(&self) {
            assert!(
                self.alive.len() <= self.workers,
                "more processes than workers"
            );
            let ready = self
                .alive
                .values()
                .filter(|state| **state == Alive::Ready)
                .count();
            assert_eq!(self.story.pool.ready_count(), ready);
            if let Some(wake) = self.story.pool.wake() {
                assert!(
                    wake > self.story.now,
                    "it would be woken for nothing, for ever"
                );
            }
            assert_eq!(
                self.story.pool.is_closed(),
                self.stopping && self.alive.is_empty()
            );
            if !self.stopping && self.alive.len() < self.workers && self.story.pool.wake().is_none()
            {
                panic!("a seat is empty and nobody will see to it");
            }
        }

        fn take(&mut self, index: usize) -> Option<u32> {
            self.alive.keys().copied().nth(index)
        }

        fn go(&mut self, next: Move) {
            let event = match next {
                Move::Wait(time) => {
                    self.story.now += millis(time);
                    Some(Event::Tick)
                }
                Move::Ready(index) => self.take(index).map(|number| Event::Ready { number }),
                Move::Failed(index) => self.take(index).map(|number| Event::Failed {
                    number,
                    why: "no".to_owned(),
                    traceback: "Traceback".to_owned(),
                }),
                Move::Exited(index) => self
                    .end(index)
                    .map(|number| Event::Exited { number, exit: SEGV }),
                Move::NotStarted(index) => self.end(index).map(|number| Event::NotStarted {
                    number,
                    why: "no".to_owned(),
                }),
                Move::Stop(time) => {
                    self.stopping = true;
                    let deadline = self.story.now + millis(time + 1);
                    Some(Event::Stop { deadline })
                }
                Move::Abort => {
                    self.stopping = true;
                    Some(Event::Abort)
                }
            };
            if let Some(event) = event {
                let actions = self.story.on(event);
                self.apply(actions);
            }
        }

        fn end(&mut self, index: usize) -> Option<u32> {
            let number = self.take(index)?;
            self.alive.remove(&number);
            Some(number)
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_in_whatever_order(
            workers in 1u16..6,
            moves in proptest::collection::vec(moves(), 0..200),
        ) {
            let mut world = World {
                story: Story::of(workers),
                workers: workers.into(),
                alive: BTreeMap::new(),
                highest: 0,
                stopping: false,
                decided: false,
            };
            world.go(Move::Wait(0));
            for next in moves {
                world.go(next);
            }
            // And every start has an end.
            world.go(Move::Abort);
            while !world.alive.is_empty() {
                world.go(Move::Exited(0));
            }
            prop_assert!(world.story.pool.is_closed());
        }
    }
}
