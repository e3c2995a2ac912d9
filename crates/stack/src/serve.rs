//! `stack serve`: the arguments of a command, made into a configuration and judged by its rules.
//!
//! From there on it is the way of `stack up`: a mistake is shown where it stands in the command line.

use std::{
    env,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::PathBuf,
};

use config::{
    Loaded,
    arguments::{Arguments, Section},
    error::{Report, Span},
};

use crate::{
    args::serve::{Serve, Silent},
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
    tell_what_is_ignored(&serve.silent)?;
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

    fn arguments(&self) -> Arguments {
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

/// A configuration that is being put together.
struct Draft(Arguments);

impl Draft {
    /// Shows `name value` and sets a key to it.
    fn option(&mut self, section: Section, name: &str, key: &str, value: &str, toml: String) {
        let from = self.0.show(&format!("{name} {}", quoted(value)));
        self.0.set(section, format!("{key} = {toml}\n"), Some(from));
    }

    fn path(&mut self, name: &str, key: &str, path: Option<&PathBuf>) {
        if let Some(path) = path.map(|path| path.to_string_lossy()) {
            self.option(Section::App, name, key, &path, text(&path));
        }
    }

    fn app(&mut self, serve: &Serve) {
        let entry = entry(&serve.app);
        let from = self.0.show(&quoted(&serve.app));
        self.0.set(
            Section::App,
            format!("wsgi = {}\n", text(&entry)),
            Some(from),
        );
        self.path("--chdir", "root", serve.chdir.as_ref());
        self.path("--venv", "venv", serve.venv.as_ref());
        self.path("--python", "python", serve.python.as_ref());
        if let Some(workers) = &serve.workers {
            self.option(
                Section::App,
                "--workers",
                "workers",
                workers,
                count(workers),
            );
        }
        if let Some(threads) = &serve.threads {
            self.option(
                Section::App,
                "--threads",
                "threads",
                threads,
                count(threads),
            );
        }
        if let Some(timeout) = &serve.timeout {
            self.option(Section::App, "--timeout", "timeout", timeout, time(timeout));
        }
        self.environment(&serve.env);
    }

    /// `raw_env` of gunicorn: the last of a name wins.
    fn environment(&mut self, variables: &[String]) {
        if variables.is_empty() {
            return;
        }
        self.0.set(Section::App, "env = { ", None);
        let name = |variable: &str| variable.split('=').next().map(str::to_owned);
        let last: Vec<&String> = variables
            .iter()
            .enumerate()
            .filter(|(at, one)| {
                variables[at + 1..]
                    .iter()
                    .all(|later| name(later) != name(one))
            })
            .map(|(_, one)| one)
            .collect();
        for (at, variable) in last.iter().enumerate() {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            let from = self.0.show(&format!("--env {}", quoted(variable)));
            let comma = if at == 0 { "" } else { ", " };
            let entry = format!("{comma}{} = {}", text(name), text(value));
            self.0.set(Section::App, entry, Some(from));
        }
        self.0.set(Section::App, " }\n", None);
    }

    /// `default` is for who names no address.
    fn listeners(&mut self, serve: &Serve, default: (String, Option<Span>)) {
        let secure = serve.certfile.is_some();
        let (key, other) = if secure {
            ("https", "http")
        } else {
            ("http", "https")
        };
        self.0.set(Section::Server, format!("{key} = ["), None);
        let mut named: Vec<(String, Option<Span>)> = Vec::new();
        for bind in &serve.bind {
            let from = self.0.show(&format!("--bind {}", quoted(bind)));
            named.push((address(bind), Some(from)));
        }
        if named.is_empty() {
            named.push(default);
        }
        for (at, (address, from)) in named.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            self.0
                .set(Section::Server, format!("{comma}{}", text(&address)), from);
        }
        self.0.set(Section::Server, "]\n", None);
        if secure {
            self.0.set(Section::Server, format!("{other} = []\n"), None);
        }
        if let Some(proxies) = &serve.forwarded_allow_ips {
            let from = self
                .0
                .show(&format!("--forwarded-allow-ips {}", quoted(proxies)));
            self.0.set(
                Section::Server,
                format!("trusted_proxies = {}\n", trusted(proxies)),
                Some(from),
            );
        }
    }

    fn logs(&mut self, serve: &Serve) {
        let Some(log) = &serve.access_logfile else {
            return;
        };
        let toml = match log.as_str() {
            "-" => text("stdout"),
            "off" | "" | "None" => text("off"),
            file => format!("{{ file = {} }}", text(file)),
        };
        self.option(Section::Server, "--access-logfile", "access_log", log, toml);
    }

    fn limits(&mut self, serve: &Serve) {
        let times = [
            (
                "--graceful-timeout",
                "drain_timeout",
                &serve.graceful_timeout,
            ),
            ("--keep-alive", "keepalive_timeout", &serve.keep_alive),
        ];
        for (name, key, value) in times {
            if let Some(value) = value {
                self.option(Section::Limits, name, key, value, time(value));
            }
        }
        let figures = [
            (
                "--limit-request-line",
                "request_line",
                &serve.limit_request_line,
            ),
            (
                "--limit-request-fields",
                "fields",
                &serve.limit_request_fields,
            ),
        ];
        for (name, key, value) in figures {
            if let Some(value) = value {
                self.option(Section::Limits, name, key, value, count(value));
            }
        }
    }

    fn routes(&mut self, serve: &Serve) {
        if let (Some(cert), Some(key)) = (&serve.certfile, &serve.keyfile) {
            let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
            self.0.set(Section::Site, "tls = { ", None);
            let from = self.0.show(&format!("--certfile {}", quoted(&cert)));
            self.0.set(
                Section::Site,
                format!("cert = {}, ", text(&cert)),
                Some(from),
            );
            let from = self.0.show(&format!("--keyfile {}", quoted(&key)));
            self.0
                .set(Section::Site, format!("key = {}", text(&key)), Some(from));
            self.0.set(Section::Site, " }\n", None);
        }
        self.0.set(Section::Site, "routes = [\n", None);
        for folder in &serve.statics {
            let from = self.0.show(&format!("--static {}", quoted(folder)));
            let (path, folder) = folder.split_once('=').unwrap_or((folder, ""));
            let entry = format!(
                "  {{ path = {}, files = {} }},\n",
                text(&subtree(path)),
                text(folder)
            );
            self.0.set(Section::Site, entry, Some(from));
        }
        self.0.set(
            Section::Site,
            format!("  {{ path = \"/\", app = \"{APP}\" }},\n]\n"),
            None,
        );
    }
}

/// gunicorn takes `application` for granted where no attribute is named.
fn entry(app: &str) -> String {
    if app.contains(':') || app.contains('/') || app.ends_with(".py") {
        app.to_owned()
    } else {
        format!("{app}:application")
    }
}

/// gunicorn takes a bare port or host for granted too.
fn address(bind: &str) -> String {
    let path = bind.strip_prefix("unix:").map(|path| {
        // `unix:///run/app.sock`, as some write it.
        format!("unix:{}", path.strip_prefix("//").unwrap_or(path))
    });
    path.unwrap_or_else(|| bind.to_owned())
}

/// A folder is a subtree, with or without the slash.
fn subtree(path: &str) -> String {
    if path.ends_with('/') {
        path.to_owned()
    } else {
        format!("{path}/")
    }
}

/// A figure as a figure, anything else as what it is: the rules of the file say what is wrong with it.
fn count(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => text(value),
    }
}

/// gunicorn's times are bare seconds.
fn time(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(seconds) => format!("\"{seconds}s\""),
        Err(_) => text(value),
    }
}

/// gunicorn's `*` is everybody.
fn trusted(proxies: &str) -> String {
    if proxies.trim() == "*" {
        return "[\"0.0.0.0/0\", \"::/0\"]".to_owned();
    }
    let list: Vec<String> = proxies.split(',').map(|proxy| text(proxy.trim())).collect();
    format!("[{}]", list.join(", "))
}

/// As TOML writes a string.
fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

/// As a shell needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+[]*".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Says once what has no effect here, so that nobody wonders.
fn tell_what_is_ignored(silent: &Silent) -> Result<(), Failure> {
    if let Some(class) = silent.worker_class.as_deref()
        && !matches!(class, "sync" | "gthread")
    {
        return Err(Failure::User(format!(
            "there is no worker class {class:?}: a worker runs `--threads` requests at once, and slow clients never hold one; \
             leave -k out"
        )));
    }
    let ignored = [
        (
            silent.preload,
            "--preload has no effect: each worker imports the app by itself",
        ),
        (
            silent.log_file.as_deref().is_some_and(|file| file != "-"),
            "--log-file has no effect: the log goes to standard error; redirect it with `2> FILE`",
        ),
    ];
    for (given, why) in ignored {
        if given {
            writeln!(anstream::stderr(), "stack: {why}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use clap::Parser;

    use super::*;
    use crate::args;

    fn invocation(arguments: &[&str], port: Option<&str>) -> Invocation {
        let words = ["stack", "serve"].iter().chain(arguments);
        let args::Command::Serve(serve) = args::Arguments::try_parse_from(words).unwrap().command
        else {
            panic!("not serve")
        };
        Invocation {
            serve: *serve,
            port: port.map(str::to_owned),
            folder: "/srv".into(),
        }
    }

    fn site(arguments: &[&str], port: Option<&str>) -> config::site::Site {
        let arguments = invocation(arguments, port).arguments();
        let loaded = arguments.parse(Path::new("/srv/x"), false);
        loaded.unwrap_or_else(|report| panic!("{report}")).site
    }

    #[test]
    fn the_defaults_are_those_that_the_help_names() {
        let site = site(&["app:app"], None);
        let app = &site.apps[0];
        assert_eq!((app.threads, app.timeout), (4, Duration::from_secs(30)));
        assert_eq!(site.limits.drain_timeout, Duration::from_secs(30));
        assert_eq!(site.limits.keepalive_timeout, Duration::from_secs(75));
        assert_eq!((site.limits.request_line, site.limits.fields), (8192, 100));
        assert_eq!(site.server.http[0].value.to_string(), ADDRESS);
        assert!(site.server.https.is_empty());
    }

    #[test]
    fn gunicorns_habits_are_understood() {
        let site = site(
            &[
                "mysite.wsgi",
                "-w",
                "3",
                "--threads=8",
                "-b",
                "0.0.0.0:80",
                "-b",
                "unix:///run/a.sock",
                "-t",
                "120",
                "--graceful-timeout",
                "10",
                "--keep-alive",
                "5",
                "--log-file",
                "-",
                "--access-logfile",
                "off",
                "-k",
                "gthread",
                "--forwarded-allow-ips",
                "10.0.0.1,fd00::/8",
                "-e",
                "A=1",
                "-e",
                "A=two words",
                "--chdir",
                "web",
            ],
            Some("9999"),
        );
        let app = &site.apps[0];
        assert_eq!(app.wsgi.to_string(), "mysite.wsgi:application");
        assert_eq!((app.workers.most, app.threads), (3, 8));
        assert_eq!(app.root.value, Path::new("/srv/web"));
        assert_eq!(app.env["A"], "two words");
        assert_eq!(app.timeout, Duration::from_secs(120));
        let at: Vec<String> = site
            .server
            .http
            .iter()
            .map(|at| at.value.to_string())
            .collect();
        assert_eq!(at, ["0.0.0.0:80", "unix:/run/a.sock"]);
        assert_eq!(site.server.trusted_proxies.networks.len(), 2);
        assert_eq!(site.server.access_log.to, config::site::LogTarget::Off);
        assert_eq!(site.limits.drain_timeout, Duration::from_secs(10));
    }

    #[test]
    fn a_platform_names_the_port() {
        assert_eq!(
            site(&["app:app"], Some("5000")).server.http[0]
                .value
                .to_string(),
            ":5000"
        );
        let arguments = invocation(&["app:app"], Some("http")).arguments();
        let report = arguments.parse(Path::new("/srv/x"), false).unwrap_err();
        let shown = report.to_string();
        assert!(
            shown.contains("| PORT=http stack serve app:app\n  | ^^^^^^^^^"),
            "{shown}"
        );
    }

    #[test]
    fn a_certificate_makes_the_addresses_speak_tls() {
        let site = site(
            &[
                "app:app",
                "-b",
                ":8443",
                "--certfile",
                "a.pem",
                "--keyfile",
                "b.pem",
            ],
            None,
        );
        assert!(site.server.http.is_empty());
        assert_eq!(site.server.https[0].value.to_string(), ":8443");
    }

    #[test]
    fn what_is_printed_is_a_file_that_says_the_same() {
        let words = [
            "app:create_app()",
            "--static",
            "/s=a \"b\"",
            "-e",
            "A=\\\u{1b}",
            "-w",
            "2",
        ];
        let arguments = invocation(&words, None).arguments();
        let direct = arguments.parse(Path::new("/srv/x"), false).unwrap();
        let printed = config::parse(Path::new("/srv/x"), arguments.to_toml(), false).unwrap();
        assert_eq!(direct.site, printed.site);
        assert_eq!(direct.site.apps[0].env["A"], "\\\u{1b}");
    }
}
