//! Why a command failed, and what it exits with.

use std::{io, process::ExitCode};

use config::error::Report;
use telemetry::text::visible_lines;

/// Why a command failed; who must act decides the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user: the configuration is wrong.
    Config(Report),
    /// The user: something else in their hands, in one line that says what to do.
    User(String),
    /// We, or the machine.
    Ours(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Ours(error.into())
    }
}

impl Failure {
    /// Says it on standard error.
    pub(crate) fn tell(&self) -> ExitCode {
        // Whoever read what we wrote has seen enough: `stack status | head`.
        if self.is_of_reader() {
            return ExitCode::SUCCESS;
        }
        let text = match self {
            Self::Config(report) => report.render(telemetry::log::colour(&io::stderr())),
            // An app's exception may be in it, or a path.
            Self::User(message) => format!("stack: {}", visible_lines(message)),
            Self::Ours(error) => format!("stack: {}", visible_lines(&format!("{error:#}"))),
        };
        telemetry::log::tell(&(text + "\n"));
        ExitCode::from(self.code())
    }

    /// The same for a reader elsewhere, without colours.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Config(report) => report.render(false),
            Self::User(message) => message.clone(),
            Self::Ours(error) => format!("{error:#}"),
        }
    }

    fn is_of_reader(&self) -> bool {
        let Self::Ours(error) = self else {
            return false;
        };
        let kind = error.downcast_ref().map(io::Error::kind);
        kind == Some(io::ErrorKind::BrokenPipe)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::User(_) => 1,
            Self::Ours(_) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn who_must_act_decides_the_exit_code() {
        let config = Failure::Config(Report::new(Path::new("site.toml"), ""));
        assert_eq!(config.code(), 1);
        assert_eq!(Failure::User("the port is taken".to_owned()).code(), 1);
        let ours = Failure::from(io::Error::other("no memory"));
        assert_eq!((ours.code(), ours.is_of_reader()), (3, false));
        let reader = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(reader.is_of_reader());
    }
}
