//! This program as one of the processes that the master starts beside itself: how it is started, and how it begins.

use std::os::fd::{OwnedFd, RawFd};

use supervisor::{
    child::{Command, Stdio},
    fds, notify,
    title::Title,
    user::User,
};
use telemetry::log::{self, DEFAULT_FILTER, Format, Process, Settings};

use crate::failure::Failure;

/// Where it finds its end of the channel to the master.
const CONTROL_FD: RawFd = 3;

/// One of these processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    /// The command of `stack` that it is.
    command: &'static str,
    /// What it is called in `ps` and `top`.
    pub(crate) title: &'static str,
    /// What it is called in the log.
    process: Process,
}

impl Role {
    /// What the internet meets.
    pub(crate) const PROXY: Self = Self {
        command: "proxy",
        title: "stack: proxy",
        process: Process::Proxy,
    };

    /// What gets certificates.
    pub(crate) const ACME: Self = Self {
        command: "acme",
        title: "stack: acme",
        process: Process::Acme,
    };

    /// The command that starts one as this user, with its end of the channel.
    pub(crate) fn command(self, control: OwnedFd, user: Option<&User>) -> Command {
        // The same file as this process, even when another has taken its name since.
        let mut command = Command::new("/proc/self/exe")
            // Until it names itself; it will find room for no more than this.
            .name(format!("{} (starting)", self.title))
            .arg(self.command)
            .stdin(Stdio::Null)
            .env(log::FILTER_VARIABLE, log::filter())
            .env(log::FORMAT_VARIABLE, log::format().name())
            .descriptor(control, CONTROL_FD)
            .no_new_privileges()
            .own_group();
        // All but the journal's mark: it writes to the same place as we do.
        let not_the_mark = |name: &&str| *name != "JOURNAL_STREAM";
        for name in notify::FROM_MANAGER.into_iter().filter(not_the_mark) {
            command = command.env_remove(name);
        }
        match user {
            Some(user) => command.user(user.clone()),
            None => command,
        }
    }

    /// What such a process does first. Its end of the channel, and its title, are what it gets.
    pub(crate) fn begin(self) -> Result<(OwnedFd, Title), Failure> {
        // First of all: nothing may take the number before.
        let control = fds::inherited(CONTROL_FD).map_err(|_| {
            let command = self.command;
            Failure::User(format!(
                "`stack {command}` is what `stack up` starts; start that instead"
            ))
        })?;
        // It was started as /proc/self/exe, which would make it `exe` in `top`.
        let title = Title::find();
        title.set(self.title, &[self.title]);
        log::init(Settings {
            process: self.process,
            // The master says, in the environment.
            filter: DEFAULT_FILTER.to_owned(),
            format: Format::from_env(),
        })?;
        Ok((control, title))
    }
}
