//! The command line: every command, its help and its examples. The man pages and the shell completions are made from
//! this, so what is said here is said everywhere.

pub(crate) mod install;
pub(crate) mod serve;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::styling::{AnsiColor, Styles},
    error::{ContextKind, ContextValue},
};
use clap_complete::Shell;
use ipnet::IpNet;

pub(crate) use self::install::{Install, Place};
use crate::{failure::Failure, load::PLACES, version};

/// The environment variable that names the configuration.
pub(crate) const CONFIG_VARIABLE: &str = "STACK_CONFIG";

/// Serves a Python (WSGI) app and its files: reverse proxy and app server in one.
#[derive(Debug, Parser)]
#[command(
    name = "stack",
    version = version::SHORT,
    long_version = version::long(),
    max_term_width = 100,
    styles = STYLES,
    after_help = "\
Examples:
  stack serve app:app                  serve an app, without any file
  stack init                           write a site.toml for what is in this folder
  stack up                             serve what ./site.toml describes
  stack up --config config/site.toml   serve what this file describes
  stack check                          show all that is wrong with ./site.toml

`stack help COMMAND` says more of each, `stack --help` what the environment changes.",
    after_long_help = "\
Examples:
  stack serve app:app                  serve an app, without any file
  stack init                           write a site.toml for what is in this folder
  stack up                             serve what ./site.toml describes
  stack up --config config/site.toml   serve what this file describes
  stack check                          show all that is wrong with ./site.toml

Environment that changes what stack does:
  STACK_CONFIG       the configuration, where --config names none
  STACK_LOG          what is logged: a level (error, warn, info, debug, trace), or target=level,…
  PORT               `stack serve`: the port, where -b names no address
  WEB_CONCURRENCY    `stack serve`: how many workers, where -w says nothing
  NO_COLOR, TERM     no colours, when NO_COLOR is set or TERM is `dumb`
  TZ                 the time zone of the logs
  PATH               where `python3` is looked for
  TMPDIR             where temporary files go
  VIRTUAL_ENV        `stack init`: the venv of the app, where its folder has none
  SSL_CERT_FILE      whom upstreams that speak TLS are verified by, where `ca` names nobody
  XDG_RUNTIME_DIR    where the sockets of a user's own stack go
  XDG_STATE_HOME, HOME   where a user's own stack keeps certificates by ACME
  RUNTIME_DIRECTORY, STATE_DIRECTORY, NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, JOURNAL_STREAM
                     what systemd says

Exit codes: 0 done, 1 your mistake, 2 usage, 3 our mistake."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// As clap itself would, but for the colour of what one types.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve what the configuration describes, in the foreground, until Ctrl-C or TERM.
    #[command(after_help = "\
TERM or Ctrl-C finish the requests that run and stop; a second Ctrl-C, or QUIT, stops at once.
The access log goes to standard output, everything else to standard error; STACK_LOG=debug says more.

Examples:
  stack up --config config/site.toml
  stack up --dev
  stack up --config /etc/stack/site.toml > access.log")]
    Up(Up),
    /// Serve one app, without a configuration file; the options are gunicorn's.
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::Serve>),
    /// Say all that is wrong with the configuration, without serving it.
    #[command(after_help = "\
With --acme certificates are ordered as well, at the authority's place for rehearsals where one is known, and thrown away: by the
stack that runs, or where none does on its ports.

Examples:
  stack check --config config/site.toml && systemctl restart stack
  stack check --acme")]
    Check(Check),
    /// Run a command as an app would run: in its folder, with its environment and its Python.
    #[command(after_help = "\
`python` is the app's own. APP can be left out where there is only one.

Examples:
  stack exec -- python manage.py migrate
  stack exec web -- flask shell
  stack exec web -- env")]
    Exec(Exec),
    /// Look at a folder and write the site.toml that serves what is there.
    #[command(after_help = "\
Flask, Django and other WSGI apps are known by their files (manage.py, Procfile,
*.py, packages); nothing of the folder is run.

Examples:
  stack init
  stack init /srv/web --print")]
    Init(Init),
    /// Translate files of nginx and gunicorn into a site.toml.
    #[command(after_help = "\
FILEs are nginx.conf, files or folders of sites-enabled, what `nginx -T` prints (`-` reads it), gunicorn.conf.py (which is not
run), and units of systemd that start gunicorn. With both, the app behind a proxy_pass becomes an app of stack.

Examples:
  stack import /etc/nginx/sites-enabled/shop /etc/systemd/system/gunicorn.service > site.toml
  stack import gunicorn.conf.py --output site.toml
  nginx -T | stack import -")]
    Import(Import),
    /// Put this program in place as a systemd service.
    #[command(after_help = install::INSTALL_EXAMPLES)]
    Install(Install),
    /// Remove what `stack install` has put.
    #[command(after_help = install::UNINSTALL_EXAMPLES)]
    Uninstall(Place),
    /// Take new configuration and code without losing a request, or change nothing.
    #[command(after_help = "\
The new code is started beside the old, and takes over only once it is ready. If anything fails the old one
serves on, the reason is printed, and the exit code is 1.

Examples:
  stack reload                  new configuration, new workers of every app
  stack reload --app web        new workers of one app
  stack reload --config-only    new workers only where the configuration asks for different ones")]
    Reload(Reload),
    /// Start the binary that is installed now in our place, without losing a request.
    #[command(after_help = "\
A new master is started as the running one was, takes over its sockets once its apps are ready, and the old one finishes
what it has begun. If anything fails the old one serves on, the reason is printed, and the exit code is 1.

Example:
  stack upgrade --config /etc/stack/site.toml")]
    Upgrade(ConfigFile),
    /// Say how the whole that serves a configuration is.
    #[command(after_help = "\
Examples:
  stack status
  stack status --json | jq .apps
  stack status --ready")]
    Status(Status),
    /// Show the same live: apps, workers, the requests that run, and why requests fail.
    #[command(after_help = "\
Keys: 1 2 3 4 tables, s sort, / filter, t trace, k recycle a worker, r reload, p pause, q quit.

Examples:
  stack top
  stack top --interval 5")]
    Top(Top),
    /// Log more or less, from now on until the configuration is read again.
    #[command(after_help = "\
Without a level it is that of the configuration again.

Examples:
  stack log debug
  stack log warn,proxy=debug
  stack log")]
    Log(Log),
    /// Close sites or apps to visitors for a while, or open them again; say what is closed.
    #[command(after_help = "\
Visitors get 503 with Retry-After, and the page of `maintenance` in site.toml. It lasts until `off`, over reloads and restarts of
the proxy, but not of the whole; `maintenance = true` in site.toml does.

Examples:
  stack maintenance on --allow 192.0.2.7
  stack maintenance on --site example.org
  stack maintenance on --app web --allow 10.0.0.0/8
  stack maintenance off
  stack maintenance")]
    Maintenance(Maintenance),
    /// Say where the Python of every busy slot is, without stopping anything.
    #[command(after_help = "\
Examples:
  stack trace
  stack trace web
  stack trace --json | jq '.workers[].slots[].stack'")]
    Trace(Trace),
    /// Print every key of site.toml, with its default and the reason for it.
    #[command(after_help = "\
Example:
  stack reference | less")]
    Reference,
    /// Write a name and the hash of a password for `auth = { basic = … }`.
    #[command(after_help = "\
The password is asked for twice, or read from standard input where that is no terminal. A running stack takes the file anew
within seconds. `htpasswd -B` writes what is read as well.

Examples:
  stack passwd ann users.htpasswd
  pwgen 20 1 | tee /dev/tty | stack passwd ann users.htpasswd
  stack passwd ann                     print the line")]
    Passwd(Passwd),
    /// Print completions for a shell.
    #[command(after_help = "\
Examples:
  stack completions bash > /etc/bash_completion.d/stack
  stack completions zsh  > ~/.zfunc/_stack
  stack completions fish > ~/.config/fish/completions/stack.fish")]
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print a man page, or write all of them into a folder.
    #[command(after_help = "\
Examples:
  stack man | man -l -
  stack man serve | man -l -
  stack man --dir /usr/local/share/man/man1")]
    Man {
        /// The page of this command.
        #[arg(value_name = "COMMAND", conflicts_with = "dir")]
        of: Option<String>,
        /// Write all pages here.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// What `up` starts: the process that the internet meets. Not for people.
    #[command(hide = true)]
    Proxy,
    /// What `up` starts: the process that gets certificates. Not for people.
    #[command(hide = true)]
    Acme,
}

/// `stack up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// For development: take over changes of code, templates and configuration, and show tracebacks in pages.
    #[arg(long)]
    pub(crate) dev: bool,
    /// Write the process id of the master to this file while it serves.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) pid: Option<PathBuf>,
}

/// `stack check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Try whether certificates by ACME can be got
    #[arg(long)]
    pub(crate) acme: bool,
}

/// `stack passwd`.
#[derive(Debug, Args)]
pub(crate) struct Passwd {
    /// The name: no spaces, no colon
    pub(crate) name: String,
    /// The file; made if it is not there. Without one the line is printed
    pub(crate) file: Option<PathBuf>,
    /// Take the name out of the file
    #[arg(long, requires = "file")]
    pub(crate) remove: bool,
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration [default: the first of ./site.toml, ./config/site.toml, /etc/stack/site.toml]
    #[arg(long, short, value_name = "FILE", env = CONFIG_VARIABLE, hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
}

/// `stack exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// The app, by its name in the configuration.
    pub(crate) app: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `stack init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder.
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Show the file, and write nothing.
    #[arg(long)]
    pub(crate) print: bool,
    /// Write over a site.toml that is there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `stack import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// What is to be translated, all of it together; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write it here [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

/// `stack reload`.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// New workers of this app only (repeatable), and of those that the configuration makes different.
    #[arg(long = "app", value_name = "APP", conflicts_with = "config_only")]
    pub(crate) apps: Vec<String>,
    /// New workers only of apps that the configuration makes different.
    #[arg(long)]
    pub(crate) config_only: bool,
}

/// `stack trace`.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Of this app; of all without.
    pub(crate) app: Option<String>,
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// For programs.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `stack top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Seconds between two looks.
    #[arg(long, short = 'n', value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) interval: f64,
}

/// `stack log`.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// A level (off, error, warn, info, debug, trace), also of a part: `warn,proxy=debug`.
    pub(crate) level: Option<String>,
}

/// `stack maintenance`.
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// What to do; without it, nothing but to say what is closed.
    #[arg(value_enum)]
    pub(crate) turn: Option<Turn>,
    /// The site with this host alone.
    #[arg(long, value_name = "HOST", requires = "turn")]
    pub(crate) site: Option<String>,
    /// What this app answers alone; files are served on.
    #[arg(long, value_name = "APP", requires = "turn", conflicts_with = "site")]
    pub(crate) app: Option<String>,
    /// Who comes in nevertheless: an address or a network (repeatable).
    #[arg(long, value_name = "NET", requires = "turn", value_parser = network)]
    pub(crate) allow: Vec<IpNet>,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Turn {
    /// Close it.
    On,
    /// Open it.
    Off,
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>())
        .map(|network| network.trunc())
        .map_err(|_| "write an address, or a network such as 10.0.0.0/8".to_owned())
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
    /// Say nothing but whether visitors are served as they should be: exit 0, or 1 and why not.
    #[arg(long, conflicts_with = "json")]
    pub(crate) ready: bool,
}

impl ConfigFile {
    /// The file that was named, else the first that is there.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        let found = || PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        self.config.clone().or_else(found).ok_or_else(|| {
            let places = PLACES.join(", ");
            Failure::User(format!(
                "there is no configuration (looked for {places}); name one with `--config FILE`, or serve an app without one: `stack serve app:app`"
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
    let tip = if argument.ends_with(".toml") {
        format!("to name the configuration, use '--config {argument}'")
    } else if is_of(error, "stack exec") {
        "the command comes after `--`, as in 'stack exec -- python manage.py migrate'".to_owned()
    } else if is_of(error, "stack up") && Arguments::serve_has(argument) {
        format!(
            "{argument} is an option of `stack serve APP`; a site.toml has a key for it (`stack reference`)"
        )
    } else if let Some(meant) = serve::instead_of(argument) {
        meant.to_owned()
    } else {
        return;
    };
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
}

fn is_of(error: &clap::Error, command: &str) -> bool {
    match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string().contains(command),
        _ => false,
    }
}

impl Arguments {
    /// Whether `stack serve` has this option.
    fn serve_has(argument: &str) -> bool {
        let command = <Self as clap::CommandFactory>::command();
        let serve = command.find_subcommand("serve");
        let mut options = serve.into_iter().flat_map(clap::Command::get_arguments);
        options.any(|option| {
            let long = option.get_long().map(|long| format!("--{long}"));
            let short = option.get_short().map(|short| format!("-{short}"));
            long.as_deref() == Some(argument) || short.as_deref() == Some(argument)
        })
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
    fn every_command_shows_an_example_and_has_words_for_each_option() {
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        for command in command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let name = command.get_name();
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains("Example") && help.contains(&format!("  stack {name}")),
                "`stack {name}` shows no example:\n{help}"
            );
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                assert!(argument.get_help().is_some(), "{name}: {argument}");
            }
        }
    }

    #[test]
    fn a_named_file_is_taken_as_it_is() {
        let arguments = Arguments::try_parse_from(["stack", "up", "-c", "x/y.toml"]).unwrap();
        let Command::Up(up) = arguments.command else {
            panic!("not up: {arguments:?}")
        };
        assert_eq!(up.config.path().unwrap(), PathBuf::from("x/y.toml"));
    }
}
