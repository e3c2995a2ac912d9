//! HTTP/2 frame by frame (RFC 9113): what is answered, what is refused and how, and that it is refused as HTTP/1.1 is.

use crate::harness::{
    Client, Site, Stack,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PADDED,
        PING, PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
        frame, get,
    },
    h2::H2,
};

const APP: &str = r#"
import json

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/length":
        body = str(len(body)).encode()
    elif path == "/environ":
        body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"#;

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
access_log = { format = "json" }
[limits]
request_line = "1KiB"
head = "2KiB"
fields = 20
h2_streams = 10
MORE
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[[site]]
hosts = ["localhost", "127.0.0.1"]
tls = "self-signed"
routes = [
    { path = "/", app = "web" },
    { path = "/files/", files = "files" },
    { path = "/fixed", respond = "fixed" },
]
"#;

fn site(more: &str) -> Site {
    Site::new(&SITE.replace("MORE", more))
        .file("app.py", APP)
        .file("files/a.txt", "a file")
        .file("files/large.bin", vec![b'x'; 300_000])
}

fn stack() -> Stack {
    site("").start()
}

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

/// How the server takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The whole connection.
    Connection(u32),
    /// This stream.
    Stream(u32),
    /// Nothing: the next request is answered.
    Not,
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

fn ask(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_HEADERS | END_STREAM, &get(path))
}

fn post(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/length"),
        (":authority", "localhost"),
    ];
    all.extend(fields);
    headers(stream, END_HEADERS, &block(&all))
}

#[test]
fn frames_that_break_a_rule_end_what_they_must() {
    let stack = stack();
    let window = |increment: u32| increment.to_be_bytes();
    let most = window((1 << 31) - 1);
    let setting = |number: u16, value: u32| {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend(value.to_be_bytes());
        frame(SETTINGS, 0, 0, &bytes)
    };
    let padded = |padding: u8| [&[padding][..], b"abc"].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>, Ends)> = vec![
        // What is allowed.
        (
            "a frame of a kind that nobody knows",
            vec![frame(0x77, 0, 0, b"x")],
            Ends::Not,
        ),
        ("an unknown setting", vec![setting(0x99, 1)], Ends::Not),
        (
            "PRIORITY of an idle stream",
            vec![frame(PRIORITY, 0, 99, &[0; 5])],
            Ends::Not,
        ),
        (
            "flags that mean nothing",
            vec![frame(PING, 0xfe, 0, &[0; 8])],
            Ends::Not,
        ),
        (
            "padding and priority of a head",
            vec![headers(
                1,
                END_HEADERS | END_STREAM | PADDED | PRIORITIZED,
                &[&[2, 0, 0, 0, 0, 1][..], &get("/fixed"), &[0, 0]].concat(),
            )],
            Ends::Not,
        ),
        (
            "a head in pieces",
            vec![
                headers(1, END_STREAM, &get("/fixed")[..5]),
                frame(CONTINUATION, 0, 1, b""),
                frame(CONTINUATION, END_HEADERS, 1, &get("/fixed")[5..]),
            ],
            Ends::Not,
        ),
        (
            "WINDOW_UPDATE of a stream that has ended",
            vec![ask(1, "/fixed"), frame(WINDOW_UPDATE, 0, 1, &window(1))],
            Ends::Not,
        ),
        (
            "RST_STREAM of a stream that has ended",
            vec![ask(1, "/fixed"), frame(RST_STREAM, 0, 1, &[0; 4])],
            Ends::Not,
        ),
        (
            "content and trailers",
            vec![
                post(1, &[]),
                frame(DATA, 0, 1, b"abc"),
                headers(1, END_HEADERS | END_STREAM, &block(&[("x", "y")])),
            ],
            Ends::Not,
        ),
        // The connection.
        (
            "DATA on no stream",
            vec![frame(DATA, 0, 0, b"x")],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "DATA on an idle stream",
            vec![frame(DATA, 0, 1, b"x")],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "HEADERS on no stream",
            vec![headers(0, END_HEADERS, &get("/"))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "HEADERS on a server's stream",
            vec![headers(2, END_HEADERS, &get("/"))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "PRIORITY on no stream",
            vec![frame(PRIORITY, 0, 0, &[0; 5])],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "RST_STREAM on no stream",
            vec![frame(RST_STREAM, 0, 0, &[0; 4])],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "RST_STREAM of an idle stream",
            vec![frame(RST_STREAM, 0, 1, &[0; 4])],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "RST_STREAM of three bytes",
            vec![ask(1, "/"), frame(RST_STREAM, 0, 1, &[0; 3])],
            Ends::Connection(FRAME_SIZE_ERROR),
        ),
        (
            "SETTINGS on a stream",
            vec![frame(SETTINGS, 0, 1, b"")],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "SETTINGS of five bytes",
            vec![frame(SETTINGS, 0, 0, &[0; 5])],
            Ends::Connection(FRAME_SIZE_ERROR),
        ),
        (
            "an answer to SETTINGS that says something",
            vec![frame(SETTINGS, ACK, 0, &[0; 6])],
            Ends::Connection(FRAME_SIZE_ERROR),
        ),
        (
            "SETTINGS_ENABLE_PUSH of 2",
            vec![setting(2, 2)],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "SETTINGS_INITIAL_WINDOW_SIZE of 2^31",
            vec![setting(4, 1 << 31)],
            Ends::Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "SETTINGS_MAX_FRAME_SIZE of 16383",
            vec![setting(5, 16_383)],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "SETTINGS_MAX_FRAME_SIZE of 2^24",
            vec![setting(5, 1 << 24)],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "PUSH_PROMISE",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &get("/"))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "PING on a stream",
            vec![frame(PING, 0, 1, &[0; 8])],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "PING of six bytes",
            vec![frame(PING, 0, 0, &[0; 6])],
            Ends::Connection(FRAME_SIZE_ERROR),
        ),
        (
            "GOAWAY on a stream",
            vec![frame(GOAWAY, 0, 1, &[0; 8])],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE by nothing",
            vec![frame(WINDOW_UPDATE, 0, 0, &window(0))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE of an idle stream",
            vec![frame(WINDOW_UPDATE, 0, 1, &window(1))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE of three bytes",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Ends::Connection(FRAME_SIZE_ERROR),
        ),
        (
            "a connection's window past 2^31-1",
            vec![
                frame(WINDOW_UPDATE, 0, 0, &most),
                frame(WINDOW_UPDATE, 0, 0, &most),
            ],
            Ends::Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "CONTINUATION of nothing",
            vec![frame(CONTINUATION, END_HEADERS, 1, b"")],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "CONTINUATION of another stream",
            vec![
                headers(1, 0, &get("/")),
                frame(CONTINUATION, END_HEADERS, 3, b""),
            ],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "DATA inside a field block",
            vec![headers(1, 0, &get("/")), frame(DATA, 0, 1, b"x")],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "an unknown frame inside a field block",
            vec![headers(1, 0, &get("/")), frame(0x77, 0, 0, b"")],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "padding longer than its DATA",
            vec![post(1, &[]), frame(DATA, PADDED, 1, &padded(4))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "padding longer than its HEADERS",
            vec![headers(1, END_HEADERS | PADDED, &padded(4))],
            Ends::Connection(PROTOCOL_ERROR),
        ),
        (
            "a frame longer than 16 KiB",
            vec![post(1, &[]), frame(DATA, 0, 1, &[0; 16_385])],
            Ends::Connection(FRAME_SIZE_ERROR),
        ),
        (
            "a field block that is none",
            vec![headers(1, END_HEADERS | END_STREAM, &[0x80])],
            Ends::Connection(COMPRESSION_ERROR),
        ),
        (
            "a broken block on a stream that has ended",
            vec![
                ask(1, "/fixed"),
                headers(1, END_HEADERS | END_STREAM, &[0xbe]),
            ],
            Ends::Connection(COMPRESSION_ERROR),
        ),
        // One stream.
        (
            "DATA after the end of a request",
            vec![ask(1, "/length"), frame(DATA, 0, 1, b"x")],
            Ends::Stream(STREAM_CLOSED),
        ),
        (
            "HEADERS after the end of a request",
            vec![ask(1, "/length"), ask(1, "/length")],
            Ends::Stream(STREAM_CLOSED),
        ),
        (
            "DATA on a stream that was skipped",
            vec![ask(5, "/fixed"), frame(DATA, 0, 3, b"x")],
            Ends::Stream(STREAM_CLOSED),
        ),
        (
            "trailers that do not end the stream",
            vec![post(1, &[]), headers(1, END_HEADERS, &block(&[("x", "y")]))],
            Ends::Stream(PROTOCOL_ERROR),
        ),
        (
            "trailers with a pseudo-field",
            vec![
                post(1, &[]),
                headers(1, END_HEADERS | END_STREAM, &block(&[(":path", "/")])),
            ],
            Ends::Stream(PROTOCOL_ERROR),
        ),
        (
            "a stream's WINDOW_UPDATE by nothing",
            vec![post(1, &[]), frame(WINDOW_UPDATE, 0, 1, &window(0))],
            Ends::Stream(PROTOCOL_ERROR),
        ),
        (
            "a stream's window past 2^31-1",
            vec![
                post(1, &[]),
                frame(WINDOW_UPDATE, 0, 1, &most),
                frame(WINDOW_UPDATE, 0, 1, &most),
            ],
            Ends::Stream(FLOW_CONTROL_ERROR),
        ),
        (
            "PRIORITY of four bytes",
            vec![post(1, &[]), frame(PRIORITY, 0, 1, &[0; 4])],
            Ends::Stream(FRAME_SIZE_ERROR),
        ),
        (
            "more content than its length",
            vec![
                post(1, &[("content-length", "2")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ],
            Ends::Stream(PROTOCOL_ERROR),
        ),
        (
            "less content than its length",
            vec![
                post(1, &[("content-length", "4")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ],
            Ends::Stream(PROTOCOL_ERROR),
        ),
        (
            "a length and no content",
            vec![headers(
                1,
                END_HEADERS | END_STREAM,
                &[get("/length"), block(&[("content-length", "4")])].concat(),
            )],
            Ends::Stream(PROTOCOL_ERROR),
        ),
        (
            "trailers before the length is reached",
            vec![
                post(1, &[("content-length", "4")]),
                frame(DATA, 0, 1, b"abc"),
                headers(1, END_HEADERS | END_STREAM, b""),
            ],
            Ends::Stream(PROTOCOL_ERROR),
        ),
    ];
    for (what, frames, ends) in cases {
        let mut client = Frames::tls(stack.https());
        client.raw(&frames.concat());
        // A request behind it, which is answered only where the connection goes on.
        client.raw(&ask(101, "/fixed"));
        assert_eq!(how_it_ends(&mut client), ends, "{what}");
    }
}

/// What becomes of the streams before 101, whose answer says that the connection lives.
fn how_it_ends(client: &mut Frames) -> Ends {
    let mut ends = Ends::Not;
    loop {
        let Some(next) = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]) else {
            panic!("closed without a word");
        };
        match next.kind {
            GOAWAY => {
                assert!(client.next_of(&[HEADERS]).is_none(), "closed");
                return Ends::Connection(next.code());
            }
            // NO_ERROR: the rest of a request is not needed.
            RST_STREAM if next.code() != 0 => ends = Ends::Stream(next.code()),
            HEADERS => {
                client.fields(&next);
                if next.stream == 101 {
                    return ends;
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_preface_that_is_none_is_not_served() {
    let stack = stack();
    for (bytes, says) in [
        (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], true),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x08\x06\0\0\0\0\0abcdefgh",
            true,
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\x01\0\0\0\0",
            true,
        ),
    ] {
        let mut client = Frames::silent(stack.https());
        client.raw(bytes);
        let goaway = client.next_of(&[GOAWAY]);
        assert_eq!(goaway.is_some(), says, "{bytes:?}");
        assert_eq!(client.next(), None);
    }
}

#[test]
fn half_a_preface_is_not_waited_for() {
    let stack = site("head_timeout = \"300ms\"").start();
    for bytes in [&b""[..], b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = Frames::silent(stack.https());
        client.raw(bytes);
        while client.next().is_some() {}
    }
    // Half a head no longer than that either.
    let mut client = Frames::tls(stack.https());
    client.raw(&headers(1, END_STREAM, &get("/fixed")));
    while client.next().is_some() {}
}

/// The same requests by both protocols: one set of rules.
#[test]
fn both_protocols_refuse_the_same() {
    let stack = stack();
    let long = format!("/{}", "x".repeat(1100));
    let large = "y".repeat(2100);
    let many: Vec<(String, &str)> = (0..25).map(|index| (format!("x-{index}"), "1")).collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (&name[..], *value))
        .collect();
    for (method, path, host, fields, status) in [
        ("GET", "/fixed", "localhost", &[][..], 200),
        ("GET", "/files/a.txt", "localhost", &[], 200),
        ("GET", "/files/none", "localhost", &[], 404),
        ("GET", "/files/%2e%2e%2fenviron", "localhost", &[], 200),
        ("GET", "/files/%2e%2e/fixed", "localhost", &[], 200),
        ("GET", "/../x", "localhost", &[], 400),
        ("GET", "/%zz", "localhost", &[], 400),
        ("GET", "/%00", "localhost", &[], 400),
        ("GET", "/a#b", "localhost", &[], 400),
        ("GET", "fixed", "localhost", &[], 400),
        ("GET", "*", "localhost", &[], 405),
        ("OPTIONS", "*", "localhost", &[], 204),
        ("GET", "/fixed", "elsewhere.example", &[], 421),
        ("GET", "/fixed", "local host", &[], 400),
        ("GET", "/fixed", "user@localhost", &[], 400),
        ("GET", "/fixed", "localhost:port", &[], 400),
        ("GET", "/fixed", "LOCALHOST", &[], 200),
        ("TRACE", "/fixed", "localhost", &[], 405),
        ("BREW", "/environ", "localhost", &[], 200),
        ("G(T", "/fixed", "localhost", &[], 400),
        ("GET", &long, "localhost", &[], 414),
        ("GET", "/fixed", "localhost", &[("x", large.as_str())], 431),
        ("GET", "/fixed", "localhost", &many, 431),
        ("GET", "/fixed", "localhost", &[("expect", "magic")], 417),
        ("GET", "/fixed", "localhost", &[("x", "a\u{1}b")], 400),
        ("GET", "/fixed", "localhost", &[("x y", "a")], 400),
        ("GET", "/fixed", "localhost", &[("", "a")], 400),
        (
            "POST",
            "/length",
            "localhost",
            &[("content-length", "+1")],
            400,
        ),
        (
            "POST",
            "/length",
            "localhost",
            &[("content-length", "1, 1")],
            400,
        ),
        (
            "POST",
            "/length",
            "localhost",
            &[("content-length", "1"), ("content-length", "1")],
            400,
        ),
        (
            "POST",
            "/length",
            "localhost",
            &[("content-length", "99999999999999999999")],
            400,
        ),
        (
            "POST",
            "/length",
            "localhost",
            &[("content-length", "999999999")],
            413,
        ),
    ] {
        let mut plain = Client::tls(stack.https(), "localhost");
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        plain.send(head + "\r\n");
        let first = plain.answer_head().status;

        let mut client = Frames::tls(stack.https());
        let mut all = vec![
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", host),
        ];
        all.extend(fields);
        let end = if method == "POST" {
            END_HEADERS
        } else {
            END_HEADERS | END_STREAM
        };
        client.raw(&headers(1, end, &block(&all)));
        let second = client.status().expect("an answer");
        assert_eq!(
            (first, second),
            (status, status),
            "{method} {path} {host} {fields:?}"
        );
    }
}

/// What only HTTP/2 can say wrongly (RFC 9113 §8.2, §8.3): answered, and an error of the stream (§8.1.1).
#[test]
fn malformed_requests_are_400_and_an_error_of_their_stream() {
    let stack = stack();
    let good = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/fixed"),
        (":authority", "localhost"),
    ];
    let without = |name: &str| -> Vec<(&str, &str)> {
        good.iter()
            .copied()
            .filter(|(known, _)| *known != name)
            .collect()
    };
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
        good.iter().chain(more).copied().collect()
    };
    for fields in [
        without(":method"),
        without(":path"),
        without(":scheme"),
        with(&[(":path", "/")]),
        with(&[(":status", "200")]),
        with(&[(":protocol", "websocket")]),
        with(&[("X-Upper", "1")]),
        with(&[("connection", "close")]),
        with(&[("te", "gzip")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("host", "elsewhere")]),
        with(&[("x", "a\r\ny: b")]),
        with(&[("x", " a")]),
        [&[("x", "1")][..], &good].concat(),
    ] {
        let mut client = Frames::tls(stack.https());
        client.raw(&headers(1, END_HEADERS | END_STREAM, &block(&fields)));
        assert_eq!(client.status(), Some(400), "{fields:?}");
        let reset = client
            .next_of(&[RST_STREAM])
            .expect("an error of the stream");
        assert_eq!(
            (reset.stream, reset.code()),
            (1, PROTOCOL_ERROR),
            "{fields:?}"
        );
        client.raw(&ask(3, "/fixed"));
        assert_eq!(client.status(), Some(200), "the connection goes on");
    }
    // Crumbs of one cookie are counted, and are one field for the app.
    let crumbs = vec![("cookie", "a=1"); 21];
    let mut client = Frames::tls(stack.https());
    client.raw(&headers(
        1,
        END_HEADERS | END_STREAM,
        &block(&[&good[..], &crumbs].concat()),
    ));
    assert_eq!(client.status(), Some(431));
    let log = stack.until_logged("too-many-fields");
    assert!(
        log.contains("bad-pseudo-field") && log.contains("connection-field"),
        "{log}"
    );
}

#[test]
fn more_streams_than_allowed_are_refused_and_may_come_again() {
    let stack = stack();
    let mut client = Frames::tls(stack.https());
    for stream in 0..11 {
        client.raw(&post(1 + 2 * stream, &[]));
    }
    let refused = client.next_of(&[RST_STREAM]).expect("one too many");
    assert_eq!((refused.stream, refused.code()), (21, REFUSED_STREAM));
    client.raw(&frame(DATA, END_STREAM, 1, b"abc"));
    assert_eq!(client.head().expect("an answer").0, 1);
    client.raw(&ask(23, "/fixed"));
    assert_eq!(client.head().expect("room again").0, 23);
}

#[test]
fn content_waits_for_the_windows_of_its_client() {
    let stack = stack();
    let mut client = Frames::tls(stack.https());
    // A window of five bytes for each stream (RFC 9113 §6.9.2).
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 5]);
    client.raw(&ask(1, "/files/large.bin"));
    assert_eq!(client.next_of(&[DATA]).expect("content").payload.len(), 5);
    client.send(WINDOW_UPDATE, 0, 1, &3u32.to_be_bytes());
    assert_eq!(client.next_of(&[DATA]).expect("content").payload.len(), 3);
    // Windows can shrink below nothing, and are paid back first.
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.send(WINDOW_UPDATE, 0, 1, &6u32.to_be_bytes());
    assert_eq!(client.next_of(&[DATA]).expect("content").payload.len(), 1);
    // The connection's own window ends at 65535.
    client.send(WINDOW_UPDATE, 0, 1, &1_000_000u32.to_be_bytes());
    let mut sent = 9;
    while sent < 65_535 {
        sent += client.next_of(&[DATA]).expect("content").payload.len();
    }
    assert_eq!(sent, 65_535);
    // Another stream's head does not wait for it.
    client.raw(&headers(3, END_HEADERS | END_STREAM, &get("/fixed")));
    assert_eq!(client.next_of(&[HEADERS]).expect("a head").stream, 3);
    client.send(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes());
    client.send(WINDOW_UPDATE, 0, 3, &100u32.to_be_bytes());
    let (mut fixed, mut ends) = (0, 0);
    while ends < 2 {
        let data = client.next_of(&[DATA]).expect("content");
        match data.stream {
            1 => sent += data.payload.len(),
            _ => fixed += data.payload.len(),
        }
        ends += u8::from(data.flags & END_STREAM != 0);
    }
    assert_eq!((sent, fixed), (300_000, 5));
}

#[test]
fn uploads_and_downloads_pass_whole() {
    let stack = stack();
    let mut h2 = H2::connect(stack.https(), "localhost");
    let body: Vec<u8> = (0..5_000_000u32)
        .map(|number| (number % 251) as u8)
        .collect();
    assert_eq!(h2.request("POST", "/length", &[], &body).text(), "5000000");
    assert!(h2.request("POST", "/echo", &[], &body).body == body);
    assert_eq!(h2.get("/files/large.bin").body.len(), 300_000);
    let head = h2.request("HEAD", "/files/large.bin", &[], b"");
    assert_eq!(
        (head.field("content-length"), head.body.len()),
        (Some("300000"), 0)
    );
    let environ = h2.get("/environ").text();
    assert!(
        environ.contains("\"SERVER_PROTOCOL\": \"HTTP/1.1\"") || environ.contains("HTTP/2"),
        "{environ}"
    );
}

#[test]
fn a_refused_upload_is_answered_and_not_asked_for_more() {
    let stack = site("body = \"1KiB\"").start();
    let mut client = Frames::tls(stack.https());
    client.raw(&post(1, &[]));
    client.send(DATA, 0, 1, &[b'x'; 2000]);
    assert_eq!(client.status(), Some(413));
    let reset = client.next_of(&[RST_STREAM]).expect("no more of it");
    assert_eq!((reset.stream, reset.code()), (1, 0));
    // What was on its way is no error, and the connection goes on.
    client.send(DATA, 0, 1, &[b'x'; 2000]);
    client.raw(&ask(3, "/fixed"));
    assert_eq!(client.status(), Some(200));
}

#[test]
fn a_client_that_waits_to_send_is_told_to() {
    let stack = stack();
    let mut client = Frames::tls(stack.https());
    client.raw(&post(
        1,
        &[("expect", "100-continue"), ("content-length", "3")],
    ));
    assert_eq!(client.status(), Some(100));
    client.send(DATA, END_STREAM, 1, b"abc");
    assert_eq!(client.status(), Some(200));
}

#[test]
fn a_connection_that_has_had_its_requests_is_ended_with_grace() {
    let stack = site("keepalive_requests = 3").start();
    let mut client = Frames::tls(stack.https());
    for stream in [1, 3, 5] {
        client.raw(&ask(stream, "/fixed"));
    }
    let mut answered = Vec::new();
    let mut goaways: Vec<Frame> = Vec::new();
    while let Some(next) = client.next_of(&[HEADERS, PING, GOAWAY]) {
        match next.kind {
            HEADERS => {
                client.fields(&next);
                answered.push(next.stream);
            }
            // What was on its way when the first farewell came is served too.
            PING if next.flags & ACK == 0 => {
                client.raw(&ask(7, "/fixed"));
                client.send(PING, ACK, 0, &next.payload);
                client.raw(&ask(9, "/fixed"));
            }
            GOAWAY => goaways.push(next),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5, 7]);
    let last = |frame: &Frame| u32::from_be_bytes(frame.payload[..4].try_into().expect("four"));
    let told: Vec<(u32, u32)> = goaways
        .iter()
        .map(|frame| (last(frame), frame.code()))
        .collect();
    assert_eq!(told, [((1 << 31) - 1, 0), (7, 0)]);
}

#[test]
fn an_idle_connection_is_ended_with_grace() {
    let stack = site("keepalive_timeout = \"200ms\"").start();
    let mut client = Frames::tls(stack.https());
    client.raw(&ask(1, "/fixed"));
    assert_eq!(client.status(), Some(200));
    let goaway = client.next_of(&[GOAWAY]).expect("a farewell");
    assert_eq!(goaway.code(), 0);
    let ping = client.next_of(&[PING]).expect("a question");
    client.send(PING, ACK, 0, &ping.payload);
    assert_eq!(
        client.next_of(&[GOAWAY]).expect("the last stream").payload[..4],
        [0, 0, 0, 1]
    );
    assert_eq!(client.next(), None);
}
