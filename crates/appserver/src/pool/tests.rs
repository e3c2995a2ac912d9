//! The pool's rules, each as a story, and what must hold whatever happens in whatever order.

use std::collections::BTreeMap;

use proptest::{prelude::*, strategy::Strategy as _};

use super::*;
use config::site::Strategy;

const BOOT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(30);
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
        Self::with(settings(Workers::fixed(workers)))
    }

    fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let pool = Pool::new(settings, 0, now);
        Self { pool, now }
    }

    /// With all workers ready: 1, 2, ….
    fn serving(settings: Settings) -> Self {
        let mut story = Self::with(settings);
        story.on(Event::Tick);
        for number in 1..=u32::from(settings.workers.least) {
            story.ready(number);
        }
        story
    }

    fn ready(&mut self, number: u32) -> Vec<Action> {
        self.on(Event::Ready { number })
    }

    fn released(&mut self, number: u32) -> Vec<Action> {
        self.on(Event::Released { number })
    }

    fn worn(&mut self, number: u32, why: Wear) -> Vec<Action> {
        self.on(Event::Worn { number, why })
    }

    fn exits(&mut self, number: u32) -> Vec<Action> {
        let exit = Exit::Code(0);
        self.on(Event::Exited { number, exit })
    }

    fn stage(&mut self, workers: u16, strategy: Strategy) -> Vec<Action> {
        let settings = settings(Workers::fixed(workers));
        self.on(Event::Stage { settings, strategy })
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

fn settings(workers: Workers) -> Settings {
    Settings {
        workers,
        threads: 4,
        boot_timeout: BOOT,
        grace: GRACE,
        max_age: None,
    }
}

fn start(number: u32) -> Action {
    let make = Make::Current;
    Action::Start { number, make }
}

fn start_staged(number: u32) -> Action {
    let make = Make::Staged;
    Action::Start { number, make }
}

fn release(number: u32) -> Action {
    Action::Release { number }
}

fn drain(number: u32) -> Action {
    Action::Drain { number }
}

fn killed(number: u32) -> Action {
    Action::Kill { number }
}

fn at_once(number: u32) -> Action {
    ready(number, Duration::ZERO)
}

fn replacing(number: u32, why: Wear) -> Action {
    told(News::Replacing { number, why })
}

fn left(number: u32, parting: Parting) -> Action {
    told(News::Left {
        number,
        parting,
        exit: Exit::Code(0),
    })
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
        Action::Dump { number: 3 },
        cannot_start(3, why, None, Some(400)),
        app_failed(why),
    ];
    assert_eq!(story.after(BOOT), expected);
    assert_eq!(story.ready(3), [], "too late");
    assert_eq!(story.wait(), Some(LAST_STACK), "it prints where it hangs");
    assert_eq!(story.after(LAST_STACK), [killed(3)]);
    assert_eq!(story.exits(3), [start(4)]);
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
        parting: Parting::Stop,
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
    let (number, exit) = (2, SEGV);
    let parting = Parting::Overdue;
    let left = [told(News::Left {
        number,
        parting,
        exit,
    })];
    assert_eq!(story.on(Event::Exited { number, exit }), left);
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

#[test]
fn a_worn_worker_leaves_when_another_is_ready_and_the_next_one_when_it_has_left() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    assert_eq!(
        story.worn(1, Wear::Requests),
        [replacing(1, Wear::Requests), start(3)]
    );
    assert_eq!(story.worn(2, Wear::Requests), [], "one at a time");
    assert_eq!(story.pool.ready_count(), 2);
    assert_eq!(story.ready(3), [at_once(3), release(1)]);
    assert_eq!(story.wait(), Some(GRACE));
    assert_eq!(story.released(1), [drain(1)]);
    assert_eq!(
        story.exits(1),
        [
            left(1, Parting::Worn(Wear::Requests)),
            replacing(2, Wear::Requests),
            start(4)
        ]
    );
    assert_eq!(story.ready(4), [at_once(4), release(2)]);
}

#[test]
fn a_worker_that_is_stuck_waits_for_nobody_and_is_not_waited_for() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    story.worn(1, Wear::Requests);
    story.ready(3);
    let expected = [replacing(2, Wear::Stuck), start(4)];
    assert_eq!(story.worn(2, Wear::Stuck), expected, "1 has not left yet");
    assert_eq!(story.ready(4), [at_once(4), release(2)]);
    assert_eq!(story.released(2), [drain(2)], "its other requests are done");
    assert_eq!(story.wait(), Some(LAST_WORDS));
    let expected = [told(News::Overdue { number: 2 }), killed(2)];
    assert_eq!(story.after(LAST_WORDS), expected);
    let killed = story.exits(2);
    assert_eq!(
        killed,
        [left(2, Parting::Overdue)],
        "the proxy is to forget it"
    );
}

#[test]
fn a_release_has_an_end() {
    let mut story = Story::serving(settings(Workers::fixed(1)));
    story.worn(1, Wear::Memory { rss: 1 });
    story.ready(2);
    assert_eq!(
        story.after(GRACE),
        [drain(1)],
        "a request runs for too long"
    );
    let expected = [told(News::Overdue { number: 1 }), killed(1)];
    assert_eq!(story.after(LAST_MOMENT), expected);
    assert_eq!(story.released(1), [], "too late");
}

#[test]
fn one_that_cannot_be_replaced_serves_on_and_is_tried_again() {
    let mut story = Story::serving(settings(Workers::fixed(1)));
    story.worn(1, Wear::Requests);
    let expected = [cannot_start(2, "no", Some("Traceback"), Some(100))];
    assert_eq!(story.failed(2, "Traceback"), expected);
    assert_eq!(story.pool.ready_count(), 1);
    assert_eq!(story.exits(2), []);
    let expected = [replacing(1, Wear::Requests), start(3)];
    assert_eq!(story.after(millis(100)), expected);
}

#[test]
fn who_was_to_be_replaced_and_dies_leaves_its_seat_to_the_one_on_its_way() {
    let mut story = Story::serving(settings(Workers::fixed(1)));
    story.worn(1, Wear::Requests);
    let died = News::Died {
        number: 1,
        exit: SEGV,
        lived: Duration::ZERO,
        again: Duration::ZERO,
    };
    let number = 1;
    assert_eq!(story.on(Event::Exited { number, exit: SEGV }), [told(died)]);
    assert_eq!(story.ready(2), [at_once(2)]);
    assert_eq!(story.wait(), None);
}

#[test]
fn workers_age_one_after_the_other() {
    let mut story = Story::serving(Settings {
        max_age: Some(seconds(1000)),
        ..settings(Workers::fixed(2))
    });
    let first = story.wait().expect("somebody is to become old");
    assert!((900..=1100).contains(&first.as_secs()), "{first:?}");
    let actions = story.after(first);
    assert!(
        matches!(actions[..], [_, Action::Start { number: 3, .. }]),
        "{actions:?}"
    );
}

#[test]
fn a_generation_takes_over_when_all_of_it_is_ready_and_asked_to() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    assert_eq!(
        story.stage(3, Strategy::SideBySide),
        [3, 4, 5].map(start_staged)
    );
    assert_eq!(story.ready(3), []);
    assert_eq!(story.ready(5), []);
    assert_eq!(story.ready(4), [told(News::Staged)]);
    assert_eq!(story.pool.ready_count(), 2, "nothing has changed yet");
    let mut actions = story.on(Event::Commit);
    assert_eq!(actions.pop(), Some(told(News::Renewed)));
    assert_eq!(actions.split_off(3), [release(1), release(2)]);
    assert_eq!(actions, [3, 5, 4].map(at_once), "before anybody leaves");
    assert_eq!(story.pool.ready_count(), 3);
}

#[test]
fn a_generation_that_cannot_start_changes_nothing() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    story.stage(2, Strategy::SideBySide);
    story.ready(3);
    let failed = News::StageFailed {
        number: 4,
        why: "no".to_owned(),
        traceback: "Traceback".to_owned(),
    };
    let expected = [killed(3), told(failed)];
    assert_eq!(story.failed(4, "Traceback"), expected);
    assert_eq!(story.on(Event::Commit), [], "there is nothing to commit");
    story.exits(3);
    story.exits(4);
    assert_eq!((story.pool.ready_count(), story.wait()), (2, None));
    let expected = [start_staged(5), start_staged(6)];
    assert_eq!(
        story.stage(2, Strategy::SideBySide),
        expected,
        "the next one may"
    );
}

#[test]
fn a_generation_that_hangs_is_ended_and_says_where() {
    let mut story = Story::serving(settings(Workers::fixed(1)));
    story.stage(1, Strategy::SideBySide);
    let failed = News::StageFailed {
        number: 2,
        why: "not ready within 1 min 0 s".to_owned(),
        traceback: String::new(),
    };
    let expected = [Action::Dump { number: 2 }, told(failed)];
    assert_eq!(story.after(BOOT), expected);
    assert_eq!(story.after(LAST_STACK), [killed(2)]);
}

#[test]
fn recruits_that_die_before_the_commit_are_missed_by_nobody() {
    let mut story = Story::serving(settings(Workers::fixed(1)));
    story.stage(1, Strategy::SideBySide);
    assert_eq!(story.ready(2), [told(News::Staged)]);
    assert_eq!(story.exits(2), []);
    let expected = [replacing(1, Wear::Superseded), start(3)];
    assert_eq!(story.on(Event::Commit), expected, "the old one serves on");
    let renewed = [at_once(3), release(1), told(News::Renewed)];
    assert_eq!(story.ready(3), renewed);
}

#[test]
fn rolling_replaces_one_at_a_time() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    assert_eq!(story.stage(2, Strategy::Rolling), [start_staged(3)]);
    assert_eq!(story.ready(3), [told(News::Staged)]);
    let first = [at_once(3), release(2)];
    assert_eq!(story.on(Event::Commit), first);
    story.released(2);
    let second = [
        left(2, Parting::Worn(Wear::Superseded)),
        replacing(1, Wear::Superseded),
        start(4),
    ];
    assert_eq!(story.exits(2), second);
    let renewed = [at_once(4), release(1), told(News::Renewed)];
    assert_eq!(story.ready(4), renewed);
}

#[test]
fn a_roll_that_stops_says_so_and_goes_on_when_it_can() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    story.stage(2, Strategy::Rolling);
    story.ready(3);
    story.on(Event::Commit);
    story.exits(2);
    let failed = News::RenewFailed {
        left: 1,
        why: "no".to_owned(),
    };
    let expected = [cannot_start(4, "no", None, Some(100)), told(failed)];
    assert_eq!(story.failed(4, ""), expected);
    story.exits(4);
    let again = [replacing(1, Wear::Superseded), start(5)];
    assert_eq!(story.after(millis(100)), again);
    assert_eq!(story.ready(5), [at_once(5), release(1)], "told once");
}

#[test]
fn generations_do_not_pile_up() {
    let mut story = Story::serving(settings(Workers::fixed(1)));
    story.stage(1, Strategy::SideBySide);
    story.ready(2);
    story.on(Event::Commit);
    story.stage(1, Strategy::SideBySide);
    story.ready(3);
    story.on(Event::Commit);
    assert_eq!(
        story.stage(1, Strategy::SideBySide),
        [],
        "1 and 2 still leave"
    );
    assert_eq!(
        story.exits(1),
        [left(1, Parting::Worn(Wear::Superseded)), start_staged(4)]
    );
}

#[test]
fn a_reload_mends_an_app_that_cannot_start() {
    let mut story = Story::of(2);
    story.on(Event::Tick);
    story.failed(1, "");
    story.failed(2, "");
    story.exits(1);
    story.exits(2);
    assert_eq!(
        story.stage(2, Strategy::SideBySide),
        [3, 4].map(start_staged)
    );
    story.ready(3);
    story.ready(4);
    let expected = [at_once(3), at_once(4), told(News::Renewed)];
    assert_eq!(story.on(Event::Commit), expected);
    assert_eq!(story.wait(), None);
}

#[test]
fn people_and_load_change_the_number() {
    let range = Workers { least: 1, most: 2 };
    let mut story = Story::serving(settings(range));
    let resized = |workers| told(News::Resized { workers });
    let pressed = Event::Load(Load {
        waited: seconds(1),
        busy: 4,
    });
    assert_eq!(story.on(pressed.clone()), []);
    assert_eq!(story.on(pressed.clone()), [resized(2), start(2)]);
    story.on(pressed.clone());
    assert_eq!(story.on(pressed.clone()), [], "one is on its way");
    story.ready(2);
    story.on(pressed.clone());
    assert_eq!(story.on(pressed), [], "no more than that");
    assert_eq!(story.on(Event::Grow), [resized(3), start(3)], "people may");
    assert_eq!(story.on(Event::Shrink), [killed(3), resized(2)]);
    assert_eq!(story.on(Event::Shrink), [release(2), resized(1)]);
    assert_eq!(story.on(Event::Shrink), [], "never none");
}

#[test]
fn an_app_that_is_no_more_finishes_what_runs() {
    let mut story = Story::serving(settings(Workers::fixed(2)));
    assert_eq!(story.on(Event::Dissolve), [release(1), release(2)]);
    assert_eq!(story.released(1), [drain(1)]);
    story.exits(1);
    story.exits(2);
    assert!(story.pool.is_closed());
}

#[test]
fn figures_differ_by_a_tenth_at_most() {
    let figures: Vec<u64> = (1..1000).map(|number| jittered(1000, number)).collect();
    assert!(figures.iter().all(|figure| (900..=1100).contains(figure)));
    assert!(figures.iter().any(|figure| *figure < 920));
    assert!(figures.iter().any(|figure| *figure > 1080));
    assert_eq!(jittered(u64::MAX, 1).min(1), 1, "no overflow");
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
    Released(usize),
    Worn(usize, Wear),
    Load(u64, u32),
    Grow,
    Shrink,
    Update(u16),
    Stage(u16, Strategy),
    Commit,
    Abandon,
    Stop(u64),
    Dissolve,
    Abort,
}

fn moves() -> impl proptest::strategy::Strategy<Value = Move> {
    let which = 0usize..8;
    prop_oneof![
        8 => (0u64..70_000).prop_map(Move::Wait),
        16 => which.clone().prop_map(Move::Ready),
        4 => which.clone().prop_map(Move::Failed),
        8 => which.clone().prop_map(Move::Exited),
        2 => which.clone().prop_map(Move::NotStarted),
        6 => which.clone().prop_map(Move::Released),
        4 => (which, wears()).prop_map(|(index, why)| Move::Worn(index, why)),
        2 => (0u64..300, 0u32..9).prop_map(|(waited, busy)| Move::Load(waited, busy)),
        1 => Just(Move::Grow),
        1 => Just(Move::Shrink),
        1 => (1u16..6).prop_map(Move::Update),
        3 => (1u16..6, strategies()).prop_map(|(workers, how)| Move::Stage(workers, how)),
        4 => Just(Move::Commit),
        1 => Just(Move::Abandon),
    ]
}

fn ends() -> impl proptest::strategy::Strategy<Value = Move> {
    prop_oneof![
        (0u64..40_000).prop_map(Move::Stop),
        Just(Move::Dissolve),
        Just(Move::Abort),
    ]
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![Just(Strategy::SideBySide), Just(Strategy::Rolling)]
}

fn wears() -> impl proptest::strategy::Strategy<Value = Wear> {
    prop_oneof![
        Just(Wear::Age),
        Just(Wear::Requests),
        Just(Wear::Memory { rss: 1 }),
        Just(Wear::Stuck),
    ]
}

/// What the world knows of a live worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive {
    /// Of the current generation or the staged one, on its way.
    Started(Make),
    /// It is ready and waits for the commit.
    Staged,
    /// It serves.
    Ready,
    /// It was told to go.
    Going,
}

/// Runs a pool against random events and checks, at every step, what must always be true.
struct World {
    story: Story,
    alive: BTreeMap<u32, Alive>,
    highest: u32,
    /// The most workers that anybody has asked for at this time.
    most: usize,
    staged: Option<(usize, Strategy)>,
    ready_to_commit: bool,
    stopping: bool,
    decided: bool,
}

impl World {
    fn of(workers: Workers) -> Self {
        Self {
            story: Story::with(settings(workers)),
            alive: BTreeMap::new(),
            highest: 0,
            most: workers.most.into(),
            staged: None,
            ready_to_commit: false,
            stopping: false,
            decided: false,
        }
    }

    fn serving(&self) -> usize {
        self.count(|state| state == Alive::Ready)
    }

    fn count(&self, is: impl Fn(Alive) -> bool) -> usize {
        self.alive.values().filter(|state| is(**state)).count()
    }

    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start { number, make } => {
                    assert!(!self.stopping, "started {number} while stopping");
                    assert!(number > self.highest, "{number} was used before");
                    assert!(make == Make::Current || self.staged.is_some());
                    self.highest = number;
                    self.alive.insert(number, Alive::Started(make));
                }
                Action::Release { number } => {
                    let was = self.alive.insert(number, Alive::Going);
                    assert_eq!(was, Some(Alive::Ready), "{number} does not serve");
                    let left = self.serving();
                    assert!(left > 0 || self.stopping, "nobody serves, because of us");
                }
                Action::Drain { number } | Action::Kill { number } => {
                    let was = self.alive.insert(number, Alive::Going);
                    assert!(was.is_some(), "{number} is not alive");
                    // Who serves is let go of first.
                    assert!(self.stopping || was != Some(Alive::Ready));
                }
                // It is too late to be ready.
                Action::Dump { number } => {
                    let was = self.alive.insert(number, Alive::Going);
                    assert!(matches!(was, Some(Alive::Started(_))), "{number}: {was:?}");
                }
                Action::Announce(news) => self.hear(&news),
            }
        }
    }

    fn hear(&mut self, news: &News) {
        match news {
            News::Ready { number, .. } => {
                let was = self.alive.insert(*number, Alive::Ready);
                let came = matches!(was, Some(Alive::Started(_) | Alive::Staged));
                assert!(came, "{number}: {was:?}");
            }
            News::AppFailed { .. } => assert_eq!(self.serving(), 0),
            News::Decided => {
                assert!(!self.decided, "decided twice");
                self.decided = true;
            }
            News::Staged => {
                assert!(self.staged.is_some() && !self.ready_to_commit);
                self.ready_to_commit = true;
            }
            News::StageFailed { .. } => {
                assert!(!self.ready_to_commit, "what is ready stays ready");
                self.staged = None;
            }
            _ => {}
        }
    }

    fn check(&self) {
        let present = self.count(|state| state != Alive::Going);
        let beside = match self.staged {
            Some((workers, Strategy::SideBySide)) => workers,
            Some((_, Strategy::Rolling)) => 1,
            None => 0,
        };
        assert!(
            present <= self.most + 1 + beside,
            "{present} of {} and {beside}",
            self.most
        );
        assert_eq!(self.story.pool.ready_count(), self.serving());
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
        if !self.stopping && self.alive.is_empty() && self.story.pool.wake().is_none() {
            panic!("nobody is there and nobody will come");
        }
    }

    fn take(&self, index: usize) -> Option<u32> {
        self.alive.keys().copied().nth(index)
    }

    fn end(&mut self, index: usize) -> Option<u32> {
        let number = self.take(index)?;
        self.alive.remove(&number);
        Some(number)
    }

    fn event(&mut self, next: Move) -> Option<Event> {
        let why = || "no".to_owned();
        match next {
            Move::Wait(time) => {
                self.story.now += millis(time);
                Some(Event::Tick)
            }
            Move::Ready(index) => self.take(index).map(|number| {
                if let Some(state @ Alive::Started(Make::Staged)) = self.alive.get_mut(&number) {
                    *state = Alive::Staged;
                }
                Event::Ready { number }
            }),
            Move::Failed(index) => self.take(index).map(|number| {
                if let Some(state @ Alive::Started(_)) = self.alive.get_mut(&number) {
                    *state = Alive::Going;
                }
                Event::Failed {
                    number,
                    why: why(),
                    traceback: "Traceback".to_owned(),
                }
            }),
            Move::Exited(index) => {
                let exit = SEGV;
                self.end(index).map(|number| Event::Exited { number, exit })
            }
            Move::NotStarted(index) => {
                // Only who has just been started can have no process.
                let number = self.take(index)?;
                matches!(self.alive[&number], Alive::Started(_)).then(|| {
                    self.alive.remove(&number);
                    Event::NotStarted { number, why: why() }
                })
            }
            Move::Released(index) => self.take(index).map(|number| Event::Released { number }),
            Move::Worn(index, why) => self.take(index).map(|number| Event::Worn { number, why }),
            Move::Load(waited, busy) => Some(Event::Load(Load {
                waited: millis(waited),
                busy,
            })),
            Move::Grow => {
                self.most += 1;
                Some(Event::Grow)
            }
            Move::Shrink => Some(Event::Shrink),
            Move::Update(workers) => {
                // What people have asked for beyond the file stays when the file says the same.
                self.most = self.most.max(workers.into());
                let settings = settings(Workers::fixed(workers));
                Some(Event::Update { settings })
            }
            Move::Stage(workers, strategy) => {
                self.staged = Some((workers.into(), strategy));
                self.ready_to_commit = false;
                let settings = settings(Workers::fixed(workers));
                Some(Event::Stage { settings, strategy })
            }
            Move::Commit => self.ready_to_commit.then_some(Event::Commit),
            Move::Abandon => {
                self.staged = None;
                self.ready_to_commit = false;
                Some(Event::Abandon)
            }
            Move::Stop(time) => {
                self.stopping = true;
                let deadline = self.story.now + millis(time + 1);
                Some(Event::Stop { deadline })
            }
            Move::Dissolve => {
                self.stopping = true;
                Some(Event::Dissolve)
            }
            Move::Abort => {
                self.stopping = true;
                Some(Event::Abort)
            }
        }
    }

    fn go(&mut self, next: Move) {
        let Some(event) = self.event(next) else {
            return;
        };
        let commits = event == Event::Commit;
        let actions = self.story.on(event);
        self.apply(actions);
        if commits && let Some((workers, _)) = self.staged.take() {
            self.ready_to_commit = false;
            // Those of the old generation that are kept until their turn comes are no more than the new one has seats.
            self.most = workers;
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_whatever_order(
        least in 1u16..5,
        more in 0u16..3,
        moves in proptest::collection::vec(moves(), 0..200),
        end in ends(),
        after in proptest::collection::vec(moves(), 0..20),
    ) {
        let mut world = World::of(Workers { least, most: least + more });
        world.go(Move::Wait(0));
        for next in moves {
            world.go(next);
        }
        world.go(end);
        for next in after {
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
