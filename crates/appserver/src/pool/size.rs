//! How many workers there are to be.

use std::{cmp::Reverse, time::Instant};

use config::site::Workers;

use super::{
    Action, News, Parting, Phase, Pool, Purpose, Recruit, Seat, Settings, State, Wear,
    governor::{Change, Load},
};

impl Pool {
    pub(super) fn load(&mut self, now: Instant, load: Load, actions: &mut Vec<Action>) {
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

    pub(super) fn grow(&mut self, now: Instant, most: usize, actions: &mut Vec<Action>) {
        if self.phase == Phase::Serving && self.seats.len() < most {
            self.seats.push(Seat::vacant(now));
            self.resized(actions);
        }
    }

    pub(super) fn update(&mut self, now: Instant, settings: Settings, actions: &mut Vec<Action>) {
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
    pub(super) fn shrink(&mut self, now: Instant, least: usize, actions: &mut Vec<Action>) {
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
    pub(super) fn retire(
        &mut self,
        now: Instant,
        state: State,
        parting: Parting,
        actions: &mut Vec<Action>,
    ) {
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
