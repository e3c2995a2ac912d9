//! The pool's rules, each as a story; what must hold whatever happens in whatever order is in `world`.

mod world;

use config::site::Strategy;
use supervisor::child::Exit;

use super::*;

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

fn app_failed(why: &str, traceback: &str) -> Action {
    told(News::AppFailed {
        why: why.to_owned(),
        traceback: traceback.to_owned(),
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
        app_failed("no", "Traceback"),
        told(News::Decided),
    ];
    assert_eq!(story.failed(1, "Traceback"), first);
    assert_eq!(
        story.failed(2, "Traceback"),
        [
            cannot_start(2, "no", None, Some(100)),
            app_failed("no", "Traceback")
        ],
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
    let again = [
        cannot_start(3, "no", None, Some(200)),
        app_failed("no", "Traceback"),
    ];
    assert_eq!(story.failed(3, "Traceback"), again);
    story.on(Event::Exited {
        number: 3,
        exit: Exit::Code(1),
    });
    assert_eq!(story.after(millis(200)), [start(4)]);
    let other = [
        cannot_start(4, "no", Some("Other"), Some(400)),
        app_failed("no", "Other"),
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
        app_failed("cannot run x", ""),
        told(News::Decided),
    ];
    assert_eq!(story.on(not_started), expected);
    assert_eq!(story.after(millis(100)), [start(2)]);
    let why = "killed by SIGSEGV before it was ready";
    let expected = [cannot_start(2, why, None, Some(200)), app_failed(why, "")];
    assert_eq!(
        story.on(Event::Exited {
            number: 2,
            exit: SEGV
        }),
        expected
    );
    assert_eq!(story.after(millis(200)), [start(3)]);
    let why = "not ready within 1 min 0 s (boot_timeout)";
    let expected = [
        Action::Dump { number: 3 },
        cannot_start(3, why, None, Some(400)),
        app_failed(why, ""),
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
        why: "not ready within 1 min 0 s (boot_timeout)".to_owned(),
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
