//! Figures: what is counted is what was done, and every name is one of the documentation.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use crate::harness::{Client, Site, Stack, kill, repository};

const APP: &str = "\
def app(environ, start_response):
    if environ['PATH_INFO'] == '/raise':
        raise RuntimeError('no')
    environ['wsgi.input'].read()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'x' * 100]
";

fn site() -> Site {
    Site::with_app(APP)
        .edit("[server]", "[server]\nadmin = \"unix:admin.sock\"")
        .edit(
            "{ path = \"/\", app = \"web\" }",
            "{ path = \"/\", app = \"web\" }, { path = \"/static/\", files = \".\" }",
        )
}

fn ask(stack: &Stack, path: &str, accept: &str) -> crate::harness::Answer {
    let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
    Client::unix(socket).request("GET", path, &[("Accept", accept)], b"")
}

fn metrics(stack: &Stack) -> String {
    ask(stack, "/metrics", "text/plain").text()
}

/// Waits for a line: requests are counted once their last byte has left.
fn until(stack: &Stack, line: &str) -> String {
    stack.until(line, || metrics(stack).lines().any(|found| found == line));
    metrics(stack)
}

#[test]
fn what_was_done_is_counted() {
    let stack = site().start();
    let mut client = stack.client();
    client.get("/");
    client.post("/", "text/plain", b"twelve bytes");
    client.get("/raise");
    client.get("/static/app.py");
    client.get("/static/none");
    stack
        .client()
        .send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        .rest();
    until(&stack, "stack_failures_total{cause=\"repeated-host\"} 1");
    let text = metrics(&stack);
    for line in [
        "stack_requests_total{site=\"*\",route=\"/\",code=\"200\"} 2",
        "stack_requests_total{site=\"*\",route=\"/\",code=\"500\"} 1",
        "stack_requests_total{site=\"*\",route=\"/static/\",code=\"200\"} 1",
        "stack_requests_total{site=\"*\",route=\"/static/\",code=\"404\"} 1",
        "stack_requests_total{site=\"-\",route=\"-\",code=\"400\"} 1",
        "stack_request_bytes_total{site=\"*\",route=\"/\"} 12",
        "stack_request_duration_seconds_count{site=\"*\",route=\"/\"} 3",
        "stack_app_duration_seconds_count{app=\"web\"} 3",
        "stack_failures_total{cause=\"app-failed\"} 1",
        "stack_failures_total{cause=\"no-file\"} 1",
        "stack_slots{app=\"web\",state=\"idle\"} 2",
        "stack_slots{app=\"web\",state=\"busy\"} 0",
        "stack_queue_requests{app=\"web\"} 0",
        "stack_workers{app=\"web\"} 1",
        "stack_worker_starts_total{app=\"web\"} 1",
        "stack_connections 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in:\n{text}"
        );
    }
    let listener = format!(
        "stack_connections_accepted_total{{listener=\"{}\"}} 2",
        stack.http()
    );
    assert!(text.contains(&listener), "{text}");
    for process in ["master", "proxy", "web"] {
        let start = format!("stack_process_resident_memory_bytes{{process=\"{process}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        let bytes: u64 = line.expect("each is measured").parse().expect("a number");
        assert!(bytes > 1 << 20, "{process}: {bytes}");
    }
}

/// Why a worker is gone tells a deploy from a crash.
#[test]
fn reloads_and_ends_of_workers_have_reasons() {
    let stack = site()
        .edit("workers = 1", "workers = 1\nmax_requests = 10")
        .start();
    assert_eq!(stack.site().run("reload").0, Some(0));
    until(&stack, "stack_reloads_total{result=\"done\"} 1");
    until(
        &stack,
        "stack_worker_exits_total{app=\"web\",reason=\"reload\"} 1",
    );
    std::fs::write(stack.path().join("app.py"), "import nonsense").expect("the folder is ours");
    assert_eq!(stack.site().run("reload").0, Some(1));
    until(&stack, "stack_reloads_total{result=\"refused\"} 1");
    std::fs::write(stack.path().join("app.py"), APP).expect("the folder is ours");
    for _ in 0..12 {
        assert_eq!(stack.get("/").status, 200);
    }
    until(
        &stack,
        "stack_worker_exits_total{app=\"web\",reason=\"max_requests\"} 1",
    );
    kill(stack.workers()[0], rustix::process::Signal::KILL);
    until(
        &stack,
        "stack_worker_exits_total{app=\"web\",reason=\"killed by SIGKILL\"} 1",
    );
}

#[test]
fn every_name_is_documented_and_the_text_is_well_formed() {
    let stack = site().start();
    stack.get("/");
    let text = until(
        &stack,
        "stack_requests_total{site=\"*\",route=\"/\",code=\"200\"} 1",
    );
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page");
    let mut families = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name");
            assert!(
                page.contains(&format!("`{name}`")),
                "{name} is not in docs/metrics.md"
            );
            families += 1;
        } else if !line.starts_with('#') {
            let value = line.rsplit(' ').next().expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(families > 20, "{text}");
    let open = ask(
        &stack,
        "/metrics",
        "application/openmetrics-text; version=1.0.0",
    );
    assert_eq!(
        open.field("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.text().ends_with("# EOF\n"));
}

/// Prometheus' own check, where it is installed.
#[test]
fn promtool_has_nothing_to_say() {
    let stack = site().start();
    stack.get("/");
    stack.get("/raise");
    let text = until(&stack, "stack_failures_total{cause=\"app-failed\"} 1");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("!!! SKIPPED: promtool does not run; it is in the package prometheus");
        return;
    };
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Every figure that the dashboard or an alert asks for is one that there is, and by names that it has.
#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let text = std::fs::read_to_string(repository().join("deploy/grafana.json")).expect("ours");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `stack_"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let alerts = std::fs::read_to_string(repository().join("deploy/alerts.yml")).expect("ours");
    let alerts = alerts
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("expr: "));
    let mut asked = 0;
    let queries = strings(&dashboard).into_iter();
    for query in queries.chain(alerts.map(str::to_owned)) {
        for (at, _) in query.match_indices("stack_") {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let rest = &query[at..];
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches("_bucket");
            let row = rows.iter().find(|row| row[1] == format!("`{name}`"));
            let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md: {query}"));
            let is_histogram = rest[..end].ends_with("_bucket");
            assert_eq!(is_histogram, row[2] == "histogram", "{name}: {query}");
            let labels = rest[end..]
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            for label in labels
                .unwrap_or_default()
                .split(',')
                .filter(|it| !it.is_empty())
            {
                let label = label.split(['=', '!']).next().expect("split gives one");
                let known = label == "instance" || row[3].contains(&format!("`{label}`"));
                assert!(known, "{name} has no {label}: {query}");
            }
            asked += 1;
        }
    }
    assert!(asked > 40, "only {asked}");
    let checked = Command::new("promtool")
        .args(["check", "rules"])
        .arg(repository().join("deploy/alerts.yml"))
        .output();
    match checked {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => println!("!!! SKIPPED: promtool does not run; it is in the package prometheus"),
    }
}

/// All queries of the dashboard.
fn strings(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value.as_str() {
                Some(text) if matches!(key.as_str(), "expr" | "query") => vec![text.to_owned()],
                _ => strings(value),
            })
            .collect(),
        serde_json::Value::Array(list) => list.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn no_count_shrinks_when_processes_die() {
    let stack = site().start();
    stack.get("/");
    until(
        &stack,
        "stack_requests_total{site=\"*\",route=\"/\",code=\"200\"} 1",
    );
    kill(stack.workers()[0], rustix::process::Signal::KILL);
    until(
        &stack,
        "stack_worker_exits_total{app=\"web\",reason=\"killed by SIGKILL\"} 1",
    );
    until(&stack, "stack_worker_starts_total{app=\"web\"} 2");
    kill(
        stack.proxy().expect("it runs"),
        rustix::process::Signal::KILL,
    );
    until(&stack, "stack_proxy_deaths_total 1");
    stack.until("another proxy", || {
        std::net::TcpStream::connect(stack.http()).is_ok()
            && ask(&stack, "/-/ready", "*/*").status == 200
    });
    stack.get("/");
    until(
        &stack,
        "stack_requests_total{site=\"*\",route=\"/\",code=\"200\"} 2",
    );
}

#[test]
fn health_follows_what_visitors_get() {
    let stack = site().start();
    assert_eq!(ask(&stack, "/-/live", "*/*").status, 200);
    assert_eq!(ask(&stack, "/-/ready", "*/*").text(), "ready\n");
    let command = |stack: &Stack| stack.site().run_with("status", &["--ready"]);
    assert_eq!(command(&stack), (Some(0), String::new()));
    let broken = site().file("app.py", "import no_such_module\n").start();
    let answer = ask(&broken, "/-/ready", "*/*");
    assert_eq!(answer.status, 503);
    assert!(
        answer
            .text()
            .contains("app web cannot start: ModuleNotFoundError"),
        "{}",
        answer.text()
    );
    assert_eq!(ask(&broken, "/-/live", "*/*").status, 200);
    let (code, said) = command(&broken);
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("stack: not ready: app web cannot start"),
        "{said}"
    );
}

/// While it finishes what runs it is no place for new visitors.
#[test]
fn who_drains_is_not_ready() {
    let app = "\
import os, time
def app(environ, start_response):
    open('inside', 'w').close()
    while not os.path.exists('go'):
        time.sleep(0.01)
    start_response('200 OK', [])
    return [b'done']
";
    let stack = Site::with_app(app)
        .edit("[server]", "[server]\nadmin = \"unix:admin.sock\"")
        .start();
    let mut client = stack.client();
    client.ask("/");
    stack.until("it runs", || stack.path().join("inside").exists());
    let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
    let answer = Client::unix(socket).post("/drain", "application/json", b"");
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("\"phase\":\"draining\""),
        "{}",
        answer.text()
    );
    let ready = ask(&stack, "/-/ready", "*/*");
    assert_eq!(
        (ready.status, ready.text().as_str()),
        (503, "not ready: draining\n")
    );
    std::fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(client.answer(false).text(), "done");
    assert!(stack.wait().success());
}

#[test]
fn what_is_logged_can_be_changed_while_it_runs() {
    let stack = site().start();
    let post = |content: &str| {
        let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
        Client::unix(socket).post("/log", "application/json", content.as_bytes())
    };
    assert_eq!(post("{\"level\": \"proxy=loud\"}").status, 409);
    assert_eq!(
        post("{\"level\": \"debug\"}").text(),
        "{\"level\":\"debug\"}\n"
    );
    stack.until_logged("what is logged: debug");
    assert_eq!(post("").text(), "{\"level\":\"info\"}\n");
}
