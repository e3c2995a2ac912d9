//! Routes to other servers: what they are asked, what becomes of what they answer, and what happens when they do not.

use std::{
    net::TcpListener,
    sync::{Arc, Condvar, Mutex},
};

use crate::harness::{
    Site, Stack,
    origin::{Origin, Then},
};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn site(upstream: &str, routes: &str) -> Site {
    Site::new(&format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n{upstream}\n[[site]]\nroutes = [{routes}]\n"
    ))
}

/// Everything goes to these members.
fn before(origins: &[&Origin], figures: &str) -> Stack {
    let members: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    let upstream = format!("[upstream.api]\nmembers = {members:?}\n{figures}");
    site(&upstream, r#"{ path = "/", upstream = "api" }"#).start()
}

/// Blocks until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().expect("no holder panics");
        drop(
            self.0
                .1
                .wait_while(open, |open| !*open)
                .expect("no holder panics"),
        );
    }
}

#[test]
fn an_upstream_sees_the_request_and_who_made_it() {
    let origin = Origin::saying(HELLO);
    let url = origin.url();
    let routes = format!(
        r#"{{ path = "/", upstream = {url:?} }}, {{ path = "/ä b/", upstream = [{url:?}], strip = true }}"#
    );
    let stack = site("", &routes).start();
    let mut client = stack.client();
    client.send(
        "POST /a%2Fb//../c?d=e HTTP/1.1\r\nHost: example.org:81\r\nContent-Length: 3\r\nX-Mine: kept\r\nCookie: a=b\r\n\
         Connection: keep-alive, X-Listed\r\nX-Listed: 1\r\nKeep-Alive: 5\r\nProxy: evil\r\nTE: trailers\r\nUpgrade: x\r\n\
         X_Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         X-Forwarded-Host: evil\r\nX-Request-ID: mine\r\nVia: 1.0 somebody\r\nExpect: 100-continue\r\n\r\nabc",
    );
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    let seen = origin.seen().remove(0);
    assert_eq!(seen.line(), "POST /a/c?d=e HTTP/1.1");
    assert_eq!(seen.body, b"abc");
    for (name, values) in [
        ("Host", &["example.org:81"][..]),
        ("X-Mine", &["kept"]),
        ("Cookie", &["a=b"]),
        ("X-Forwarded-For", &["127.0.0.1"]),
        ("X-Real-IP", &["127.0.0.1"]),
        ("X-Forwarded-Proto", &["http"]),
        ("X-Forwarded-Host", &["example.org:81"]),
        ("X-Forwarded-Port", &["81"]),
        ("X-Forwarded-Prefix", &[]),
        ("Content-Length", &["3"]),
        ("Via", &["1.0 somebody", "1.1 stack"]),
        ("X-Request-ID", &[answer.field("x-request-id").unwrap()]),
        ("X-Listed", &[]),
        ("Connection", &[]),
        ("Upgrade", &[]),
        ("Expect", &[]),
        ("Forwarded", &[]),
        ("Proxy", &[]),
        ("TE", &[]),
    ] {
        assert_eq!(seen.fields(name), values, "{name}");
    }
    assert!(
        !seen.head.contains("6.6.6.6") && !seen.head.contains("evil"),
        "{}",
        seen.head
    );
    for (target, line, prefix) in [
        ("/a%2Fb", "GET /a%2Fb HTTP/1.1", None),
        ("/%C3%A4%20b/", "GET / HTTP/1.1", Some("/%C3%A4%20b")),
        (
            "/%C3%A4%20b/c%2Fd?",
            "GET /c%2Fd? HTTP/1.1",
            Some("/%C3%A4%20b"),
        ),
        ("/x/../%C3%A4%20b/c", "GET /c HTTP/1.1", Some("/%C3%A4%20b")),
    ] {
        assert_eq!(client.get(target).status, 200);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.line(), line);
        assert_eq!(
            seen.fields("X-Forwarded-Prefix"),
            Vec::from_iter(prefix),
            "{target}"
        );
    }
    let log = stack.until_logged("POST /a%2Fb//../c?d=e");
    assert!(!log.contains("evil"), "{log}");
}

#[test]
fn a_unix_socket_is_as_good() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let origin = Origin::unix(&socket, |stream, seen| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            seen.body.len()
        )
        .unwrap();
        stream.write_all(&seen.body).unwrap();
        Then::Goes
    });
    let routes = format!(
        r#"{{ path = "/", upstream = "unix:{}" }}"#,
        socket.display()
    );
    let stack = site("", &routes).start();
    let mut client = stack.client();
    // In memory, and more than that.
    for length in [0, 1, 100_000, 3_000_000] {
        let body = vec![b'x'; length];
        let answer = client.post("/", "text/plain", &body);
        assert_eq!((answer.status, answer.body.len()), (200, length));
    }
    assert_eq!(origin.seen()[1].connection, 0, "it is kept");
}

/// What an upstream answers, and what the client gets: the status, the content, and whether the upstream's connection is used
/// again.
#[test]
fn responses_pass_whatever_their_framing() {
    for (answer, status, content, kept) in [
        (HELLO, 200, "hello", true),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, "", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
        (
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n",
            304,
            "",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            200,
            "hello",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
            200,
            "hello",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello", false),
        ("HTTP/1.0 200 OK\r\n\r\nhello", 200, "hello", false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            200,
            "hello",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello surplus",
            200,
            "hello",
            false,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Gone\r\nContent-Length: 2\r\n\r\nno",
            404,
            "no",
            true,
        ),
    ] {
        let origin = Origin::tcp(move |stream, _| {
            let _ = stream.write_all(answer.as_bytes());
            if kept { Then::Goes } else { Then::Closes }
        });
        let stack = before(&[&origin], "");
        let mut client = stack.client();
        for _ in 0..2 {
            let got = client.get("/");
            assert_eq!(
                (got.status, got.text().as_str()),
                (status, content),
                "{answer:?}"
            );
            assert_eq!(got.field("connection"), None, "{answer:?}");
        }
        let connections: Vec<usize> = origin.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(connections, [0, usize::from(!kept)], "{answer:?}");
    }
}

#[test]
fn a_head_request_has_the_length_and_no_content() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kept: yes\r\n\r\n");
    let stack = before(&[&origin], "");
    let mut client = stack.client();
    let answer = client.request("HEAD", "/", &[], b"");
    assert_eq!(
        (answer.field("content-length"), answer.field("x-kept")),
        (Some("5"), Some("yes"))
    );
    assert_eq!(client.request("HEAD", "/", &[], b"").status, 200);
}

/// What is no response, or could be read in two ways, is 502 and says which rule it breaks; the connection is not used again.
#[test]
fn a_broken_response_is_a_bad_gateway() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(300));
    for (answer, cause) in [
        ("", "upstream-cut"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "upstream-cut"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "upstream-cut"),
        ("hello", "upstream-broken"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "upstream-broken"),
        ("HTTP/2 200\r\n\r\n", "upstream-broken"),
        ("HTTP/1.2 200 OK\r\n\r\n", "upstream-broken"),
        ("ICY 200 OK\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 20 OK\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 600 OK\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1  200 OK\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 O\0K\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "upstream-broken"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "upstream-broken"),
        ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "upstream-broken"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5, 6\r\n\r\n",
            "upstream-broken",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "upstream-broken",
        ),
        (&long, "upstream-broken"),
        (&many, "upstream-broken"),
    ] {
        let bytes = answer.as_bytes().to_vec();
        let origin = Origin::tcp(move |stream, _| {
            let _ = stream.write_all(&bytes);
            Then::Closes
        });
        let stack = before(&[&origin], "");
        let shown = &answer[..answer.len().min(80)];
        let mut client = stack.client();
        let got = client.request("GET", "/", &[("Accept", "application/json")], b"");
        assert_eq!(got.status, 502, "{shown:?}: {got:?}");
        assert!(got.text().contains(cause), "{shown:?}: {}", got.text());
        assert_eq!(
            got.field("connection"),
            None,
            "{shown:?}: the client has done nothing wrong"
        );
        assert_eq!(origin.seen().len(), 1, "{shown:?}: nothing is sent twice");
    }
}

/// Once the head is on its way the status is said: all that is left is to let the client see that the content is not whole.
#[test]
fn a_response_that_breaks_in_the_middle_is_cut() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7a120\r\n",
    ] {
        let origin = Origin::tcp(move |stream, _| {
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.write_all(&[b'x'; 400_000]);
            Then::Closes
        });
        let stack = before(&[&origin], "");
        let mut client = stack.client();
        client.ask("/");
        assert_eq!(client.answer_head().status, 200);
        let rest = client.rest();
        assert!(
            rest.len() >= 400_000 && !rest.ends_with(b"0\r\n\r\n"),
            "{}",
            rest.len()
        );
        stack.until_logged("upstream-cut");
    }
}

#[test]
fn a_request_goes_elsewhere_only_as_long_as_nothing_of_it_was_sent() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let origin = Origin::saying(HELLO);
    let upstream = format!(
        "[upstream.api]\nmembers = [\"http://{closed}\", {:?}]",
        origin.url()
    );
    let stack = site(&upstream, r#"{ path = "/", upstream = "api" }"#).start();
    let mut client = stack.client();
    for _ in 0..5 {
        assert_eq!(client.post("/", "text/plain", b"abc").status, 200);
    }
    let log = stack.until_logged("others are asked first");
    assert_eq!(
        log.matches("others are asked first").count(),
        1,
        "said once: {log}"
    );

    // This one has the request in it when it goes.
    let dying = Origin::tcp(|_, _| Then::Closes);
    let origin = Origin::saying(HELLO);
    let stack = before(&[&dying, &origin], "");
    let mut client = stack.client();
    let mut statuses: Vec<u16> = (0..8).map(|_| client.get("/").status).collect();
    assert_eq!(
        dying.seen().len(),
        3,
        "after three in a row it is passed over"
    );
    assert_eq!(origin.seen().len(), 5);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 502, 502, 502]);
}

#[test]
fn a_kept_connection_that_has_ended_meanwhile_is_no_request_s_problem() {
    let ended = Arc::new((Mutex::new(0), Condvar::new()));
    let counted = Arc::clone(&ended);
    let origin = Origin::tcp(move |stream, _| {
        stream.write_all(HELLO.as_bytes()).unwrap();
        stream.end();
        *counted.0.lock().unwrap() += 1;
        counted.1.notify_all();
        Then::Closes
    });
    let stack = before(&[&origin], "");
    let mut client = stack.client();
    for number in 1..20 {
        assert_eq!(client.get("/").status, 200);
        let count = ended.0.lock().unwrap();
        drop(ended.1.wait_while(count, |count| *count < number).unwrap());
    }
}

#[test]
fn who_cannot_be_reached_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let routes = format!(
        r#"{{ path = "/", upstream = "http://{closed}" }}, {{ path = "/unix", upstream = "unix:{}" }},
           {{ path = "/name", upstream = "http://no-such-host.invalid" }}"#,
        folder.path().join("none.sock").display()
    );
    let stack = site("", &routes).start();
    for (path, says) in [
        ("/", format!("http://{closed}: Connection refused")),
        ("/unix", "none.sock: No such file or directory".to_owned()),
        ("/name", "http://no-such-host.invalid:80: ".to_owned()),
    ] {
        assert_eq!(stack.get(path).status, 502, "{path}");
        let log = stack.until_logged(&says);
        assert!(log.contains("upstream-unreachable"), "{log}");
    }
}

#[test]
fn a_member_that_says_nothing_is_not_waited_for() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let origin = Origin::tcp(move |stream, seen| {
        if seen.line().contains("/part") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
                .unwrap();
        }
        waiting.pass();
        Then::Closes
    });
    let stack = before(&[&origin], "timeout = \"1s\"\nread_timeout = \"1s\"");
    assert_eq!(stack.get("/").status, 504);
    let mut client = stack.client();
    client.ask("/part");
    assert_eq!(client.answer_head().status, 200);
    assert_eq!(client.rest(), b"hello");
    let log = stack.until_logged("sent nothing for 1s");
    assert!(log.contains("upstream-timeout"), "{log}");
    gate.open();
}

#[test]
fn the_member_with_the_fewest_requests_gets_the_next() {
    let gate = Gate::default();
    let origins = [0, 1].map(|_| {
        let gate = gate.clone();
        Origin::tcp(move |stream, seen| {
            if seen.line().contains("/hold") {
                gate.pass();
            }
            stream.write_all(HELLO.as_bytes()).unwrap();
            Then::Goes
        })
    });
    let stack = before(&[&origins[0], &origins[1]], "");
    let mut held = stack.client();
    held.ask("/hold");
    let count = |index: usize| origins[index].seen().len();
    stack.until("the request to be held", || count(0) + count(1) == 1);
    let holds = usize::from(count(1) == 1);
    let mut client = stack.client();
    for _ in 0..6 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((count(holds), count(1 - holds)), (1, 6));
    gate.open();
    assert_eq!(held.answer(false).status, 200);
    // Equally few: they take turns.
    for _ in 0..6 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((count(holds), count(1 - holds)), (4, 9));
}

#[test]
fn what_an_upstream_may_not_have_at_once_waits_and_is_refused_in_the_end() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let origin = Origin::tcp(move |stream, seen| {
        if seen.line().contains("/hold") {
            waiting.pass();
        }
        stream.write_all(HELLO.as_bytes()).unwrap();
        Then::Goes
    });
    let url = origin.url();
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n[limits]\nqueue_timeout = \"50ms\"\nqueue_length = 1\n\
         [upstream.api]\nmembers = [{url:?}]\nconnections = 1\n\
         [[site]]\nroutes = [{{ path = \"/\", upstream = \"api\" }}]\n"
    );
    let stack = Site::new(&text).start();
    let mut held = stack.client();
    held.ask("/hold");
    stack.until("the request to be held", || origin.seen().len() == 1);
    let answer = stack.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.field("retry-after").is_some());
    let log = stack.until_logged("upstream-full");
    assert!(
        log.contains("had no place for the request in 50ms"),
        "{log}"
    );
    let mut waits = stack.client();
    gate.open();
    assert_eq!(waits.get("/").status, 200);
    assert_eq!(held.answer(false).status, 200);
}

#[test]
fn a_response_that_trickles_passes_as_it_comes() {
    let gates = [Gate::default(), Gate::default()];
    let waiting = gates.clone();
    let origin = Origin::tcp(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for (number, gate) in waiting.iter().enumerate() {
            // In one write: each piece that comes is a chunk of its own.
            let chunk = format!("9\r\ndata: {number}\n\n\r\n");
            stream.write_all(chunk.as_bytes()).unwrap();
            gate.pass();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        Then::Goes
    });
    let stack = before(&[&origin], "");
    let mut client = stack.client();
    client.ask("/");
    assert_eq!(
        client.answer_head().field("transfer-encoding"),
        Some("chunked")
    );
    for (number, gate) in gates.iter().enumerate() {
        assert_eq!(
            client.exactly(14),
            format!("9\r\ndata: {number}\n\n\r\n").as_bytes()
        );
        gate.open();
    }
    assert_eq!(client.exactly(5), b"0\r\n\r\n");
}
