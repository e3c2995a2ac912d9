//! A client may vanish at any moment, by whatever protocol: what it had is given up, it is 499 in the log, and nobody else
//! notices.

use std::os::unix::net::UnixStream;

use crate::harness::{
    Client, Site, Stack,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, block, get},
};

/// `/hold` and `/running` say that they are inside and return when they may; `/response` never ends; everything else returns at
/// once. Whatever is closed says so.
const APP: &str = r#"
import os, time

class Body:
    def __init__(self, name, blocks):
        self.name, self.blocks = name, iter(blocks)
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.blocks)
    def close(self):
        open("closed-" + self.name, "w").close()

def app(environ, start_response):
    name = environ["PATH_INFO"][1:]
    with open("seen", "a") as seen:
        seen.write(name + "\n")
    environ["wsgi.input"].read()
    if name in ("hold", "running"):
        open("inside-" + name, "w").close()
        while not os.path.exists("go-" + name):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body(name, iter(lambda: b"x" * 65536, b"") if name == "response" else [b"ok"])
"#;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    H2,
    /// By HTTP/2, where it keeps its connection and resets the stream.
    H2Stream,
}

const WAYS: [Way; 4] = [Way::Plain, Way::Tls, Way::H2, Way::H2Stream];

/// A client.
enum Visitor {
    H1(Client),
    H2(Frames),
}

impl Visitor {
    fn come(stack: &Stack, way: Way) -> Self {
        match way {
            Way::Plain => Self::H1(stack.client()),
            Way::Tls => Self::H1(stack.tls_client("localhost")),
            Way::H2 | Way::H2Stream => Self::H2(Frames::tls(stack.https())),
        }
    }

    fn ask(&mut self, path: &str) {
        match self {
            Self::H1(client) => drop(client.ask(path)),
            Self::H2(frames) => {
                assert!(frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &get(path)));
            }
        }
    }

    fn begin_a_head(&mut self, path: &str) {
        match self {
            Self::H1(client) => drop(client.send(format!("GET {path} HTTP/1.1\r\nHo"))),
            Self::H2(frames) => assert!(frames.send(HEADERS, END_STREAM, 1, &get(path))),
        }
    }

    /// The head, and 100,000 bytes of 200,000.
    fn begin_a_body(&mut self, path: &str) {
        match self {
            Self::H1(client) => {
                let head =
                    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
                client.send(head).send(vec![b'x'; 100_000]);
            }
            Self::H2(frames) => {
                let fields = [
                    (":method", "POST"),
                    (":scheme", "https"),
                    (":path", path),
                    (":authority", "localhost"),
                    ("content-length", "200000"),
                ];
                assert!(frames.send(HEADERS, END_HEADERS, 1, &block(&fields)));
                for _ in 0..10 {
                    assert!(frames.send(DATA, 0, 1, &[b'x'; 10_000]));
                }
            }
        }
    }

    /// Waits for the head of its answer.
    fn status(&mut self) -> u16 {
        match self {
            Self::H1(client) => client.answer_head().status,
            Self::H2(frames) => frames.status().expect("a response"),
        }
    }

    /// Leaves; what comes back is the connection that it keeps.
    fn leave(self, way: Way) -> Option<Self> {
        match self {
            Self::H2(mut frames) if way == Way::H2Stream => {
                let cancel = 8_u32.to_be_bytes();
                assert!(frames.send(RST_STREAM, 0, 1, &cancel));
                Some(Self::H2(frames))
            }
            _ => None,
        }
    }
}

/// One slot.
fn start(way: Way) -> Stack {
    let site = Site::with_app(APP).edit("threads = 2", "threads = 1").edit(
        "[server]",
        "[limits]\nresponse_disk = \"1MiB\"\n[server]\nadmin = \"unix:admin.sock\"\naccess_log = { format = \"json\" }",
    );
    match way {
        Way::Plain => site.start(),
        _ => {
            let https = "https = [\"127.0.0.1:0\"]\nhttp = ";
            site.edit("http = ", https).start()
        }
    }
}

fn metrics(stack: &Stack) -> String {
    let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
    Client::unix(socket).get("/metrics").text()
}

fn until(stack: &Stack, line: &str) {
    stack.until(line, || metrics(stack).lines().any(|found| found == line));
}

fn until_file(stack: &Stack, name: &str) {
    let path = stack.path().join(name);
    stack.until(name, || path.exists());
}

fn go(stack: &Stack, name: &str) {
    std::fs::write(stack.path().join(format!("go-{name}")), "").expect("the folder is ours");
}

/// The status and the cause of the request in the log.
fn record(stack: &Stack, target: &str) -> (u64, String) {
    let needle = format!("\"target\":\"{target}\"");
    let log = stack.until_logged(&needle);
    let line = log.lines().find(|line| line.contains(&needle));
    let record: serde_json::Value =
        serde_json::from_str(line.expect("it was found")).expect("JSON");
    (
        record["status"].as_u64().expect("a number"),
        record["cause"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Nothing is held for anybody, and the slot serves the next.
fn until_at_rest(stack: &Stack, way: Way) {
    for line in [
        "stack_slots{app=\"web\",state=\"idle\"} 1",
        "stack_queue_requests{app=\"web\"} 0",
        "stack_buffered_bytes{where=\"memory\"} 0",
        "stack_buffered_bytes{where=\"disk\"} 0",
    ] {
        until(stack, line);
    }
    let mut next = Visitor::come(stack, way);
    next.ask("/next");
    assert_eq!(next.status(), 200, "{way:?}");
}

fn seen(stack: &Stack) -> String {
    std::fs::read_to_string(stack.path().join("seen")).unwrap_or_default()
}

fn left() -> (u64, String) {
    (499, "client-left".to_owned())
}

#[test]
fn in_its_head_it_is_nobody() {
    for way in WAYS {
        let stack = start(way);
        let mut visitor = Visitor::come(&stack, way);
        visitor.begin_a_head("/half");
        until(&stack, "stack_connections 1");
        // Half a field block cannot be taken back, so the whole connection goes.
        drop(visitor);
        until(&stack, "stack_connections 0");
        until_at_rest(&stack, way);
        assert!(!stack.logged().contains("/half"), "{way:?}");
    }
}

#[test]
fn in_its_upload_that_is_dropped() {
    for way in WAYS {
        let stack = start(way);
        let mut visitor = Visitor::come(&stack, way);
        visitor.begin_a_body("/body");
        stack.until("some of it is on disk", || {
            !metrics(&stack).contains("stack_buffered_bytes{where=\"disk\"} 0\n")
        });
        let _kept = visitor.leave(way);
        assert_eq!(record(&stack, "/body"), left(), "{way:?}");
        until_at_rest(&stack, way);
        assert!(!seen(&stack).contains("body"), "{way:?}");
    }
}

#[test]
fn in_the_queue_it_gives_its_place_up() {
    for way in WAYS {
        let stack = start(way);
        let mut inside = Visitor::come(&stack, way);
        inside.ask("/hold");
        until_file(&stack, "inside-hold");
        let mut visitor = Visitor::come(&stack, way);
        visitor.ask("/queued");
        until(&stack, "stack_queue_requests{app=\"web\"} 1");
        let _kept = visitor.leave(way);
        until(&stack, "stack_queue_requests{app=\"web\"} 0");
        assert_eq!(record(&stack, "/queued"), left(), "{way:?}");
        go(&stack, "hold");
        assert_eq!(inside.status(), 200, "{way:?}");
        until_at_rest(&stack, way);
        assert!(!seen(&stack).contains("queued"), "{way:?}");
    }
}

#[test]
fn while_its_request_runs_that_is_finished_for_nobody() {
    for way in WAYS {
        let stack = start(way);
        let mut visitor = Visitor::come(&stack, way);
        visitor.ask("/running");
        until_file(&stack, "inside-running");
        let _kept = visitor.leave(way);
        assert_eq!(record(&stack, "/running"), left(), "{way:?}");
        go(&stack, "running");
        until_file(&stack, "closed-running");
        until_at_rest(&stack, way);
    }
}

#[test]
fn in_its_response_that_is_closed() {
    for way in WAYS {
        let stack = start(way);
        let mut visitor = Visitor::come(&stack, way);
        visitor.ask("/response");
        assert_eq!(visitor.status(), 200);
        let _kept = visitor.leave(way);
        until_file(&stack, "closed-response");
        let cut = (200, "client-left".to_owned());
        assert_eq!(record(&stack, "/response"), cut, "{way:?}");
        until_at_rest(&stack, way);
    }
}
