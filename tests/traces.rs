//! Trace context: a trace goes on through stack, or begins in it, and the access log names it.

use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::harness::{
    Answer, Client, Site, Stack,
    h2::H2,
    origin::{Origin, Then},
};

const APP: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(environ.get(key, "-") for key in ("HTTP_TRACEPARENT", "HTTP_TRACESTATE")).encode()]
"#;

const SITE: &str = r#"
[server]
access_log = { format = "json" }
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[[site]]
hosts = ["localhost"]
tls = "off"
routes = [
    { path = "/", app = "web" },
    { path = "/up/", upstream = "BACK" },
    { path = "/fixed", respond = "ok" },
]
[[site]]
hosts = ["safe.localhost"]
tls = "self-signed"
routes = [{ path = "/", app = "web" }]
"#;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The other server says what it was asked.
fn start() -> Stack {
    let back = Origin::tcp(|stream, seen| {
        let said = [seen.fields("traceparent"), seen.fields("tracestate")].concat();
        let said = said.join(" ");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}",
            said.len()
        );
        let _ = stream.write_all(answer.as_bytes());
        Then::Goes
    });
    let site = Site::new(SITE).edit("BACK", &back.url());
    site.file("app.py", APP).start()
}

fn ask(stack: &Stack, path: &str, fields: &str) -> Answer {
    stack.ask("localhost", path, fields)
}

#[test]
fn a_trace_goes_on_and_the_log_names_it() {
    let stack = start();
    let fields = format!("Traceparent: {VALID}\r\nTracestate: a=1\r\n");
    for path in ["/", "/up/"] {
        assert_eq!(
            ask(&stack, path, &fields).text(),
            format!("{VALID} a=1"),
            "{path}"
        );
        stack.until_logged(&format!("\"trace_id\":\"{TRACE}\""));
    }
    let mut h2 = H2::connect(stack.https(), "safe.localhost");
    let fields = [("traceparent", VALID), ("tracestate", "a=1")];
    assert_eq!(
        h2.request("GET", "/", &fields, b"").text(),
        format!("{VALID} a=1")
    );
    // A later version goes on in ours.
    let later = format!("Traceparent: 7f{}-x\r\n", &VALID[2..]);
    assert_eq!(ask(&stack, "/", &later).text(), format!("{VALID} -"));
}

#[test]
fn where_there_is_none_one_begins() {
    let stack = start();
    let mut known = Vec::new();
    for fields in [
        String::new(),
        "Traceparent: 00-nonsense\r\nTracestate: a=1\r\n".to_owned(),
        format!("Traceparent: {VALID}\r\nTraceparent: {VALID}\r\nTracestate: a=1\r\n"),
        format!("Traceparent: {}\r\n", VALID.to_uppercase()),
        "Tracestate: a=1\r\n".to_owned(),
    ] {
        for path in ["/", "/up/"] {
            let text = ask(&stack, path, &fields).text();
            // The state of a trace that is another one has gone with it.
            let parts: Vec<&str> = text.trim_end_matches(" -").split('-').collect();
            let ["00", trace, parent, "02"] = parts[..] else {
                panic!("{path} {fields}: {text}");
            };
            assert_eq!((trace.len(), parent.len()), (32, 16), "{text}");
            assert!(!known.contains(&trace.to_owned()), "each is another");
            stack.until_logged(&format!("\"trace_id\":\"{trace}\""));
            known.push(trace.to_owned());
        }
    }
    // What nobody else answers belongs to a trace only if the client says so.
    ask(&stack, "/fixed", "");
    let log = stack.until_logged("/fixed");
    let record = log
        .lines()
        .find(|line| line.contains("/fixed"))
        .expect("it is there");
    assert!(!record.contains("trace_id"), "{record}");
}

/// A collector that answers with this status, and a site that sends it all that it records.
fn collected(status: &str) -> (Origin, Stack) {
    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\n{{}}");
    let collector = Origin::saying(answer);
    let traces = format!(
        "[server]\nadmin = \"unix:admin.sock\"\ntraces = {{ to = \"{}\", sample = \"100%\", service = \"shop\", headers = {{ X-Key = \"k\" }} }}\n",
        collector.url()
    );
    let site = Site::new(SITE)
        .edit("BACK", "http://127.0.0.1:1")
        .edit("[server]\n", &traces);
    (collector, site.file("app.py", APP).start())
}

/// All spans that have come, each with what it has.
fn spans(collector: &Origin) -> Vec<Value> {
    let mut all = Vec::new();
    for message in collector.seen() {
        let message: Value = serde_json::from_slice(&message.body).expect("it is JSON");
        for resource in message["resourceSpans"].as_array().expect("a list") {
            for scope in resource["scopeSpans"].as_array().expect("a list") {
                all.extend(scope["spans"].as_array().expect("a list").iter().cloned());
            }
        }
    }
    all
}

fn of<'s>(spans: &'s [Value], trace: &str, kind: u8) -> &'s Value {
    let mut found = spans.iter();
    let found = found.find(|span| span["traceId"] == trace && span["kind"] == kind);
    found.unwrap_or_else(|| panic!("no span {kind} of {trace} in {spans:?}"))
}

fn attribute<'s>(span: &'s Value, key: &str) -> Option<&'s str> {
    let all = span["attributes"].as_array()?;
    let found = all.iter().find(|attribute| attribute["key"] == key)?;
    let value = &found["value"];
    value["stringValue"]
        .as_str()
        .or_else(|| value["intValue"].as_str())
}

#[test]
fn spans_of_a_request_belong_together() {
    let (collector, stack) = collected("200");
    // Two ways in: a trace that begins here, and one that a client records.
    let told = ask(&stack, "/a?secret=1", "").text();
    let parts: Vec<String> = told.split('-').map(str::to_owned).collect();
    assert_eq!(parts[3], "03 ", "it is recorded: {told}");
    let going = ask(&stack, "/b", &format!("Traceparent: {VALID}\r\n")).text();
    assert!(
        going.starts_with(&VALID[..36]) && !going.starts_with(VALID),
        "{going}"
    );
    ask(&stack, "/up/", "");
    // Nor is one that its client does not record.
    let quiet = VALID.replace("-01", "-00");
    let still = ask(&stack, "/c", &format!("Traceparent: {quiet}\r\n"));
    assert_eq!(still.text(), format!("{quiet} -"));
    let count = || {
        spans(&collector)
            .iter()
            .filter(|span| span["kind"] == 2)
            .count()
    };
    stack.until("they have come", || count() >= 3);
    let seen = spans(&collector);
    let question = &collector.seen()[0];
    assert_eq!(question.line(), "POST /v1/traces HTTP/1.1");
    assert_eq!(question.fields("content-type"), ["application/json"]);
    assert_eq!(question.fields("x-key"), ["k"]);
    let whole = String::from_utf8_lossy(&question.body).into_owned();
    assert!(whole.contains("\"stringValue\":\"shop\""), "{whole}");
    assert!(
        !whole.contains("secret"),
        "queries have secrets in them: {whole}"
    );

    let (server, app) = (of(&seen, &parts[1], 2), of(&seen, &parts[1], 3));
    assert_eq!(server["parentSpanId"], "");
    assert_eq!(app["parentSpanId"], server["spanId"]);
    assert_eq!(app["spanId"], parts[2].as_str(), "what the app is below of");
    assert_eq!(attribute(server, "url.path"), Some("/a"));
    assert_eq!(attribute(server, "http.response.status_code"), Some("200"));
    let time = |span: &Value, key: &str| {
        let text = span[key].as_str().expect("times are text").to_owned();
        text.parse::<u128>().expect("nanoseconds")
    };
    assert!(time(server, "startTimeUnixNano") <= time(app, "startTimeUnixNano"));
    assert!(time(app, "endTimeUnixNano") <= time(server, "endTimeUnixNano"));
    assert_eq!(of(&seen, TRACE, 2)["parentSpanId"], &VALID[36..52]);
    let failed = seen.iter().find(|span| span["status"]["code"] == 2);
    let failed = failed.expect("a bad gateway is an error");
    assert_eq!(
        attribute(failed, "error.type"),
        Some("upstream-unreachable")
    );
    stack.until("it is counted", || {
        metrics(&stack).contains("stack_traced_requests_total{result=\"sent\"} 3\n")
    });
    // What was recorded last is sent before the end.
    ask(&stack, "/last", "");
    stack.signal(rustix::process::Signal::TERM);
    assert!(stack.wait().success());
    let seen = spans(&collector);
    let mut paths = seen.iter().filter_map(|span| attribute(span, "url.path"));
    assert!(paths.any(|path| path == "/last"), "{seen:?}");
}

fn metrics(stack: &Stack) -> String {
    let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
    Client::unix(socket).get("/metrics").text()
}

#[test]
fn a_collector_that_refuses_or_is_away_costs_requests_nothing() {
    let (_collector, stack) = collected("400");
    assert_eq!(ask(&stack, "/", "").status, 200);
    stack.until_logged("spans do not reach");
    stack.until("they are lost, and counted", || {
        metrics(&stack).contains("stack_traced_requests_total{result=\"lost\"} 1\n")
    });
    let (_silent, stack) = {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = format!("http://{}", silent.local_addr().expect("bound"));
        let traces = format!("[server]\ntraces = {{ to = \"{to}\", sample = \"100%\" }}\n");
        let site = Site::new(SITE)
            .edit("BACK", "http://127.0.0.1:1")
            .edit("[server]\n", &traces);
        (silent, site.file("app.py", APP).start())
    };
    let mut client = stack.client();
    for _ in 0..300 {
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(client.send(request).answer(false).status, 200);
    }
    // Nor does its end wait for it.
    drop(client);
    stack.signal(rustix::process::Signal::TERM);
    assert!(stack.wait().success());
}
