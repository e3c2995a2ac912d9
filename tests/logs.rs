//! Logs: own formats, secrets, files that are moved aside, JSON, and a reader that everybody has.

use std::{fs, path::Path, process::Command};

use crate::harness::{Site, kill};

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
