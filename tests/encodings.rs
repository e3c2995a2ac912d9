//! Files in the coding that the client likes best: from neighbours that are there, or made once and kept.

use std::{
    fs::{self, File},
    io::Read,
    time::{Duration, SystemTime},
};

use crate::harness::{Answer, Site, Stack};

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
[[site]]
routes = [{ path = "/", files = "public" }]
"#;

/// What a browser says.
const BROWSER: &str = "gzip, deflate, br, zstd";

fn text() -> String {
    (0..5_000)
        .map(|number| format!("line {}\n", number * number % 971))
        .collect()
}

fn ask(stack: &Stack, path: &str, fields: &[(&str, &str)]) -> Answer {
    stack.client().request("GET", path, fields, b"")
}

fn accepting(stack: &Stack, path: &str, codings: &str) -> Answer {
    ask(stack, path, &[("Accept-Encoding", codings)])
}

/// Waits until the file has been made in every coding: on a busy machine the first who asks may get it as it is.
fn until_made(stack: &Stack, path: &str) {
    for coding in ["br", "zstd", "gzip"] {
        stack.until("it is made", || {
            accepting(stack, path, coding).field("content-encoding") == Some(coding)
        });
    }
}

/// What a client makes of an answer.
pub fn decoded(answer: &Answer) -> String {
    let body = answer.body.as_slice();
    let mut text = String::new();
    match answer.field("content-encoding") {
        None => return answer.text(),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_string(&mut text),
        Some("zstd") => zstd::stream::read::Decoder::new(body)
            .expect("a decoder")
            .read_to_string(&mut text),
        Some("gzip") => flate2::read::MultiGzDecoder::new(body).read_to_string(&mut text),
        Some(other) => panic!("an unknown coding {other}"),
    }
    .expect("valid");
    text
}

#[test]
fn text_is_encoded_as_the_client_likes_it() {
    let stack = Site::new(SITE)
        .file("public/app.js", text())
        .file("public/photo.jpg", text())
        .file("public/short.css", "p { color: red }")
        .start();
    until_made(&stack, "/app.js");
    for (codings, expected) in [
        (BROWSER, Some("br")),
        ("gzip", Some("gzip")),
        ("gzip;q=0.5, zstd;q=0.9", Some("zstd")),
        ("br;q=0, *", Some("zstd")),
        ("identity", None),
        ("deflate", None),
    ] {
        let answer = accepting(&stack, "/app.js", codings);
        assert_eq!(answer.field("content-encoding"), expected, "{codings}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        assert_eq!(decoded(&answer), text(), "{codings}");
        let length = answer.body.len().to_string();
        assert_eq!(answer.field("content-length"), Some(length.as_str()));
        assert!(expected.is_none() || answer.body.len() < text().len() / 2);
    }
    assert_eq!(ask(&stack, "/app.js", &[]).field("content-encoding"), None);
    for path in ["/photo.jpg", "/short.css"] {
        let answer = accepting(&stack, path, BROWSER);
        assert_eq!(answer.field("content-encoding"), None, "{path}");
        assert_eq!(answer.field("vary"), None, "{path}");
    }
}

#[test]
fn each_coding_is_a_representation_of_its_own() {
    let stack = Site::new(SITE).file("public/app.js", text()).start();
    until_made(&stack, "/app.js");
    let codings = ["br", "zstd", "gzip", "identity"];
    let answers = codings.map(|coding| accepting(&stack, "/app.js", coding));
    let etags = answers
        .each_ref()
        .map(|answer| answer.field("etag").expect("it has one"));
    for (index, etag) in etags.iter().enumerate() {
        assert!(etag.starts_with('"'), "{etag} is strong");
        for (other, coding) in codings.iter().enumerate() {
            let fields = [("Accept-Encoding", *coding), ("If-None-Match", *etag)];
            let again = ask(&stack, "/app.js", &fields);
            let expected = if other == index { 304 } else { 200 };
            assert_eq!(again.status, expected, "{etag} {coding}");
            assert_eq!(again.field("vary"), Some("Accept-Encoding"));
        }
    }
    // A range is one of the encoded bytes (RFC 9110 §14.2), so that a download can go on.
    for (answer, (coding, etag)) in answers.iter().zip(codings.iter().zip(etags)) {
        let fields = [
            ("Accept-Encoding", *coding),
            ("Range", "bytes=100-299"),
            ("If-Range", etag),
        ];
        let part = ask(&stack, "/app.js", &fields);
        assert_eq!(part.status, 206, "{coding}");
        assert_eq!(part.body, answer.body[100..300], "{coding}");
        let place = format!("bytes 100-299/{}", answer.body.len());
        assert_eq!(part.field("content-range"), Some(place.as_str()));
        assert_eq!(
            part.field("content-encoding"),
            answer.field("content-encoding")
        );
    }
    let fields = [
        ("Accept-Encoding", "br"),
        ("Range", "bytes=100-299"),
        ("If-Range", etags[3]),
    ];
    assert_eq!(
        ask(&stack, "/app.js", &fields).status,
        200,
        "a part of something else"
    );
}

fn write(stack: &Stack, name: &str, content: &str, age: u64) {
    let file = stack.path().join("public").join(name);
    fs::write(&file, content).expect("the folder is ours");
    let time = SystemTime::now() - Duration::from_secs(age);
    let file = File::options().append(true).open(file).expect("ours");
    file.set_modified(time).expect("ours");
}

#[test]
fn neighbours_are_used_as_they_are_unless_they_are_older() {
    let stack = Site::new(SITE).file("public/other", "").start();
    write(&stack, "app.js", &text(), 100);
    write(&stack, "app.js.gz", "not really gzip", 100);
    write(&stack, "app.js.br", "not really brotli", 50);
    write(&stack, "app.js.zst", "what it was", 200);
    write(&stack, "tiny.css", "p{}", 100);
    write(&stack, "tiny.css.gz", "tiny", 100);
    write(&stack, "photo.jpg", &text(), 100);
    write(&stack, "photo.jpg.gz", "nothing gained", 10);
    let body = |path: &str, codings: &str| {
        let answer = accepting(&stack, path, codings);
        let coding = answer.field("content-encoding").map(str::to_owned);
        (coding, answer.text())
    };
    let in_coding = |coding: &str, text: &str| (Some(coding.to_owned()), text.to_owned());
    assert_eq!(
        body("/app.js", BROWSER),
        in_coding("br", "not really brotli")
    );
    assert_eq!(
        body("/app.js", "gzip, zstd"),
        in_coding("gzip", "not really gzip")
    );
    // None is good enough for this client, so it is encoded.
    let zstd = accepting(&stack, "/app.js", "zstd");
    assert_eq!(
        (zstd.field("content-encoding"), decoded(&zstd)),
        (Some("zstd"), text())
    );
    assert_eq!(body("/tiny.css", BROWSER), in_coding("gzip", "tiny"));
    assert_eq!(body("/photo.jpg", BROWSER), (None, text()));
    let kind = accepting(&stack, "/app.js", "gzip");
    assert_eq!(
        kind.field("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(kind.field("vary"), Some("Accept-Encoding"));
    // A new file makes all of them old, and the next neighbour is found.
    write(&stack, "app.js", "new", 10);
    stack.until("the new file", || {
        body("/app.js", BROWSER) == (None, "new".to_owned())
    });
    write(&stack, "app.js.br", "new brotli", 5);
    stack.until("its neighbour", || {
        body("/app.js", BROWSER) == in_coding("br", "new brotli")
    });
    fs::remove_file(stack.path().join("public/app.js.br")).expect("ours");
    stack.until("its end", || {
        body("/app.js", BROWSER) == (None, "new".to_owned())
    });
}

#[test]
fn a_changed_file_is_encoded_anew() {
    let stack = Site::new(SITE).file("public/app.js", text()).start();
    assert_eq!(decoded(&accepting(&stack, "/app.js", "zstd")), text());
    let changed = text().replace("line", "verse");
    fs::write(stack.path().join("public/app.js"), &changed).expect("ours");
    stack.until("the new text", || {
        let answer = accepting(&stack, "/app.js", "zstd");
        answer.field("content-encoding") == Some("zstd") && decoded(&answer) == changed
    });
}

#[test]
fn a_file_that_is_too_large_for_memory_is_encoded_too() {
    let large = text().repeat(60);
    let stack = Site::new(SITE).file("public/data.json", &large).start();
    stack.until("it is encoded", || {
        accepting(&stack, "/data.json", "br").field("content-encoding") == Some("br")
    });
    let answer = accepting(&stack, "/data.json", "br");
    assert!(decoded(&answer) == large);
    assert!(answer.body.len() < large.len() / 2);
    assert!(stack.get("/data.json").text() == large);
}
