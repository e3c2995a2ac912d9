//! A file, from its bytes to what the rest of the program gets.

use std::{fs, path::Path, time::Duration};

use config::{
    Loaded,
    error::{Problem, Report},
    load,
    site::{
        AccessLog, Action, Cache, Entry, Headers, HostPattern, Interpreter, Limits, Listen,
        Located, Location, LocationPart, LogFormat, LogTarget, Queue, RoutePath, Tls, Workers,
    },
};

fn parse(text: &str, privileged: bool) -> Loaded {
    config::parse(Path::new("/srv/web/site.toml"), text.to_owned(), privileged)
        .unwrap_or_else(|report| panic!("{report}"))
}

const HELLO: &str = "[[site]]\nroutes = [{ path = \"/\", respond = \"hello\" }]\n";

#[test]
fn a_full_file() {
    let site = parse(
        r#"
[server]
http = [":80", "unix:stack.sock"]
https = ["[::1]:443"]
trusted_proxies = ["10.0.0.0/8", "::1"]
access_log = { file = "logs/access.log", format = "json" }
server_header = false
[limits]
body = "1GB"
fields = 50
queue_timeout = "250ms"
drain_timeout = "0s"
[app.web]
wsgi = "mysite.wsgi:make()"
root = "../app"
venv = "/venvs/web"
workers = 2
threads = 8
env = { B = "2", A = "1" }
timeout = "5m"
boot_timeout = "2m"
on_start = "mysite.pool:open"
on_stop = "mysite.pool:close"
[app.api]
wsgi = "api:app"
python = "python3.12"
[[site]]
hosts = ["Example.org", "*.example.org"]
tls = { cert = "full.pem", key = "/keys/key.pem" }
[[site.routes]]
path = "/static/"
files = "public"
cache = "7d"
[[site.routes]]
path = "/"
app = "web"
[[site]]
hosts = ["::1"]
routes = [
  { path = "/old", redirect = "https://example.org/", status = 308 },
  { path = "/health", respond = "ok", status = 503, type = "text/html" },
]
"#,
        false,
    )
    .site;
    let listen: Vec<Listen> = site
        .server
        .http
        .iter()
        .map(|listen| listen.value.clone())
        .collect();
    assert_eq!(
        listen,
        [
            Listen::Any { port: 80 },
            Listen::Unix("/srv/web/stack.sock".into())
        ]
    );
    assert_eq!(site.server.https[0].value.to_string(), "[::1]:443");
    assert_eq!(site.server.trusted_proxies.networks.len(), 2);
    let AccessLog {
        to: LogTarget::File(file),
        format: Some(LogFormat::Json),
        ..
    } = &site.server.access_log
    else {
        panic!("{:?}", site.server.access_log);
    };
    assert_eq!(file.value, Path::new("/srv/web/logs/access.log"));
    assert!(!site.server.server_header);
    let expected = Limits {
        body: 1_000_000_000,
        fields: 50,
        queue_timeout: Duration::from_millis(250),
        drain_timeout: Duration::ZERO,
        ..Limits::default()
    };
    assert_eq!(site.limits, expected);

    let web = site.app("web").expect("the app");
    assert_eq!(web.wsgi.to_string(), "mysite.wsgi:make()");
    assert_eq!(web.root.value, Path::new("/srv/app"));
    assert_eq!(
        web.interpreter.value,
        Interpreter::Venv("/venvs/web".into())
    );
    assert_eq!((web.workers, web.threads), (Workers::fixed(2), 8));
    assert_eq!(web.env.get("B").map(String::as_str), Some("2"));
    assert_eq!(
        (web.timeout, web.boot_timeout),
        (Duration::from_secs(300), Duration::from_secs(120))
    );
    let hook = |hook: &Option<Located<Entry>>| hook.as_ref().map(|it| it.value.to_string());
    assert_eq!(hook(&web.on_start).as_deref(), Some("mysite.pool:open"));
    assert_eq!(hook(&web.on_stop).as_deref(), Some("mysite.pool:close"));
    assert_eq!(site.apps[0].name, "api");
    assert_eq!(
        site.apps[0].interpreter.value,
        Interpreter::Path("python3.12".into())
    );
    assert_eq!(site.apps[0].root.value, Path::new("/srv/web"));

    let [first, second] = &site.hosts[..] else {
        panic!("two sites")
    };
    assert_eq!(
        first.names,
        [
            HostPattern::Exact("example.org".into()),
            HostPattern::Wildcard("example.org".into())
        ]
    );
    let Tls::Files(pairs) = &first.tls.value else {
        panic!("{:?}", first.tls)
    };
    let [
        config::site::KeyPair {
            cert,
            key,
            ocsp: None,
        },
    ] = &pairs[..]
    else {
        panic!("{pairs:?}")
    };
    assert_eq!(
        (cert.value.as_path(), key.value.as_path()),
        (Path::new("/srv/web/full.pem"), Path::new("/keys/key.pem"))
    );
    assert_eq!(first.routes[0].path, RoutePath::Subtree("/static/".into()));
    let Action::Files {
        files,
        otherwise: None,
    } = &first.routes[0].action
    else {
        panic!("files")
    };
    assert_eq!(
        (files.root.value.as_path(), files.cache),
        (
            Path::new("/srv/web/public"),
            Cache::Age(Duration::from_secs(604_800))
        )
    );
    assert_eq!(
        first.routes[1].action,
        Action::App {
            app: "web".into(),
            queue: Queue::Last
        }
    );
    assert_eq!(second.names, [HostPattern::Exact("[::1]".into())]);
    assert_eq!(second.tls.value, Tls::SelfSigned);
    assert_eq!(second.routes[0].path, RoutePath::Exact("/old".into()));
    assert_eq!(
        second.routes[0].action,
        Action::Redirect {
            to: Location(vec![LocationPart::Text("https://example.org/".into())]),
            status: 308
        }
    );
    let respond = Action::Respond {
        status: 503,
        body: "ok".into(),
        content_type: "text/html".into(),
    };
    assert_eq!(second.routes[1].action, respond);
}

#[test]
fn defaults_that_depend() {
    for (privileged, https, port, tls) in [
        (false, "", 8080, Tls::Off),
        (true, "", 80, Tls::Off),
        (true, "[server]\nhttps = [\":443\"]\n", 80, Tls::SelfSigned),
        (false, "[server]\nhttps = []\n", 8080, Tls::Off),
    ] {
        let site = parse(&format!("{https}{HELLO}"), privileged).site;
        assert_eq!(site.server.http[0].value, Listen::Any { port });
        assert_eq!(site.hosts[0].tls.value, tls, "{https}");
        assert_eq!(site.hosts[0].names, [HostPattern::Any]);
    }
    let site = parse(
        "[app.web]\nwsgi = \"app:app\"\n[[site]]\nroutes = [{ path = \"/\", app = \"web\" }]",
        false,
    )
    .site;
    let cores = std::thread::available_parallelism()
        .expect("the cores")
        .get();
    assert_eq!(usize::from(site.apps[0].workers.least), cores);
    assert_eq!(site.apps[0].interpreter.value, Interpreter::Search);
}

#[test]
fn only_https_is_enough() {
    let site = parse(
        &format!("[server]\nhttp = []\nhttps = [\":443\"]\n{HELLO}"),
        false,
    )
    .site;
    assert!(site.server.http.is_empty());
}

#[test]
fn env_wins_over_env_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(".env"), "A=file\nexport B='file' # b\n").expect("the env file");
    let file = folder.path().join("site.toml");
    let text = "[app.web]\nwsgi = \"app:app\"\nenv_file = \".env\"\nenv = { A = \"here\" }\n";
    fs::write(&file, format!("{text}{HELLO}")).expect("the file");
    let site = load(&file, false)
        .unwrap_or_else(|report| panic!("{report}"))
        .site;
    let env: Vec<_> = site.apps[0]
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(env, ["A=here", "B=file"]);
}

#[test]
fn a_bad_env_file_is_named_with_its_lines() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let env = folder.path().join("bad.env");
    fs::write(&env, "A=1\nB\n\nC=\"x\n").expect("the env file");
    let file = folder.path().join("site.toml");
    fs::write(
        &file,
        format!("[app.web]\nwsgi = \"app:app\"\nenv_file = \"bad.env\"\n{HELLO}"),
    )
    .expect("the file");
    let report = load(&file, false).expect_err("bad lines");
    let said: Vec<&str> = report
        .problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    let env = env.display();
    assert_eq!(
        said,
        [
            format!("{env}:2: expected KEY=VALUE, found \"B\""),
            format!("{env}:4: the closing \" is missing")
        ]
    );
    assert!(report.problems.iter().all(|problem| problem.span.is_some()));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let latin1 = folder.path().join("latin1.toml");
    fs::write(&latin1, b"[server]\n# caf\xE9\n").expect("the file");
    let missing = folder.path().join("no.toml");
    for (file, expected) in [
        (
            missing.as_path(),
            "error: cannot read the file: no such file or directory\n --> FILE\n  = help: name another with `--config FILE`\n\n1 mistake in FILE",
        ),
        (
            folder.path(),
            "error: cannot read the file: is a directory\n --> FILE\n\n1 mistake in FILE",
        ),
        (
            &latin1,
            "error: this is not UTF-8\n --> FILE:2:6\n  |\n2 | # caf\u{FFFD}\n  |      ^\n  = help: save the file as UTF-8\n\n1 mistake in FILE",
        ),
    ] {
        let shown = load(file, false).expect_err("unreadable").to_string();
        assert_eq!(
            shown,
            expected
                .replace(" FILE", &format!(" {}", file.display()))
                .replace(&format!("--config {}", file.display()), "--config FILE")
        );
    }
}

#[test]
fn what_is_found_later_is_shown_in_its_place() {
    let loaded = parse(
        &format!("[server]\nhttp = [\":81\", \":82\"]\n{HELLO}"),
        false,
    );
    let taken = |index: usize| {
        let listen = &loaded.site.server.http[index];
        Problem::new(listen.span, format!("{} is taken", listen.value))
            .hint("stop the other server")
    };
    let report = loaded.report(vec![
        taken(1),
        taken(0),
        taken(1),
        Problem::new(None, "no memory"),
    ]);
    assert_eq!(
        report.to_string(),
        "error: :81 is taken
 --> /srv/web/site.toml:2:9
  |
2 | http = [\":81\", \":82\"]
  |         ^^^^^
  = help: stop the other server

error: :82 is taken
 --> /srv/web/site.toml:2:16
  |
2 | http = [\":81\", \":82\"]
  |                ^^^^^
  = help: stop the other server

error: no memory
 --> /srv/web/site.toml

3 mistakes in /srv/web/site.toml"
    );
}

#[test]
fn colour_changes_nothing_but_colour() {
    let mut report = Report::new(Path::new("site.toml"), "a = 1\n\tb = 2\n");
    report.push(Problem::new(config::error::Span { start: 0, end: 12 }, "wrong").hint("right"));
    let coloured = report.render(true);
    assert!(coloured.contains("\u{1b}["));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').expect("a colour ends in m").1;
    }
    plain.push_str(rest);
    assert_eq!(plain, report.render(false));
}

#[test]
fn what_a_route_says_of_headers_comes_on_top_of_its_site() {
    let site = parse(
        r#"
[[site]]
headers = { Server = false, X-Frame-Options = "DENY", X-Site = "1" }
routes = [
    { path = "/", respond = "" },
    { path = "/a", respond = "", headers = { x-frame-options = "SAMEORIGIN", X-Site = false } },
    { path = "/b/", redirect = "https://example.org/c/{rest}{query}" },
    { path = "/d", redirect = "{path}/{query}" },
]
"#,
        false,
    );
    let host = &site.site.hosts[0];
    let headers = |pairs: &[(&str, Option<&str>)]| {
        let owned =
            |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        Headers(pairs.iter().map(owned).collect())
    };
    let of_site = [
        ("Server", None),
        ("X-Frame-Options", Some("DENY")),
        ("X-Site", Some("1")),
    ];
    assert_eq!(host.headers, headers(&of_site));
    assert_eq!(host.routes[0].headers, headers(&of_site));
    assert_eq!(
        host.routes[1].headers,
        headers(&[
            ("Server", None),
            ("X-Site", None),
            ("x-frame-options", Some("SAMEORIGIN")),
        ])
    );
    assert_eq!(
        host.routes[2].action,
        Action::Redirect {
            to: Location(vec![
                LocationPart::Text("https://example.org/c/".into()),
                LocationPart::Rest,
                LocationPart::Query,
            ]),
            status: 302
        }
    );
}

#[test]
fn the_limits_of_a_route_are_those_of_its_site_but_for_what_it_says() {
    let text = r#"
[limits]
body = "2MiB"
queue_length = 10
[app.web]
wsgi = "app:app"
[[site]]
limits = { queue_length = 20, body_rate = "1KiB" }
routes = [
  { path = "/", app = "web" },
  { path = "/upload/", app = "web", limits = { body = "1GiB", queue_length = 5 } },
]
[[site]]
hosts = ["example.org"]
routes = [{ path = "/", app = "web" }]
"#;
    let site = parse(text, false).site;
    let limits = |host: usize, route: usize| {
        let route = &site.hosts[host].routes[route];
        let limits = route.limits.as_deref().unwrap_or(&site.limits);
        (limits.body, limits.queue_length, limits.body_rate)
    };
    assert_eq!(limits(0, 0), (2 << 20, 20, 1024));
    assert_eq!(limits(0, 1), (1 << 30, 5, 1024));
    assert_eq!(limits(1, 0), (2 << 20, 10, 256));
    assert!(site.hosts[1].routes[0].limits.is_none());
}
