//! Logs: own formats, secrets, files that are moved aside, JSON, and a reader that everybody has.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
};

use crate::harness::{Client, PATIENCE, Site, kill};

const APP: &str = "\
import sys
def app(environ, start_response):
    print('said\\tby the app', file=sys.stderr, flush=True)
    if environ['PATH_INFO'] == '/raise':
        raise RuntimeError('no')
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'x' * 100]
";

fn logging(access_log: &str) -> Site {
    Site::with_app(APP).edit(
        "[app.web]",
        &format!("access_log = {access_log}\n[app.web]"),
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_format_of_ones_own_says_what_was_asked_for() {
    let format = "$method $path [$query] $status $bytes_out $slot $cause $http_x_a $trace_id $app_time $request_id";
    let stack = logging(&format!("{{ file = \"own.log\", format = \"{format}\" }}")).start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let fields = [("X-A", "a \"b\""), ("traceparent", parent.as_str())];
    let answer = stack
        .client()
        .request("GET", "/a?b=1&reset_token=hunter2", &fields, b"");
    let id = answer
        .field("x-request-id")
        .expect("each has one")
        .to_owned();
    stack.client().get("/raise");
    let path = stack.path().join("own.log");
    stack.until("two lines", || read(&path).lines().count() == 2);
    let log = read(&path);
    let lines: Vec<&str> = log.lines().collect();
    let start = "GET /a [b=1&reset_token=***] 200 100 web·1/";
    assert!(lines[0].starts_with(start), "{log}");
    assert!(
        lines[0].contains(&format!(r#" - a \x22b\x22 {trace} 0."#)),
        "{log}"
    );
    assert!(lines[0].ends_with(&id), "{log}");
    assert!(
        lines[1].starts_with("GET /raise [-] 500 ") && lines[1].contains(" app-failed "),
        "{log}"
    );
    assert!(!log.contains("hunter2"));
}

/// What scanners send is looked for in logs, so it stands there as it came, but for what could be taken for a line of its own.
#[test]
fn what_was_no_request_is_recorded_as_it_came() {
    let stack = logging("{ file = \"a.log\", format = \"combined\" }").start();
    let sent: &[(&[u8], &str)] = &[
        (
            b"GET /x y HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x y HTTP/1.1\" 400 ",
        ),
        (
            b"GET /?token=hunter2 HTTP/9.9\r\nHost: a\r\n\r\n",
            "GET /?token=***",
        ),
        (
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\" 400 ",
        ),
        (b"\r\n\"\x1b[2J\r\n\r\n", "\\x22\\x1B[2J\" 400 "),
        (b"\x16\x03\x01\x00\n", "\\x16\\x03\\x01\\x00\" 400 "),
    ];
    for (bytes, _) in sent {
        stack.client().send(bytes).answer(false);
    }
    let path = stack.path().join("a.log");
    stack.until("a line for each", || {
        read(&path).lines().count() == sent.len()
    });
    let log = read(&path);
    for (line, (_, expected)) in log.lines().zip(sent) {
        let (_, request) = line.split_once("] \"").expect("a line of combined");
        assert!(request.starts_with(expected), "{line}: {expected}");
    }
    assert!(!log.contains("hunter2"));
}

#[test]
fn a_file_that_was_moved_is_opened_anew() {
    let stack = logging("{ file = \"a.log\", format = \"combined\" }")
        .edit("[app.web]", "log = { file = \"stack.log\" }\n[app.web]")
        .start();
    let (log, moved) = (stack.path().join("a.log"), stack.path().join("moved"));
    let said = stack.path().join("stack.log");
    stack.get("/before");
    stack.until("the first line", || read(&log).contains("/before"));
    fs::rename(&log, &moved).expect("the folder is ours");
    fs::rename(&said, stack.path().join("said")).expect("the folder is ours");
    kill(stack.pid(), rustix::process::Signal::USR1);
    stack.until("a new file", || {
        log.exists() && read(&said).contains("opened anew")
    });
    stack.get("/after");
    stack.until("the second line", || read(&log).contains("/after"));
    assert_eq!(read(&moved).lines().count(), 1);
    // The proxy says such things in the new file too.
    stack.get("/raise");
    stack.until("what the proxy says", || read(&said).contains("app-failed"));
    assert!(
        read(&said).contains("web·1 | said\tby the app"),
        "{}",
        read(&said)
    );
}

/// What is to come has opened the files already when they are moved aside, and used to go on in those.
#[test]
fn files_that_are_moved_during_a_reload_are_opened_anew_as_well() {
    let stack = logging("{ file = \"a.log\", format = \"combined\" }").start();
    stack.site().edit("\"combined\"", "\"$path\"");
    let slow = format!(
        "import os, time\nopen('importing', 'w').close()\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n{APP}"
    );
    fs::write(stack.path().join("app.py"), slow).expect("the folder is ours");
    let path = |name: &str| stack.path().join(name);
    thread::scope(|scope| {
        let command = scope.spawn(|| stack.site().run("reload"));
        stack.until("new code is imported", || path("importing").exists());
        fs::rename(path("a.log"), path("moved")).expect("the folder is ours");
        kill(stack.pid(), rustix::process::Signal::USR1);
        stack.until_logged("the logs are opened anew");
        fs::write(path("go"), "").expect("the folder is ours");
        let (code, said) = command.join().expect("it ends");
        assert_eq!(code, Some(0), "{said}");
    });
    stack.get("/after");
    stack.until("a line in the new file", || {
        read(&path("a.log")).contains("/after")
    });
    assert!(!read(&path("moved")).contains("/after"));
}

#[test]
fn a_file_is_moved_aside_at_its_size_and_no_line_is_lost() {
    let stack =
        logging("{ file = \"a.log\", format = \"$path\", rotate = { size = \"1KiB\", keep = 3 } }")
            .start();
    let mut client = stack.client();
    for number in 0..60 {
        client.get(&format!("/{number:0>40}"));
    }
    let path = |name: &str| stack.path().join(name);
    stack.until("it is moved aside", || path("a.log.1").exists());
    client.get("/last");
    stack.until("the last line", || read(&path("a.log")).contains("/last"));
    let lines: usize = ["a.log", "a.log.1", "a.log.2", "a.log.3"]
        .iter()
        .map(|name| read(&path(name)).lines().count())
        .sum();
    assert_eq!(lines, 61);
}

#[test]
fn the_log_can_be_objects() {
    let stack = Site::with_app(APP)
        .edit(
            "[app.web]",
            "log = { format = \"json\", file = \"stack.log\" }\naccess_log = \"off\"\n[app.web]",
        )
        .start();
    stack.get("/raise?token=hunter2");
    let path = stack.path().join("stack.log");
    stack.until("all of it", || {
        read(&path).contains("app-failed") && read(&path).contains("said")
    });
    let log = read(&path);
    assert!(!log.contains("hunter2"), "{log}");
    let objects: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for process in ["master", "proxy", "web·1"] {
        assert!(
            objects.iter().any(|object| object["process"] == process),
            "{process}: {log}"
        );
    }
    assert!(
        objects
            .iter()
            .any(|object| object["message"] == "said\tby the app"),
        "{log}"
    );
}

/// A collector that hangs, a terminal with Ctrl-S: lines are lost then, and counted, and nobody waits. The lines that used to
/// wait were those of the master, which starts and stops everybody.
#[test]
fn a_reader_of_the_log_that_stalls_stops_nobody() {
    const LOUD: &str = r#"
import os, sys

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/loud":
        for number in range(4096):
            print("x" * 1000, file=sys.stderr)
    elif path == "/die":
        print("these are my last words", file=sys.stderr)
        os._exit(3)
    elif path == "/raise":
        raise RuntimeError("no")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"#;
    let site = Site::with_app(LOUD)
        .edit("[app.web]", "admin = \"unix:admin.sock\"\n[app.web]")
        // Opened for both, a pipe with a name needs no reader to be written to.
        .through(&["sh", "-c", "exec \"$@\" 2<>pipe", "sh"]);
    let pipe = site.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("every Linux has it").success());
    let stack = site.start();
    let dropped = || {
        let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
        let text = Client::unix(socket)
            .request("GET", "/metrics", &[("Accept", "text/plain")], b"")
            .text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("stack_log_dropped_total{process=\"master\"} "));
        line.expect("it is counted")
            .parse::<u64>()
            .expect("a number")
    };
    let mut answered = 0;
    while dropped() == 0 {
        assert_eq!(stack.get("/loud").status, 200, "a worker never waits");
        answered += 1;
    }
    // The proxy's own lines: more than what is left of the pipe.
    for _ in 0..20 {
        assert_eq!(stack.get("/raise").status, 500);
    }
    assert_eq!(stack.get("/die").status, 502);
    stack.until("another worker", || stack.get("/").status == 200);
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        let pipe = fs::File::open(pipe).expect("it is there");
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let missing = [
        "web·1 | these are my last words",
        " died: exit code 3, ",
        "ERROR master: ",
        " lines dropped while its reader did not take more",
    ];
    let mut missing = BTreeSet::from(missing);
    let mut whole = 0;
    while !missing.is_empty() {
        let line = heard
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("never said: {missing:?}"));
        missing.retain(|words| !line.contains(words));
        if line.contains("xxx") {
            assert_eq!(line, format!("web·1 | {}", "x".repeat(1000)));
            whole += 1;
        }
    }
    assert!(whole < 4096 * answered, "some were dropped");
}

/// Under overload each request is worth a line, and no reader wants them all.
#[test]
fn repeats_are_cut_short() {
    let stack = logging("\"off\"").start();
    let mut client = stack.client();
    for _ in 0..80 {
        assert_eq!(client.get("/raise").status, 500);
    }
    let log = stack.until_logged("more lines within 10 s were left out, such as: request ");
    assert_eq!(log.matches("): 500 app-failed").count(), 51, "{log}");
}

#[test]
fn goaccess_reads_every_line() {
    if Command::new("goaccess").arg("--version").output().is_err() {
        println!(
            "\n!!! NOT TESTED: goaccess is not installed, so nobody knows whether it reads our log\n"
        );
        return;
    }
    let stack = logging("{ file = \"a.log\", format = \"combined\" }").start();
    let mut client = stack.client();
    client.get("/");
    client.request(
        "GET",
        "/a?b=\"c\"",
        &[
            ("Referer", "https://example.org/"),
            ("User-Agent", "a \"quoted\" one"),
        ],
        b"",
    );
    client.post("/form", "text/plain", b"content");
    client.get("/raise");
    let path = stack.path().join("a.log");
    stack.until("all lines", || read(&path).lines().count() == 4);
    let report = stack.path().join("report.json");
    let output = Command::new("goaccess")
        .arg(&path)
        .args(["--log-format=COMBINED", "--no-global-config", "-o"])
        .arg(&report)
        .output()
        .expect("it is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_str(&read(&report)).expect("a report");
    let general = &report["general"];
    assert_eq!(
        (&general["valid_requests"], &general["failed_requests"]),
        (&4.into(), &0.into()),
        "{general}"
    );
}
