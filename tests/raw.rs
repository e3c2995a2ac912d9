//! Bytes that a client may send, and what comes of them: the status, and whether the connection is kept. They are for a site
//! as [`SITE`] has it, with an app behind it that answers 200.

/// Hosts, limits and routes that the cases count on.
pub const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
[limits]
body = "64KiB"
request_line = "1KiB"
head = "2KiB"
fields = 20
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[[site]]
hosts = ["a", "[::1]", "127.0.0.1"]
routes = [
    { path = "/", app = "web" },
    { path = "/files/", files = "files" },
    { path = "/old", redirect = "/new" },
    { path = "/fixed", respond = "fixed" },
    { path = "/nothing", respond = "", status = 204 },
]
"#;

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Kept,
    Closed,
}

pub use After::{Closed, Kept};

/// Bytes of a request, the status of its answer, and whether another may follow.
pub type Case = (Vec<u8>, u16, After);

/// A request line with a good Host.
fn line(line: &str, status: u16, after: After) -> Case {
    (format!("{line}\r\nHost: a\r\n\r\n").into(), status, after)
}

/// A good POST with these further lines and this content.
fn post(lines: &str, content: &str, status: u16, after: After) -> Case {
    let text = format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n{content}");
    (text.into(), status, after)
}

fn raw(bytes: &[u8], status: u16, after: After) -> Case {
    (bytes.to_vec(), status, after)
}

pub fn request_lines() -> Vec<Case> {
    let long = format!("GET /{} HTTP/1.1", "x".repeat(1024));
    vec![
        line("GET / HTTP/1.1", 200, Kept),
        line("\r\nGET / HTTP/1.1", 200, Kept),
        line("GET /a%20b?c=%zz HTTP/1.1", 200, Kept),
        line("PURGE / HTTP/1.1", 200, Kept),
        line("get / HTTP/1.1", 200, Kept),
        line("GET http://a/x HTTP/1.1", 200, Kept),
        line("GET http://A/x HTTP/1.1", 200, Kept),
        line("GET http://a HTTP/1.1", 200, Kept),
        line("OPTIONS * HTTP/1.1", 204, Kept),
        line("GET /fixed HTTP/1.1", 200, Kept),
        line("GET /nothing HTTP/1.1", 204, Kept),
        line("GET /old HTTP/1.1", 302, Kept),
        line("GET /files/a.txt HTTP/1.1", 200, Kept),
        line("GET /files/b.txt HTTP/1.1", 404, Kept),
        line("POST /files/a.txt HTTP/1.1", 405, Kept),
        line("GET /a/../b HTTP/1.1", 200, Kept),
        line("TRACE / HTTP/1.1", 405, Kept),
        line("GET * HTTP/1.1", 405, Kept),
        line("GET /", 400, Closed),
        line("GET  / HTTP/1.1", 400, Closed),
        line("GET /  HTTP/1.1", 400, Closed),
        line("GET / HTTP/1.1 ", 400, Closed),
        line(" GET / HTTP/1.1", 400, Closed),
        line("GET\t/ HTTP/1.1", 400, Closed),
        line("GET /a b HTTP/1.1", 400, Closed),
        line("\r\n\r\nGET / HTTP/1.1", 400, Closed),
        line("G(T / HTTP/1.1", 400, Closed),
        line("GET / http/1.1", 400, Closed),
        line("GET / HTTP/11", 400, Closed),
        line("GET / HTTP/1.1.1", 400, Closed),
        line("GET / HTTPS/1.1", 400, Closed),
        line("GET / HTTP/1.2", 505, Closed),
        line("GET / HTTP/2.0", 505, Closed),
        line("GET / HTTP/0.9", 505, Closed),
        line("GET a HTTP/1.1", 400, Closed),
        line("GET /a#b HTTP/1.1", 400, Closed),
        line("GET /\u{e4} HTTP/1.1", 400, Closed),
        line("GET /\0 HTTP/1.1", 400, Closed),
        line("GET /% HTTP/1.1", 400, Closed),
        line("GET /%00 HTTP/1.1", 400, Closed),
        line("GET /../a HTTP/1.1", 400, Closed),
        line("GET /%2e%2e/a HTTP/1.1", 400, Closed),
        line("GET ftp://a/ HTTP/1.1", 400, Closed),
        line("GET http://b/ HTTP/1.1", 400, Closed),
        line("GET http://a:80/ HTTP/1.1", 400, Closed),
        line("GET http://u@a/ HTTP/1.1", 400, Closed),
        line(&long, 414, Closed),
        line("GET / HTTP/1.1\rX: y", 400, Closed),
        line("GET / HTTP/1.1\nX: y", 400, Closed),
        raw(b"GET / HTTP/1.1\nHost: a\n\n", 400, Closed),
        raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, Closed),
        raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Closed),
        raw(b"\0", 400, Closed),
    ]
}

pub fn field_lines() -> Vec<Case> {
    let many = "A: b\r\n".repeat(20);
    let long = format!("A: {}\r\n", "b".repeat(2048));
    vec![
        post("A: b\r\n", "", 200, Kept),
        post("A:\t b \t\r\n", "", 200, Kept),
        post("A:\r\n", "", 200, Kept),
        post("A: \u{e4}\r\n", "", 200, Kept),
        post("A_b: c\r\n", "", 200, Kept),
        post("A : b\r\n", "", 400, Closed),
        post(" A: b\r\n", "", 400, Closed),
        post("A: b\r\n c\r\n", "", 400, Closed),
        post("A: b\r\n\tc\r\n", "", 400, Closed),
        post("A\r\n", "", 400, Closed),
        post(": b\r\n", "", 400, Closed),
        post("A(: b\r\n", "", 400, Closed),
        post("\u{e4}: b\r\n", "", 400, Closed),
        post("A: b\nContent-Length: 5\r\n", "", 400, Closed),
        post("A: b\rContent-Length: 5\r\n", "", 400, Closed),
        post("A: b\0\r\n", "", 400, Closed),
        post("A: \u{7f}\r\n", "", 400, Closed),
        post(&many, "", 431, Closed),
        post(&long, "", 431, Closed),
        post("Host: a\r\n", "", 400, Closed),
        post("Host: b\r\n", "", 400, Closed),
        raw(b"GET / HTTP/1.1\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a, a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a:8080\r\n\r\n", 200, Kept),
        raw(b"GET / HTTP/1.1\r\nHost: A\r\n\r\n", 200, Kept),
        raw(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, Kept),
        raw(b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n", 421, Kept),
    ]
}

pub fn framings() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let too_much = "x".repeat(64 * 1024 + 1);
    vec![
        post("Content-Length: 5\r\n", "12345", 200, Kept),
        post("Content-Length: 0\r\n", "", 200, Kept),
        post("Content-Length: 005\r\n", "12345", 200, Kept),
        post(chunked, "5\r\n12345\r\n0\r\n\r\n", 200, Kept),
        post(chunked, "5;a=b\r\n12345\r\n0;c\r\n\r\n", 200, Kept),
        post(chunked, "A\r\n1234567890\r\n00\r\nT: v\r\n\r\n", 200, Kept),
        post(
            "Transfer-Encoding: Chunked\r\n",
            "1\r\nx\r\n0\r\n\r\n",
            200,
            Kept,
        ),
        post("Content-Length: 5\r\n", "12345", 200, Kept),
        post(
            &format!("Content-Length: 5\r\n{chunked}"),
            "0\r\n\r\n",
            400,
            Closed,
        ),
        post(
            &format!("{chunked}Content-Length: 5\r\n"),
            "0\r\n\r\n",
            400,
            Closed,
        ),
        post(
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "12345",
            400,
            Closed,
        ),
        post(
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "12345",
            400,
            Closed,
        ),
        post("Content-Length: 5, 5\r\n", "12345", 400, Closed),
        post("Content-Length: +5\r\n", "12345", 400, Closed),
        post("Content-Length: -5\r\n", "12345", 400, Closed),
        post("Content-Length: 0x5\r\n", "12345", 400, Closed),
        post("Content-Length: 5.\r\n", "12345", 400, Closed),
        post("Content-Length: 1 2\r\n", "12345", 400, Closed),
        post("Content-Length:\r\n", "12345", 400, Closed),
        post("Content-Length: 18446744073709551616\r\n", "", 400, Closed),
        post("Content-Length: 18446744073709551615\r\n", "", 413, Closed),
        post("Content-Length: 65537\r\n", &too_much, 413, Closed),
        post(
            chunked,
            &format!("10001\r\n{too_much}\r\n0\r\n\r\n"),
            413,
            Closed,
        ),
        post("Transfer-Encoding: gzip\r\n", "", 501, Closed),
        post("Transfer-Encoding: gzip, chunked\r\n", "", 501, Closed),
        post("Transfer-Encoding: identity\r\n", "", 501, Closed),
        post("Transfer-Encoding: xchunked\r\n", "", 501, Closed),
        post("Transfer-Encoding:\r\n", "", 501, Closed),
        post(&format!("{chunked}{chunked}"), "0\r\n\r\n", 501, Closed),
        post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", 400, Closed),
        raw(
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            Closed,
        ),
        post(chunked, "5\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "5\r12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "5 \r\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, " 5\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "0x5\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "-5\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "5\r\n123456\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "5\r\n12345\n0\r\n\r\n", 400, Closed),
        post(chunked, "5;a\nb\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post(chunked, "10000000000000000\r\n", 400, Closed),
        post(chunked, "0\r\nT : v\r\n\r\n", 400, Closed),
        post(chunked, "0\r\n folded\r\n\r\n", 400, Closed),
        post(chunked, "0\r\nT: v\n\r\n", 400, Closed),
        post(
            "Expect: 200-ok\r\nContent-Length: 5\r\n",
            "12345",
            417,
            Closed,
        ),
    ]
}

/// What has split one server's opinion from another's: each has been somebody's vulnerability.
pub fn smuggling() -> Vec<Case> {
    let te = |value: &str, status| {
        post(
            &format!("Transfer-Encoding: {value}\r\n"),
            "0\r\n\r\n",
            status,
            Closed,
        )
    };
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let hidden = |lines: &str, status| post(lines, inner, status, Closed);
    vec![
        // CL.TE and TE.CL, in all the ways of writing one so that only one side sees it (James Kettle, 2019).
        te("chunked, identity", 501),
        te("identity, chunked", 501),
        te("chunked, chunked", 501),
        te("chunked;q=1", 501),
        te("\"chunked\"", 501),
        te("'chunked'", 501),
        te("chunk", 501),
        te("chunkedx", 501),
        te("x chunked", 501),
        te("chunked\u{b}", 400),
        te("\u{b}chunked", 400),
        te("chunked\u{a0}", 501),
        te(",chunked", 501),
        te("chunked,", 501),
        te("\u{0}chunked", 400),
        hidden("Content-Length: 5\r\nTransfer-Encoding : chunked\r\n", 400),
        hidden("Content-Length: 5\r\n Transfer-Encoding: chunked\r\n", 400),
        hidden("Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n", 400),
        hidden("Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n", 400),
        hidden("Content-Length: 5\r\nTransfer-Encoding\r\n: chunked\r\n", 400),
        hidden("Content-Length: 5\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 400),
        hidden("Content-Length: 5\r\nTransfer\u{2d}Encoding: chunked\r\n", 400),
        // The lengths that two readers add, cut or wrap in two ways.
        hidden("Content-Length: 0\r\nContent-Length: 40\r\n", 400),
        hidden("Content-Length: 0, 40\r\n", 400),
        hidden("Content-Length: 0\u{b}\r\n", 400),
        hidden("Content-Length: 00x28\r\n", 400),
        hidden("Content-Length: 4294967296000000000000\r\n", 400),
        hidden("Content-Length: 1e1\r\n", 400),
        hidden("Content-Length: \u{661}\r\n", 400),
        hidden("Content-Length: 5\r\nContent-Length\u{0}: 6\r\n", 400),
        hidden("Content-Length:\r\n 5\r\n", 400),
        // Names that some take for others: passed over here, they frame nothing, so what follows is the next request.
        post("Content_Length: 40\r\n", "", 200, Kept),
        post("X-Content-Length: 40\r\n", "", 200, Kept),
        post("Transfer_Encoding: chunked\r\n", "", 200, Kept),
        // Chunks: sizes that wrap, extensions with a line end in them, ends that are not there (CVE-2025-55315 and others).
        post(
            "Transfer-Encoding: chunked\r\n",
            &format!("ffffffffffffffff\r\n{}", "x".repeat(64 * 1024 + 1)),
            413,
            Closed,
        ),
        post("Transfer-Encoding: chunked\r\n", "0000000000000000f\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "5;\n\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "5;a=\"\r\n12345\r\n0\r\n\r\n", 200, Kept),
        post("Transfer-Encoding: chunked\r\n", "5\r\n1234567\r\n0\r\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "5\r\n1234\r\n0\r\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "0\r\n\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "0\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "0 \r\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n", 200, Kept),
        post("Transfer-Encoding: chunked\r\n", "0\r\nX y\r\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "+5\r\n12345\r\n0\r\n\r\n", 400, Closed),
        post("Transfer-Encoding: chunked\r\n", "g\r\n\r\n0\r\n\r\n", 400, Closed),
        // Whose host is it.
        raw(b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, Closed),
        raw(b"GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed),
        raw(b"GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 200, Kept),
        raw(b"GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400, Closed),
        // Lines that end early or late.
        raw(b"GET / HTTP/1.1\r\nHost: a\r\n\rX", 400, Closed),
        raw(b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, Closed),
        raw(b"GET / HTTP/1.1\n\rHost: a\r\n\r\n", 400, Closed),
        raw(b"GET /\x0b HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed),
        raw(b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed),
        raw(b"GET /\xa0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\r\nA\xa0: b\r\n\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\r\n\xef\xbb\xbfA: b\r\n\r\n", 400, Closed),
        raw(b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed),
        // Other protocols that come by.
        raw(b"SSH-2.0-OpenSSH_9.2\r\n", 400, Closed),
        raw(b"EHLO a\r\nMAIL FROM:<b>\r\n", 400, Closed),
        raw(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", 200, Kept),
        line("CONNECT a:443 HTTP/1.1", 405, Closed),
        raw(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, Closed),
        line("OPTIONS / HTTP/1.1", 200, Kept),
    ]
}

/// All of them.
pub fn all() -> Vec<Case> {
    [request_lines(), field_lines(), framings(), smuggling()].concat()
}
