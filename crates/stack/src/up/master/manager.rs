//! What the service manager and the person at the terminal are told.

use tracing::warn;

use super::{FrontState, Master, Phase};
use crate::failure::Failure;
use crate::up::{banner::Banner, listen::Kind};

impl Master {
    /// For `ps`: what this process is, what it serves, and how.
    pub(super) fn show_title(&self, how: &str) {
        const NAME: &str = "stack: master";
        let full = format!("{NAME} {}{how}", self.opened.loaded.title());
        let short = format!("{NAME}{how}");
        self.title.set(NAME, &[&full, &short, NAME]);
    }

    /// What a service manager wants to know (sd_notify(3), `Type=notify-reload`).
    pub(in crate::up) fn notify_reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.notify(&[("RELOADING", "1"), ("MONOTONIC_USEC", &micros.to_string())]);
    }

    /// It serves, be it the old or the new.
    pub(in crate::up) fn notify_reloaded(&self) {
        let status = self.banner().status();
        self.notify(&[("READY", "1"), ("STATUS", &status)]);
        self.notify_addresses();
    }

    fn banner(&self) -> Banner<'_> {
        Banner {
            loaded: &self.opened.loaded,
            listening: &self.opened.listening,
            failures: self.roster.failures(),
            programs: &self.programs,
            after: self.started.elapsed(),
        }
    }

    fn notify_addresses(&self) {
        let names = |kind| {
            let ours = self
                .opened
                .listening
                .iter()
                .filter(|listening| listening.kind() == kind);
            ours.map(|listening| listening.what.name.as_str())
                .collect::<Vec<_>>()
                .join(",")
        };
        self.notify(&[
            ("X_STACK_HTTP", &names(Kind::Http)),
            ("X_STACK_HTTPS", &names(Kind::Https)),
            ("X_STACK_METRICS", &names(Kind::Figures)),
        ]);
    }

    /// Once the proxy serves and each app has been tried: now we are ready, whatever became of the apps.
    pub(super) fn announce_if_ready(&mut self) -> Result<(), Failure> {
        let Phase::Starting { undecided } = &self.phase else {
            return Ok(());
        };
        if !undecided.is_empty() || !matches!(self.front, FrontState::Serving(_)) {
            return Ok(());
        }
        self.phase = Phase::Serving;
        if self.setting.will.is_some() {
            self.take_over()?;
            self.open_office();
        }
        let banner = self.banner();
        banner.show();
        self.notify_addresses();
        self.notify(&[
            ("READY", "1"),
            ("STATUS", &banner.status()),
            ("MAINPID", &std::process::id().to_string()),
        ]);
        // Somebody may have been faster than we.
        self.begin_reload();
        Ok(())
    }

    pub(super) fn notify(&self, assignments: &[(&str, &str)]) {
        if let Err(error) = self.notifier.send(assignments) {
            warn!("cannot reach the service manager: {error}");
        }
    }
}
