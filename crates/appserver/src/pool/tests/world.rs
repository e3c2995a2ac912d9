//! What must hold whatever happens in whatever order: never nobody ready because of us, never more than were asked for and one
//! besides, and every start has an end.

use std::collections::BTreeMap;

use config::site::Strategy;
use proptest::{prelude::*, strategy::Strategy as _};

use super::*;

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
