//! What becomes of workers, one by one.

use std::time::{Duration, Instant};

use supervisor::child::Exit;

use super::{
    Action, Boot, Farewell, LAST_WORDS, News, Outgoing, Parting, Phase, Pool, Purpose, Recruit,
    Seat, State, Wear,
};

impl Pool {
    pub(super) fn ready(&mut self, now: Instant, number: u32, actions: &mut Vec<Action>) {
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

    pub(super) fn release(
        &mut self,
        now: Instant,
        number: u32,
        parting: Parting,
        actions: &mut Vec<Action>,
    ) {
        let deadline = now + self.settings.grace;
        self.outgoing.push(Outgoing {
            number,
            farewell: Farewell::Releasing { deadline },
            parting: Some(parting),
        });
        actions.push(Action::Release { number });
    }

    pub(super) fn kill(
        &mut self,
        number: u32,
        parting: Option<Parting>,
        actions: &mut Vec<Action>,
    ) {
        self.outgoing.push(Outgoing {
            number,
            farewell: Farewell::Killed,
            parting,
        });
        actions.push(Action::Kill { number });
    }

    pub(super) fn released(&mut self, now: Instant, number: u32, actions: &mut Vec<Action>) {
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

    pub(super) fn not_started(
        &mut self,
        now: Instant,
        number: u32,
        why: String,
        actions: &mut Vec<Action>,
    ) {
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

    pub(super) fn failed(
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
    pub(super) fn doom(
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

    pub(super) fn exited(
        &mut self,
        now: Instant,
        number: u32,
        exit: Exit,
        actions: &mut Vec<Action>,
    ) {
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
            actions.push(Action::Announce(News::AppFailed {
                why,
                traceback: traceback.to_owned(),
            }));
        }
        self.conclude(actions);
    }

    pub(super) fn worn(&mut self, number: u32, why: Wear) {
        if let Some(seat) = self.seat(number)
            && let State::Ready { wear, .. } = &mut seat.state
        {
            *wear = (*wear).max(Some(why));
        }
    }
}

impl Seat {
    pub(super) fn take(&mut self, number: u32, now: Instant, due: Option<Instant>) {
        self.state = State::Ready {
            number,
            since: now,
            due,
            wear: None,
        };
        self.deaths.up(now);
    }
}
