//! The arguments as the text of a configuration.

use std::path::PathBuf;

use config::{
    arguments::{Arguments, Section},
    error::Span,
};

use super::{APP, habits};
use crate::args::serve::Serve;

/// A configuration that is being put together.
pub(super) struct Draft(pub(super) Arguments);

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

    pub(super) fn app(&mut self, serve: &Serve) {
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
        // 0 is gunicorn's word for never.
        if let Some(most) = serve.max_requests.as_ref().filter(|most| *most != "0") {
            self.option(
                Section::App,
                "--max-requests",
                "max_requests",
                most,
                count(most),
            );
        }
        if let Some(umask) = &serve.umask {
            let octal = umask.trim_start_matches("0o");
            self.option(Section::App, "--umask", "umask", umask, text(octal));
        }
        self.environment(&serve.env, serve.pythonpath.as_deref());
    }

    /// Who the proxy and the workers run as.
    fn account(&mut self, serve: &Serve) {
        for (name, key, value) in [
            ("--user", "user", &serve.user),
            ("--group", "group", &serve.group),
        ] {
            if let Some(value) = value {
                self.option(Section::Server, name, key, value, text(value));
            }
        }
    }

    /// `raw_env` of gunicorn: the last of a name wins.
    fn environment(&mut self, variables: &[String], pythonpath: Option<&str>) {
        if variables.is_empty() && pythonpath.is_none() {
            return;
        }
        self.0.set(Section::App, "env = { ", None);
        let mut comma = "";
        if let Some(folders) = pythonpath {
            let from = self.0.show(&format!("--pythonpath {}", quoted(folders)));
            let folders = text(&folders.replace(',', ":"));
            self.0
                .set(Section::App, format!("PYTHONPATH = {folders}"), Some(from));
            comma = ", ";
        }
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
        for variable in last {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            let from = self.0.show(&format!("--env {}", quoted(variable)));
            let entry = format!("{comma}{} = {}", text(name), text(value));
            self.0.set(Section::App, entry, Some(from));
            comma = ", ";
        }
        self.0.set(Section::App, " }\n", None);
    }

    /// `default` is for who names no address.
    pub(super) fn listeners(&mut self, serve: &Serve, default: (String, Option<Span>)) {
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
            let entry = match serve.proxy_protocol {
                true => format!("{{ listen = {}, proxy_protocol = true }}", text(&address)),
                false => text(&address),
            };
            self.0.set(Section::Server, format!("{comma}{entry}"), from);
        }
        self.0.set(Section::Server, "]\n", None);
        if secure {
            self.0.set(Section::Server, format!("{other} = []\n"), None);
        }
        self.trusted(serve);
        self.account(serve);
    }

    /// gunicorn has one list for each way in which a proxy speaks of its clients.
    fn trusted(&mut self, serve: &Serve) {
        let lists = [
            ("--forwarded-allow-ips", &serve.forwarded_allow_ips),
            ("--proxy-allow-from", &serve.proxy_allow_from),
        ];
        let given: Vec<(&str, &String)> = lists
            .into_iter()
            .filter_map(|(name, list)| Some((name, list.as_ref()?)))
            .collect();
        for (at, (name, proxies)) in given.iter().enumerate() {
            let from = self.0.show(&format!("{name} {}", quoted(proxies)));
            let begin = if at == 0 { "trusted_proxies = [" } else { ", " };
            self.0.set(
                Section::Server,
                format!("{begin}{}", trusted(proxies)),
                Some(from),
            );
        }
        if !given.is_empty() {
            self.0.set(Section::Server, "]\n", None);
        }
    }

    pub(super) fn logs(&mut self, serve: &Serve) {
        self.access_log(serve);
        let file = serve.log_file.as_ref().filter(|file| *file != "-");
        if serve.log_level.is_none() && file.is_none() {
            return;
        }
        self.0.set(Section::Server, "log = { ", None);
        let mut comma = "";
        if let Some(level) = &serve.log_level {
            let from = self.0.show(&format!("--log-level {}", quoted(level)));
            let level = text(habits::level(level));
            self.0
                .set(Section::Server, format!("level = {level}"), Some(from));
            comma = ", ";
        }
        if let Some(file) = file {
            let from = self.0.show(&format!("--log-file {}", quoted(file)));
            let entry = format!("{comma}file = {}", text(file));
            self.0.set(Section::Server, entry, Some(from));
        }
        self.0.set(Section::Server, " }\n", None);
    }

    fn access_log(&mut self, serve: &Serve) {
        const NAME: &str = "--access-logfile";
        const KEY: &str = "access_log";
        let file = serve.access_logfile.as_deref();
        let is_off = |file| matches!(file, "off" | "" | "None");
        let format = serve.access_logformat.as_deref();
        match (file, format) {
            (None, None) => {}
            (Some("-"), None) => self.option(Section::Server, NAME, KEY, "-", text("stdout")),
            (Some(off), _) if is_off(off) => {
                self.option(Section::Server, NAME, KEY, off, text("off"));
            }
            (file, format) => {
                self.0.set(Section::Server, format!("{KEY} = {{ "), None);
                let mut comma = "";
                if let Some(file) = file.filter(|file| *file != "-") {
                    let from = self.0.show(&format!("{NAME} {}", quoted(file)));
                    self.0.set(
                        Section::Server,
                        format!("file = {}", text(file)),
                        Some(from),
                    );
                    comma = ", ";
                }
                if let Some(format) = format {
                    let from = self
                        .0
                        .show(&format!("--access-logformat {}", quoted(format)));
                    // What cannot be understood has been refused.
                    let ours = habits::log_format(format).unwrap_or_else(|_| format.to_owned());
                    let entry = format!("{comma}format = {}", text(&ours));
                    self.0.set(Section::Server, entry, Some(from));
                }
                self.0.set(Section::Server, " }\n", None);
            }
        }
    }

    pub(super) fn limits(&mut self, serve: &Serve) {
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

    pub(super) fn routes(&mut self, serve: &Serve) {
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
        self.client_certificates(serve);
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

impl Draft {
    fn client_certificates(&mut self, serve: &Serve) {
        let Some(authorities) = &serve.ca_certs else {
            return;
        };
        let authorities = authorities.to_string_lossy();
        self.option(
            Section::Site,
            "--ca-certs",
            "client_ca",
            &authorities,
            text(&authorities),
        );
        let Some(need) = &serve.cert_reqs else { return };
        // The numbers of Python's ssl.VerifyMode.
        let ours = match need.as_str() {
            "1" => "optional",
            "2" => "required",
            other => other,
        };
        self.option(
            Section::Site,
            "--cert-reqs",
            "client_auth",
            need,
            text(ours),
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
        return "\"0.0.0.0/0\", \"::/0\", \"unix\"".to_owned();
    }
    let list: Vec<String> = proxies.split(',').map(|proxy| text(proxy.trim())).collect();
    list.join(", ")
}

/// As TOML writes a string.
pub(crate) fn text(value: &str) -> String {
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
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+[]*".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
