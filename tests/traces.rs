//! Trace context: a trace goes on through stack, or begins in it, and the access log names it.

use crate::harness::{
    Answer, Site, Stack,
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
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n");
    stack.client().send(request).answer(false)
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
