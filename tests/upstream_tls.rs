//! Members that speak TLS: they are who they say, or nothing is sent to them; and then all is as without it.

use std::{io::Write, net::TcpListener, thread};

use crate::harness::{
    Site, Stack,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, block, frame},
    origin::{Origin, Then},
    read_some,
    tls::{Authority, Pair},
};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn site(member: &str, ca: &str) -> Site {
    Site::new(&format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n[upstream.api]\nmembers = [{member:?}]\n{ca}\n\
         [[site]]\nroutes = [{{ path = \"/\", upstream = \"api\" }}]\n"
    ))
}

/// Everything goes to this server, whose certificate this authority must have signed.
fn before(origin: &Origin, authority: &Authority) -> Stack {
    let member = format!("https://localhost:{}", origin.port());
    site(&member, "ca = \"ca.pem\"")
        .file("ca.pem", &authority.cert)
        .start()
}

#[test]
fn requests_and_responses_of_any_size_pass() {
    let authority = Authority::new("test");
    let origin = Origin::tls(authority.sign_server("localhost"), |stream, seen| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            seen.body.len()
        );
        stream.write_all(head.as_bytes()).expect("connected");
        stream.write_all(&seen.body).expect("connected");
        stream.flush().expect("connected");
        Then::Goes
    });
    let stack = before(&origin, &authority);
    let mut client = stack.client();
    for length in [0, 1, 100_000, 3_000_000] {
        let body = vec![b'x'; length];
        let answer = client.post("/", "text/plain", &body);
        assert_eq!((answer.status, answer.body.len()), (200, length));
    }
    let seen = origin.seen();
    assert_eq!(seen[1].connection, 0, "it is kept");
    assert_eq!(
        seen[0].fields("X-Forwarded-Proto"),
        ["http"],
        "the client's"
    );
}

#[test]
fn who_is_not_trusted_is_sent_nothing() {
    let trusted = Authority::new("test");
    let other = Authority::new("other");
    for (pair, says) in [
        (other.sign_server("localhost"), "UnknownIssuer"),
        (trusted.sign_server("elsewhere"), "not valid for name"),
        (trusted.sign("localhost"), "invalid peer certificate"),
        (Pair::new("localhost"), "invalid peer certificate"),
    ] {
        let origin = Origin::tls(pair, |stream, _| {
            let _ = stream.write_all(HELLO);
            Then::Closes
        });
        let stack = before(&origin, &trusted);
        assert_eq!(stack.get("/").status, 502);
        let log = stack.until_logged(says);
        assert!(log.contains("upstream-unreachable"), "{log}");
        assert!(origin.seen().is_empty());
    }
}

#[test]
fn whom_the_system_trusts_is_trusted() {
    let authority = Authority::new("test");
    let origin = Origin::tls(authority.sign_server("localhost"), |stream, _| {
        stream.write_all(HELLO).expect("connected");
        Then::Goes
    });
    let member = format!("https://localhost:{}", origin.port());
    let site = site(&member, "").file("system.pem", &authority.cert);
    let bundle = site.path().join("system.pem").display().to_string();
    let stack = site.env("SSL_CERT_FILE", &bundle).start();
    assert_eq!(stack.get("/").text(), "hello");
}

/// What is served was verified by the file as it was.
#[test]
fn new_authorities_are_named_and_taken_by_a_reload() {
    let (first, second) = (Authority::new("test"), Authority::new("other"));
    let origin = Origin::tls(second.sign_server("localhost"), |stream, _| {
        let _ = stream.write_all(HELLO);
        Then::Goes
    });
    let member = format!("https://localhost:{}", origin.port());
    let stack = site(&member, "ca = \"ca.pem\"\nconnect_timeout = \"1m\"")
        .file("ca.pem", &first.cert)
        .start();
    assert_eq!(stack.get("/").status, 502);
    stack.site().file("ca.pem", &second.cert);
    stack.until_logged("has changed, and is read by the next reload");
    assert_eq!(stack.site().run("reload").0, Some(0));
    assert_eq!(stack.get("/").text(), "hello");
}

/// Without the farewell of TLS an end may be anybody's doing (RFC 9112 §9.8).
#[test]
fn content_that_ends_without_a_farewell_is_cut() {
    let authority = Authority::new("test");
    let origin = Origin::tls(authority.sign_server("localhost"), |stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
            .expect("connected");
        Then::Closes
    });
    let stack = before(&origin, &authority);
    let mut client = stack.client();
    client.ask("/");
    assert_eq!(client.answer_head().status, 200);
    assert!(!client.rest().ends_with(b"0\r\n\r\n"));
    stack.until_logged("upstream-cut");
}

#[test]
fn tunnels_pass() {
    let authority = Authority::new("test");
    let origin = Origin::tls(authority.sign_server("localhost"), |stream, _| {
        let switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        stream.write_all(switching).expect("connected");
        let mut piece = [0; 16 * 1024];
        while let Ok(read @ 1..) = read_some(stream, &mut piece) {
            piece[..read].make_ascii_uppercase();
            if stream.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        Then::Closes
    });
    let stack = before(&origin, &authority);
    let mut client = stack.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.answer_head().status, 101);
    for text in ["one", "two"] {
        client.send(text);
        assert_eq!(client.exactly(3), text.to_uppercase().as_bytes());
    }
    let much = vec![b'm'; 4 * 1024 * 1024];
    let echoed = thread::scope(|scope| {
        let mut sending = client.another_hand();
        let sender = scope.spawn(move || sending.write_all(&much));
        let echoed = client.exactly(4 * 1024 * 1024);
        sender.join().expect("no panic").expect("it is taken");
        echoed
    });
    assert!(echoed.iter().all(|byte| *byte == b'M'));
}

#[test]
fn http2_must_be_agreed_upon() {
    let authority = Authority::new("test");
    let pair = authority.sign_server("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let Some(mut server) = Frames::serving_tls(tcp.expect("a connection"), &pair) else {
                continue;
            };
            while let Some((stream, fields)) = server.head() {
                let scheme = fields.contains(&(":scheme".to_owned(), "https".to_owned()));
                let head = block(&[(":status", if scheme { "200" } else { "400" })]);
                server.raw(&frame(HEADERS, END_HEADERS, stream, &head));
                server.send(DATA, END_STREAM, stream, b"hello");
            }
        }
    });
    let start = |port: u16| {
        site(&format!("h2://localhost:{port}"), "ca = \"ca.pem\"")
            .file("ca.pem", &authority.cert)
            .start()
    };
    let answer = start(port).get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    let http1 = Origin::tls(authority.sign_server("localhost"), |_, _| Then::Closes);
    let stack = start(http1.port());
    assert_eq!(stack.get("/").status, 502);
    stack.until_logged("upstream-unreachable");
    assert!(http1.seen().is_empty());
}
