//! What gunicorn was told, in its file, in a command or in a unit of systemd: as the options of `stack serve`, which are the same.

mod options;
mod python;
mod unit;

use std::path::Path;

use clap::Parser;
use config::arguments::{Arguments, Section};

use self::{
    options::{How, described, is_option, is_setting, option_of, split_option},
    python::{Kind, Value, statements},
};
use super::draft::{AppDraft, Draft, Keys, Note, SiteDraft};
use crate::{
    args::{self, serve::instead_of},
    serve::{Invocation, text},
};

/// Everything that one gunicorn was told.
#[derive(Debug, Default)]
pub(super) struct Gunicorn {
    /// The app, as it was named.
    app: Option<String>,
    settings: Vec<Setting>,
    /// Lines of the app's table that no option has.
    lines: String,
    /// The file that its command names.
    config: Option<String>,
    /// What it is called, for units that belong together.
    stem: String,
    left: Vec<Note>,
    by_itself: Vec<Note>,
}

/// An option of gunicorn's command, wherever it was said.
#[derive(Clone, Debug)]
struct Setting {
    place: String,
    line: String,
    option: String,
    value: Option<String>,
}

/// Functions that gunicorn calls, and what there is for them.
const HOOKS: [(&str, &str); 4] = [
    (
        "post_worker_init",
        "`on_start = \"module:function\"` is called in each worker before its first request, without arguments: put the function into the app",
    ),
    (
        "post_fork",
        "`on_start = \"module:function\"` is called in each worker before its first request, without arguments: put the function into the app",
    ),
    (
        "worker_exit",
        "`on_stop = \"module:function\"` is called in each worker after its last request, without arguments: put the function into the app",
    ),
    (
        "worker_abort",
        "a worker that is late says where it is by itself (`stack trace`)",
    ),
];

/// Lines of a service whose part is done by the unit that `stack install` writes.
const INSTALLED: [&str; 20] = [
    "Type",
    "NotifyAccess",
    "ExecReload",
    "KillMode",
    "KillSignal",
    "TimeoutStopSec",
    "Restart",
    "RestartSec",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "PrivateTmp",
    "ProtectSystem",
    "ProtectHome",
    "NoNewPrivileges",
    "LimitNOFILE",
    "StandardOutput",
    "StandardError",
    "SyslogIdentifier",
    "PIDFile",
    "ExecStop",
];

/// Options that say what is so without them, or what nothing here has a use for.
const NEEDLESS: [&str; 15] = [
    "--preload",
    "--max-requests-jitter",
    "--worker-tmp-dir",
    "--backlog",
    "--name",
    "--capture-output",
    "--worker-class",
    "--reuse-port",
    "--initgroups",
    "--no-sendfile",
    "--enable-stdio-inheritance",
    "--do-handshake-on-connect",
    "--suppress-ragged-eofs",
    "--disable-redirect-access-to-syslog",
    "--reload-engine",
];

/// Options of what gunicorn has to do with clients, or with the proxy in front of it.
const OF_SERVER: [&str; 11] = [
    "--bind",
    "--forwarded-allow-ips",
    "--keep-alive",
    "--access-logfile",
    "--error-logfile",
    "--log-file",
    "--log-level",
    "--limit-request-line",
    "--limit-request-fields",
    "--proxy-protocol",
    "--proxy-allow-from",
];

impl Gunicorn {
    /// A `gunicorn.conf.py`.
    pub(super) fn of_file(file: &Path, content: &str) -> Self {
        let mut found = Self::default();
        found.read(file, content);
        found
    }

    /// What a file says, behind what was said before.
    fn read(&mut self, file: &Path, content: &str) {
        for statement in statements(content) {
            let place = format!("{}:{}", file.display(), statement.line);
            match statement.kind {
                Kind::Nothing => {}
                Kind::Assigned(name, value) => self.assigned(&place, &statement.text, &name, value),
                Kind::Computed(name)
                    if name == "workers" && statement.text.contains("cpu_count") =>
                {
                    self.set(
                        &place,
                        &statement.text,
                        "--workers",
                        Some("auto".to_owned()),
                    );
                    self.itself(&place, &statement.text, "`workers = \"auto\"` is one for each core, and each runs `threads` requests at once");
                }
                Kind::Computed(name) if is_setting(&name) => {
                    let what = format!(
                        "it is computed, and nothing is run here: write what it is, as the key for {}",
                        option_of(&name).0
                    );
                    self.left(&place, &statement.text, &what);
                }
                // A name of the file's own.
                Kind::Computed(_) => {
                    self.itself(&place, &statement.text, "gunicorn has no such setting")
                }
                Kind::Function(name) => {
                    let hook = HOOKS.iter().find(|(hook, _)| *hook == name);
                    let what = hook.map_or("nothing calls it here: the app's own module is the place for what must be done at the start", |(_, what)| *what);
                    self.left(&place, &statement.text, what);
                }
                Kind::Other => self.left(
                    &place,
                    &statement.text,
                    "only plain assignments are read; nothing of the file is run",
                ),
            }
        }
    }

    fn assigned(&mut self, place: &str, line: &str, name: &str, value: Value) {
        if name == "wsgi_app" {
            match value {
                Value::Text(app) => self.app = Some(app),
                _ => self.left(place, line, "an app is `\"module:attribute\"`"),
            }
            return;
        }
        if !is_setting(name) {
            return self.itself(place, line, "gunicorn has no such setting");
        }
        let (option, how) = option_of(name);
        match (how, value) {
            (How::Silent, _) | (_, Value::None | Value::Bool(false)) => {
                self.itself(place, line, "that is so by itself");
            }
            (_, Value::Bool(true)) => self.set(place, line, &option, None),
            (How::Each, Value::List(all)) => {
                for one in all {
                    match scalar(one) {
                        Some(one) => self.set(place, line, &option, Some(one)),
                        None => self.left(place, line, "its parts are no texts"),
                    }
                }
            }
            (_, Value::List(all)) => {
                let all: Option<Vec<String>> = all.into_iter().map(scalar).collect();
                match all {
                    Some(all) => self.set(place, line, &option, Some(all.join(","))),
                    None => self.left(place, line, "its parts are no texts"),
                }
            }
            // A mask is written in octal, and Python has it as a number.
            (_, Value::Number(mask)) if name == "umask" && !mask.starts_with("0o") => {
                match mask.parse::<u32>() {
                    Ok(mask) => self.set(place, line, &option, Some(format!("{mask:03o}"))),
                    Err(_) => self.left(place, line, "a mask is octal: `umask = \"027\"`"),
                }
            }
            (_, value) => match scalar(value) {
                Some(value) => self.set(place, line, &option, Some(value)),
                None => self.left(place, line, "this is no value of it"),
            },
        }
    }

    /// A `.service` or `.socket` of systemd. `None` where nothing of gunicorn is in it.
    pub(super) fn of_unit(file: &Path, content: &str) -> Option<Self> {
        let mut found = Self {
            stem: file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            ..Self::default()
        };
        let mut is_ours = false;
        for entry in unit::entries(content) {
            let place = format!("{}:{}", file.display(), entry.line);
            is_ours |= found.entry(&place, &entry);
        }
        is_ours.then_some(found)
    }

    /// A line of a unit; whether it is one that gunicorn is known by.
    fn entry(&mut self, place: &str, entry: &unit::Entry) -> bool {
        let line = format!("{}={}", entry.key, entry.value);
        let value = entry.value.trim_matches('"').to_owned();
        match (entry.section.as_str(), entry.key.as_str()) {
            ("Socket", "ListenStream") => {
                let bind = match value.starts_with('/') {
                    true => format!("unix:{value}"),
                    false => value,
                };
                self.set(place, &line, "--bind", Some(bind));
                return true;
            }
            ("Service", "ExecStart") => return self.command(place, &line, &entry.value),
            ("Service", "WorkingDirectory") => self.set(place, &line, "--chdir", Some(value)),
            ("Service", "User") => self.set(place, &line, "--user", Some(value)),
            ("Service", "Group") => self.set(place, &line, "--group", Some(value)),
            ("Service", "UMask") => self.set(place, &line, "--umask", Some(value)),
            ("Service", "Environment") => self.environment(place, &line, &entry.value),
            ("Service", "EnvironmentFile") => {
                let path = text(value.trim_start_matches('-'));
                self.lines.push_str(&format!("env_file = {path}\n"));
            }
            ("Unit" | "Install", _) => {
                self.itself(place, &line, "`stack install` writes a unit of its own");
            }
            ("Service", key) if INSTALLED.contains(&key) => {
                self.itself(place, &line, "`stack install` writes a unit of its own");
            }
            ("Socket", _) => self.itself(place, &line, "stack opens its sockets itself"),
            _ => self.left(
                place,
                &line,
                "put it into the unit of stack: `systemctl edit stack`",
            ),
        }
        false
    }

    fn environment(&mut self, place: &str, line: &str, variables: &str) {
        for variable in unit::words(variables) {
            match variable.split_once('=') {
                // The venv is told by the path of gunicorn.
                Some(("PATH", _)) => {
                    self.itself(place, line, "the app's Python is named by `venv`");
                }
                Some(_) => self.set(place, line, "--env", Some(variable)),
                None => self.left(place, line, "a variable is NAME=value"),
            }
        }
    }

    /// A command that starts gunicorn; whether it was one.
    fn command(&mut self, place: &str, line: &str, command: &str) -> bool {
        let all = unit::words(command.trim_start_matches(['-', '@', '+', '!', ':']));
        let is_gunicorn = |word: &&String| word.rsplit('/').next() == Some("gunicorn");
        let Some(at) = all.iter().position(|word| is_gunicorn(&word)) else {
            return false;
        };
        let python = match at >= 2 && all[at - 1] == "-m" {
            true => all[at - 2].split_once("/bin/python").map(|(venv, _)| venv),
            false => all[at].strip_suffix("/bin/gunicorn"),
        };
        // The system's own Python is no venv.
        if let Some(venv) = python.filter(|venv| !matches!(*venv, "" | "/usr" | "/usr/local")) {
            self.set(place, line, "--venv", Some(venv.to_owned()));
        }
        let mut words = all[at + 1..].iter();
        while let Some(word) = words.next() {
            if !word.starts_with('-') || word == "-" {
                self.app = Some(word.clone());
                continue;
            }
            let (name, mut value) = split_option(word);
            let (long, takes) = described(&name);
            if value.is_none() && takes {
                value = words.next().cloned();
            }
            match long.as_str() {
                "--config" => {
                    let path = value.unwrap_or_default();
                    self.config = Some(path.trim_start_matches("file:").to_owned());
                }
                _ => self.set(
                    place,
                    &format!("{word} {}", value.as_deref().unwrap_or_default()),
                    &long,
                    value,
                ),
            }
        }
        true
    }

    /// The name of the file that its command names.
    pub(super) fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// Takes what its file says; the command comes after it, and wins.
    pub(super) fn take_file(&mut self, file: &Path, content: &str) {
        let own = std::mem::take(&mut self.settings);
        let app = self.app.take();
        self.read(file, content);
        self.app = app.or_else(|| self.app.take());
        self.settings.extend(own);
    }

    /// Whether this is the socket of that service.
    pub(super) fn belongs_to(&self, other: &Self) -> bool {
        self.app.is_none()
            && self.config.is_none()
            && !self.stem.is_empty()
            && self.stem == other.stem
    }

    /// Takes what a socket of it says.
    pub(super) fn take(&mut self, other: Self) {
        self.settings.extend(other.settings);
        self.left.extend(other.left);
        self.by_itself.extend(other.by_itself);
    }

    fn set(&mut self, place: &str, line: &str, option: &str, value: Option<String>) {
        self.settings.push(Setting {
            place: place.to_owned(),
            line: line.to_owned(),
            option: option.to_owned(),
            value,
        });
    }

    fn left(&mut self, place: &str, line: &str, what: &str) {
        self.left.push(note(place, line, what));
    }

    fn itself(&mut self, place: &str, line: &str, why: &str) {
        self.by_itself.push(note(place, line, why));
    }

    /// Whether its app is not WSGI.
    fn is_asgi(&self) -> bool {
        let mut classes = self
            .settings
            .iter()
            .filter(|one| one.option == "--worker-class");
        let last = classes.next_back().and_then(|one| one.value.as_deref());
        last.is_some_and(crate::serve::is_asgi)
    }

    /// Makes an app of it, and where nothing else is translated a site. `name` is the app's.
    pub(super) fn translate(mut self, draft: &mut Draft, name: &str, alone: bool) {
        match self.is_asgi() && !alone {
            true => self.goes_on(),
            false => self.becomes_app(draft, name, alone),
        }
        draft.left.append(&mut self.left);
        draft.by_itself.append(&mut self.by_itself);
    }

    /// It goes on as it is, and routes lead to it.
    fn goes_on(&mut self) {
        for Setting { place, line, .. } in std::mem::take(&mut self.settings) {
            self.itself(
                &place,
                &line,
                "an ASGI app goes on under uvicorn, and its routes lead there as `upstream`",
            );
        }
    }

    fn becomes_app(&mut self, draft: &mut Draft, name: &str, alone: bool) {
        let (options, mut binds) = self.options(alone);
        if binds.is_empty() {
            // gunicorn's own.
            binds.push("127.0.0.1:8000".to_owned());
        }
        let Some(arguments) = self.arguments(options) else {
            return;
        };
        let server = Keys::of_lines(&arguments.section(Section::Server));
        let limits = Keys::of_lines(&arguments.section(Section::Limits));
        let mut lines = arguments.section(Section::App) + &self.lines;
        if alone {
            draft.server.extend(server);
            draft.limits.extend(limits);
            draft
                .sites
                .push(only_site(name, &arguments.section(Section::Site)));
        } else {
            for key in ["user", "group"] {
                if let Some(value) = server.get(key) {
                    lines.push_str(&format!("{key} = {value}\n"));
                }
            }
            if let Some(time) = limits.get("drain_timeout") {
                draft.limits.set("drain_timeout", time);
            }
        }
        draft
            .apps
            .push((name.to_owned(), AppDraft { lines, binds }));
    }

    /// What it was told as options of `stack serve`, and where it was to listen. Of what is said twice, the last counts.
    fn options(&mut self, alone: bool) -> (Vec<String>, Vec<String>) {
        let (mut options, mut binds) = (Vec::new(), Vec::new());
        let settings = std::mem::take(&mut self.settings);
        for (at, setting) in settings.iter().enumerate() {
            let Setting { option, value, .. } = setting;
            let later = settings[at + 1..]
                .iter()
                .any(|later| later.option == *option);
            let repeats = matches!(option.as_str(), "--bind" | "--env");
            if later && !repeats {
                self.itself(
                    &setting.place,
                    &setting.line,
                    "it is said again later, which counts",
                );
                continue;
            }
            if option == "--bind" {
                binds.extend(value.clone());
            }
            if self.keeps(setting, alone) {
                options.push(match value {
                    Some(value) => format!("{option}={value}"),
                    None => option.clone(),
                });
            }
        }
        (options, binds)
    }

    /// What `stack serve` makes of these options; `None` where it does not take them.
    fn arguments(&mut self, options: Vec<String>) -> Option<Arguments> {
        let app = self.app.clone().unwrap_or_else(|| {
            self.left.push(note("gunicorn", "APP", "which app it runs was said in its command: write it as `wsgi` into the app's table"));
            "app:app".to_owned()
        });
        let words = ["stack".to_owned(), "serve".to_owned(), app];
        match args::Arguments::try_parse_from(words.into_iter().chain(options)) {
            Ok(args::Arguments {
                command: args::Command::Serve(serve),
            }) => Some(Invocation::of(*serve).arguments()),
            Ok(_) => None,
            Err(error) => {
                let error = error.to_string();
                let first = error.lines().next().unwrap_or_default();
                self.left.push(note("gunicorn", "its options", first));
                None
            }
        }
    }

    /// Whether an option is one of ours; what is said of it otherwise.
    fn keeps(&mut self, setting: &Setting, alone: bool) -> bool {
        let Setting {
            place,
            line,
            option,
            value,
        } = setting;
        let text = value.as_deref().unwrap_or_default();
        match option.as_str() {
            "--pid" => self.left(
                place,
                line,
                "`stack up --pid FILE` writes it; systemd needs none",
            ),
            "--reload" | "--reload-extra-file" => {
                self.left(place, line, "while you develop: `stack up --dev`")
            }
            "--worker-class" if !matches!(text, "sync" | "gthread") => {
                let what = match crate::serve::is_asgi(text) {
                    true => "an ASGI app goes on under uvicorn, behind a route with `upstream`",
                    false => {
                        "a worker runs `threads` requests at once, and slow clients never hold one"
                    }
                };
                self.left(place, line, what);
            }
            "--access-logformat" if crate::serve::log_format(text).is_err() => {
                self.left(place, line, "some of it has no name here (docs/logs.md)");
            }
            "--user" | "--group" if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.left(
                    place,
                    line,
                    "`user` and `group` are names: `getent passwd` and `getent group` tell them",
                );
            }
            needless if NEEDLESS.contains(&needless) => self.itself(
                place,
                line,
                "that is so, or of no use here (docs/moving.md)",
            ),
            of_server if !alone && OF_SERVER.contains(&of_server) => self.itself(
                place,
                line,
                "nothing stands between the proxy and the app any more",
            ),
            known if is_option(known) => return true,
            unknown => {
                let what = instead_of(unknown)
                    .unwrap_or("gunicorn has it, and there is nothing like it here");
                self.left(place, line, what);
            }
        }
        false
    }
}

/// The site of an app that nothing else is served with. `keys` are what its options say of it.
fn only_site(app: &str, keys: &str) -> SiteDraft {
    let mut route = Keys::default();
    route.set_text("path", "/");
    route.set_text("app", app);
    SiteDraft {
        place: "gunicorn's".to_owned(),
        hosts: Vec::new(),
        keys: Keys::of_lines(keys.split("routes = ").next().unwrap_or_default()),
        routes: vec![route],
    }
}

fn note(place: &str, line: &str, what: &str) -> Note {
    Note {
        place: place.to_owned(),
        line: line.to_owned(),
        what: what.to_owned(),
    }
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Number(text) => Some(text),
        Value::Bool(_) | Value::None | Value::List(_) => None,
    }
}
