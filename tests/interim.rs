//! Interim responses, such as 103 (Early Hints): what an origin says before it answers reaches clients that know such, at once.

use std::{
    fs,
    sync::{Arc, Condvar, Mutex},
};

use crate::harness::{
    Client, Site, Stack,
    frames::{END_HEADERS, END_STREAM, Frames, HEADERS, frame, get},
    origin::{Origin, Then},
};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nServer: x\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Says the first, and the second once for each time that the test lets it.
fn origin(first: &'static str) -> (Origin, impl Fn()) {
    let gate = Arc::new((Mutex::new(0u32), Condvar::new()));
    let waiting = Arc::clone(&gate);
    let origin = Origin::tcp(move |stream, _| {
        stream.write_all(first.as_bytes()).expect("connected");
        let open = waiting.0.lock().expect("no holder panics");
        let open = waiting.1.wait_while(open, |open| *open == 0);
        *open.expect("no holder panics") -= 1;
        stream.write_all(HELLO.as_bytes()).expect("connected");
        Then::Goes
    });
    let open = move || {
        *gate.0.lock().expect("no holder panics") += 1;
        gate.1.notify_all();
    };
    (origin, open)
}

fn before(origin: &Origin) -> Stack {
    Site::new(&format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nh2c = true\n[[site]]\nroutes = [{{ path = \"/\", upstream = {:?}, request_buffering = false }}]\n",
        origin.url()
    ))
    .start()
}

/// As a browser asks.
fn ask(client: &mut Client, path: &str) {
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\n\r\n"
    ));
}

#[test]
fn hints_come_before_the_answer() {
    let (origin, open) = origin(HINTS);
    let stack = before(&origin);
    let mut client = stack.client();
    ask(&mut client, "/");
    let hints = client.answer_head();
    assert_eq!(hints.status, 103);
    assert_eq!(hints.field("link"), Some("</style.css>; rel=preload"));
    // What is of a connection is not passed on, nor what we say ourselves.
    assert_eq!(hints.fields.len(), 1, "{hints:?}");
    let mut http2 = Frames::plain(stack.http());
    http2.raw(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/")));
    let (stream, fields) = http2.head().expect("hints");
    let text = |pair: &(String, String)| format!("{} {}", pair.0, pair.1);
    assert_eq!(stream, 1);
    assert_eq!(
        fields.iter().map(text).collect::<Vec<_>>(),
        [":status 103", "link </style.css>; rel=preload"]
    );
    open();
    open();
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(http2.status(), Some(200));
    // An upload that is passed on as it comes is no obstacle.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: cors\r\nContent-Length: 4\r\n\r\n");
    client.send("ab").send("cd");
    assert_eq!(client.answer_head().status, 103);
    open();
    assert_eq!(client.answer(false).text(), "hello");
}

#[test]
fn who_knows_no_interim_responses_gets_none() {
    let (origin, open) = origin(HINTS);
    let stack = before(&origin);
    let mut old = stack.client();
    old.send("GET / HTTP/1.0\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\n\r\n");
    // As Python's http.client asks, which would take hints for the answer.
    let mut library = stack.client();
    library.ask("/");
    // They have come through for who was asked for later.
    let mut later = stack.client();
    stack.until("the first are there", || origin.seen().len() == 2);
    ask(&mut later, "/");
    assert_eq!(later.answer_head().status, 103);
    for _ in 0..3 {
        open();
    }
    for client in [&mut old, &mut library, &mut later] {
        assert_eq!(client.answer_head().status, 200);
    }
}

#[test]
fn only_so_many_are_passed_on_and_none_that_are_ours_to_say() {
    let (hundred, open) = origin("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
    let stack = before(&hundred);
    let mut client = stack.client();
    ask(&mut client, "/");
    assert_eq!(client.answer_head().status, 102);
    open();
    assert_eq!(client.answer_head().status, 200);
    let (endless, open) = origin(Box::leak(HINTS.repeat(100).into_boxed_str()));
    let stack = before(&endless);
    let mut client = stack.client();
    ask(&mut client, "/");
    for _ in 0..16 {
        assert_eq!(client.answer_head().status, 103);
    }
    open();
    assert_eq!(client.answer_head().status, 200);
}

/// Says hints and waits for `go`; `/kept` uses what the request before it was given.
const APP: &str = r#"
import os, pathlib, time

kept = []

def app(environ, start_response):
    hints = environ["wsgi.early_hints"]
    path = environ["PATH_INFO"]
    if path == "/hints":
        hints([("Link", "</a.css>; rel=preload"), ("Link", "</b.js>; rel=preload")])
        while not os.path.exists("go"):
            time.sleep(0.01)
    elif path == "/at-once":
        hints([("Link", "</a.css>; rel=preload")])
    elif path == "/late":
        start_response("200 OK", [("Content-Length", "2")])(b"o")
        hints([("Link", "</late.css>")])
        return [b"k"]
    elif path == "/wrong":
        hints([("Link", "a\r\nX-Evil: 1")])
    elif path == "/fails":
        hints([("Link", "</a.css>")])
        raise RuntimeError("after hints")
    elif path == "/kept":
        kept[0]([("Link", "</kept.css>")])
    kept[:] = [hints]
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"#;

#[test]
fn apps_have_hints_too() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 1")
        .start();
    let mut client = stack.client();
    ask(&mut client, "/hints");
    let hints = client.answer_head();
    assert_eq!(hints.status, 103);
    let links: Vec<&str> = hints.fields.iter().map(|(_, value)| &**value).collect();
    assert_eq!(links, ["</a.css>; rel=preload", "</b.js>; rel=preload"]);
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(client.answer(false).text(), "ok");
    // Also one whose answer has come with it.
    for _ in 0..20 {
        ask(&mut client, "/at-once");
        assert_eq!(client.answer_head().status, 103);
        assert_eq!(client.answer(false).text(), "ok");
    }
    // One that was kept is of the request that had it.
    for path in ["/", "/kept", "/late"] {
        ask(&mut client, path);
        assert_eq!(client.answer_head().status, 200, "{path}");
        assert_eq!(client.exactly(2), b"ok", "{path}");
    }
    assert_eq!(client.get("/wrong").status, 500);
    stack.until_logged("broke the protocol: the value of the field \"Link\" contains a control");
    assert_eq!(client.get("/fails").status, 500);
    stack.until_logged("after hints");
    assert_eq!(client.get("/").status, 200);
}
