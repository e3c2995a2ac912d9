//! What a start takes, finds and refuses: apps, interpreters, sockets, folders, and where it says so.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::harness::{Client, PATIENCE, Site, kill, stack_command, venv};

const HELLO: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"#;

/// Answers with the value of the expression.
fn says(expression: &str) -> String {
    format!(
        "import os, sys\n\
         def app(environ, start_response):\n    \
             start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
             return [str({expression}).encode()]\n"
    )
}

fn real(path: &Path) -> String {
    let path = path.canonicalize().expect("it is there");
    path.display().to_string()
}

const TWO_APPS: &str = r#"
    [server]
    http = ["127.0.0.1:0"]
    [app.good]
    wsgi = "good:app"
    workers = 1
    [app.bad]
    wsgi = "bad:app"
    workers = 1
    [[site]]
    hosts = ["*"]
    routes = [
      { path = "/", app = "good" },
      { path = "/bad/", app = "bad" },
      { path = "/files/", files = "files" },
    ]
"#;

#[test]
fn a_broken_app_is_shown_and_the_rest_is_served_until_it_is_mended() {
    let stack = Site::new(TWO_APPS)
        .file("good.py", HELLO)
        .file("bad.py", "import nonsense_that_is_not_there\n")
        .file("files/a.txt", "a file")
        .start();
    let log =
        stack.until_logged("ModuleNotFoundError: No module named 'nonsense_that_is_not_there'");
    assert!(log.contains("bad·1"), "the app: {log}");
    assert!(log.contains("bad.py\", line 1"), "the file: {log}");
    assert!(log.contains("Traceback (most recent call last)"), "{log}");
    let bad = stack.get("/bad/x");
    assert_eq!(bad.status, 503);
    assert!(bad.field("retry-after").is_some());
    assert!(!bad.text().contains("nonsense"), "visitors see no code");
    assert_eq!(stack.get("/").text(), "hello");
    assert_eq!(stack.get("/files/a.txt").text(), "a file");
    fs::write(stack.path().join("bad.py"), HELLO).expect("the folder is ours");
    stack.until("the next try serves", || stack.get("/bad/").status == 200);
}

#[test]
fn the_same_traceback_is_shown_once() {
    let stack = Site::with_app("raise RuntimeError('no')\n").start();
    let log = stack.until_logged("next try in 800 ms");
    assert_eq!(log.matches("Traceback").count(), 1, "{log}");
    assert_eq!(
        log.matches("cannot start: RuntimeError: no").count(),
        4,
        "{log}"
    );
}

#[test]
fn an_app_is_found_by_module_attribute_or_factory() {
    let cases = [
        ("app:app", "app.py", HELLO.to_owned()),
        (
            "package.inner.wsgi:site.app",
            "package/inner/wsgi.py",
            format!("{HELLO}\nclass site:\n    app = staticmethod(app)\n"),
        ),
        (
            "app:create_app()",
            "app.py",
            format!(
                "def create_app():\n    return inner\n{}",
                HELLO.replace("def app", "def inner")
            ),
        ),
    ];
    for (entry, file, text) in cases {
        let stack = Site::with_app("")
            .edit("\"app:app\"", &format!("{entry:?}"))
            .file(file, text)
            .start();
        assert_eq!(stack.get("/").text(), "hello", "{entry}");
    }
}

#[test]
fn an_app_lives_in_its_root() {
    let stack = Site::with_app("")
        .edit("root = \".\"", "root = \"inner\"")
        .file("inner/app.py", says("[os.getcwd(), sys.path[0]]"))
        .start();
    let root = real(&stack.path().join("inner"));
    let seen = stack.get("/").text();
    assert_eq!(seen.matches(&format!("'{root}'")).count(), 2, "{seen}");
}

#[test]
fn the_environment_is_ours_then_the_file_then_the_table() {
    let names = "[os.environ.get(name) for name in 'ABCD']";
    let stack = Site::with_app(&says(names))
        .edit(
            "workers",
            "env_file = \"app.env\"\nenv = { C = \"table\" }\nworkers",
        )
        .file(
            "app.env",
            "# a comment\nB=file\nexport C=file\nD='two words'\n",
        )
        .env("A", "ours")
        .env("B", "ours")
        .start();
    assert_eq!(
        stack.get("/").text(),
        "['ours', 'file', 'table', 'two words']"
    );
}

#[test]
fn a_venv_is_found_by_itself() {
    let python = venv::python();
    for name in [".venv", "venv"] {
        let site = Site::with_app(&says("sys.prefix")).edit(&format!("python = {:?}", python), "");
        let venv = site.path().join(name);
        fs::create_dir_all(venv.join("bin")).expect("the folder is ours");
        symlink(python, venv.join("bin/python")).expect("the folder is ours");
        let home = python.parent().expect("a file is in a folder");
        let stack = site
            .file(
                &format!("{name}/pyvenv.cfg"),
                format!("home = {}\n", home.display()),
            )
            .start();
        assert!(
            stack.get("/").text().ends_with(&format!("/{name}")),
            "{name}"
        );
    }
}

#[test]
fn an_interpreter_that_is_not_there_is_refused_at_once() {
    let site = Site::with_app(HELLO).edit(
        &format!("python = {:?}", venv::python()),
        "python = \"/nowhere/python3\"",
    );
    for command in ["check", "up"] {
        let (code, text) = site.run(command);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("cannot run /nowhere/python3: no such file"),
            "{text}"
        );
    }
}

#[test]
fn an_interpreter_that_is_too_old_is_one_clear_line() {
    // Old enough not to know what it is asked.
    let script = "#!/bin/sh\nexec PYTHON -c 'import sys; sys.version_info = (3, 9, 18, \"final\", 0)\nexec(compile(open(3).read(), \"stack-bootstrap\", \"exec\"))' \"$3\"\n";
    let site = Site::with_app(HELLO)
        .edit(
            &format!("python = {:?}", venv::python()),
            "python = \"./old\"",
        )
        .program(
            "old",
            &script.replace("PYTHON", &venv::python().display().to_string()),
        );
    let stack = site.start();
    let log = stack.until_logged("is Python 3.9.18; stack needs CPython 3.10 or later");
    assert!(!log.contains("Traceback"), "{log}");
    assert_eq!(stack.get("/").status, 503);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("bound").to_string();
    let (code, text) = Site::with_app(HELLO)
        .edit("127.0.0.1:0", &address)
        .run("up");
    assert_eq!(code, Some(1), "{text}");
    let port = address.rsplit(':').next().expect("it has a port");
    assert!(
        text.contains(&format!("port {port} is taken by another process")),
        "{text}"
    );
    assert!(text.contains("ss -ltnp"), "what to do: {text}");
    assert!(text.contains("site.toml:"), "where: {text}");
}

#[test]
fn a_port_that_is_not_ours_to_take_is_refused_with_what_to_do() {
    // Root without the right to take it is refused like anybody else; there is no lower port that others hold.
    let site = Site::with_app(HELLO).edit("127.0.0.1:0", "127.0.0.1:81");
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set=-net_bind_service", "--inh-caps=-all"])
        .args([env!("CARGO_BIN_EXE_stack"), "up", "--config"])
        .arg(site.path().join("site.toml"))
        .output();
    let open = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let Ok(output) = output else {
        println!("NOT TRIED: there is no setpriv here");
        return;
    };
    if open.is_ok_and(|port| port.trim() == "0") {
        println!("NOT TRIED: every port is free for all here");
        return;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("only root may listen on port 81"), "{text}");
    assert!(text.contains("setcap cap_net_bind_service=+ep"), "{text}");
}

#[test]
fn a_unix_socket_replaces_a_dead_one_and_never_a_live_one() {
    let site = Site::with_app(HELLO).edit("\"127.0.0.1:0\"", "\"127.0.0.1:0\", \"unix:web.sock\"");
    let path = site.path().join("web.sock");
    drop(UnixListener::bind(&path).expect("the folder is ours"));
    let stack = site.start();
    let stream = UnixStream::connect(&path).expect("it listens");
    assert_eq!(Client::unix(stream).get("/").text(), "hello");
    let (code, text) = stack.site().run("up");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process listens on"), "{text}");
    assert!(text.contains("web.sock"), "{text}");
    assert!(
        fs::metadata(&path).is_ok_and(|file| file.file_type().is_socket()),
        "the live one is untouched"
    );
    assert_eq!(stack.get("/").text(), "hello");
    stack.signal(rustix::process::Signal::TERM);
    assert!(stack.wait().success());
    assert!(!path.exists(), "removed at the end");
}

#[test]
fn one_configuration_is_served_once() {
    let run = tempfile::tempdir().expect("a temporary folder");
    let stack = Site::with_app(HELLO)
        .env("XDG_RUNTIME_DIR", &run.path().display().to_string())
        .start();
    let (code, text) = stack.site().run("up");
    assert_eq!(code, Some(1), "{text}");
    let expected = format!(
        "this configuration is being served already, by process {}",
        stack.pid()
    );
    assert!(text.contains(&expected), "{text}");
    // The same file by another name is the same configuration.
    let output = stack_command()
        .args(["up", "-c", "./site.toml"])
        .current_dir(stack.path())
        .env("XDG_RUNTIME_DIR", run.path())
        .output()
        .expect("the binary was built");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&expected), "{text}");
    assert_eq!(stack.get("/").text(), "hello", "the first one goes on");
}

#[test]
fn the_run_directory_is_the_given_one_the_users_or_a_fresh_one() {
    for variable in ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"] {
        let run = tempfile::tempdir().expect("a temporary folder");
        let stack = Site::with_app(HELLO)
            .env(variable, &run.path().display().to_string())
            .start();
        let mut sockets = sockets_in(run.path());
        sockets.retain(|path| !path.ends_with("admin.sock"));
        assert_eq!(sockets.len(), 1, "{variable}");
        let folder = sockets[0].parent().expect("a file is in a folder");
        assert_eq!(folder == run.path(), variable == "RUNTIME_DIRECTORY");
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode(&sockets[0]), 0o600, "{variable}");
        if variable != "RUNTIME_DIRECTORY" {
            assert_eq!(mode(folder), 0o700, "{variable}");
        }
        stack.signal(rustix::process::Signal::TERM);
        assert!(stack.wait().success());
        assert_eq!(
            fs::read_dir(run.path()).expect("it stays").count(),
            0,
            "{variable}"
        );
    }
}

fn sockets_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder)
        .expect("it is there")
        .flatten()
        .map(|entry| entry.path())
    {
        if path.is_dir() {
            found.extend(sockets_in(&path));
        } else if path.extension().is_some_and(|end| end == "sock") {
            found.push(path);
        }
    }
    found
}

#[test]
fn without_a_terminal_lines_are_plain_and_requests_in_the_combined_format() {
    let site = Site::with_app(HELLO);
    // A script, as version managers have them: its name tells nothing.
    let script = format!("#!/bin/sh\nexec {:?} \"$@\"\n", venv::python());
    let stack = site
        .edit(
            &format!("python = {:?}", venv::python()),
            "python = \"./any\"",
        )
        .program("any", &script)
        .start();
    stack.get("/a");
    let log = stack.until_logged("\"GET /a HTTP/1.1\" 200 5 \"-\" \"-\"");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(log.contains(" INFO master: serving "), "{log}");
    assert!(log.contains("1 worker × 2 slots, Python 3."), "{log}");
}

#[test]
fn requests_as_json_to_a_file_of_their_own() {
    let stack = Site::with_app(HELLO)
        .edit(
            "[app.web]",
            "access_log = { file = \"access.log\", format = \"json\" }\n[app.web]",
        )
        .start();
    let answer = stack.get("/a?b=%22");
    let log = stack.path().join("access.log");
    stack.until("a line", || {
        fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n'))
    });
    let text = fs::read_to_string(&log).expect("it is there");
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(record["target"], "/a?b=%22");
    assert_eq!(record["status"], 200);
    assert_eq!(
        record["request_id"],
        answer.field("x-request-id").expect("it has an id")
    );
    assert!(
        record["worker"]
            .as_str()
            .is_some_and(|worker| worker.starts_with("web·1/")),
        "{record}"
    );
    let mode = fs::metadata(&log)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640, "records name visitors");
    assert!(!stack.logged().contains("GET /a"), "nowhere else");
}

/// Ctrl-C while Python still imports: nobody waits for the import.
#[test]
fn an_interrupt_while_workers_start_stops_at_once() {
    let site = Site::with_app(
        "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(600)\n",
    );
    let importing = site.path().join("importing");
    let stack = site.start_unready();
    stack.until("it imports", || importing.exists());
    let worker = stack.workers()[0];
    let begun = std::time::Instant::now();
    kill(stack.pid(), rustix::process::Signal::INT);
    assert!(stack.wait().success());
    assert!(begun.elapsed() < PATIENCE / 2);
    assert!(!crate::harness::is_alive(worker));
}
