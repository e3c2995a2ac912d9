//! HTTP/1.1 and 1.0 as they come off the wire: what is answered, what is refused, and that nothing behind a refused request is
//! taken for another one (RFC 9112 §11.2).

use crate::{
    harness::{Client, Site, Stack},
    raw::{self, Case, Closed, Kept, SITE, field_lines, framings, request_lines, smuggling},
};

/// Answers with what it was asked, and remembers every path that came through.
const ECHO: &str = r#"
import json
seen = []

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read().decode("latin-1")
    if path == "/seen":
        body = json.dumps(seen)
    elif path == "/environ":
        body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)})
    else:
        seen.append(path)
        body = "%s %s %s %s" % (environ["REQUEST_METHOD"], path, environ.get("CONTENT_LENGTH", "-"), body)
    status = "499 Of My Own" if path == "/499" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [body.encode("latin-1")]
"#;

fn stack() -> Stack {
    Site::new(SITE)
        .file("app.py", ECHO)
        .file("files/a.txt", "a file")
        .start()
}

/// Sends each case with a further request behind it, which is answered if and only if the case leaves the connection open.
fn try_all(cases: &[Case]) {
    let stack = stack();
    let mut kept = Vec::new();
    for (number, (bytes, status, after)) in cases.iter().enumerate() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let next = format!("/after/{number}");
        let mut all = bytes.clone();
        all.extend_from_slice(format!("GET {next} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let mut client = stack.client();
        client.send(all);
        let answer = client.answer(false);
        assert_eq!(answer.status, *status, "{shown:?}: {answer:?}");
        let closes = answer.field("connection") == Some("close");
        assert_eq!(closes, *after == Closed, "{shown:?}: {answer:?}");
        if *after == Kept {
            let answer = client.answer(false);
            assert_eq!(answer.status, 200, "{shown:?}: {answer:?}");
            assert!(answer.text().contains(&next), "{shown:?}: {answer:?}");
            kept.push(next);
        } else {
            assert!(client.is_closed(), "{shown:?}: something follows");
        }
    }
    let seen: Vec<String> = serde_json::from_slice(&stack.get("/seen").body).expect("a list");
    let after: Vec<&String> = seen
        .iter()
        .filter(|path| path.starts_with("/after"))
        .collect();
    assert_eq!(after, kept.iter().collect::<Vec<_>>());
}

#[test]
fn every_request_line_is_answered_or_refused_for_good() {
    try_all(&request_lines());
}

#[test]
fn every_field_line_is_answered_or_refused_for_good() {
    try_all(&field_lines());
}

#[test]
fn every_framing_is_answered_or_refused_for_good() {
    try_all(&framings());
}

#[test]
fn every_trick_is_answered_or_refused_for_good() {
    try_all(&smuggling());
}

#[test]
fn there_are_as_many_cases_as_it_takes() {
    let cases = raw::all();
    assert!(cases.len() >= 200, "{}", cases.len());
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let stack = stack();
    let mut client = stack.client();
    let requests: String = (0..40)
        .map(|number| match number % 4 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
            2 => format!(
                "POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            _ => format!("GET /files/a.txt?{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
        })
        .collect();
    client.send(requests);
    for number in 0..40 {
        let text = client.answer(false).text();
        let expected = match number % 4 {
            0 => format!("GET /{number} - "),
            1 | 2 => format!("POST /{number} 3 abc"),
            _ => "a file".to_owned(),
        };
        assert_eq!(text, expected);
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let stack = stack();
    let mut client = stack.client();
    for byte in b"\r\nPOST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer(false).text(), "POST /slow 3 abc");
}

#[test]
fn a_connection_persists_as_both_sides_want() {
    let stack = stack();
    for (request, connection, closed) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            Some("close"),
            true,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n",
            Some("close"),
            true,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            None,
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", Some("close"), true),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", Some("close"), true),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            Some("keep-alive"),
            false,
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
            Some("close"),
            true,
        ),
    ] {
        let mut client = stack.client();
        let answer = client.send(request).answer(false);
        assert_eq!(answer.field("connection"), connection, "{request:?}");
        if closed {
            assert!(client.is_closed(), "{request:?}");
        } else {
            let again = client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(again.answer(false).text(), "GET /again - ");
        }
    }
}

#[test]
fn http10_without_a_host_is_served_where_any_host_is() {
    let stack = Site::with_app(ECHO).start();
    let mut client = stack.client();
    let answer = client.send("GET /environ HTTP/1.0\r\n\r\n").answer(false);
    let environ: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    // An empty HTTP_HOST made Django refuse the request; without one it asks SERVER_NAME.
    assert_eq!(environ.get("HTTP_HOST"), None);
    assert_eq!(environ.get("HTTP_X_FORWARDED_HOST"), None);
    assert_eq!(environ["SERVER_NAME"], "localhost");
    assert_eq!(environ["SERVER_PORT"], stack.http().port().to_string());
}

#[test]
fn head_has_the_fields_of_get_and_no_content() {
    let stack = stack();
    for path in ["/x", "/files/a.txt", "/fixed", "/old", "/files/missing"] {
        let got = stack.get(path);
        let mut client = stack.client();
        let head = client.request("HEAD", path, &[], b"");
        assert_eq!(head.status, got.status, "{path}");
        // This app tells its method.
        if path != "/x" {
            assert_eq!(
                head.field("content-length"),
                got.field("content-length"),
                "{path}"
            );
        }
        // Were there content, it would be taken for the next answer.
        assert_eq!(client.get("/fixed").text(), "fixed", "{path}");
    }
}

#[test]
fn a_client_that_waits_is_told_to_go_on_only_when_its_content_is_wanted() {
    let stack = stack();
    let ask = |path: &str, fields: &str| -> Client {
        let mut client = stack.client();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n{fields}\r\n"
        ));
        client
    };
    for fields in ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = ask("/x", fields);
        assert_eq!(client.answer_head().status, 100);
        client.send(if fields.starts_with('C') {
            "abc"
        } else {
            "3\r\nabc\r\n0\r\n\r\n"
        });
        assert_eq!(client.answer(false).text(), "POST /x 3 abc");
        // What was promised has been sent: the connection is good for more.
        assert_eq!(client.get("/fixed").text(), "fixed");
    }
    for (path, fields, status) in [
        ("/x", "Content-Length: 99999999\r\n", 413),
        ("/files/a.txt", "Content-Length: 3\r\n", 405),
        ("/fixed", "Content-Length: 3\r\n", 200),
        ("/x", "Content-Length: 3\r\nContent-Length: 3\r\n", 400),
    ] {
        let mut client = ask(path, fields);
        let answer = client.answer_head();
        assert_eq!(answer.status, status, "{path} {fields:?}");
        // Whether the content comes or not is the client's choice now: nobody can tell where the next request begins.
        assert_eq!(answer.field("connection"), Some("close"));
    }
    // Nothing is to come, so nobody waits.
    let mut client = ask("/x", "Content-Length: 0\r\n");
    assert_eq!(client.answer_head().status, 200);
    // HTTP/1.0 does not know it (RFC 9110 §10.1.1).
    let mut client = stack.client();
    client.send(
        "POST /x HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!(client.answer_head().status, 200);
}

#[test]
fn a_client_that_does_not_wait_is_not_told() {
    let stack = stack();
    let mut client = stack.client();
    client.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!(client.answer_head().status, 200);
}

#[test]
fn content_of_unknown_length_reaches_the_app_with_its_length() {
    let stack = stack();
    let mut client = stack.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..1000 {
        client.send("5;ext=\"1\"\r\n12345\r\n");
    }
    client.send("0\r\nTrailer: dropped\r\n\r\n");
    let text = client.answer(false).text();
    assert!(text.starts_with("POST /x 5000 1234512345"), "{text:.40}");
}

#[test]
fn a_refusal_can_be_read_by_a_client_that_sends_all_it_has_first() {
    // Closing with megabytes unread is a reset, and the refusal was lost with it.
    let stack = stack();
    let mut client = stack.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n");
    for _ in 0..20 {
        client.send(vec![b'x'; 1_000_000]);
    }
    assert_eq!(client.answer(false).status, 413);
    assert!(client.is_closed());
}

#[test]
fn an_app_may_answer_any_status() {
    // 499 was our own sign for a client that had left: the connection was closed and nothing was sent.
    let stack = stack();
    let answer = stack.get("/499");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (499, "GET /499 - ")
    );
}

#[test]
fn fields_of_the_connection_and_forged_ones_do_not_reach_the_app() {
    let stack = stack();
    let mut client = stack.client();
    client.send(
        "GET /environ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Listed\r\nX-Listed: 1\r\nKeep-Alive: 5\r\n\
         Proxy: evil\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: x\r\nUpgrade: x\r\nX_Forwarded_For: 6.6.6.6\r\n\
         X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
         Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-ID: mine\r\n_stack: 6.6.6.6 1 https evil 1 id\r\n\
         _target: /evil\r\nX-Mine: kept\r\n\r\n",
    );
    let answer = client.answer(false);
    let environ: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let text = environ.to_string();
    assert!(
        !text.contains("6.6.6.6") && !text.contains("evil"),
        "{text}"
    );
    for gone in [
        "HTTP_CONNECTION",
        "HTTP_X_LISTED",
        "HTTP_KEEP_ALIVE",
        "HTTP_PROXY",
        "HTTP_PROXY_CONNECTION",
        "HTTP_TE",
        "HTTP_TRAILER",
        "HTTP_UPGRADE",
        "HTTP_FORWARDED",
        "HTTP_X_REAL_IP",
        "HTTP_X_FORWARDED_PORT",
    ] {
        assert_eq!(environ.get(gone), None, "{gone}");
    }
    for (key, value) in [
        ("HTTP_X_MINE", "kept"),
        ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
        ("HTTP_X_FORWARDED_PROTO", "http"),
        ("HTTP_X_FORWARDED_HOST", "a"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("wsgi.url_scheme", "http"),
        ("PATH_INFO", "/environ"),
    ] {
        assert_eq!(environ[key], value, "{key}");
    }
    let id = answer.field("x-request-id").expect("every answer has one");
    assert_eq!(environ["HTTP_X_REQUEST_ID"], id);
    assert_ne!(id, "mine");
}
