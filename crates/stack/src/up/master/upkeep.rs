//! What must be looked after while all is well: the files of the logs, and certificates.

use std::time::Instant;

use ::proxy::control::Order;
use config::{
    Loaded,
    site::{ErrorLog, Tls},
};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::warn;

use super::Master;
use crate::up::credentials;

impl Master {
    /// Whether there are files that may change.
    pub(super) fn has_files(&self) -> bool {
        let site = &self.opened.loaded.site;
        let mut upstreams = site.upstreams.iter();
        site.hosts.iter().any(|host| host.tls.value != Tls::Off)
            || upstreams.any(|upstream| upstream.authorities.is_some())
            || !self.opened.users.users().is_empty()
    }

    pub(super) fn look_at_files(&mut self) {
        self.look_at_credentials();
        self.look_at_users();
    }

    /// New certificates take the place of old ones without anybody's connection noticing.
    fn look_at_credentials(&mut self) {
        let site = &self.opened.loaded.site;
        if let Some(credentials) = self.opened.credentials.look(site) {
            self.tell_front(Order::Renew { credentials });
        }
    }

    /// Nor do new names and passwords disturb anybody but whom they are about.
    fn look_at_users(&mut self) {
        let site = &self.opened.loaded.site;
        if let Some(users) = self.opened.users.look(site) {
            self.tell_front(Order::Users { users });
        }
    }

    pub(super) fn rotate_logs(&mut self) {
        if self.opened.logs.look(Instant::now()) {
            self.hand_logs();
            self.reload_missed_logs();
        }
    }

    /// Somebody has moved the files aside.
    pub(in crate::up) fn reopen_logs(&mut self) {
        self.opened.logs.reopen();
        self.hand_logs();
        self.reload_missed_logs();
    }

    /// Gives the proxies the files that are open now: the one that serves, and those that finish what they have begun. One
    /// that is not there gets them when it starts.
    fn hand_logs(&self) {
        self.renew_agent();
        for front in self.front.front().into_iter().chain(self.leaving_fronts()) {
            match self.opened.logs.hand_over() {
                Ok((order, descriptors)) => front.hand(order, descriptors),
                Err(error) => warn!("cannot give the logs to the proxy: {error}"),
            }
        }
    }

    /// The log as the new configuration has it.
    pub(in crate::up) fn adopt_log(&mut self, before: &Loaded) {
        let (now, before) = (&self.opened.loaded.site.server.log, &before.site.server.log);
        // The environment wins, as at the start.
        let is_ours = std::env::var_os(telemetry::log::FILTER_VARIABLE).is_none();
        if now.level != before.level && is_ours {
            let filter = now.level.clone();
            match telemetry::log::set_filter(&filter) {
                Ok(()) => {
                    self.tell_front(Order::LogFilter { filter });
                    self.renew_agent();
                }
                Err(error) => warn!("{error}"),
            }
        }
        let file = |log: &ErrorLog| log.file.as_ref().map(|file| file.value.clone());
        if file(now) != file(before) {
            if let Err(error) = self.opened.logs.take_stderr() {
                warn!("cannot write to the file of the log: {error}");
            }
            self.hand_logs();
        }
    }
}

/// Whoever was stopped and goes on has not missed a look.
pub(super) fn looks() -> Interval {
    let mut looks = tokio::time::interval(credentials::LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}
