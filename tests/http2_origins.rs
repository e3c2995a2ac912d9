//! Members that speak HTTP/2, frame by frame: what they are asked, what becomes of what they say, and what when they do not.

use std::{
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::harness::{
    Site, Stack,
    frames::{
        DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, frame, get,
    },
};

/// Serves each connection in a thread of its own, for as long as the test's process lives; which connection it is, counted
/// from 0. Returns where.
fn origin(
    settings: &'static [u8],
    serve: impl Fn(Frames, usize) + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("h2c://{}", listener.local_addr().expect("bound"));
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, tcp) in listener.incoming().enumerate() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                if let Some(frames) = Frames::serving(tcp.expect("a connection"), settings) {
                    serve(frames, number);
                }
            });
        }
    });
    url
}

fn before(url: &str, figures: &str) -> Stack {
    Site::new(&format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nh2c = true\n[upstream.api]\nmembers = [{url:?}]\n{figures}\n\
         [[site]]\nroutes = [{{ path = \"/\", upstream = \"api\" }}]\n"
    ))
    .start()
}

/// The next request's stream, once its head has come; `None` when there will be none.
fn asked(server: &mut Frames) -> Option<(u32, Vec<(String, String)>)> {
    server.head()
}

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

fn hello(stream: u32) -> Vec<u8> {
    let mut bytes = head(stream, 0, &[(":status", "200"), ("content-length", "5")]);
    bytes.extend(frame(DATA, END_STREAM, stream, b"hello"));
    bytes
}

#[test]
fn a_member_is_asked_in_streams_of_one_connection() {
    let url = origin(b"", |mut server, connection| {
        while let Some((stream, fields)) = asked(&mut server) {
            let mut content = Vec::new();
            let field = |name: &str| fields.iter().find(|(known, _)| known == name);
            while field("content-length").is_some() {
                let data = server.next_of(&[DATA]).expect("content");
                content.extend(data.payload);
                if data.flags & END_STREAM != 0 {
                    break;
                }
            }
            let lines = fields
                .iter()
                .map(|(name, value)| format!("{name}: {value}\n"));
            let mut text = format!("{connection} {stream}\n{}", lines.collect::<String>());
            text.push_str(&String::from_utf8_lossy(&content));
            server.raw(&head(
                stream,
                0,
                &[(":status", "200"), ("server", "x"), ("x-own", "y")],
            ));
            server.send(DATA, END_STREAM, stream, text.as_bytes());
        }
    });
    let stack = before(&url, KEPT);
    let mut client = stack.client();
    client.send(
        "POST /a/../b?c=d HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\nX-Mine: kept\r\nConnection: X-Listed\r\n\
         X-Listed: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\nabc",
    );
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.field("x-own")), (200, Some("y")));
    assert_eq!(answer.field("server"), Some("stack"));
    let text = answer.text();
    for line in [
        "0 1",
        ":method: POST",
        ":path: /b?c=d",
        ":scheme: http",
        ":authority: example.org",
        "x-mine: kept",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "content-length: 3",
        "te: trailers",
        "abc",
    ] {
        assert!(
            text.lines().any(|known| known == line),
            "{line} is not in\n{text}"
        );
    }
    for name in ["connection", "x-listed", "host", "6.6.6.6"] {
        assert!(!text.contains(&format!("\n{name}")), "{name} is in\n{text}");
    }
    assert!(
        client.get("/").text().starts_with("0 3\n"),
        "the same connection"
    );
}

#[test]
fn a_request_that_was_not_begun_with_is_asked_again() {
    const REFUSED: [u8; 4] = [0, 0, 0, 7];
    for refusal in [
        |stream| frame(RST_STREAM, 0, stream, &REFUSED),
        // The last stream that was worked for: none. No error.
        |_| frame(GOAWAY, 0, 0, &[0; 8]),
    ] {
        let url = origin(b"", move |mut server, connection| {
            let (stream, _) = asked(&mut server).expect("a request");
            let bytes = match connection {
                0 => refusal(stream),
                _ => hello(stream),
            };
            server.raw(&bytes);
            while server.next().is_some() {}
        });
        let stack = before(&url, "");
        let mut client = stack.client();
        let answer = client.post("/", "text/plain", b"abc");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }
    // Not for ever.
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let url = origin(b"", move |mut server, _| {
        while let Some((stream, _)) = asked(&mut server) {
            counted.fetch_add(1, Ordering::SeqCst);
            server.send(RST_STREAM, 0, stream, &REFUSED);
        }
    });
    let stack = before(&url, "");
    assert_eq!(stack.get("/").status, 502);
    assert_eq!(count.load(Ordering::SeqCst), 3);
    stack.until_logged("upstream-reset");
}

/// Frames for a stream.
type Answer = fn(u32) -> Vec<u8>;

/// What a member says instead of an answer, and what is said of it.
#[test]
fn what_is_no_answer_is_a_bad_gateway() {
    let cases: [(&str, Answer, &str); 6] = [
        (
            "an error of the stream",
            |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 2]),
            "upstream-reset",
        ),
        (
            "a head without a status",
            |stream| head(stream, END_STREAM, &[("x", "y")]),
            "upstream-reset",
        ),
        (
            "a field of a connection",
            |stream| {
                head(
                    stream,
                    END_STREAM,
                    &[(":status", "200"), ("connection", "close")],
                )
            },
            "upstream-reset",
        ),
        (
            "content first",
            |stream| frame(DATA, 0, stream, b"x"),
            "upstream-",
        ),
        (
            "a frame out of place",
            |_| frame(SETTINGS, 0, 1, b""),
            "upstream-",
        ),
        (
            "an error of the connection",
            |_| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]),
            "upstream-cut",
        ),
    ];
    for (what, answer, cause) in cases {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let url = origin(b"", move |mut server, _| {
            while let Some((stream, _)) = asked(&mut server) {
                counted.fetch_add(1, Ordering::SeqCst);
                server.raw(&answer(stream));
            }
        });
        let stack = before(&url, "");
        assert_eq!(stack.get("/").status, 502, "{what}");
        let log = stack.until_logged(cause);
        assert!(log.contains(&url), "{what}: {log}");
        assert_eq!(
            count.load(Ordering::SeqCst),
            1,
            "{what}: nothing is asked twice"
        );
    }
    // The end of the connection.
    let url = origin(b"", |mut server, _| drop(asked(&mut server)));
    let stack = before(&url, "");
    assert_eq!(stack.get("/").status, 502);
    stack.until_logged("upstream-cut");
}

#[test]
fn a_response_that_breaks_in_the_middle_is_cut_for_its_reason() {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let url = origin(b"", |mut server, _| {
        while let Some((stream, _)) = asked(&mut server) {
            server.raw(&head(stream, 0, &[(":status", "200")]));
            server.send(DATA, 0, stream, b"hello");
            server.send(RST_STREAM, 0, stream, &CANCEL);
        }
    });
    let stack = before(&url, "");
    let mut http2 = Frames::plain(stack.http());
    http2.raw(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/")));
    assert_eq!(http2.status(), Some(200));
    let end = http2.next_of(&[RST_STREAM]).expect("its end");
    assert_eq!((end.stream, end.code()), (1, 8));
    let mut client = stack.client();
    client.ask("/");
    assert_eq!(client.answer_head().status, 200);
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    stack.until_logged("upstream-reset");
}

#[test]
fn trailers_reach_who_can_be_told() {
    let url = origin(b"", |mut server, _| {
        while let Some((stream, _)) = asked(&mut server) {
            server.raw(&head(stream, 0, &[(":status", "200")]));
            server.send(DATA, 0, stream, b"hello");
            server.raw(&head(
                stream,
                END_STREAM,
                &[("x-sum", "1"), ("server", "x")],
            ));
        }
    });
    let stack = before(&url, "");
    let mut http2 = Frames::plain(stack.http());
    http2.raw(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/")));
    assert_eq!(http2.status(), Some(200));
    assert_eq!(http2.next_of(&[DATA]).expect("content").payload, b"hello");
    let trailers = http2.next_of(&[HEADERS, DATA]).expect("trailers");
    assert_eq!(
        (trailers.kind, trailers.flags),
        (HEADERS, END_HEADERS | END_STREAM)
    );
    assert_eq!(
        http2.fields(&trailers),
        [("x-sum".to_owned(), "1".to_owned())]
    );
    let answer = stack.get("/");
    assert_eq!(
        (answer.text().as_str(), answer.field("x-sum")),
        ("hello", None)
    );
}

#[test]
fn heads_alone_and_interim_responses_pass() {
    let url = origin(b"", |mut server, _| {
        while let Some((stream, fields)) = asked(&mut server) {
            server.raw(&head(stream, 0, &[(":status", "103"), ("link", "</a>")]));
            let is_head = fields.contains(&(":method".to_owned(), "HEAD".to_owned()));
            let status = if is_head { "200" } else { "204" };
            server.raw(&head(
                stream,
                END_STREAM,
                &[(":status", status), ("content-length", "7")],
            ));
        }
    });
    let stack = before(&url, "");
    let mut client = stack.client();
    let answer = client.request("HEAD", "/", &[], b"");
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("7"))
    );
    let answer = client.get("/");
    assert_eq!((answer.status, answer.field("content-length")), (204, None));
}

#[test]
fn a_member_that_says_nothing_is_not_waited_for() {
    let url = origin(b"", |mut server, _| {
        while let Some((stream, fields)) = asked(&mut server) {
            if fields.contains(&(":path".to_owned(), "/part".to_owned())) {
                server.raw(&head(stream, 0, &[(":status", "200")]));
                server.send(DATA, 0, stream, b"hello");
            }
        }
    });
    let stack = before(&url, "timeout = \"1s\"\nread_timeout = \"1s\"");
    assert_eq!(stack.get("/").status, 504);
    let mut client = stack.client();
    client.ask("/part");
    assert_eq!(client.answer_head().status, 200);
    assert_eq!(client.rest(), b"5\r\nhello\r\n");
    let log = stack.until_logged("sent nothing for 1s");
    assert!(log.contains("upstream-timeout"), "{log}");
}

/// The connection stays, however slow the test is.
const KEPT: &str = "idle_timeout = \"5m\"";

/// `SETTINGS_INITIAL_WINDOW_SIZE` of five, and one stream at once.
const NARROW: &[u8] = &[0, 4, 0, 0, 0, 5, 0, 3, 0, 0, 0, 1];

#[test]
fn uploads_wait_for_the_windows_of_the_member() {
    let url = origin(NARROW, |mut server, _| {
        while let Some((stream, _)) = asked(&mut server) {
            let mut content = Vec::new();
            loop {
                let data = server.next_of(&[DATA]).expect("content");
                assert!(data.payload.len() <= 5, "{data:?}");
                content.extend(&data.payload);
                if data.flags & END_STREAM != 0 {
                    break;
                }
                let more = u32::try_from(data.payload.len()).expect("few");
                if more > 0 {
                    server.send(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
                }
            }
            server.raw(&head(stream, 0, &[(":status", "200")]));
            server.send(DATA, END_STREAM, stream, &content);
        }
    });
    let stack = before(&url, KEPT);
    let mut client = stack.client();
    // The settings of the member are known once it has answered.
    client.post("/", "text/plain", b"abc");
    let answer = client.post("/", "text/plain", b"the quick brown fox");
    assert_eq!(answer.text(), "the quick brown fox");
}

#[test]
fn more_requests_than_a_connection_may_have_get_another() {
    let url = origin(NARROW, |mut server, connection| {
        while let Some((stream, fields)) = asked(&mut server) {
            if fields.contains(&(":path".to_owned(), "/first".to_owned())) {
                server.raw(&hello(stream));
                continue;
            }
            let text = format!("{connection}");
            server.raw(&head(
                stream,
                0,
                &[(":status", "200"), ("content-type", "text/event-stream")],
            ));
            server.send(DATA, 0, stream, text.as_bytes());
        }
    });
    let stack = before(&url, KEPT);
    // The settings of the member are known once it has answered.
    assert_eq!(stack.get("/first").text(), "hello");
    let mut clients = [stack.client(), stack.client()];
    let on = clients.each_mut().map(|client| {
        client.ask("/");
        assert_eq!(client.answer_head().status, 200);
        client.exactly(6)
    });
    assert_eq!(on, [b"1\r\n0\r\n", b"1\r\n1\r\n"]);
}

#[test]
fn a_member_that_leaves_finishes_what_it_has_and_gets_no_more() {
    let (finish, finishes) = mpsc::channel();
    let finishes = Mutex::new(finishes);
    let url = origin(b"", move |mut server, connection| {
        while let Some((stream, _)) = asked(&mut server) {
            if connection > 0 {
                server.raw(&hello(stream));
                continue;
            }
            // Its last stream is this one.
            server.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            server.raw(&head(stream, 0, &[(":status", "200")]));
            server.send(DATA, 0, stream, b"begun");
            let finishes = finishes.lock().expect("no holder panics");
            finishes.recv().expect("the test goes on");
            server.send(DATA, END_STREAM, stream, b"ended");
        }
    });
    let stack = before(&url, KEPT);
    let mut first = stack.client();
    first.ask("/");
    assert_eq!(first.answer_head().status, 200);
    assert_eq!(first.exactly(10), b"5\r\nbegun\r\n");
    // Be it one that could not be sent twice.
    let mut call = Frames::plain(stack.http());
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
    ];
    call.raw(&frame(HEADERS, END_HEADERS, 1, &block(&fields)));
    assert_eq!(call.status(), Some(200));
    finish.send(()).expect("it waits");
    assert_eq!(first.exactly(15), b"5\r\nended\r\n0\r\n\r\n");
}

#[test]
fn a_websocket_needs_http1() {
    let url = origin(b"", |mut server, _| {
        while let Some((stream, _)) = asked(&mut server) {
            server.raw(&hello(stream));
        }
    });
    let stack = before(&url, "");
    let mut client = stack.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.answer(false).text(), "hello");
    let mut http2 = Frames::plain(stack.http());
    let settings = http2.next_of(&[SETTINGS]).expect("a greeting");
    assert!(
        !settings.payload.chunks(6).any(|one| one[..2] == [0, 8]),
        "it is not offered"
    );
}
