//! What an app answers is sent in a coding where that is a gain, and never where it would give something away or hold
//! something back.

use crate::{
    encodings::decoded,
    harness::{Answer, Client, Site, Stack, h2::H2, read_some},
};

const APP: &str = r#"
import os, time

LINE = "All work and no play makes Jack a dull boy. "

def fields_of(environ):
    fields = []
    for pair in environ["QUERY_STRING"].split("&"):
        name, _, value = pair.partition("=")
        if name:
            fields.append((name, value.replace("+", " ").replace("%22", '"')))
    return fields

def stream():
    for number in range(3):
        yield b"piece %d\n" % number
        # The test lets each piece go on when it has read the one before.
        while not os.path.exists("go-%d" % number):
            time.sleep(0.002)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    fields = [("Content-Type", "text/html; charset=utf-8")]
    if path == "/stream":
        start_response("200 OK", fields)
        return stream()
    if path == "/large":
        start_response("200 OK", fields)
        return (LINE.encode() * 500 for _ in range(200))
    size = int(path.strip("/") or 2000)
    body = (LINE * (size // len(LINE) + 1))[:size].encode()
    given = fields_of(environ)
    if not any(name == "Content-Type" for name, _ in given):
        given += fields
    start_response("200 OK", given + [("Content-Length", str(size))])
    return [body]
"#;

const BROWSER: (&str, &str) = ("Accept-Encoding", "gzip, deflate, br, zstd");

fn stack() -> Stack {
    Site::with_app(APP)
        .edit(
            "http = [\"127.0.0.1:0\"]",
            "http = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]",
        )
        .edit(
            "hosts = [\"*\"]",
            "hosts = [\"localhost\"]\nroutes = [{ path = \"/\", app = \"web\" }]\n[[site]]\ntls = \"off\"\nhosts = [\"*\"]",
        )
        .start()
}

fn ask(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    client.request("GET", path, fields, b"")
}

fn text(size: usize) -> String {
    let line = "All work and no play makes Jack a dull boy. ";
    line.repeat(size / line.len() + 1)[..size].to_owned()
}

#[test]
fn text_of_an_app_is_encoded_as_the_client_likes_it() {
    let stack = stack();
    let mut client = stack.client();
    for (codings, expected) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, br", Some("br")),
        ("gzip", Some("gzip")),
        ("identity", None),
    ] {
        for size in [2_000, 20_000, 200_000] {
            let answer = ask(
                &mut client,
                &format!("/{size}"),
                &[("Accept-Encoding", codings)],
            );
            assert_eq!(
                answer.field("content-encoding"),
                expected,
                "{codings} {size}"
            );
            assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
            assert_eq!(decoded(&answer), text(size));
            let length = answer.body.len().to_string();
            assert_eq!(answer.field("content-length"), Some(length.as_str()));
        }
        let large = ask(&mut client, "/large", &[("Accept-Encoding", codings)]);
        assert_eq!(large.field("content-encoding"), expected, "{codings}");
        assert_eq!(decoded(&large).len(), 200 * 500 * 44);
        assert!(expected.is_none() || large.body.len() < 100_000);
    }
}

#[test]
fn what_must_stay_as_it_is_stays() {
    let stack = stack();
    let mut client = stack.client();
    for (query, varies) in [
        ("Content-Type=image/png", None),
        ("Content-Type=text/event-stream", None),
        ("Content-Encoding=x-ours", None),
        ("Set-Cookie=session=1", None),
        ("Cache-Control=no-transform", None),
        ("Content-Digest=sha-256=:x:", None),
    ] {
        let answer = ask(&mut client, &format!("/2000?{query}"), &[BROWSER]);
        let (name, value) = query.split_once('=').expect("a pair");
        assert_eq!(answer.field(name), Some(value));
        assert!(answer.body == text(2000).as_bytes(), "{query}");
        assert_eq!(answer.field("vary"), varies, "{query}");
    }
    assert_eq!(ask(&mut client, "/1000", &[BROWSER]).text(), text(1000));
    let part = ask(
        &mut client,
        "/2000?Content-Range=bytes+0-1999/4000",
        &[BROWSER],
    );
    assert_eq!(part.text(), text(2000));
}

#[test]
fn validators_of_another_representation_are_weak() {
    let stack = stack();
    let path = "/2000?ETag=%22a%22&Accept-Ranges=bytes&Vary=Cookie";
    let answer = ask(&mut stack.client(), path, &[BROWSER]);
    assert_eq!(answer.field("etag"), Some("W/\"a\""));
    assert_eq!(answer.field("accept-ranges"), None);
    let varies: Vec<&str> = answer
        .fields
        .iter()
        .filter(|(name, _)| name == "Vary")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(varies, ["Cookie", "Accept-Encoding"]);
    let plain = ask(&mut stack.client(), path, &[]);
    assert_eq!(plain.field("etag"), Some("\"a\""));
    let head = stack.client().request("HEAD", path, &[BROWSER], b"");
    assert_eq!(head.field("content-encoding"), Some("zstd"));
    assert_eq!(head.field("etag"), Some("W/\"a\""));
    assert_eq!(head.field("content-length"), None);
}

/// BREACH (CVE-2013-3587).
#[test]
fn what_another_site_may_have_asked_for_is_not_encoded() {
    let stack = stack();
    let cookie = ("Cookie", "session=1");
    let site = |value| ("Sec-Fetch-Site", value);
    for (fields, expected) in [
        (&[][..], Some("zstd")),
        (&[site("cross-site")], Some("zstd")),
        (&[cookie, site("same-origin")], Some("zstd")),
        (&[cookie, site("none")], Some("zstd")),
        (&[cookie, site("same-site")], None),
        (&[cookie, site("cross-site")], None),
        (&[cookie], None),
        (&[("Authorization", "Basic eA==")], None),
        (&[("Authorization", "Bearer x")], Some("zstd")),
    ] {
        let fields = [fields, &[BROWSER]].concat();
        let secure = ask(&mut stack.tls_client("localhost"), "/2000", &fields);
        assert_eq!(secure.field("content-encoding"), expected, "{fields:?}");
        assert_eq!(decoded(&secure), text(2000));
        assert_eq!(secure.field("vary"), Some("Accept-Encoding"), "{fields:?}");
        // Who reads along reads plain text anyway.
        let plain = ask(&mut stack.client(), "/2000", &fields);
        assert_eq!(plain.field("content-encoding"), Some("zstd"), "{fields:?}");
    }
}

#[test]
fn the_length_of_what_has_a_secret_says_little() {
    let stack = stack();
    let mut client = stack.tls_client("localhost");
    for coding in ["gzip, br", "zstd, br"] {
        let fields = [
            ("Cookie", "session=1"),
            ("Sec-Fetch-Site", "same-origin"),
            ("Accept-Encoding", coding),
        ];
        let mut lengths: Vec<usize> = (0..20)
            .map(|_| {
                let answer = ask(&mut client, "/2000", &fields);
                assert_ne!(
                    answer.field("content-encoding"),
                    Some("br"),
                    "br takes no padding"
                );
                assert_eq!(decoded(&answer), text(2000));
                answer.body.len()
            })
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert!(lengths.len() > 5, "{coding}: {lengths:?}");
    }
}

#[test]
fn what_the_app_has_said_is_not_held_back() {
    for coding in ["gzip", "br", "zstd"] {
        let stack = stack();
        let mut client = stack.client();
        let host = stack.http();
        client.send(format!(
            "GET /stream HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: {coding}\r\n\r\n"
        ));
        let (head, mut body) = (client.answer_head(), Vec::new());
        assert_eq!(head.field("content-encoding"), Some(coding));
        for number in 0..3 {
            let expected: String = (0..=number).map(|n| format!("piece {n}\n")).collect();
            while begun(coding, &body) != expected {
                body.extend(client.chunk());
            }
            std::fs::write(stack.path().join(format!("go-{number}")), "").expect("ours");
        }
        loop {
            let chunk = client.chunk();
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        let whole = Answer { body, ..head };
        assert_eq!(decoded(&whole), "piece 0\npiece 1\npiece 2\n");
    }
}

/// What can be read of the beginning of an encoded body.
fn begun(coding: &str, body: &[u8]) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    let mut reader: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(body).expect("a decoder")),
    };
    let mut piece = [0; 64];
    // The end of what has come is an error, since it is not that of the content.
    while let Ok(read @ 1..) = read_some(&mut reader, &mut piece) {
        text.extend_from_slice(&piece[..read]);
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn http2_is_no_different() {
    let stack = stack();
    let mut client = H2::connect(stack.https(), "localhost");
    for path in ["/2000", "/large"] {
        let answer = client.request("GET", path, &[BROWSER], b"");
        assert_eq!(answer.field("content-encoding"), Some("zstd"), "{path}");
        assert!(decoded(&answer).starts_with("All work"));
    }
}

#[test]
fn a_site_can_do_without_and_past_the_limit_it_comes_plain() {
    let without = Site::with_app(APP).edit("app = \"web\" }", "app = \"web\", compress = false }");
    let answer = ask(&mut without.start().client(), "/2000", &[BROWSER]);
    assert_eq!(
        (answer.field("content-encoding"), answer.field("vary")),
        (None, None)
    );
    let none = Site::with_app(APP).edit("[app.web]", "[limits]\nencoders = 0\n[app.web]");
    let stack = none.start();
    let mut client = stack.client();
    let large = ask(&mut client, "/large", &[BROWSER]);
    assert_eq!(large.field("content-encoding"), None);
    assert_eq!(large.body.len(), 200 * 500 * 44);
    let short = ask(&mut client, "/2000", &[BROWSER]);
    assert_eq!(
        short.field("content-encoding"),
        Some("zstd"),
        "it is encoded at once"
    );
}

#[test]
fn a_file_that_is_too_long_to_be_kept_is_encoded_as_it_goes() {
    let line = text(1 << 20);
    let stack = Site::new(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n[[site]]\nroutes = [{ path = \"/\", files = \"public\" }]\n",
    )
    .file("public/data.json", line.repeat(9))
    .start();
    let answer = ask(&mut stack.client(), "/data.json", &[BROWSER]);
    assert_eq!(answer.field("content-encoding"), Some("zstd"));
    assert!(decoded(&answer) == line.repeat(9));
    let etag = answer.field("etag").expect("it has one");
    assert!(etag.starts_with("W/"));
    let again = ask(
        &mut stack.client(),
        "/data.json",
        &[BROWSER, ("If-None-Match", etag)],
    );
    assert_eq!(again.status, 304);
    let part = ask(
        &mut stack.client(),
        "/data.json",
        &[BROWSER, ("Range", "bytes=5-9")],
    );
    assert_eq!((part.status, part.text().as_str()), (206, &line[5..10]));
}
