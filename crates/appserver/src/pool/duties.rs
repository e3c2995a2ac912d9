//! What time does, and what is always to be done.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use telemetry::text::Elapsed;

use super::{
    Action, Farewell, LAST_MOMENT, LAST_STACK, Make, News, Parting, Phase, Pool, Purpose, Recruit,
    Round, State, Wear,
};

impl Pool {
    pub(super) fn enforce_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
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
            let why = format!("not ready within {} (boot_timeout)", Elapsed(patience));
            self.doom(now, number, now + LAST_STACK, why, String::new(), actions);
        }
    }

    pub(super) fn fill(&mut self, now: Instant, actions: &mut Vec<Action>) {
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
    pub(super) fn replace(&mut self, now: Instant, actions: &mut Vec<Action>) {
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
    pub(super) fn worst_worn(&self) -> Option<(u32, Wear)> {
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
    pub(super) fn may_replace(&self) -> bool {
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

    pub(super) fn decide(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && self.ready_count() == self.seats.len() {
            self.conclude(actions);
        }
    }

    pub(super) fn conclude(&mut self, actions: &mut Vec<Action>) {
        if self.round == Round::Open {
            self.round = Round::Decided;
            actions.push(Action::Announce(News::Decided));
        }
    }
}
