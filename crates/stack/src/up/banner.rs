//! What is served where, said once when it is: a small table on a terminal, one line of the log elsewhere.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use config::{
    Loaded,
    site::{Action, App, HostPattern, Route, RoutePath, Tls, VirtualHost, Workers},
};
use telemetry::text::Elapsed;

use super::listen::{Kind, Listening};
use crate::check::plural;

/// All that is said.
#[derive(Debug)]
pub(crate) struct Banner<'a> {
    /// What is served.
    pub(crate) loaded: &'a Loaded,
    /// Where.
    pub(crate) listening: &'a [Listening],
    /// Apps that could not start, and why.
    pub(crate) failures: &'a BTreeMap<String, String>,
    /// What runs each app, by its name.
    pub(crate) programs: &'a BTreeMap<String, PathBuf>,
    /// How long all of it took.
    pub(crate) after: Duration,
}

/// One route at one address.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    url: String,
    what: String,
    detail: String,
    fails: bool,
}

impl Banner<'_> {
    /// Says it on standard error.
    pub(crate) fn show(&self) {
        let stderr = io::stderr();
        if stderr.is_terminal() {
            let text = self.table(telemetry::log::colour(&stderr));
            telemetry::log::pass_on(text.as_bytes());
        } else {
            tracing::info!("{}", self.status());
        }
    }

    /// All of it in one line.
    pub(crate) fn status(&self) -> String {
        let mut text = format!("serving {}", self.loaded.title());
        let mut before = " at ";
        for url in self.bases() {
            text.extend([before, &url]);
            before = ", ";
        }
        for app in &self.loaded.site.apps {
            text.extend(["; app ", &app.name, ": ", &self.state(app).0]);
        }
        if self.loaded.site.dev.is_some() {
            text.push_str("; for development (--dev)");
        }
        text.extend(["; ready in ", &Elapsed(self.after).to_string()]);
        text
    }

    fn table(&self, colour: bool) -> String {
        let style = |style: Style| if colour { style } else { Style::new() };
        let (bold, dim) = (style(Style::new().bold()), style(Style::new().dimmed()));
        let (link, bad) = (
            style(AnsiColor::Cyan.on_default()),
            style(AnsiColor::Red.on_default().bold()),
        );
        let rows = self.rows();
        let width = |of: fn(&Row) -> &String| rows.iter().map(|row| of(row).chars().count()).max();
        let (urls, whats) = (
            width(|row| &row.url).unwrap_or_default(),
            width(|row| &row.what).unwrap_or_default(),
        );
        let dev = match self.loaded.site.dev {
            Some(_) => format!(" {bad}for development{bad:#}"),
            None => String::new(),
        };
        let mut text = format!(
            "\n  {bold}stack{bold:#} serves {}{dev}\n\n",
            self.loaded.title()
        );
        for Row {
            url,
            what,
            detail,
            fails,
        } in &rows
        {
            let detail_style = if *fails { bad } else { dim };
            line(
                &mut text,
                format_args!(
                    "  {link}{url:urls$}{link:#}  {what:whats$}  {detail_style}{detail}{detail_style:#}\n"
                ),
            );
        }
        if self.loaded.site.dev.is_some() {
            line(
                &mut text,
                format_args!(
                    "\n  {dim}what is saved is taken over by itself; tracebacks are shown in pages{dim:#}\n"
                ),
            );
        }
        let after = Elapsed(self.after);
        line(
            &mut text,
            format_args!("\n  {bold}ready in {after}{bold:#}{dim}; Ctrl-C stops{dim:#}\n\n"),
        );
        text
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for host in &self.loaded.site.hosts {
            for base in self.bases_of(host) {
                rows.extend(host.routes.iter().map(|route| self.row(&base, route)));
            }
            rows.extend(self.plain_bases_of_secure(host).into_iter().map(|url| Row {
                url,
                what: "redirect".to_owned(),
                detail: "to https".to_owned(),
                fails: false,
            }));
        }
        rows
    }

    fn row(&self, base: &str, route: &Route) -> Row {
        let (RoutePath::Exact(path) | RoutePath::Subtree(path)) = &route.path;
        let (what, detail, fails) = match &route.action {
            Action::App { app, .. } => {
                let (detail, fails) = self.app(app);
                (format!("app {app}"), detail, fails)
            }
            Action::Files { files, otherwise } => {
                let folder = files.root.display().to_string();
                match otherwise.as_deref() {
                    Some(Action::App { app, .. }) => {
                        let (detail, fails) = self.app(app);
                        (
                            format!("app {app}"),
                            format!("{detail}, after {folder}"),
                            fails,
                        )
                    }
                    Some(Action::Upstream { upstream }) => {
                        let (what, members, fails) = self.upstream(upstream);
                        (what, format!("{members}, after {folder}"), fails)
                    }
                    _ => ("files".to_owned(), folder, false),
                }
            }
            Action::Upstream { upstream } => self.upstream(upstream),
            Action::Redirect { to, status } => {
                ("redirect".to_owned(), format!("{status} {to}"), false)
            }
            Action::Respond { status, .. } => ("respond".to_owned(), status.to_string(), false),
        };
        Row {
            url: format!("{}{path}", base.trim_end_matches('/')),
            what,
            detail,
            fails,
        }
    }

    fn upstream(&self, name: &str) -> (String, String, bool) {
        // Every route's upstream exists in a valid configuration.
        let found = self.loaded.site.upstream(name);
        let members: Vec<String> = found
            .iter()
            .flat_map(|upstream| &upstream.members)
            .map(|member| member.to_string())
            .collect();
        let members = members.join(", ");
        let what = match members == name {
            true => "upstream".to_owned(),
            false => format!("upstream {name}"),
        };
        (what, members, false)
    }

    fn app(&self, name: &str) -> (String, bool) {
        // Every route's app exists in a valid configuration.
        self.loaded
            .site
            .app(name)
            .map_or_else(Default::default, |app| self.state(app))
    }

    /// What is said of an app, and whether it is bad news.
    fn state(&self, app: &App) -> (String, bool) {
        if let Some(why) = self.failures.get(&app.name) {
            return (format!("answers 503: {why}"), true);
        }
        let Workers { least, most } = app.workers;
        let workers = if least == most {
            plural(most.into(), "worker")
        } else {
            format!("{least} to {}", plural(most.into(), "worker"))
        };
        let mut text = format!("{workers} × {}", plural(app.threads.into(), "slot"));
        if let Ok(python) = config::machine::interpreter(app) {
            let program = self.programs.get(&app.name).unwrap_or(&python);
            text.extend([", ", &describe(&python, program)]);
        }
        (text, false)
    }

    /// Where all sites are.
    fn bases(&self) -> Vec<String> {
        self.loaded
            .site
            .hosts
            .iter()
            .flat_map(|host| self.bases_of(host))
            .collect()
    }

    /// Where a site is: at the listeners that speak as it wants to be spoken to.
    fn bases_of(&self, host: &VirtualHost) -> Vec<String> {
        self.addresses(host, host.tls.value != Tls::Off)
    }

    /// Where visitors of a site with TLS are sent on from.
    fn plain_bases_of_secure(&self, host: &VirtualHost) -> Vec<String> {
        if host.tls.value == Tls::Off {
            Vec::new()
        } else {
            self.addresses(host, false)
        }
    }

    fn addresses(&self, host: &VirtualHost, tls: bool) -> Vec<String> {
        let ours = self
            .listening
            .iter()
            .filter(|listening| listening.kind() == if tls { Kind::Https } else { Kind::Http });
        let names = || host.names.iter().map(name);
        ours.flat_map(|listening| names().map(move |name| base(tls, &name, listening)))
            .collect()
    }
}

fn line(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("a String takes everything");
}

fn name(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "localhost".to_owned(),
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(rest) => format!("*.{rest}"),
    }
}

fn base(tls: bool, name: &str, listening: &Listening) -> String {
    let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
    match listening.what.port {
        Some(port) if port == usual => format!("{scheme}://{name}/"),
        Some(port) => format!("{scheme}://{name}:{port}/"),
        None => format!("{scheme}://{name}/ on {}", listening.what.name),
    }
}

/// `Python 3.11 of /srv/web/.venv/bin/python`, as far as the name of the program that it stands for tells its version.
fn describe(python: &Path, program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_prefix("python3.") {
        Some(minor) if minor.parse::<u8>().is_ok() => {
            format!("Python 3.{minor} of {}", python.display())
        }
        _ => python.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ::proxy::control::Listener;

    use super::*;

    const SITE: &str = r#"
        [server]
        http = ["127.0.0.1:8080"]
        https = ["127.0.0.1:443"]
        [app.web]
        wsgi = "app:app"
        root = "/srv/web"
        python = "/bin/sh"
        workers = 2
        threads = 4
        [app.api]
        wsgi = "app:app"
        root = "/srv/api"
        [[site]]
        hosts = ["*", "example.org"]
        tls = "self-signed"
        routes = [{ path = "/", app = "web" }]
        [[site]]
        hosts = ["*.example.net"]
        tls = "off"
        routes = [{ path = "/api/", app = "api" }, { path = "/old", redirect = "/new", status = 301 }]
    "#;

    fn listening(tls: bool, port: u16) -> Listening {
        let what = Listener {
            tls,
            proxy_protocol: false,
            figures: false,
            name: format!("127.0.0.1:{port}"),
            port: Some(port),
        };
        Listening::of(File::open("/dev/null").unwrap().into(), what)
    }

    fn with<T>(check: impl FnOnce(Banner<'_>) -> T) -> T {
        let loaded = config::parse(Path::new("/etc/site.toml"), SITE.to_owned(), false).unwrap();
        let programs = BTreeMap::from([("web".to_owned(), "/usr/bin/python3.11".into())]);
        let failures = BTreeMap::from([("api".to_owned(), "SyntaxError: no".to_owned())]);
        check(Banner {
            loaded: &loaded,
            listening: &[listening(false, 8080), listening(true, 443)],
            failures: &failures,
            programs: &programs,
            after: Duration::from_millis(312),
        })
    }

    #[test]
    fn the_table_says_what_is_where_and_what_is_not() {
        let expected = "
  stack serves /etc/site.toml

  https://localhost/                  app web   2 workers × 4 slots, Python 3.11 of /bin/sh
  https://example.org/                app web   2 workers × 4 slots, Python 3.11 of /bin/sh
  http://localhost:8080/              redirect  to https
  http://example.org:8080/            redirect  to https
  http://*.example.net:8080/api/      app api   answers 503: SyntaxError: no
  http://*.example.net:8080/old       redirect  301 /new

  ready in 312 ms; Ctrl-C stops

";
        // The first column is as wide as its widest cell.
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            squeeze(&with(|banner| banner.table(false))),
            squeeze(expected)
        );
    }

    #[test]
    fn the_line_says_the_same_in_short() {
        assert_eq!(
            with(|banner| banner.status()),
            "serving /etc/site.toml at https://localhost/, https://example.org/, http://*.example.net:8080/; \
             app api: answers 503: SyntaxError: no; app web: 2 workers × 4 slots, Python 3.11 of /bin/sh; \
             ready in 312 ms"
        );
    }
}
