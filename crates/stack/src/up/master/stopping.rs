//! The end, from the outside in: first the proxies, then the workers.

use std::time::Instant;

use ::proxy::control::Order;
use appserver::pool::keeper;
use telemetry::text::Elapsed;
use tracing::info;

use super::{FrontState, LAST_MOMENT, Master, Phase, Upgrade};

impl Master {
    /// Stops, if that has not begun.
    pub(in crate::up) fn drain_once(&mut self) {
        if matches!(self.phase, Phase::Starting { .. } | Phase::Serving) {
            self.drain();
        }
    }

    /// Stops from the outside in.
    pub(super) fn drain(&mut self) {
        let grace = self.opened.loaded.site.limits.drain_timeout;
        let deadline = Instant::now() + grace;
        info!(
            "stopping; running requests may take {} to finish",
            Elapsed(grace)
        );
        if !matches!(self.upgrade, Upgrade::Done) {
            self.notify(&[("STOPPING", "1"), ("STATUS", "finishing what runs")]);
        }
        self.drop_reload();
        self.office = None;
        self.show_title(" (draining)");
        self.phase = Phase::Draining { deadline };
        for front in self.front.front().into_iter().chain(self.leaving_fronts()) {
            front.tell(match self.upgrade {
                Upgrade::Done => Order::Retire,
                _ => Order::Drain,
            });
        }
        if self.front.front().is_none() {
            self.front = FrontState::Gone;
        }
        self.stop_pools_if_alone(deadline);
    }

    /// Once no proxy is left that could want anything of them.
    pub(super) fn stop_pools_if_alone(&mut self, deadline: Instant) {
        if self.leaving.is_empty() && matches!(self.front, FrontState::Gone) {
            self.stop_pools(deadline);
        }
    }

    pub(super) fn stop_pools(&mut self, deadline: Instant) {
        self.phase = Phase::Stopping;
        // Even when the proxy has used up the grace, a worker may run its exit handlers.
        let deadline = deadline.max(Instant::now() + LAST_MOMENT);
        self.tell_pools(|| keeper::Order::Stop { deadline });
    }

    pub(super) fn abort(&mut self) {
        info!("stopping at once");
        self.notify(&[("STOPPING", "1"), ("STATUS", "stopping at once")]);
        self.drop_reload();
        self.office = None;
        for front in self.leaving_fronts() {
            front.kill();
        }
        match self.front.front() {
            Some(front) => front.kill(),
            None => self.front = FrontState::Gone,
        }
        self.phase = Phase::Stopping;
        self.tell_pools(|| keeper::Order::Abort);
    }
}
