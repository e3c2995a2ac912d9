//! `stack serve`: the arguments of a command, made into a configuration and judged by its rules.
//!
//! From there on it is the way of `stack up`: a mistake is shown where it stands in the command line.

mod draft;
mod habits;
#[cfg(test)]
mod tests;

use std::{
    env,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::PathBuf,
};

use config::{
    Loaded,
    arguments::Arguments,
    error::{Report, Span},
};

use self::draft::{Draft, quoted};
pub(crate) use self::{
    draft::text,
    habits::{is_asgi, log_format},
};
use crate::{
    args::serve::Serve,
    failure::Failure,
    load::{self, Origin, Source},
    up::{self, BrokenApp},
};

/// What gunicorn listens on, and what tutorials say.
const ADDRESS: &str = "127.0.0.1:8000";

/// What the command line begins with where it is shown.
const COMMAND: &str = "stack serve";

/// The name of the app, for the log.
const APP: &str = "app";

/// Serves, prints or checks.
pub(crate) fn run(serve: Serve) -> Result<(), Failure> {
    habits::refuse(&serve)?;
    for note in habits::notes(&serve.silent) {
        writeln!(anstream::stderr(), "stack: {note}")?;
    }
    let (print, check, pid) = (serve.print_config, serve.check_config, serve.pid.clone());
    let invocation = Invocation {
        port: env::var("PORT").ok().filter(|port| !port.is_empty()),
        folder: env::current_dir()?,
        serve,
    };
    if print {
        // A file that would be refused is not worth printing.
        load::judge(invocation.parse())?;
        write!(anstream::stdout(), "{}", invocation.arguments().to_toml())?;
        return Ok(());
    }
    let dev = invocation.serve.reload;
    let source = Source {
        origin: Origin::Arguments(Box::new(invocation)),
        dev,
    };
    if check {
        let loaded = source.load()?;
        writeln!(anstream::stdout(), "{} can be served", loaded.title())?;
        return Ok(());
    }
    // Whoever develops mends it, and need not start it again.
    let broken = match dev {
        true => BrokenApp::IsTriedAgain,
        false => BrokenApp::Ends,
    };
    up::run(&source, up::Options { pid, broken })
}

/// All that decides what is served: the arguments, and the little of the environment that they leave open.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    serve: Serve,
    /// `PORT`, as platforms set it.
    port: Option<String>,
    /// Where relative paths start.
    folder: PathBuf,
}

impl Invocation {
    /// That of a command that somebody has elsewhere: nothing of our environment counts.
    pub(crate) fn of(serve: Serve) -> Self {
        Self {
            serve,
            port: None,
            folder: PathBuf::from("/"),
        }
    }

    /// Further files that the app depends on.
    pub(crate) fn extra(&self) -> Vec<PathBuf> {
        let files = self.serve.reload_extra_file.iter();
        files.map(|file| self.folder.join(file)).collect()
    }

    /// The configuration, right in itself.
    pub(crate) fn parse(&self) -> Result<Loaded, Report> {
        let arguments = self.arguments();
        // Not a file, but the place of one: relative paths start in its folder, and each command line has its own.
        let mut hasher = DefaultHasher::new();
        arguments.shown().hash(&mut hasher);
        let place = self
            .folder
            .join(format!(".stack-serve-{:016x}", hasher.finish()));
        arguments.parse(&place, load::is_privileged())
    }

    /// What it says, as a configuration.
    pub(crate) fn arguments(&self) -> Arguments {
        let serve = &self.serve;
        let (command, port) = match &self.port {
            Some(port) if serve.bind.is_empty() => {
                let variable = format!("PORT={}", quoted(port));
                let place = Span {
                    start: 0,
                    end: variable.len(),
                };
                let address = (format!(":{port}"), Some(place));
                (format!("{variable} {COMMAND}"), address)
            }
            _ => (COMMAND.to_owned(), (ADDRESS.to_owned(), None)),
        };
        let mut draft = Draft(Arguments::new(&command, APP));
        draft.app(serve);
        draft.listeners(serve, port);
        draft.logs(serve);
        draft.limits(serve);
        draft.routes(serve);
        draft.0
    }
}
