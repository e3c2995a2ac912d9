//! The command line.

use std::path::PathBuf;

use appserver::assignment::BUILD_ID;
use clap::{
    Args, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use crate::{failure::Failure, load::PLACES};

/// Serves a Python (WSGI) app and its files: reverse proxy and app server in one.
#[derive(Debug, Parser)]
#[command(
    name = "stack",
    version = BUILD_ID,
    max_term_width = 100,
    after_help = "\
Examples:
  stack up                             serve what ./site.toml describes
  stack up --config config/site.toml   serve what this file describes
  stack check                          show all that is wrong with ./site.toml

Exit codes: 0 done, 1 your mistake, 2 usage, 3 our mistake."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve, in the foreground, until Ctrl-C or TERM.
    #[command(after_help = "\
TERM or Ctrl-C finish the requests that run and stop; a second Ctrl-C, or QUIT, stops at once.
The access log goes to standard output, everything else to standard error; STACK_LOG=debug says more.

Examples:
  stack up --config config/site.toml
  stack up --config /etc/stack/site.toml > access.log")]
    Up(ConfigFile),
    /// Say all that is wrong with the configuration, without serving it.
    #[command(after_help = "\
Example:
  stack check --config config/site.toml && systemctl restart stack")]
    Check(ConfigFile),
    /// Say how the whole that serves a configuration is.
    #[command(after_help = "\
Examples:
  stack status
  stack status --json | jq .apps")]
    Status(Status),
    /// What `up` starts: the process that the internet meets. Not for people.
    #[command(hide = true)]
    Proxy,
}

/// Which configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration [default: the first of ./site.toml, ./config/site.toml, /etc/stack/site.toml]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `stack status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// For programs.
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConfigFile {
    /// The file that was named, else the first that is there.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        let found = || PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        self.config.clone().or_else(found).ok_or_else(|| {
            let places = PLACES.join(", ");
            Failure::User(format!(
                "there is no configuration (looked for {places}); name one with `--config FILE`"
            ))
        })
    }
}

/// The command line, or what is wrong with it; leaves with 2 then.
pub(crate) fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|mut error| {
        suggest_flag(&mut error);
        error.exit()
    })
}

/// `stack up site.toml` is what many try first.
fn suggest_flag(error: &mut clap::Error) {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    if argument.ends_with(".toml") {
        let tip = format!("to name the configuration, use '--config {argument}'");
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_place_that_is_searched() {
        let help = Arguments::command()
            .find_subcommand_mut("up")
            .expect("there is `up`")
            .render_long_help()
            .to_string();
        for place in PLACES {
            assert!(help.contains(place), "{place} is not in:\n{help}");
        }
    }

    #[test]
    fn a_named_file_is_taken_as_it_is() {
        let arguments = Arguments::try_parse_from(["stack", "up", "-c", "x/y.toml"]).unwrap();
        let Command::Up(file) = arguments.command else {
            panic!("not up: {arguments:?}")
        };
        assert_eq!(file.path().unwrap(), PathBuf::from("x/y.toml"));
    }
}
