//! Wrong inputs, and what people are told: the page of `mistakes/`. Each case is `mistakes/NAME.txt`, to the letter but for what is
//! of this machine or this moment. Each says what is wrong, where, and what to do. `BLESS=1` writes what is said now; read the
//! difference before you keep it.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Site, Stack, repository, stack_command, venv};

const APP: &str =
    "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n";

fn folder() -> PathBuf {
    repository().join("tests/mistakes")
}

/// One wrong input.
struct Case {
    name: &'static str,
    said: String,
}

/// What a command says, with its exit code, its command line first.
fn run(name: &'static str, site: &Site, arguments: &[&str]) -> Case {
    told(name, site, arguments, stack_command())
}

fn told(name: &'static str, site: &Site, arguments: &[&str], mut command: Command) -> Case {
    let output = command
        .args(arguments)
        .current_dir(site.path())
        .output()
        .expect("the binary was built");
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let code = output
        .status
        .code()
        .map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    let text = String::from_utf8_lossy(&text).into_owned();
    let said = format!(
        "$ stack {}\n{}\n[exit {code}]\n",
        arguments.join(" "),
        text.trim_end()
    );
    Case {
        name,
        said: plain(&said, site.path()),
    }
}

/// What a stack that goes on says, up to these words.
fn logged(name: &'static str, stack: &Stack, up_to: &str) -> Case {
    let log = stack.until_logged(up_to);
    let end = log.find(up_to).expect("it was logged") + up_to.len();
    let end = log[end..].find('\n').map_or(log.len(), |at| end + at);
    // The first try of the app; others, and what the proxy says of itself, come when they come.
    let is_its = |line: &&str| {
        !line.contains("INFO proxy: ")
            && !(2..20).any(|number| line.contains(&format!("web·{number}")))
    };
    let lines: Vec<&str> = log[..end].lines().filter(is_its).collect();
    let said = format!("$ stack up\n{}\n", lines.join("\n"));
    Case {
        name,
        said: plain(&said, stack.path()),
    }
}

/// Without what is of this machine or this moment.
fn plain(text: &str, folder: &Path) -> String {
    let python = venv::python().display().to_string();
    let real = folder
        .canonicalize()
        .expect("it is there")
        .display()
        .to_string();
    let text = text
        .replace(&real, "FOLDER")
        .replace(&folder.display().to_string(), "FOLDER")
        .replace(env!("CARGO_BIN_EXE_stack"), "stack")
        .replace(&python, "PYTHON");
    // Who runs the tests is nobody's mistake.
    let is_told = |line: &&str| !line.contains("the proxy runs as root");
    let lines = text.lines().filter(is_told).map(|line| {
        let line = without_time(line);
        let line = after(line, "pid ", "PID");
        let line = after(line, "process ", "PID");
        let line = after(line, "port ", "PORT");
        let line = after(line, "127.0.0.1:", "PORT");
        let line = after(line, "localhost:", "PORT");
        let line = duration(line, " in ");
        duration(line, "next try in ")
    });
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// `2026-11-30T12:00:00.123456Z  INFO …` begins with its time.
fn without_time(line: &str) -> String {
    match line.split_once(' ') {
        Some((time, rest)) if time.len() > 18 && time.starts_with("20") && time.contains('T') => {
            format!("TIME {rest}")
        }
        _ => line.to_owned(),
    }
}

/// The digits that follow some words.
fn after(line: String, words: &str, instead: &str) -> String {
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find(words) {
        let end = at + words.len();
        let digits = rest[end..].bytes().take_while(u8::is_ascii_digit).count();
        out.push_str(&rest[..end]);
        if digits > 0 {
            out.push_str(instead);
        }
        rest = &rest[end + digits..];
    }
    out + rest
}

/// `ready in 312 ms`.
fn duration(line: String, words: &str) -> String {
    let Some(at) = line.find(words) else {
        return line;
    };
    let end = at + words.len();
    let figure = line[end..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .count();
    let unit = ["ms", "µs", "s"]
        .into_iter()
        .find(|unit| line[end + figure..].trim_start().starts_with(unit));
    match (figure, unit) {
        (1.., Some(unit)) => {
            let gap = line[end + figure..].len() - line[end + figure..].trim_start().len();
            format!(
                "{}A MOMENT{}",
                &line[..end],
                &line[end + figure + gap + unit.len()..]
            )
        }
        _ => line,
    }
}

/// The plainest site that can be served.
fn site() -> Site {
    Site::with_app(APP)
}

fn check(name: &'static str, site: Site) -> Case {
    run(name, &site, &["check"])
}

fn up(name: &'static str, site: Site) -> Case {
    run(name, &site, &["up"])
}

const PYTHON_LINE: &str = "python = ";

/// The line of the file that names the Python is another.
fn with_python(site: Site, line: &str) -> Site {
    let text = fs::read_to_string(site.path().join("site.toml")).expect("it is there");
    let old = text
        .lines()
        .find(|line| line.trim_start().starts_with(PYTHON_LINE))
        .expect("a Python")
        .to_owned();
    site.edit(&old, line)
}

fn files() -> Vec<Case> {
    let tls = |cert: &str, key: &str| {
        site()
            .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
            .edit(
                "hosts = [\"*\"]",
                &format!("hosts = [\"*\"]\ntls = {{ cert = {cert:?}, key = {key:?} }}"),
            )
    };
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    let (one, two) = (made("one.example"), made("two.example"));
    vec![
        check("typos-in-keys", site().edit("threads = 2", "thraeds = 2\nworkres = 3\nwsgi_app = \"x\"").edit("routes = ", "route = ")),
        check("wrong-types", site().edit("threads = 2", "threads = \"two\"\ntimeout = 30\nenv = [\"A=1\"]").edit("[\"127.0.0.1:0\"]", "8000")),
        check("not-toml", site().edit("threads = 2", "threads: 2\nenv = { A = 1\n")),
        check("duplicate-routes", site().edit("routes = [", "routes = [{ path = \"/\", respond = \"x\" }, { path = \"/a\", respond = \"x\" }, { path = \"/a\", redirect = \"/b\" }, ")),
        check("missing-files", tls("no.pem", "no.key").edit("routes = [", "errors = { 404 = \"no.html\" }\nauth = { basic = \"no.users\" }\nroutes = [{ path = \"/static/\", files = \"no-folder\" }, ")),
        check("certificate-of-another-key", tls("one.pem", "two.key").file("one.pem", one.cert.pem()).file("two.key", two.signing_key.serialize_pem())),
        check("certificate-and-key-swapped", tls("one.key", "one.pem").file("one.pem", one.cert.pem()).file("one.key", one.signing_key.serialize_pem())),
        check("certificate-that-is-none", tls("one.pem", "one.key").file("one.pem", "hello\n").file("one.key", one.signing_key.serialize_pem())),
        check("no-such-module", site().edit("app:app", "ap:app")),
        check("module-that-is-a-path", site().edit("app:app", "./app.py")),
        check("no-such-python", with_python(site(), "python = \"python9.9\"")),
        check("no-such-venv", with_python(site(), "venv = \"no-venv\"")),
        check("python-that-is-no-program", with_python(site(), "python = \"./app.py\"")),
        check("an-empty-file", Site::new("")),
        check("a-file-of-nginx", Site::new("server {\n  listen 80;\n  location / { proxy_pass http://127.0.0.1:8000; }\n}\n")),
        run("no-file", &Site::without_file(&[]), &["check", "--config", "nowhere/site.toml"]),
        run("a-folder-as-file", &site(), &["check", "--config", "."]),
    ]
}

fn machine() -> Vec<Case> {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut cases = vec![
        up("port-in-use", site().edit("127.0.0.1:0", &address)),
        up(
            "address-not-here",
            site().edit("127.0.0.1:0", "192.0.2.1:8080"),
        ),
        up(
            "socket-in-no-folder",
            site().edit("127.0.0.1:0", "unix:no/such/folder/web.sock"),
        ),
        up(
            "log-in-no-folder",
            site().edit(
                "[server]",
                "[server]\naccess_log = { file = \"no/such/access.log\" }",
            ),
        ),
    ];
    // Nobody else can choose a user.
    if rustix::process::geteuid().is_root() {
        cases.push(up(
            "no-such-user",
            site().edit("threads = 2", "threads = 2\nuser = \"no-such-user\""),
        ));
    }
    let unreadable = site()
        .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
        .edit(
            "hosts = [\"*\"]",
            "hosts = [\"*\"]\ntls = { cert = \"a.pem\", key = \"a.key\" }",
        )
        .file("a.pem", "x")
        .file("a.key", "x");
    for name in ["a.pem", "a.key"] {
        let nobody = fs::Permissions::from_mode(0o000);
        fs::set_permissions(unreadable.path().join(name), nobody).expect("the folder is ours");
    }
    cases.push(told(
        "no-permission",
        &unreadable,
        &["check"],
        without_rights(),
    ));
    let low = site().edit("127.0.0.1:0", "127.0.0.1:81");
    let open = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if open.is_ok_and(|port| port.trim() != "0") {
        // After the words for ports were replaced.
        cases.push(told("port-below-1024", &low, &["up"], without_rights()));
    }
    let run_directory = tempfile::tempdir().expect("a temporary folder");
    let place = run_directory.path().display().to_string();
    let stack = site().env("XDG_RUNTIME_DIR", &place).start();
    let mut again = stack_command();
    again.env("XDG_RUNTIME_DIR", &place);
    let mut case = told("served-already", &stack.site(), &["up"], again);
    let (start, _) = case.said.split_once(&place).expect("it says where");
    case.said = format!("{start}RUN_DIRECTORY)\n[exit 1]\n");
    cases.push(case);
    cases
}

/// The command as somebody who may do nothing but what everybody may.
fn without_rights() -> Command {
    if !rustix::process::geteuid().is_root() {
        return stack_command();
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        env!("CARGO_BIN_EXE_stack"),
    ]);
    command
        .env("NO_COLOR", "1")
        .env_remove("STACK_CONFIG")
        .env_remove("NOTIFY_SOCKET");
    command
}

fn apps() -> Vec<Case> {
    let raises = Site::with_app(
        "import os\n\ndef connect():\n    raise RuntimeError('no database')\n\nconnect()\n",
    )
    .start();
    let missing = Site::with_app("import flask_of_nobody\n").start();
    let no_attribute = Site::with_app("application = None\n").start();
    let not_callable = Site::with_app("app = 'text'\n").start();
    let exits = Site::with_app("import sys\nsys.exit('settings are missing')\n").start();
    let factory = Site::with_app("def create_app(config):\n    return None\n")
        .edit("app:app", "app:create_app()")
        .start();
    let old = "#!/bin/sh\nexec PYTHON -c 'import sys; sys.version_info = (3, 8, 20, \"final\", 0)\nexec(compile(open(3).read(), \"stack-bootstrap\", \"exec\"))' \"$3\"\n";
    let old = with_python(site(), "python = \"./python3.8\"")
        .program(
            "python3.8",
            &old.replace("PYTHON", &venv::python().display().to_string()),
        )
        .start();
    let not_python = with_python(site(), "python = \"./perl\"")
        .program("perl", "#!/bin/sh\necho 'I am no Python' >&2\nexit 2\n")
        .start();
    let ready = "ready in";
    vec![
        logged("app-raises", &raises, ready),
        logged("app-lacks-a-package", &missing, ready),
        logged("app-has-no-such-attribute", &no_attribute, ready),
        logged("app-is-no-function", &not_callable, ready),
        logged("app-exits", &exits, ready),
        logged("factory-wants-more", &factory, ready),
        logged("python-3.8", &old, ready),
        logged("not-python", &not_python, ready),
    ]
}

fn commands() -> Vec<Case> {
    let site = site();
    let empty = Site::without_file(&[]);
    let run_directory = tempfile::tempdir().expect("a temporary folder");
    let mut status = stack_command();
    status.env("XDG_RUNTIME_DIR", run_directory.path());
    vec![
        run("unknown-command", &site, &["chekc"]),
        run("unknown-flag", &site, &["up", "--confg", "x"]),
        run("file-without-flag", &site, &["up", "site.toml"]),
        run("flag-of-another-command", &site, &["up", "-w", "4"]),
        run("flag-without-value", &site, &["up", "--config"]),
        run("serve-without-app", &site, &["serve"]),
        run(
            "serve-flag-of-gunicorn",
            &site,
            &["serve", "app:app", "--daemon"],
        ),
        run(
            "serve-config-of-gunicorn",
            &site,
            &["serve", "app:app", "-c", "gunicorn.conf.py"],
        ),
        run("serve-gevent", &site, &["serve", "app:app", "-k", "gevent"]),
        run(
            "serve-uvicorn",
            &site,
            &["serve", "app:app", "-k", "uvicorn.workers.UvicornWorker"],
        ),
        run(
            "serve-mistakes",
            &site,
            &[
                "serve",
                "ap:app",
                "-w",
                "four",
                "-b",
                "nowhere:1",
                "--static",
                "/static=none",
                "--log-level",
                "loud",
            ],
        ),
        run(
            "serve-a-file",
            &site,
            &["serve", "app.py", "--check-config"],
        ),
        run("exec-of-no-app", &site, &["exec", "api", "--", "true"]),
        run(
            "exec-without-dashes",
            &site,
            &["exec", "python", "manage.py", "migrate"],
        ),
        run("import-of-nothing", &empty, &["import", "nginx.conf"]),
        run("init-of-nothing", &empty, &["init"]),
        told("status-of-nobody", &site, &["status"], status),
    ]
}

#[test]
fn each_message_is_as_it_was() {
    let cases: Vec<Case> = [files(), machine(), apps(), commands()]
        .into_iter()
        .flatten()
        .collect();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for Case { name, said } in &cases {
        let file = folder().join(format!("{name}.txt"));
        assert!(known.insert(file.clone()), "{name} is there twice");
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(folder()).expect("the repository is ours");
            fs::write(&file, said).expect("the repository is ours");
        }
        match fs::read_to_string(&file) {
            Ok(before) if before == *said => {}
            Ok(before) => wrong.push(format!("--- {name} was:\n{before}\n--- and is:\n{said}")),
            Err(_) => wrong.push(format!("--- {name} is new (BLESS=1 keeps it):\n{said}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for entry in fs::read_dir(folder())
        .expect("it is in the repository")
        .flatten()
    {
        let name = entry.file_name();
        let is_of_this_machine = name == "port-below-1024.txt" || name == "no-such-user.txt";
        assert!(
            known.contains(&entry.path()) || is_of_this_machine,
            "{} belongs to no case",
            entry.path().display()
        );
    }
}
