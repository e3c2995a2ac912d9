//! Arguments, and what they come to.

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

/// What becomes of an option of gunicorn's.
enum Fate {
    /// It says this in the configuration.
    Says(&'static str),
    /// It is understood, and nothing need be said.
    Silent,
    /// What to do in its place is said, with these words.
    Instead(&'static str),
    /// It does something else than to configure.
    Does,
}

/// Every option of gunicorn 23's command line: none of them is met with silence.
#[test]
fn every_option_of_gunicorn_has_its_fate() {
    use Fate::{Does, Instead, Says, Silent};
    let tls = "--certfile a --keyfile b";
    let with_tls = |options: &str| format!("{tls} {options}");
    let cases: [(String, Fate); 75] = [
        ("-c gunicorn.conf.py".into(), Instead("stack import")),
        ("--config x.py".into(), Instead("stack import")),
        ("-b 127.0.0.1:1".into(), Says("http = [\"127.0.0.1:1\"]")),
        ("--backlog 64".into(), Silent),
        ("-w 3".into(), Says("workers = 3")),
        ("-k gthread".into(), Silent),
        ("--threads 8".into(), Says("threads = 8")),
        ("--worker-connections 9".into(), Instead("connections")),
        ("--max-requests 1000".into(), Says("max_requests = 1000")),
        ("--max-requests 0".into(), Silent),
        ("--max-requests-jitter 50".into(), Silent),
        ("-t 60".into(), Says("timeout = \"60s\"")),
        (
            "--graceful-timeout 20".into(),
            Says("drain_timeout = \"20s\""),
        ),
        ("--keep-alive 5".into(), Says("keepalive_timeout = \"5s\"")),
        (
            "--limit-request-line 4094".into(),
            Says("request_line = 4094"),
        ),
        ("--limit-request-fields 50".into(), Says("fields = 50")),
        (
            "--limit-request-field_size 9".into(),
            Instead("[limits] head"),
        ),
        ("--reload".into(), Does),
        ("--reload --reload-engine inotify".into(), Does),
        ("--reload --reload-extra-file x".into(), Does),
        ("--spew".into(), Instead("stack trace")),
        ("--check-config".into(), Does),
        ("--print-config".into(), Does),
        ("--preload".into(), Silent),
        ("--no-sendfile".into(), Silent),
        ("--reuse-port".into(), Silent),
        ("--chdir web".into(), Says("root = \"web\"")),
        ("--daemon".into(), Instead("systemd")),
        ("-D".into(), Instead("systemd")),
        ("-e A=1".into(), Says("env = { \"A\" = \"1\" }")),
        ("-p x.pid".into(), Does),
        ("--worker-tmp-dir /dev/shm".into(), Silent),
        ("-u www-data".into(), Says("user = \"www-data\"")),
        ("-u w -g www-data".into(), Says("group = \"www-data\"")),
        ("-m 0o027".into(), Says("umask = \"027\"")),
        ("--initgroups".into(), Silent),
        (
            "--access-logfile a.log".into(),
            Says("access_log = { file = \"a.log\" }"),
        ),
        ("--access-logfile -".into(), Says("access_log = \"stdout\"")),
        ("--disable-redirect-access-to-syslog".into(), Silent),
        (
            "--access-logformat %(h)s".into(),
            Says("access_log = { format = \"$client\" }"),
        ),
        (
            "--access-logfile a.log --access-logformat json".into(),
            Says("access_log = { file = \"a.log\", format = \"json\" }"),
        ),
        (
            "--error-logfile e.log".into(),
            Says("log = { file = \"e.log\" }"),
        ),
        ("--log-file -".into(), Silent),
        (
            "--log-level warning".into(),
            Says("log = { level = \"warn\" }"),
        ),
        (
            "--log-level critical --log-file e.log".into(),
            Says("log = { level = \"error\", file = \"e.log\" }"),
        ),
        ("--capture-output".into(), Silent),
        ("--logger-class x.Y".into(), Instead("--log-level")),
        ("--log-config x".into(), Instead("--log-level")),
        ("--log-config-json x".into(), Instead("--log-level")),
        ("--log-syslog".into(), Instead("journal")),
        ("--log-syslog-to x".into(), Instead("journal")),
        ("--log-syslog-prefix x".into(), Instead("journal")),
        ("--log-syslog-facility x".into(), Instead("journal")),
        ("-R".into(), Silent),
        ("--statsd-host x".into(), Instead("metrics")),
        ("--dogstatsd-tags x".into(), Instead("metrics")),
        ("--statsd-prefix x".into(), Instead("metrics")),
        ("-n web".into(), Silent),
        ("--pythonpath /a,/b".into(), Says("PYTHONPATH = \"/a:/b\"")),
        ("--paste x.ini".into(), Instead("loadapp")),
        ("--paste-global A=1".into(), Instead("loadapp")),
        ("--proxy-protocol".into(), Says("proxy_protocol = true")),
        (
            "--proxy-allow-from 10.0.0.1".into(),
            Says("trusted_proxies = [\"10.0.0.1\"]"),
        ),
        (
            "--forwarded-allow-ips *".into(),
            Says("trusted_proxies = [\"0.0.0.0/0\", \"::/0\", \"unix\"]"),
        ),
        (tls.into(), Says("tls = { cert = \"a\", key = \"b\" }")),
        ("--ssl-version 5".into(), Instead("1.3")),
        (with_tls("--ca-certs c"), Says("client_ca = \"c\"")),
        (
            with_tls("--ca-certs c --cert-reqs 1"),
            Says("client_auth = \"optional\""),
        ),
        ("--suppress-ragged-eofs".into(), Silent),
        ("--do-handshake-on-connect".into(), Silent),
        ("--ciphers x".into(), Instead("modern")),
        ("--permit-obsolete-folding".into(), Instead("refused")),
        ("--strip-header-spaces".into(), Instead("refused")),
        ("--header-map drop".into(), Instead("never reach the app")),
        (
            "--forwarder-headers X".into(),
            Instead("never reach the app"),
        ),
    ];
    let plain = invocation(&["app:app"], None).arguments().to_toml();
    for (options, fate) in cases {
        let words: Vec<&str> = std::iter::once("app:app")
            .chain(options.split(' '))
            .collect();
        let all = ["stack", "serve"].iter().chain(&words);
        let parsed = args::Arguments::try_parse_from(all);
        if let Instead(hint) = fate {
            assert!(parsed.is_err(), "{options}");
            let said = args::serve::instead_of(words[1]);
            assert!(
                said.is_some_and(|said| said.contains(hint)),
                "{options}: {said:?}"
            );
            continue;
        }
        assert!(parsed.is_ok(), "{options}: {:?}", parsed.err());
        let toml = invocation(&words, None).arguments().to_toml();
        match fate {
            Says(text) => assert!(toml.contains(text), "{options}: {toml}"),
            Silent => assert_eq!(toml, plain, "{options}"),
            Does | Instead(_) => {}
        }
        let read = config::parse(Path::new("/srv/x"), toml, false);
        assert!(read.is_ok(), "{options}: {}", read.expect_err("it is not"));
    }
}
