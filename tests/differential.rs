//! The same bytes to nginx and to us. Where the two do not agree, one of them would be wrong about what follows, and so each
//! difference stands in a table with its reason.
//!
//! Runs where nginx is installed, and says so where it is not.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
};

use crate::{
    harness::{
        PATIENCE,
        nginx::Nginx,
        origin::{Origin, Then},
    },
    raw::{self, After, Closed, Kept},
};

/// nginx with our limits, before this origin.
fn nginx(origin: &Path) -> Option<Nginx> {
    Nginx::start(|folder| {
        fs::create_dir(folder.join("files")).expect("the folder is ours");
        fs::write(folder.join("files/a.txt"), "a file").expect("the folder is ours");
        format!(
            "keepalive_timeout 60s; large_client_header_buffers 2 1k;\n\
             client_header_buffer_size 512; client_max_body_size 64k; lingering_close off;\n\
             proxy_ignore_client_abort on; client_header_timeout 2s; client_body_timeout 2s;\n\
             server {{ listen unix:{place}/nginx.sock default_server; return 421; }}\n\
             server {{ listen unix:{place}/nginx.sock; server_name a [::1] 127.0.0.1;\n\
             location / {{ proxy_pass http://unix:{origin}:; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Host $host; }}\n\
             location /files/ {{ alias {place}/files/; }} location = /old {{ return 302 /new; }}\n\
             location = /fixed {{ return 200 fixed; }} location = /nothing {{ return 204; }} }}",
            place = folder.display(),
            origin = origin.display(),
        )
    })
}

/// What nginx made of some bytes: the status, and whether a request behind them was answered. `None`: closed without an answer.
fn theirs(nginx: &Nginx, bytes: &[u8], next: &str) -> (Option<u16>, After) {
    let mut stream = UnixStream::connect(nginx.socket()).expect("it listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a valid time");
    let next_request = format!("GET {next} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut rest = Vec::new();
    // It may close before it has taken or said all.
    let _ = stream.write_all(&[bytes, next_request.as_bytes()].concat());
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    let statuses: Vec<u16> = rest
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|answer| answer.get(..3)?.parse().ok())
        .collect();
    let after = if rest.contains(next) { Kept } else { Closed };
    (statuses.first().copied(), after)
}

/// Bytes that tell the case, and why we do otherwise than nginx with it.
type Reason = (&'static [u8], &'static str);

/// Where nginx answers what we refuse, or refuses it otherwise. The first that fits explains.
const STRICTER: &[Reason] = &[
    (
        b"TRACE /",
        "405 of both; a method that is refused leaves no doubt about what follows, so we keep the connection",
    ),
    (
        b"GET * ",
        "405 with `Allow: OPTIONS` tells what `*` is for (RFC 9110 §9.3.7)",
    ),
    (
        b"CONNECT ",
        "405 says what is meant; nginx does not read the authority form",
    ),
    (
        b"GET /\r\n",
        "a line without a version is HTTP/0.9 to nginx, which then answers without a head",
    ),
    (b"GET  /", "spaces divide a line in two ways (RFC 9112 §3)"),
    (b"/  HTTP", "spaces divide a line in two ways (RFC 9112 §3)"),
    (
        b"HTTP/1.1 \r\n",
        "spaces divide a line in two ways (RFC 9112 §3)",
    ),
    (
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a",
        "one empty line before a request is tolerated (RFC 9112 §2.2), not any number",
    ),
    (
        b"HTTP/11\r\n",
        "a version that is no version is 400, one that is not ours 505 (RFC 9112 §2.3)",
    ),
    (b"HTTP/1.2\r\n", "there is no HTTP/1.2 to answer"),
    (
        b"HTTP/0.9\r\n",
        "a version that is no version is 400, one that is not ours 505 (RFC 9112 §2.3)",
    ),
    (
        b"PRI * HTTP/2.0",
        "505 tells a client of HTTP/2 what is wrong",
    ),
    (
        b"/a#b",
        "a fragment is never sent (RFC 9112 §3.2.1); who cuts it off sees another path than who does not",
    ),
    (b"GET /\xc3\xa4", "a target is visible ASCII (RFC 3986 §2)"),
    (b"GET /\xa0", "a target is visible ASCII (RFC 3986 §2)"),
    (b"ftp://", "we are asked for http and https alone"),
    (
        b"GET http://",
        "authority and Host must agree: the RFC has the one win, others have the other (RFC 9112 §3.2.2)",
    ),
    (
        b"HTTP/1.1\nX",
        "a bare LF may end a line or not (RFC 9112 §2.2)",
    ),
    (
        b"HTTP/1.1\nHost",
        "a bare LF may end a line or not (RFC 9112 §2.2)",
    ),
    (
        b"b\nContent-Length",
        "a bare LF may end a line or not (RFC 9112 §2.2)",
    ),
    (
        b"Host: a\r\n\n",
        "a bare LF may end a line or not (RFC 9112 §2.2)",
    ),
    (b"5\n12345", "a bare LF in chunk lines (RFC 9112 §7.1)"),
    (b"12345\n0", "a bare LF in chunk lines (RFC 9112 §7.1)"),
    (b"T: v\n", "a bare LF in trailers (RFC 9112 §7.1.2)"),
    (b"0\n\r\n", "a bare LF in chunk lines (RFC 9112 §7.1)"),
    (b"0\r\n\n", "a bare LF in chunk lines (RFC 9112 §7.1)"),
    (b"5 \r\n", "white space in a chunk line (CVE-2025-55315)"),
    (b"0 \r\n", "white space in a chunk line (CVE-2025-55315)"),
    (b"5\r\n1234\r\n0", "a chunk that is shorter than its size"),
    (
        b"0\r\nT : v",
        "a trailer is a field like any other (RFC 9112 §7.1.2)",
    ),
    (
        b"0\r\n folded",
        "a trailer is a field like any other (RFC 9112 §7.1.2)",
    ),
    (
        b"0\r\nX y",
        "a trailer is a field like any other (RFC 9112 §7.1.2)",
    ),
    (
        b"Host: a\r\nA\r\n",
        "a line without a colon is no field; nginx leaves it out",
    ),
    (
        b"A(: b",
        "a name is a token (RFC 9110 §5.1); nginx leaves the field out",
    ),
    (
        b"\xc3\xa4: b",
        "a name is a token (RFC 9110 §5.1); nginx leaves the field out",
    ),
    (
        b"A\xa0: b",
        "a name is a token (RFC 9110 §5.1); nginx leaves the field out",
    ),
    (
        b"\xef\xbb\xbfA: b",
        "a name is a token (RFC 9110 §5.1); nginx leaves the field out",
    ),
    (
        b"A: \x7f",
        "a value has no control characters (RFC 9110 §5.5)",
    ),
    (b"a\r\r\n", "a CR that ends no line (RFC 9112 §2.2)"),
    (
        b"A: b\r\nA: b\r\nA: b",
        "so many fields are too many; nginx only counts their bytes",
    ),
    (b"A: bbbb", "431 says what is too long; nginx says 400"),
    (
        b"Host: u@a",
        "a Host has no user; nginx finds no site of that name",
    ),
    (
        b"Host: [",
        "an address in brackets is one of IPv6 (RFC 3986 §3.2.2)",
    ),
    (
        b"Host: a:",
        "a port is a number up to 65535; nginx passes over it",
    ),
    (
        b"Host: a\\",
        "no host has this character; nginx finds no site of that name",
    ),
    (
        b"Host: a?",
        "no host has this character; nginx finds no site of that name",
    ),
    (
        b"Host: a#",
        "no host has this character; nginx finds no site of that name",
    ),
    (
        b"Host: \xc3",
        "no host has this character; nginx finds no site of that name",
    ),
    (
        b"Content-Length: 18446744073709551615",
        "it is a number, and more than any limit; nginx has no room for it",
    ),
    (
        b"chunked\r\nTransfer-Encoding",
        "two codings are not one that we have; nginx forbids the second field",
    ),
    (
        b"Transfer-Encoding: chunked\x0b",
        "a control character is no part of a value, whatever the value",
    ),
    (
        b"Transfer-Encoding: \x0b",
        "a control character is no part of a value, whatever the value",
    ),
    (
        b"ffffffffffffffff\r\n",
        "it is a size, and more than any limit; nginx has no room for it",
    ),
    (
        b"Expect: 200-ok",
        "an expectation that is not known is refused (RFC 9110 §10.1.1)",
    ),
];

/// Where we answer what nginx refuses.
const LOOSER: &[Reason] = &[
    (
        b"get / ",
        "a method is any token, and its case counts (RFC 9110 §9.1): whether `get` is one is for the app to say",
    ),
    (
        b"OPTIONS *",
        "it asks about the server (RFC 9110 §9.3.7); nginx does not know the form",
    ),
];

#[test]
fn what_nginx_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("origin.sock");
    let _origin = Origin::unix(&socket, |stream, seen| {
        let path = seen.line().split(' ').nth(1).unwrap_or_default();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
            path.len()
        );
        Then::Goes
    });
    let Some(nginx) = nginx(&socket) else {
        return;
    };
    let mut unexplained = Vec::new();
    for (number, (bytes, status, after)) in raw::all().iter().enumerate() {
        let (their_status, their_after) = theirs(&nginx, bytes, &format!("/after/{number}"));
        if (Some(*status), *after) == (their_status, their_after) {
            continue;
        }
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(140)]).into_owned();
        let looser = *status < 400 && their_status.is_some_and(|status| status >= 400);
        let table = if looser { LOOSER } else { STRICTER };
        if !table.iter().any(|(has, _)| contains(bytes, has)) {
            unexplained.push(format!(
                "{shown:?}: we {status} {after:?}, nginx {their_status:?} {their_after:?}"
            ));
        }
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
