//! Heads as they come off the wire, and what becomes of them: accepted, or refused with which status and for which cause.
//! A head goes the way that the proxy takes it: its end is found, it is parsed, framing and target are decided.

use bytes::Bytes;
use message::{
    field::Fields,
    framing::{self, Body},
    head::{Finder, Limits, RequestHead, ResponseHead, Version},
    refusal::Refusal,
    target::{Form, Target},
};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    line: 8 * 1024,
    head: 16 * 1024,
    fields: 100,
};

/// What a request comes to.
#[derive(Debug)]
struct Request {
    head: RequestHead,
    body: Body,
    target: Target,
}

fn request(raw: &[u8]) -> Result<Request, Refusal> {
    let length = Finder::default().find(raw, &LIMITS)?;
    let length = length.expect("the table has whole heads, or bad ones");
    let head = RequestHead::parse(&Bytes::copy_from_slice(&raw[..length]), &LIMITS)?;
    let body = framing::of_request(&head)?;
    let target = Target::of(&head)?;
    Ok(Request { head, body, target })
}

fn response(raw: &[u8], to_head: bool) -> Result<(ResponseHead, Body), Refusal> {
    let length = Finder::default().find_response(raw, &LIMITS)?;
    let length = length.expect("the table has whole heads, or bad ones");
    let head = ResponseHead::parse(Bytes::copy_from_slice(&raw[..length]), &LIMITS)?;
    let body = framing::of_response(&head, to_head)?;
    Ok((head, body))
}

#[track_caller]
fn refused(raw: &[u8], status: u16, cause: &str) {
    let shown = String::from_utf8_lossy(&raw[..raw.len().min(200)]);
    match request(raw) {
        Ok(found) => panic!("{shown:?} was accepted: {found:?}"),
        Err(refusal) => {
            assert_eq!(
                (refusal.status(), refusal.cause()),
                (status, cause),
                "{shown:?}"
            );
            let sentence = refusal.to_string();
            assert!(
                sentence.bytes().all(|byte| (b' '..0x7f).contains(&byte)),
                "{sentence:?}"
            );
        }
    }
}

#[track_caller]
fn accepted(raw: &[u8]) -> Request {
    let shown = String::from_utf8_lossy(&raw[..raw.len().min(200)]);
    request(raw).unwrap_or_else(|refusal| panic!("{shown:?} was refused: {refusal}"))
}

/// A good request line and Host with these lines after them.
fn with_fields(lines: &[u8]) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n"].concat()
}

/// This request line with a good Host.
fn with_line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a\r\n\r\n"].concat()
}

#[test]
fn request_lines() {
    for line in [
        "GET / HTTP/1.1",
        "GET /a?b=c&d=%zz HTTP/1.1",
        "GET /? HTTP/1.1",
        "GET /a?b?c/../d HTTP/1.1",
        "GET /|{}\"<>^` HTTP/1.1",
        "GET /a\\..\\b HTTP/1.1",
        "M-SEARCH / HTTP/1.1",
        "get / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "GET HTTP://A/ HTTP/1.1",
        "GET https://a HTTP/1.1",
        "GET http://a?b HTTP/1.1",
        "GET / HTTP/1.0",
        "\r\nGET / HTTP/1.1",
    ] {
        accepted(&with_line(line.as_bytes()));
    }
    for (line, status, cause) in [
        (&b"GET /"[..], 400, "bad-request-line"),
        (b"GET", 400, "bad-request-line"),
        (b"GET  / HTTP/1.1", 400, "bad-request-line"),
        (b"GET /  HTTP/1.1", 400, "bad-request-line"),
        (b"GET / HTTP/1.1 ", 400, "bad-request-line"),
        (b"GET /a b HTTP/1.1", 400, "bad-request-line"),
        (b"GET\t/\tHTTP/1.1", 400, "bad-request-line"),
        (b"GET HTTP/1.1", 400, "bad-request-line"),
        (b"GET  HTTP/1.1", 400, "bad-request-line"),
        (b" GET / HTTP/1.1", 400, "bad-request-line"),
        (b"\r\n\r\nGET / HTTP/1.1", 400, "bad-request-line"),
        (b"\r\n GET / HTTP/1.1", 400, "bad-request-line"),
        (b"(GET) / HTTP/1.1", 400, "bad-request-line"),
        (b"\0GET / HTTP/1.1", 400, "bad-request-line"),
        (b"\xffGET / HTTP/1.1", 400, "bad-request-line"),
        (b"G(T / HTTP/1.1", 400, "bad-method"),
        (b"G\0T / HTTP/1.1", 400, "bad-method"),
        (b"G\xe4T / HTTP/1.1", 400, "bad-method"),
        (b"GET: / HTTP/1.1", 400, "bad-method"),
        (b"\nGET / HTTP/1.1", 400, "bare-lf"),
        (b"GET /\n HTTP/1.1", 400, "bare-lf"),
        (b"\rGET / HTTP/1.1", 400, "bare-cr"),
        (b"GET /\r HTTP/1.1", 400, "bare-cr"),
        (b"GET / HTTP/1.1\r", 400, "bare-cr"),
        (b"G\rT / HTTP/1.1", 400, "bare-cr"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "tls-on-plain-port"),
        (b"GET / HTTP/1.2", 505, "unsupported-version"),
        (b"GET / HTTP/0.9", 505, "unsupported-version"),
        (b"GET / HTTP/2.0", 505, "unsupported-version"),
        (b"GET / HTTP/3.0", 505, "unsupported-version"),
        (b"GET / HTTP/9.9", 505, "unsupported-version"),
        (b"PRI * HTTP/2.0", 505, "unsupported-version"),
        (b"GET / HTTP/2", 400, "bad-version"),
        (b"GET / HTTP/1.10", 400, "bad-version"),
        (b"GET / HTTP/11.1", 400, "bad-version"),
        (b"GET / HTTP/1,1", 400, "bad-version"),
        (b"GET / HTTP/+1.1", 400, "bad-version"),
        (b"GET / HTTP/1.x", 400, "bad-version"),
        (b"GET / http/1.1", 400, "bad-version"),
        (b"GET / HTTPS/1.1", 400, "bad-version"),
        (b"GET / HTTP/1.1\0", 400, "bad-version"),
        (b"GET / HTTP/1.1\t", 400, "bad-version"),
        (b"GET / SIP/2.0", 400, "bad-version"),
    ] {
        refused(&with_line(line), status, cause);
    }
}

#[test]
fn targets() {
    for (target, status, cause) in [
        (&b"foo"[..], 400, "bad-target"),
        (b"a/b", 400, "bad-target"),
        (b"?a", 400, "bad-target"),
        (b"**", 400, "bad-target"),
        (b"*/", 400, "bad-target"),
        (b"%2f", 400, "bad-target"),
        (b"\\a", 400, "bad-target"),
        (b"a:80", 400, "bad-target"),
        (b"ftp://a/", 400, "bad-target"),
        (b"http:/a", 400, "bad-target"),
        (b"http:a", 400, "bad-target"),
        (b"javascript:a", 400, "bad-target"),
        (b"/a#b", 400, "bad-target"),
        (b"/a?b#c", 400, "bad-target"),
        (b"/#", 400, "bad-target"),
        (b"/a\0", 400, "bad-target"),
        (b"/a\tb", 400, "bad-target"),
        (b"/a\x01", 400, "bad-target"),
        (b"/a\x1b[0m", 400, "bad-target"),
        (b"/a\x7f", 400, "bad-target"),
        (b"/a?b\x7f", 400, "bad-target"),
        (b"/\xc3\xa4", 400, "bad-target"),
        (b"/a?\xff", 400, "bad-target"),
        (b"/%00", 400, "bad-percent-encoding"),
        (b"/a%00.png", 400, "bad-percent-encoding"),
        (b"/%", 400, "bad-percent-encoding"),
        (b"/%4", 400, "bad-percent-encoding"),
        (b"/%4?1", 400, "bad-percent-encoding"),
        (b"/%xy", 400, "bad-percent-encoding"),
        (b"/%u0041", 400, "bad-percent-encoding"),
        (b"/..", 400, "above-root"),
        (b"/../a", 400, "above-root"),
        (b"/a/../../b", 400, "above-root"),
        (b"/%2e%2e/a", 400, "above-root"),
        (b"/.%2e/a", 400, "above-root"),
        (b"/%2E./a", 400, "above-root"),
        (b"/..%2fa", 400, "above-root"),
        (b"/%2e%2e%2fa", 400, "above-root"),
        (b"//../a", 400, "above-root"),
        (b"/..?a", 400, "above-root"),
        (b"http://a/../b", 400, "above-root"),
        (b"http://b/", 400, "authority-mismatch"),
        (b"http://a:80/", 400, "authority-mismatch"),
        (b"http://u@a/", 400, "authority-mismatch"),
        (b"http://a@b/", 400, "authority-mismatch"),
        (b"http:///", 400, "authority-mismatch"),
        (b"http://", 400, "authority-mismatch"),
        (b"http://a\\b/", 400, "authority-mismatch"),
        (b"http://a.b/", 400, "authority-mismatch"),
    ] {
        refused(
            &with_line(&[b"GET ", target, b" HTTP/1.1"].concat()),
            status,
            cause,
        );
    }
}

#[test]
fn field_lines() {
    for line in [
        &b"A: b\r\n"[..],
        b"A:b\r\n",
        b"A:\r\n",
        b"A: \r\n",
        b"A: \t b \t\r\n",
        b"A: b\tc\r\n",
        b"A: \xe4\xff\r\n",
        b"A: \"b\\\"c\"\r\n",
        b"A_b: c\r\n",
        b"!#$%&'*+-.^_`|~0: c\r\n",
        b"A: b: c\r\n",
        b"",
    ] {
        accepted(&with_fields(line));
    }
    for (line, cause) in [
        (&b"A : b\r\n"[..], "space-before-colon"),
        (b"A\t: b\r\n", "space-before-colon"),
        (b"Content-Length : 1\r\n", "space-before-colon"),
        (b"A b: c\r\n", "space-before-colon"),
        (b" A: b\r\n", "folded-field"),
        (b"A: b\r\n c\r\n", "folded-field"),
        (b"A: b\r\n\tc\r\n", "folded-field"),
        (b"A: b\r\n \r\n", "folded-field"),
        (b"Transfer-Encoding:\r\n chunked\r\n", "folded-field"),
        (b"A\r\n", "bad-field-name"),
        (b": b\r\n", "bad-field-name"),
        (b"A(b): c\r\n", "bad-field-name"),
        (b"A\0: b\r\n", "bad-field-name"),
        (b"A\xe4: b\r\n", "bad-field-name"),
        (b"\"A\": b\r\n", "bad-field-name"),
        (b"A\x0b: b\r\n", "bad-field-name"),
        (b"A\r: b\r\n", "bad-field-name"),
        (b"\xef\xbb\xbfA: b\r\n", "bad-field-name"),
        (b"A: b\0\r\n", "bad-field-value"),
        (b"A: \0\r\n", "bad-field-value"),
        (b"A: b\x01c\r\n", "bad-field-value"),
        (b"A: b\x08c\r\n", "bad-field-value"),
        (b"A: b\x0bc\r\n", "bad-field-value"),
        (b"A: b\x0cc\r\n", "bad-field-value"),
        (b"A: b\x1b[31m\r\n", "bad-field-value"),
        (b"A: b\x7f\r\n", "bad-field-value"),
        (b"A: 0123456789\x1f0123456789\r\n", "bad-field-value"),
        (b"A: b\rc\r\n", "bare-cr"),
        (b"A: b\r\r\n", "bare-cr"),
        (b"A: b\rContent-Length: 5\r\n", "bare-cr"),
        (b"A: b\n", "bare-lf"),
        (b"A: b\nC: d\r\n", "bare-lf"),
        (b"A: b\n\r\n", "bare-lf"),
        (b"\n", "bare-lf"),
    ] {
        refused(&with_fields(line), 400, cause);
    }
    refused(b"GET / HTTP/1.1\nHost: a\n\n", 400, "bare-lf");
    refused(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "folded-field");
}

#[test]
fn framings() {
    for (lines, body) in [
        ("", Body::None),
        ("Content-Length: 0\r\n", Body::Length(0)),
        ("Content-Length: 5\r\n", Body::Length(5)),
        ("content-LENGTH:5\r\n", Body::Length(5)),
        ("Content-Length: \t5 \r\n", Body::Length(5)),
        ("Content-Length: 007\r\n", Body::Length(7)),
        (
            "Content-Length: 18446744073709551615\r\n",
            Body::Length(u64::MAX),
        ),
        ("Transfer-Encoding: chunked\r\n", Body::Chunked),
        ("transfer-encoding:CHUNKED\r\n", Body::Chunked),
        ("Transfer_Encoding: chunked\r\n", Body::None),
        ("Content_Length: 5\r\n", Body::None),
    ] {
        assert_eq!(
            accepted(&with_fields(lines.as_bytes())).body,
            body,
            "{lines:?}"
        );
    }
    for (lines, status, cause) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Transfer-Encoding:\r\nContent-Length: 5\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
            "length-and-coding",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            400,
            "repeated-content-length",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            400,
            "repeated-content-length",
        ),
        (
            "Content-Length: 5\r\nA: b\r\ncontent-length: 5\r\n",
            400,
            "repeated-content-length",
        ),
        ("Content-Length: 5, 5\r\n", 400, "bad-content-length"),
        ("Content-Length: 5,\r\n", 400, "bad-content-length"),
        ("Content-Length: 5 5\r\n", 400, "bad-content-length"),
        ("Content-Length: +5\r\n", 400, "bad-content-length"),
        ("Content-Length: -5\r\n", 400, "bad-content-length"),
        ("Content-Length: 0x5\r\n", 400, "bad-content-length"),
        ("Content-Length: 5.0\r\n", 400, "bad-content-length"),
        ("Content-Length: 1e3\r\n", 400, "bad-content-length"),
        ("Content-Length: 1_000\r\n", 400, "bad-content-length"),
        ("Content-Length: \"5\"\r\n", 400, "bad-content-length"),
        ("Content-Length: 5;a\r\n", 400, "bad-content-length"),
        ("Content-Length:\r\n", 400, "bad-content-length"),
        ("Content-Length: \u{663}\r\n", 400, "bad-content-length"),
        (
            "Content-Length: 18446744073709551616\r\n",
            400,
            "bad-content-length",
        ),
        (
            "Content-Length: 99999999999999999999999999\r\n",
            400,
            "bad-content-length",
        ),
        ("Transfer-Encoding: gzip\r\n", 501, "unsupported-coding"),
        ("Transfer-Encoding: identity\r\n", 501, "unsupported-coding"),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            501,
            "unsupported-coding",
        ),
        (
            "Transfer-Encoding: chunked, gzip\r\n",
            501,
            "unsupported-coding",
        ),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            501,
            "unsupported-coding",
        ),
        (
            "Transfer-Encoding: chunked, identity\r\n",
            501,
            "unsupported-coding",
        ),
        ("Transfer-Encoding: chunked,\r\n", 501, "unsupported-coding"),
        (
            "Transfer-Encoding: , chunked\r\n",
            501,
            "unsupported-coding",
        ),
        ("Transfer-Encoding: xchunked\r\n", 501, "unsupported-coding"),
        ("Transfer-Encoding: chunkedx\r\n", 501, "unsupported-coding"),
        (
            "Transfer-Encoding: chunked;a=b\r\n",
            501,
            "unsupported-coding",
        ),
        (
            "Transfer-Encoding: \"chunked\"\r\n",
            501,
            "unsupported-coding",
        ),
        ("Transfer-Encoding: 'chunked\r\n", 501, "unsupported-coding"),
        ("Transfer-Encoding: chun ked\r\n", 501, "unsupported-coding"),
        (
            "Transfer-Encoding: c\u{212a}unked\r\n",
            501,
            "unsupported-coding",
        ),
        ("Transfer-Encoding:\r\n", 501, "unsupported-coding"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            501,
            "unsupported-coding",
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            501,
            "unsupported-coding",
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            501,
            "unsupported-coding",
        ),
        ("Transfer-Encoding:\x0bchunked\r\n", 400, "bad-field-value"),
        ("Transfer-Encoding: chunked\0\r\n", 400, "bad-field-value"),
        ("Transfer-Encoding : chunked\r\n", 400, "space-before-colon"),
    ] {
        refused(&with_fields(lines.as_bytes()), status, cause);
    }
    for lines in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: a\r\nTransfer-Encoding: b\r\n",
    ] {
        let raw = format!("POST / HTTP/1.0\r\n{lines}\r\n");
        refused(raw.as_bytes(), 400, "coding-in-http10");
    }
}

#[test]
fn hosts() {
    for (raw, host, port) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a", None),
        (
            "GET / HTTP/1.1\r\nhost:A.Example:8080\r\n\r\n",
            "a.example",
            Some(8080),
        ),
        (
            "GET / HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
            "[::1]",
            Some(443),
        ),
        (
            "GET http://A.example/ HTTP/1.1\r\nHost: a.Example\r\n\r\n",
            "a.example",
            None,
        ),
        ("GET / HTTP/1.0\r\n\r\n", "", None),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "a", None),
        ("GET http://a:1/ HTTP/1.0\r\n\r\n", "a", Some(1)),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            "a",
            Some(443),
        ),
    ] {
        let target = accepted(raw.as_bytes()).target;
        assert_eq!(
            (&target.host[..], target.port),
            (host.as_bytes(), port),
            "{raw:?}"
        );
    }
    for (raw, cause) in [
        ("GET / HTTP/1.1\r\n\r\n", "missing-host"),
        ("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", "missing-host"),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "missing-host"),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "missing-host"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "repeated-host",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            "repeated-host",
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            "repeated-host",
        ),
        (
            "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "repeated-host",
        ),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.0\r\nHost:\r\n\r\n", "bad-host"),
        ("GET http:/// HTTP/1.1\r\nHost:\r\n\r\n", "bad-host"),
        ("GET http:/// HTTP/1.0\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a b/@c\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", "bad-host"),
        (
            "GET http://u:p@a/ HTTP/1.1\r\nHost: u:p@a\r\n\r\n",
            "bad-host",
        ),
        (
            "GET http://a%2e/ HTTP/1.1\r\nHost: a%2e\r\n\r\n",
            "bad-host",
        ),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
        ("CONNECT a: HTTP/1.1\r\nHost: a:\r\n\r\n", "bad-target"),
        ("CONNECT / HTTP/1.1\r\nHost: /\r\n\r\n", "bad-host"),
        ("CONNECT u@a:1 HTTP/1.1\r\nHost: u@a:1\r\n\r\n", "bad-host"),
        (
            "CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
            "authority-mismatch",
        ),
        ("CONNECT a:443 HTTP/1.1\r\n\r\n", "missing-host"),
    ] {
        refused(raw.as_bytes(), 400, cause);
    }
}

#[test]
fn limits() {
    let request_line = |length: usize| format!("GET /{} HTTP/1.1", "a".repeat(length - 16));
    accepted(&with_line(request_line(8 * 1024).as_bytes()));
    refused(
        &with_line(request_line(8 * 1024 + 1).as_bytes()),
        414,
        "line-too-long",
    );
    refused(&[b'G'; 8 * 1024 + 1], 414, "line-too-long");

    let field = |length: usize| format!("A: {}\r\n", "b".repeat(length - 5));
    let others = with_fields(b"").len();
    accepted(&with_fields(field(16 * 1024 - others).as_bytes()));
    refused(
        &with_fields(field(16 * 1024 - others + 1).as_bytes()),
        431,
        "head-too-long",
    );
    refused(&with_fields(&[b'A'; 17 * 1024]), 431, "head-too-long");

    // Host is one of them.
    accepted(&with_fields("A: b\r\n".repeat(99).as_bytes()));
    refused(
        &with_fields("A: b\r\n".repeat(100).as_bytes()),
        431,
        "too-many-fields",
    );
}

#[test]
fn what_is_found_in_a_target() {
    for (raw, form, path, query) in [
        (
            "GET /a/b?c=d HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Origin,
            "/a/b",
            Some("c=d"),
        ),
        (
            "GET /a%20b HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Origin,
            "/a b",
            None,
        ),
        (
            "GET /a? HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Origin,
            "/a",
            Some(""),
        ),
        (
            "GET /a?b?c HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Origin,
            "/a",
            Some("b?c"),
        ),
        (
            "GET /a?/../%00 HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Origin,
            "/a",
            Some("/../%00"),
        ),
        (
            "GET //h/a HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Origin,
            "/h/a",
            None,
        ),
        (
            "GET http://h/a?b HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Absolute,
            "/a",
            Some("b"),
        ),
        (
            "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Absolute,
            "/",
            None,
        ),
        (
            "GET http://h?b HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Absolute,
            "/",
            Some("b"),
        ),
        (
            "GET http://h//a/./b HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Absolute,
            "/a/b",
            None,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            Form::Asterisk,
            "*",
            None,
        ),
        (
            "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
            Form::Authority,
            "",
            None,
        ),
    ] {
        let Request { head, target, .. } = accepted(raw.as_bytes());
        assert_eq!(target.form, form, "{raw:?}");
        assert_eq!(target.path.as_bytes(), path.as_bytes(), "{raw:?}");
        assert_eq!(target.query.as_deref(), query.map(str::as_bytes), "{raw:?}");
        assert_eq!(target.raw, head.target, "{raw:?}");
        assert!(target.authority.starts_with(b"h"), "{raw:?}");
    }
}

#[test]
fn responses() {
    for (raw, to_head, status, reason, body) in [
        (
            "HTTP/1.1 200 OK\r\n\r\n",
            false,
            200,
            "OK",
            Body::UntilClose,
        ),
        (
            "HTTP/1.0 200 OK\r\n\r\n",
            false,
            200,
            "OK",
            Body::UntilClose,
        ),
        ("HTTP/1.1 200 \r\n\r\n", false, 200, "", Body::UntilClose),
        ("HTTP/1.1 200\r\n\r\n", false, 200, "", Body::UntilClose),
        (
            "HTTP/1.1 599 A\tb \u{e4}\r\n\r\n",
            false,
            599,
            "A\tb \u{e4}",
            Body::UntilClose,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            false,
            200,
            "OK",
            Body::Length(0),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            200,
            "OK",
            Body::Length(5),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
            200,
            "OK",
            Body::Chunked,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            true,
            200,
            "OK",
            Body::None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
            200,
            "OK",
            Body::None,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", true, 200, "OK", Body::None),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            false,
            100,
            "Continue",
            Body::None,
        ),
        (
            "HTTP/1.1 101 X\r\nContent-Length: 5\r\n\r\n",
            false,
            101,
            "X",
            Body::None,
        ),
        ("HTTP/1.1 103 X\r\n\r\n", false, 103, "X", Body::None),
        ("HTTP/1.1 199 X\r\n\r\n", false, 199, "X", Body::None),
        ("HTTP/1.1 204 X\r\n\r\n", false, 204, "X", Body::None),
        (
            "HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n",
            false,
            204,
            "X",
            Body::None,
        ),
        (
            "HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n",
            false,
            205,
            "X",
            Body::Length(0),
        ),
        (
            "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n",
            false,
            304,
            "X",
            Body::None,
        ),
        (
            "HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
            304,
            "X",
            Body::None,
        ),
        (
            "HTTP/1.1 404 X\r\nContent-Length: 5\r\n\r\n",
            false,
            404,
            "X",
            Body::Length(5),
        ),
    ] {
        let (head, found) = response(raw.as_bytes(), to_head).expect(raw);
        assert_eq!((head.status, found), (status, body), "{raw:?}");
        assert_eq!(head.reason, reason.as_bytes(), "{raw:?}");
    }
    for (raw, cause) in [
        ("HTTP/1.1 099 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 600 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 20 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 2000 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 +20 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 2x0 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1  200 X\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 \r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 200\tOK\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 200 O\0K\r\n\r\n", "bad-status-line"),
        ("HTTP/1.1 200 O\u{7f}K\r\n\r\n", "bad-status-line"),
        ("HTTP/2.0 200 OK\r\n\r\n", "bad-status-line"),
        ("HTP/1.1 200 OK\r\n\r\n", "bad-status-line"),
        (
            "Traceback (most recent call last):\r\n\r\n",
            "bad-status-line",
        ),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "bad-status-line"),
        ("HTTP/1.2 200 OK\r\n\r\n", "unsupported-version"),
        ("HTTP/1.1 200 O\rK\r\n\r\n", "bare-cr"),
        ("HTTP/1.1 200 OK\n\r\n", "bare-lf"),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n", "bare-lf"),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "space-before-colon"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "folded-field"),
        ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "bad-field-value"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "repeated-content-length",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "length-and-coding",
        ),
        (
            "HTTP/1.1 204 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "length-and-coding",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            "bad-content-length",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "unsupported-coding",
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "coding-in-http10",
        ),
    ] {
        let refusal = response(raw.as_bytes(), false).expect_err(raw);
        assert_eq!(refusal.cause(), cause, "{raw:?}");
    }
}

/// The head as it would be written again.
fn written(head: &RequestHead) -> Vec<u8> {
    let version = match head.version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => panic!("never read off this wire"),
    };
    let line = [head.method.as_bytes(), &head.target, version.as_bytes()].join(&b' ');
    [
        line,
        b"\r\n".to_vec(),
        lines(&head.fields),
        b"\r\n".to_vec(),
    ]
    .concat()
}

fn lines(fields: &Fields) -> Vec<u8> {
    let line = |(name, value)| [name, &b": "[..], value, b"\r\n"].concat();
    fields.iter().flat_map(line).collect()
}

/// Good heads, and such as a change of a byte or two makes of them.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        Just("GET".to_owned()),
        Just("OPTIONS".to_owned()),
        "[A-Z!-~]{1,8}"
    ];
    let target = prop_oneof![
        Just("*".to_owned()),
        "/[a-z/.%0-9?&=]{0,20}",
        "http://a/[a-z]{0,4}"
    ];
    let name = prop_oneof![
        "[A-Za-z-]{1,20}",
        Just("Content-Length".to_owned()),
        Just("Transfer-Encoding".to_owned())
    ];
    let value = prop_oneof!["[ -~\t]{0,30}", "[0-9]{0,3}", Just("chunked".to_owned())];
    let fields = proptest::collection::vec((name, value), 0..6);
    let change = (any::<proptest::sample::Index>(), any::<u8>());
    let changes = proptest::collection::vec(change, 0..3);
    (method, target, 0..=1_u8, fields, changes).prop_map(
        |(method, target, minor, fields, changes)| {
            let mut head = format!("{method} {target} HTTP/1.{minor}\r\nHost: a\r\n");
            for (name, value) in fields {
                head += &format!("{name}:{value}\r\n");
            }
            let mut head = (head + "\r\n").into_bytes();
            for (place, byte) in changes {
                let place = place.index(head.len());
                head[place] = byte;
            }
            head
        },
    )
}

/// As [`request`], of bytes that may hold no whole head.
fn outcome(raw: &[u8]) -> Result<Option<Request>, Refusal> {
    match Finder::default().find(raw, &LIMITS)? {
        Some(length) => request(&raw[..length]).map(Some),
        None => Ok(None),
    }
}

proptest! {
    #[test]
    fn what_was_read_is_written_and_read_the_same(raw in heads()) {
        if let Ok(Some(first)) = outcome(&raw) {
            let wire = written(&first.head);
            let second = request(&wire).expect("what we write is good");
            prop_assert_eq!(&first.head.method, &second.head.method);
            prop_assert_eq!(&first.head.target, &second.head.target);
            prop_assert_eq!(first.head.version, second.head.version);
            prop_assert_eq!(first.body, second.body);
            prop_assert_eq!(lines(&first.head.fields), lines(&second.head.fields));
            prop_assert_eq!(written(&second.head), wire);
        }
    }

    #[test]
    fn what_is_accepted_has_no_control_bytes(raw in heads()) {
        if let Ok(Some(found)) = outcome(&raw) {
            let is_text = |byte: &u8| *byte >= b' ' && *byte != 0x7f || *byte == b'\t';
            prop_assert!(found.head.target.iter().all(u8::is_ascii_graphic));
            prop_assert!(found.target.host.iter().all(u8::is_ascii_graphic));
            for (name, value) in found.head.fields.iter() {
                prop_assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
                prop_assert!(value.iter().all(is_text));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = outcome(&raw);
        let _ = Finder::default().find_response(&raw, &LIMITS);
        let _ = RequestHead::parse(&Bytes::copy_from_slice(&raw), &LIMITS);
        let _ = ResponseHead::parse(raw.into(), &LIMITS);
    }

    #[test]
    fn random_lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = outcome(&[&line, &b"\r\n\r\n"[..]].concat());
        let _ = outcome(&with_fields(&[&line, &b"\r\n"[..]].concat()));
        let status = [b"HTTP/1.1 ", &line[..], b"\r\n\r\n"].concat();
        let _ = ResponseHead::parse(status.into(), &LIMITS);
    }
}
