//! Tunnels (WebSockets and other upgrades): nothing is one before the origin has agreed, over HTTP/1.1 and over HTTP/2 alike, and
//! one lasts for as long as something passes through it.

use std::io::Write;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::Signal;

use crate::harness::{
    Client, Site, Stack,
    frames::{
        DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
        frame, get,
    },
    h2::H2,
    origin::{Origin, Seen, Then},
    read_some,
};

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
h2c = true
[limits]
tunnel_timeout = "1h"
[upstream.api]
members = ["URL"]
read_timeout = "50ms"
[[site]]
routes = [{ path = "/", upstream = "api" }, { path = "/fixed", respond = "fixed" }]
"#;

/// Everything goes to this origin.
fn site(origin: &Origin) -> Site {
    Site::new(&SITE.replace("URL", &origin.url()))
}

fn before(origin: &Origin) -> Stack {
    site(origin).start()
}

/// Answers an upgrade as WebSocket servers do, says hello, and then sends back what it gets in capitals.
pub fn upgrading(head: &'static str) -> Origin {
    answering(move |_| head.to_owned())
}

fn answering(head: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Origin {
    Origin::tcp(move |stream, seen| {
        stream.write_all(head(seen).as_bytes()).expect("connected");
        stream.write_all(b"hello").expect("connected");
        let mut piece = [0; 64 * 1024];
        while let Ok(read @ 1..) = read_some(stream, &mut piece) {
            piece[..read].make_ascii_uppercase();
            if stream.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        Then::Closes
    })
}

pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";

pub fn upgrade(client: &mut Client, offered: &str) {
    client.send(format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {offered}\r\nSec-WebSocket-Key: y\r\n\r\n"
    ));
}

#[test]
fn a_websocket_is_a_tunnel_once_the_upstream_says_so() {
    let origin = upgrading(SWITCHING);
    let stack = before(&origin);
    let mut client = stack.client();
    upgrade(&mut client, "WebSocket");
    // Sent before the answer: it is for the tunnel, if there will be one.
    client.send("early ");
    let answer = client.answer_head();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert_eq!(answer.field("connection"), Some("Upgrade"));
    assert_eq!(answer.field("sec-websocket-accept"), Some("x"));
    assert_eq!(client.exactly(11), b"helloEARLY ");
    client.send("late");
    assert_eq!(client.exactly(4), b"LATE");
    // More than any buffer on the way, while nobody reads.
    let much = vec![b'm'; 8 * 1024 * 1024];
    let mut other = stack.client();
    upgrade(&mut other, "websocket");
    assert_eq!(other.answer_head().status, 101);
    assert_eq!(other.exactly(5), b"hello");
    let echoed = std::thread::scope(|scope| {
        let mut sending = other.another_hand();
        let sender = scope.spawn(move || sending.write_all(&much));
        let echoed = other.exactly(8 * 1024 * 1024);
        sender.join().unwrap().unwrap();
        echoed
    });
    assert!(echoed.iter().all(|byte| *byte == b'M'));
    let seen = &origin.seen()[0];
    assert_eq!(seen.fields("Upgrade"), ["WebSocket"]);
    assert_eq!(seen.fields("Connection"), ["Upgrade"]);
    // The end of one side is the end of the other's input, and then of all.
    client.end();
    assert!(client.is_closed());
    let log = stack.until_logged("GET /chat");
    assert!(log.contains(" 101 "), "{log}");
}

#[test]
fn an_upgrade_that_is_declined_is_an_ordinary_answer() {
    let origin = Origin::saying(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno",
    );
    let stack = before(&origin);
    let mut client = stack.client();
    for _ in 0..2 {
        upgrade(&mut client, "websocket");
        let answer = client.answer(false);
        assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
    }
    assert_eq!(origin.seen()[1].connection, 0);
}

#[test]
fn nothing_is_a_tunnel_that_was_not_asked_for() {
    for (head, offered, status) in [
        // Chosen is what was not offered.
        (SWITCHING, "other", 502),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
            "websocket",
            502,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, other\r\n\r\n",
            "websocket",
            502,
        ),
        // Requests of its own would pass through it, which nobody has admitted.
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
            "h2c",
            502,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.2\r\n\r\n",
            "TLS/1.2",
            502,
        ),
    ] {
        let origin = upgrading(head);
        let stack = before(&origin);
        let mut client = stack.client();
        upgrade(&mut client, offered);
        assert_eq!(client.answer(false).status, status, "{offered}");
    }
    let origin = upgrading(SWITCHING);
    let stack = before(&origin);
    let mut client = stack.client();
    upgrade(&mut client, "h2c, websocket, HTTP/2.0");
    assert_eq!(client.answer_head().status, 101);
    assert_eq!(origin.seen()[0].fields("Upgrade"), ["websocket"]);
    for request in [
        // An HTTP/1.0 client knows no 101, HEAD has no content to replace, and content would have to be read first.
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let before = origin.seen().len();
        let mut client = stack.client();
        assert_eq!(
            client
                .send(request)
                .answer(request.starts_with("HEAD"))
                .status,
            502,
            "{request:?}"
        );
        assert_eq!(
            origin.seen()[before].fields("Upgrade").len(),
            0,
            "{request:?}"
        );
    }
    assert_eq!(
        stack
            .client()
            .send("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")
            .answer(false)
            .status,
        405
    );
}

#[test]
fn a_tunnel_in_which_nothing_passes_is_closed() {
    let origin = upgrading(SWITCHING);
    let stack = site(&origin).edit("\"1h\"", "\"50ms\"").start();
    let mut client = stack.client();
    upgrade(&mut client, "websocket");
    assert_eq!(client.answer_head().status, 101);
    assert_eq!(client.exactly(5), b"hello");
    assert!(client.is_closed());
}

/// A server that speaks WebSocket to the letter of its opening handshake (RFC 6455 §4.2.2).
fn websockets() -> Origin {
    answering(|seen| {
        let key = seen.fields("sec-websocket-key");
        let asked = key.first().copied().unwrap_or_default().to_owned();
        let answer = digest(
            &SHA1_FOR_LEGACY_USE_ONLY,
            format!("{asked}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
        );
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            BASE64_STANDARD.encode(answer)
        )
    })
}

/// CONNECT with `:protocol` (RFC 8441 §4).
fn connect(stream: u32, path: &str, protocol: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("sec-websocket-version", "13"),
    ];
    frame(
        HEADERS,
        END_HEADERS,
        stream,
        &block(&[&fields[..], more].concat()),
    )
}

/// The next so many bytes of a stream.
fn content(client: &mut Frames, length: usize) -> String {
    let mut content = Vec::new();
    while content.len() < length {
        let data = client.next_of(&[DATA]).expect("content");
        content.extend(data.payload);
    }
    String::from_utf8(content).expect("text")
}

#[test]
fn a_websocket_over_http2_is_the_same_tunnel() {
    let origin = websockets();
    let stack = before(&origin);
    let mut client = Frames::plain(stack.http());
    let settings = client.next_of(&[SETTINGS]).expect("a greeting");
    assert!(
        settings
            .payload
            .chunks(6)
            .any(|one| one == [0, 8, 0, 0, 0, 1]),
        "SETTINGS_ENABLE_CONNECT_PROTOCOL: {settings:?}"
    );
    client.raw(&connect(
        1,
        "/chat?room=1",
        "websocket",
        &[
            ("sec-websocket-protocol", "chat, other"),
            // Not for who speaks HTTP/2 (RFC 8441 §5).
            ("sec-websocket-key", "of the client"),
        ],
    ));
    client.send(DATA, 0, 1, b"early ");
    let (stream, fields) = client.head().expect("an answer");
    let field = |name: &str| {
        let found = fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!((stream, field(":status")), (1, Some("200")));
    assert_eq!(field("sec-websocket-protocol"), Some("chat"));
    for name in [
        "sec-websocket-accept",
        "upgrade",
        "connection",
        "content-length",
    ] {
        assert_eq!(field(name), None, "{name}");
    }
    assert_eq!(content(&mut client, 11), "helloEARLY ");
    let seen = &origin.seen()[0];
    assert_eq!(seen.line(), "GET /chat?room=1 HTTP/1.1");
    assert_eq!(seen.fields("Upgrade"), ["websocket"]);
    assert_eq!(seen.fields("Connection"), ["Upgrade"]);
    assert_eq!(seen.fields("Host"), ["localhost"]);
    assert_eq!(seen.fields("Sec-WebSocket-Version"), ["13"]);
    assert_eq!(seen.fields("Sec-WebSocket-Protocol"), ["chat, other"]);
    let keys = seen.fields("Sec-WebSocket-Key");
    assert!(keys.len() == 1 && keys[0].len() == 24, "{keys:?}");
    // The connection goes on beside it.
    client.raw(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/fixed")));
    assert_eq!(client.status(), Some(200));
    assert_eq!(content(&mut client, 5), "fixed");
    client.send(DATA, 0, 1, b"late");
    assert_eq!(content(&mut client, 4), "LATE");
    // The end of one side is the end of the other's input, and then of all.
    client.send(DATA, END_STREAM, 1, b" bye");
    assert_eq!(content(&mut client, 4), " BYE");
    let last = client.next_of(&[DATA, RST_STREAM]).expect("an end");
    assert_eq!(
        (last.kind, last.flags, last.payload.len()),
        (DATA, END_STREAM, 0)
    );
    let log = stack.until_logged("GET /chat");
    assert!(log.contains("HTTP/2") && log.contains(" 200 "), "{log}");
}

#[test]
fn a_tunnel_over_http2_goes_as_fast_as_its_windows() {
    let origin = websockets();
    let stack = site(&origin)
        .edit("h2c = true", "https = [\"127.0.0.1:0\"]")
        .start();
    let mut client = Frames::tls(stack.https());
    // Five bytes of each stream, until there is more room.
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 5]);
    client.raw(&connect(1, "/", "websocket", &[]));
    assert_eq!(client.status(), Some(200));
    client.send(DATA, 0, 1, b"more");
    assert_eq!(content(&mut client, 5), "hello");
    client.send(WINDOW_UPDATE, 0, 1, &3u32.to_be_bytes());
    let data = client.next_of(&[DATA]).expect("content");
    assert_eq!(data.payload, b"MOR");
    // Small messages are what a WebSocket is for.
    let mut client = Frames::tls(stack.https());
    client.raw(&connect(1, "/", "websocket", &[]));
    assert_eq!(client.status(), Some(200));
    client.raw(&frame(DATA, 0, 1, b"note.").repeat(10_000));
    assert!(content(&mut client, 50_005).ends_with("NOTE."));
    // More than any buffer on the way, both ways at once.
    let much = vec![b'm'; 8 * 1024 * 1024];
    let mut h2 = H2::connect(stack.https(), "localhost");
    assert_eq!(h2.get("/fixed").status, 200);
    let echoed = h2.through_tunnel("/", much);
    assert_eq!(echoed.len(), 5 + 8 * 1024 * 1024);
    assert!(echoed[5..].iter().all(|byte| *byte == b'M'));
}

/// Any success would tell the client that it has its tunnel.
#[test]
fn nothing_but_a_websocket_is_a_tunnel_over_http2() {
    const AGREES: &str =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n";
    for (answer, path, protocol, status, cause) in [
        (SWITCHING, "/", "websocket", 502, "upstream-broken"),
        (AGREES, "/", "websocket", 502, "upstream-broken"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
            "/",
            "websocket",
            501,
            "no-tunnel",
        ),
        (
            "HTTP/1.1 204 No Content\r\n",
            "/",
            "websocket",
            501,
            "no-tunnel",
        ),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 0\r\n",
            "/",
            "websocket",
            403,
            "",
        ),
        (AGREES, "/", "connect-udp", 501, "no-tunnel"),
        (AGREES, "/", "h2c", 501, "no-tunnel"),
        (AGREES, "/fixed", "websocket", 501, "no-tunnel"),
    ] {
        let origin = answering(move |_| format!("{answer}\r\n"));
        let stack = site(&origin)
            .edit(
                "h2c = true",
                "h2c = true\naccess_log = { format = \"json\" }",
            )
            .start();
        let mut client = Frames::plain(stack.http());
        client.raw(&connect(1, path, protocol, &[]));
        assert_eq!(client.status(), Some(status), "{answer:?} {protocol}");
        stack.until_logged(cause);
        client.raw(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/fixed")));
        assert_eq!(client.status(), Some(200), "the connection goes on");
    }
    // Content has a length, a tunnel has none.
    let origin = websockets();
    let stack = before(&origin);
    let mut client = Frames::plain(stack.http());
    client.raw(&connect(1, "/", "websocket", &[("content-length", "0")]));
    assert_eq!(client.status(), Some(400));
    assert!(origin.seen().is_empty());
}

#[test]
fn who_has_no_upstream_offers_no_tunnels() {
    let stack = Site::new(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nh2c = true\naccess_log = { format = \"json\" }\n[[site]]\nroutes = [{ path = \"/\", respond = \"fixed\" }]\n",
    )
    .start();
    let mut client = Frames::plain(stack.http());
    let settings = client.next_of(&[SETTINGS]).expect("a greeting");
    assert!(!settings.payload.chunks(6).any(|one| one[..2] == [0, 8]));
    client.raw(&connect(1, "/", "websocket", &[]));
    assert_eq!(client.status(), Some(400));
    stack.until_logged("bad-pseudo-field");
}

#[test]
fn a_tunnel_over_http2_ends_when_nothing_passes() {
    const CANCEL: u32 = 8;
    let origin = websockets();
    let stack = site(&origin).edit("\"1h\"", "\"50ms\"").start();
    let mut client = Frames::plain(stack.http());
    client.raw(&connect(1, "/", "websocket", &[]));
    assert_eq!(client.status(), Some(200));
    assert_eq!(content(&mut client, 5), "hello");
    let end = client.next_of(&[RST_STREAM]).expect("an end");
    assert_eq!((end.stream, end.code()), (1, CANCEL));
    client.raw(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/fixed")));
    assert_eq!(client.status(), Some(200), "the connection goes on");
}

/// Opens a tunnel over HTTP/1.1 and one over HTTP/2.
fn two(stack: &Stack) -> (Client, Frames) {
    let mut one = stack.client();
    upgrade(&mut one, "websocket");
    assert_eq!(one.answer_head().status, 101);
    assert_eq!(one.exactly(5), b"hello");
    let mut two = Frames::plain(stack.http());
    two.raw(&connect(1, "/", "websocket", &[]));
    assert_eq!(two.status(), Some(200));
    assert_eq!(content(&mut two, 5), "hello");
    (one, two)
}

fn both_live(one: &mut Client, two: &mut Frames) {
    one.send("one");
    assert_eq!(one.exactly(3), b"ONE");
    two.send(DATA, 0, 1, b"two");
    assert_eq!(content(two, 3), "TWO");
}

#[test]
fn tunnels_outlive_a_reload() {
    let stack = before(&websockets());
    let (mut one, mut two) = two(&stack);
    // Even where nothing leads to their origin any more.
    let site = stack.site().edit(
        "{ path = \"/\", upstream = \"api\" }",
        "{ path = \"/\", respond = \"new\" }",
    );
    let (code, said) = site.run("reload");
    assert_eq!(code, Some(0), "{said}\n{}", stack.logged());
    assert_eq!(stack.get("/").text(), "new");
    both_live(&mut one, &mut two);
}

#[test]
fn tunnels_are_the_last_to_go_when_it_stops() {
    // All end in time.
    let stack = before(&websockets());
    let (mut one, mut both) = two(&stack);
    let mut idle = stack.client();
    assert_eq!(idle.get("/fixed").status, 200);
    stack.signal(Signal::TERM);
    assert!(idle.is_closed());
    both_live(&mut one, &mut both);
    one.end();
    assert!(one.is_closed());
    both.send(DATA, END_STREAM, 1, b"");
    assert_eq!(stack.wait().code(), Some(0), "{}", stack.logged());
    assert!(!stack.logged().contains("cut"), "{}", stack.logged());
    // They do not end.
    let stack = site(&websockets())
        .edit(
            "tunnel_timeout = \"1h\"",
            "tunnel_timeout = \"1h\"\ndrain_timeout = \"1s\"",
        )
        .start();
    let (mut one, mut two) = two(&stack);
    stack.signal(Signal::TERM);
    assert_eq!(stack.wait().code(), Some(0), "{}", stack.logged());
    assert!(one.is_closed());
    while two.next().is_some() {}
    let log = stack.logged();
    assert!(log.contains("2 connections cut"), "{log}");
}
