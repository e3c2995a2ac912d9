//! The end of a pool.

use std::time::Instant;

use super::{Action, Farewell, Outgoing, Parting, Phase, Pool, State};

impl Pool {
    pub(super) fn dissolve(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        self.abandon(actions);
        for seat in std::mem::take(&mut self.seats) {
            self.retire(now, seat.state, Parting::Stop, actions);
        }
    }

    pub(super) fn stop(&mut self, deadline: Instant, actions: &mut Vec<Action>) {
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

    pub(super) fn abort(&mut self, actions: &mut Vec<Action>) {
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
