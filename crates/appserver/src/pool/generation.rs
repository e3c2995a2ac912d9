//! The next generation: staged beside this one, and then in its place.

use std::time::Instant;

use config::site::Strategy;

use super::{
    Action, Boot, Governor, Make, News, Parting, Phase, Pool, Progress, Purpose, Recruit, Renewal,
    Seat, Settings, Stage, State, Wear,
};

impl Pool {
    pub(super) fn stage(
        &mut self,
        settings: Settings,
        strategy: Strategy,
        actions: &mut Vec<Action>,
    ) {
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
    pub(super) fn recruit_stage(&mut self, now: Instant, actions: &mut Vec<Action>) {
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

    pub(super) fn check_stage(&mut self, actions: &mut Vec<Action>) {
        let starts = |recruit: &Recruit| recruit.purpose == Purpose::Stage;
        if self.recruits.iter().any(starts) {
            return;
        }
        if let Some(stage) = &mut self.stage {
            stage.progress = Progress::Complete;
            actions.push(Action::Announce(News::Staged));
        }
    }

    pub(super) fn stage_failed(
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

    pub(super) fn abandon(&mut self, actions: &mut Vec<Action>) {
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
    pub(super) fn commit(&mut self, now: Instant, actions: &mut Vec<Action>) {
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

    pub(super) fn check_renewal(&mut self, actions: &mut Vec<Action>) {
        if self.renewal == Renewal::Going && self.superseded() == 0 {
            self.renewal = Renewal::Over;
            actions.push(Action::Announce(News::Renewed));
        }
    }

    pub(super) fn renewal_failed(&mut self, why: String, actions: &mut Vec<Action>) {
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
