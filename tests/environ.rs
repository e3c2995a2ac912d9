//! The app sees the truth: what `environ` says (PEP 3333; RFC 3875 §4.1) is the client's, with no middleware, whatever the
//! protocol, and no client can forge it.

use serde_json::Value;

use crate::harness::{Answer, Client, Site, Stack, h2::H2};

/// Answers with its `environ`, and what it read.
const APP: &str = r#"
import json

def app(environ, start_response):
    content = environ["wsgi.input"].read()
    shown = {key: value for key, value in environ.items() if isinstance(value, (str, bool, int, tuple))}
    shown["read"] = content.decode("latin-1")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]
"#;

fn site() -> Site {
    Site::with_app(APP)
}

fn with_tls() -> Stack {
    site()
        .edit("[server]", "[server]\nhttps = [\"127.0.0.1:0\"]")
        .edit(r#"hosts = ["*"]"#, "hosts = [\"*\"]\ntls = \"self-signed\"")
        .start()
}

fn environ(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Sends bytes as they are, reads the environ.
fn ask(client: &mut Client, request: &str) -> Value {
    environ(&client.send(request.as_bytes()).answer(false))
}

fn check(environ: &Value, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(environ[key], *value, "{key} in {environ}");
    }
}

#[test]
fn who_asked_whom_in_the_clear() {
    let stack = site().start();
    let mut client = stack.client();
    let answer = client.get("/");
    let seen = environ(&answer);
    let port = stack.http().port().to_string();
    check(
        &seen,
        &[
            ("REQUEST_METHOD", "GET"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("SERVER_NAME", "127.0.0.1"),
            ("SERVER_PORT", &port),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("wsgi.url_scheme", "http"),
            ("HTTP_HOST", &format!("127.0.0.1:{port}")),
            ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
            ("HTTP_X_FORWARDED_PROTO", "http"),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", "/"),
            ("QUERY_STRING", ""),
        ],
    );
    let remote: u16 = seen["REMOTE_PORT"]
        .as_str()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    assert_eq!(remote, client.local_port());
    assert_eq!(
        seen["HTTP_X_REQUEST_ID"].as_str(),
        answer.field("x-request-id")
    );
    assert!(seen.get("HTTPS").is_none());
    assert_eq!(seen["wsgi.input_terminated"], true);
    assert_eq!(seen["wsgi.multithread"], true);
    assert_eq!(seen["wsgi.multiprocess"], false);
    // Another request, another id.
    let next = client.get("/");
    assert_ne!(next.field("x-request-id"), answer.field("x-request-id"));
}

#[test]
fn who_asked_whom_by_tls() {
    let stack = with_tls();
    let port = stack.https().port().to_string();
    let mut h1 = stack.tls_client("localhost");
    let mut h2 = H2::connect(stack.https(), "localhost");
    for answer in [h1.get("/a?b"), h2.get("/a?b")] {
        let seen = environ(&answer);
        check(
            &seen,
            &[
                ("REMOTE_ADDR", "127.0.0.1"),
                ("SERVER_NAME", "localhost"),
                ("SERVER_PORT", &port),
                ("wsgi.url_scheme", "https"),
                ("HTTPS", "on"),
                ("HTTP_HOST", &format!("localhost:{port}")),
                ("HTTP_X_FORWARDED_PROTO", "https"),
                ("PATH_INFO", "/a"),
                ("QUERY_STRING", "b"),
            ],
        );
        assert_eq!(
            seen["HTTP_X_REQUEST_ID"].as_str(),
            answer.field("x-request-id")
        );
    }
}

/// PATH_INFO, QUERY_STRING, and the target as it was sent, for each target.
const TARGETS: [(&str, &str, &str); 9] = [
    ("/", "/", ""),
    ("/a%20b", "/a b", ""),
    // Bytes as latin-1 (PEP 3333, "Unicode Issues"): the UTF-8 of ü.
    ("/gr%C3%BC%c3%9fe", "/gr\u{c3}\u{bc}\u{c3}\u{9f}e", ""),
    ("/%ff", "/\u{ff}", ""),
    ("/a?b=%20c&d", "/a", "b=%20c&d"),
    ("/a?", "/a", ""),
    ("/a??", "/a", "?"),
    ("/a%3Fb%23", "/a?b#", ""),
    ("/100%25%32%30", "/100%20", ""),
];

#[test]
fn where_it_asked() {
    let stack = site().start();
    let mut client = stack.client();
    for (target, path, query) in TARGETS {
        let seen = environ(&client.get(target));
        check(
            &seen,
            &[
                ("PATH_INFO", path),
                ("QUERY_STRING", query),
                ("RAW_URI", target),
                ("REQUEST_URI", target),
                ("SCRIPT_NAME", ""),
            ],
        );
    }
    // What was routed is what the app gets; what was sent stays to be seen.
    for target in ["/x/../a", "//a", "/./a", "/%61"] {
        let seen = environ(&client.get(target));
        check(&seen, &[("PATH_INFO", "/a"), ("RAW_URI", target)]);
    }
    let host = format!("127.0.0.1:{}", stack.http().port());
    let absolute = format!("http://{host}/abs?x=1");
    let seen = environ(&client.get(&absolute));
    check(
        &seen,
        &[
            ("PATH_INFO", "/abs"),
            ("QUERY_STRING", "x=1"),
            ("RAW_URI", &absolute),
            ("HTTP_HOST", &host),
        ],
    );
}

#[test]
fn the_name_that_was_asked_for() {
    let stack = site().start();
    let mut client = stack.client();
    for (host, name, port) in [
        ("example.org", "example.org", "80"),
        ("example.org:8080", "example.org", "8080"),
        ("[::1]:81", "[::1]", "81"),
    ] {
        let seen = ask(
            &mut client,
            &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        );
        check(
            &seen,
            &[
                ("HTTP_HOST", host),
                ("SERVER_NAME", name),
                ("SERVER_PORT", port),
            ],
        );
    }
    let port = stack.http().port().to_string();
    let seen = ask(&mut stack.client(), "GET / HTTP/1.0\r\n\r\n");
    assert!(
        seen["SERVER_NAME"]
            .as_str()
            .is_some_and(|name| !name.is_empty()),
        "PEP 3333 wants one always"
    );
    assert_eq!(seen["SERVER_PORT"], port);
}

#[test]
fn what_is_said_of_the_content() {
    let stack = site().start();
    let mut client = stack.client();
    let start = "POST / HTTP/1.1\r\nHost: x\r\n";
    let nothing = ask(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    for key in ["CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"] {
        assert!(nothing.get(key).is_none(), "{key} was not sent");
    }
    let empty = ask(
        &mut client,
        &format!("{start}Content-Type:\r\nContent-Length: 0\r\n\r\n"),
    );
    check(&empty, &[("CONTENT_TYPE", ""), ("CONTENT_LENGTH", "0")]);
    let some = ask(
        &mut client,
        &format!("{start}Content-Type: text/x\r\nContent-Length: 3\r\n\r\nabc"),
    );
    check(
        &some,
        &[
            ("CONTENT_TYPE", "text/x"),
            ("CONTENT_LENGTH", "3"),
            ("read", "abc"),
        ],
    );
    // It was read whole before the app was asked, so its length is known.
    let chunked = ask(
        &mut client,
        &format!(
            "{start}Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n4;x=y\r\nfghi\r\n0\r\nX-Trailer: 1\r\n\r\n"
        ),
    );
    check(&chunked, &[("CONTENT_LENGTH", "6"), ("read", "defghi")]);
    for seen in [&nothing, &empty, &some, &chunked] {
        assert_eq!(seen["wsgi.input_terminated"], true);
        for key in [
            "HTTP_CONTENT_LENGTH",
            "HTTP_CONTENT_TYPE",
            "HTTP_TRANSFER_ENCODING",
            "HTTP_X_TRAILER",
        ] {
            assert!(seen.get(key).is_none(), "{key}: {seen}");
        }
    }
}

#[test]
fn repeated_fields_are_one_list() {
    let stack = site().start();
    let seen = ask(
        &mut stack.client(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-List: 1\r\nCookie: a=1\r\nx-list:  2 \r\nCookie: b=2\r\nX-LIST: caf\u{e9}\r\nX-Empty:\r\n\r\n",
    );
    check(
        &seen,
        &[
            ("HTTP_X_LIST", "1, 2, caf\u{c3}\u{a9}"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_X_EMPTY", ""),
        ],
    );
}

/// Everything that people have tried, at once.
const FORGED: [(&str, &str); 21] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X_FORWARDED_PROTO", "https"),
    ("X-Forwarded_Proto", "https"),
    ("X_Request_ID", "evil"),
    ("X-Request-ID", "evil"),
    ("Remote_Addr", "6.6.6.6"),
    ("Proxy", "http://evil.example"),
    ("_stack", "6.6.6.6 6 https evil.example 666 evil"),
    ("_target", "/evil"),
    ("_greeting", "evil"),
    ("Content_Length", "666"),
    ("Content_Type", "evil/evil"),
    ("Host_", "evil.example"),
    ("X.Dotted", "evil"),
];

#[test]
fn nothing_of_it_can_be_forged() {
    let stack = with_tls();
    let lines: String = FORGED
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let port = stack.https().port();
    let h1 = ask(
        &mut stack.tls_client("localhost"),
        &format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\n{lines}\r\n"),
    );
    let lower: Vec<(String, &str)> = FORGED
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .collect();
    let fields: Vec<(&str, &str)> = lower
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let h2 = environ(&H2::connect(stack.https(), "localhost").request("GET", "/", &fields, b""));
    for seen in [h1, h2] {
        check(
            &seen,
            &[
                ("REMOTE_ADDR", "127.0.0.1"),
                ("wsgi.url_scheme", "https"),
                ("SERVER_PORT", &port.to_string()),
                ("HTTP_HOST", &format!("localhost:{port}")),
                ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
                ("HTTP_X_FORWARDED_PROTO", "https"),
                ("HTTP_X_FORWARDED_HOST", &format!("localhost:{port}")),
                ("RAW_URI", "/"),
            ],
        );
        let text = seen.to_string();
        for evil in ["evil", "6.6.6.6", "666"] {
            assert!(!text.contains(evil), "{evil}: {text}");
        }
    }
}

/// A field that Connection lists ends at us (RFC 9110 §7.6.1), but none of ours can be switched off that way.
#[test]
fn connection_options_cannot_remove_what_we_say() {
    let stack = site().start();
    let seen = ask(
        &mut stack.client(),
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: x-hop, x-forwarded-for, x-request-id, _stack\r\nX-Hop: 1\r\nX-Stays: 1\r\n\r\n",
    );
    check(
        &seen,
        &[("HTTP_X_FORWARDED_FOR", "127.0.0.1"), ("HTTP_X_STAYS", "1")],
    );
    assert!(seen.get("HTTP_X_HOP").is_none() && seen.get("HTTP_CONNECTION").is_none());
    assert!(seen["HTTP_X_REQUEST_ID"].is_string());
}
