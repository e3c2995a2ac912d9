//! Files that an app answers with: it says which, its slot is free, and the rest is ours.

use crate::{
    encodings::decoded,
    harness::{Answer, Site, Stack, venv},
};

const APP: &str = r#"
import os

def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    fields = []
    status = "200 OK"
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "status":
            status = value + " As Said"
        elif name:
            fields.append((name, value.replace("+", " ")))
    if path == "/wrapped":
        file = open("media/large.bin", "rb")
        file.seek(int(environ.get("HTTP_X_SEEK", "0")))
        start_response(status, fields)
        return environ["wsgi.file_wrapper"](file)
    start_response(status, fields)
    return [b"not wanted"]
"#;

const LARGE: usize = 3 * 1024 * 1024 + 17;

fn large() -> Vec<u8> {
    (0..LARGE)
        .map(|index| (index * 7 + index / 251).to_le_bytes()[0])
        .collect()
}

fn text() -> String {
    (0..2_000)
        .map(|number| format!("line {}\n", number % 7))
        .collect()
}

fn site() -> Site {
    let site = r#"
        [server]
        http = ["127.0.0.1:0"]
        [app.web]
        wsgi = "app:app"
        python = "PYTHON"
        workers = 1
        threads = 1
        sendfile = ["media"]
        [[site]]
        hosts = ["*"]
        routes = [
          { path = "/protected/", files = "media", internal = true, cache = "1h" },
          { path = "/public/", files = "media" },
          { path = "/", app = "web" },
        ]
        "#;
    Site::new(&site.replace("PYTHON", &venv::python().display().to_string()))
        .file("app.py", APP)
        .file("media/large.bin", large())
        .file("media/a text.txt", text())
        .file("media/.part", "dot")
        .file("secret.txt", "secret")
}

fn ask(stack: &Stack, path: &str, fields: &[(&str, &str)]) -> Answer {
    stack.client().request("GET", path, fields, b"")
}

/// What comes of the large file, whichever way the app names it.
fn all_of_it(stack: &Stack, path: &str) {
    let large = large();
    let whole = ask(stack, path, &[]);
    assert_eq!(whole.status, 200, "{path}");
    assert!(whole.body == large, "{path}");
    assert_eq!(whole.field("accept-ranges"), Some("bytes"), "{path}");
    assert!(whole.field("last-modified").is_some(), "{path}");
    let etag = whole.field("etag").expect("it has one").to_owned();
    let part = ask(
        stack,
        path,
        &[("Range", "bytes=1000000-2000000"), ("If-Range", &etag)],
    );
    assert_eq!(part.status, 206, "{path}");
    assert!(part.body == large[1_000_000..=2_000_000], "{path}");
    let parts = ask(stack, path, &[("Range", "bytes=0-0,-1")]);
    let kind = parts.field("content-type").expect("it has one");
    assert!(kind.starts_with("multipart/byteranges"), "{path}: {kind}");
    let past = ask(stack, path, &[("Range", "bytes=99999999-")]);
    let place = format!("bytes */{LARGE}");
    assert_eq!(
        (past.status, past.field("content-range")),
        (416, Some(place.as_str()))
    );
    let known = ask(stack, path, &[("If-None-Match", &etag)]);
    assert_eq!((known.status, known.body.len()), (304, 0), "{path}");
    assert_eq!(known.field("etag"), Some(etag.as_str()));
    assert_eq!(
        ask(stack, path, &[("If-Match", "\"other\"")]).status,
        412,
        "{path}"
    );
    let head = stack.client().request("HEAD", path, &[], b"");
    let length = LARGE.to_string();
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some(length.as_str()))
    );
}

#[test]
fn conditions_and_ranges_are_answered_however_the_app_names_the_file() {
    let stack = site().start();
    let media = stack.path().join("media/large.bin").display().to_string();
    all_of_it(&stack, "/x?X-Accel-Redirect=/protected/large.bin");
    all_of_it(&stack, &format!("/x?X-Sendfile={media}"));
    all_of_it(&stack, "/x?X-Sendfile=media/large.bin");
    let path = "/wrapped?Content-Type=video/mp4";
    let whole = ask(&stack, path, &[]);
    assert!(whole.body == large());
    assert_eq!(whole.field("content-type"), Some("video/mp4"));
    let etag = whole.field("etag").expect("it has one");
    assert_eq!(ask(&stack, path, &[("If-None-Match", etag)]).status, 304);
    let part = ask(&stack, path, &[("Range", "bytes=5-9")]);
    assert_eq!((part.status, &part.body[..]), (206, &large()[5..10]));
    // What comes before the place where the app has begun is not there.
    let later = [("X-Seek", "1000"), ("Range", "bytes=5-9")];
    let part = ask(&stack, path, &later);
    assert_eq!((part.status, &part.body[..]), (206, &large()[1005..1010]));
    let place = format!("bytes 5-9/{}", LARGE - 1000);
    assert_eq!(part.field("content-range"), Some(place.as_str()));
    assert_ne!(part.field("etag"), Some(etag));
    // An app that answers ranges and conditions by itself is left alone.
    let own = ask(
        &stack,
        "/wrapped?status=206&Content-Range=bytes+0-1/2&ETag=x",
        &[("Range", "bytes=5-9")],
    );
    assert_eq!((own.status, own.body.len()), (206, LARGE));
    let own = ask(&stack, "/wrapped?ETag=%22app%22", &[]);
    assert_eq!(own.field("etag"), Some("%22app%22"));
}

#[test]
fn what_the_app_says_of_the_file_stands() {
    let stack = site().start();
    let file = "X-Accel-Redirect=/protected/a%20text.txt";
    let plain = ask(&stack, &format!("/x?{file}"), &[]);
    assert_eq!(plain.text(), text());
    assert_eq!(
        plain.field("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(plain.field("cache-control"), Some("max-age=3600"));
    assert_eq!(plain.field("x-accel-redirect"), None);
    let said = "Content-Type=application/x-ours&Content-Disposition=attachment&Cache-Control=private&Set-Cookie=a=b&ETag=no";
    let answer = ask(&stack, &format!("/x?{file}&{said}"), &[]);
    for (name, value) in [
        ("content-type", Some("application/x-ours")),
        ("content-disposition", Some("attachment")),
        ("cache-control", Some("private")),
        ("set-cookie", Some("a=b")),
        ("etag", plain.field("etag")),
        ("x-content-type-options", None),
    ] {
        assert_eq!(answer.field(name), value, "{name}");
    }
    let gone = ask(
        &stack,
        &format!("/x?{file}&status=404"),
        &[("Range", "bytes=0-1")],
    );
    assert_eq!((gone.status, gone.text()), (404, text()));
    let posted = stack.client().request(
        "POST",
        &format!("/x?{file}"),
        &[("Range", "bytes=0-1")],
        b"a",
    );
    assert_eq!((posted.status, posted.text()), (200, text()));
    let coded = ask(&stack, &format!("/x?{file}"), &[("Accept-Encoding", "br")]);
    assert_eq!(
        (coded.field("content-encoding"), decoded(&coded)),
        (Some("br"), text())
    );
    // The app knows what it keeps.
    assert_eq!(
        ask(&stack, "/x?X-Accel-Redirect=/protected/.part", &[]).text(),
        "dot"
    );
}

#[test]
fn nothing_is_opened_that_was_not_meant() {
    let stack = site().start();
    std::os::unix::fs::symlink("../secret.txt", stack.path().join("media/link")).expect("linked");
    for path in [
        "/protected/large.bin",
        "/protected/",
        "/protected/a%20text.txt",
    ] {
        assert_eq!(ask(&stack, path, &[]).status, 404, "{path}");
    }
    let root = stack.path().display();
    for (said, status) in [
        ("X-Accel-Redirect=/public/large.bin".to_owned(), 500),
        ("X-Accel-Redirect=/other".to_owned(), 500),
        (
            "X-Accel-Redirect=/protected/../public/large.bin".to_owned(),
            500,
        ),
        (
            "X-Accel-Redirect=/protected/%252e%252e/secret.txt".to_owned(),
            404,
        ),
        ("X-Accel-Redirect=/protected/../secret.txt".to_owned(), 500),
        ("X-Accel-Redirect=/protected/link".to_owned(), 404),
        ("X-Accel-Redirect=/protected/missing".to_owned(), 404),
        ("X-Accel-Redirect=/protected/a%252Ftext".to_owned(), 404),
        ("X-Accel-Redirect=nonsense".to_owned(), 404),
        (format!("X-Sendfile={root}/secret.txt"), 500),
        (format!("X-Sendfile={root}/media/../secret.txt"), 500),
        ("X-Sendfile=secret.txt".to_owned(), 500),
        ("X-Sendfile=/etc/passwd".to_owned(), 500),
        ("X-Sendfile=media/link".to_owned(), 404),
        ("X-Sendfile=media/missing".to_owned(), 404),
        ("X-Sendfile=media".to_owned(), 404),
        ("X-Sendfile=mediator".to_owned(), 500),
    ] {
        let answer = ask(&stack, &format!("/x?{said}"), &[]);
        assert_eq!(answer.status, status, "{said}: {}", answer.text());
        assert!(!answer.text().contains("secret"), "{said}");
        assert!(!answer.text().contains("not wanted"), "{said}");
    }
    stack.until_logged("none of the folders that the app's `sendfile` names");
    stack.until_logged("no route that is `internal` has this path");
}

/// The only slot: whoever downloads slowly does not hold it.
#[test]
fn the_slot_is_free_at_once() {
    let stack = site().start();
    let named = [
        "/x?X-Accel-Redirect=/protected/large.bin",
        "/x?X-Sendfile=media/large.bin",
        "/wrapped",
    ];
    let mut slow: Vec<_> = named
        .iter()
        .map(|path| {
            let mut client = stack.client();
            client.ask(path);
            let head = client.answer_head();
            assert_eq!(head.status, 200);
            client
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(ask(&stack, "/x", &[]).text(), "not wanted");
    }
    for client in &mut slow {
        assert!(client.exactly(LARGE) == large());
    }
}

/// While moving over: nginx stays in front, and the field is meant for it.
#[test]
fn a_trusted_proxy_in_front_gets_what_is_meant_for_it() {
    let stack = site()
        .edit("[app.web]", "trusted_proxies = [\"127.0.0.1\"]\n[app.web]")
        .edit(", internal = true", "")
        .start();
    let answer = ask(&stack, "/x?X-Accel-Redirect=/protected/large.bin", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "not wanted"));
    assert_eq!(
        answer.field("x-accel-redirect"),
        Some("/protected/large.bin")
    );
}

#[test]
fn a_file_of_gigabytes_is_a_file() {
    let stack = site().start();
    let path = stack.path().join("media/huge");
    let file = std::fs::File::create(&path).expect("ours");
    const HUGE: u64 = 5 << 30;
    file.set_len(HUGE).expect("a sparse file");
    std::os::unix::fs::FileExt::write_all_at(&file, b"the end", HUGE - 7).expect("written");
    for path in [
        "/public/huge",
        "/x?X-Accel-Redirect=/protected/huge",
        "/x?X-Sendfile=media/huge",
    ] {
        let head = stack.client().request("HEAD", path, &[], b"");
        assert_eq!(head.field("content-length"), Some("5368709120"), "{path}");
        let tail = ask(&stack, path, &[("Range", "bytes=-7")]);
        assert_eq!(
            (tail.status, tail.text().as_str()),
            (206, "the end"),
            "{path}"
        );
        let place = "bytes 5368709113-5368709119/5368709120";
        assert_eq!(tail.field("content-range"), Some(place));
        let past_4g = ask(&stack, path, &[("Range", "bytes=4294967290-4294967305")]);
        assert_eq!((past_4g.status, past_4g.body.len()), (206, 16), "{path}");
    }
    let mut client = stack.client();
    client.ask("/public/huge");
    assert_eq!(
        client.answer_head().field("content-length"),
        Some("5368709120")
    );
    assert_eq!(client.exactly(1 << 20), vec![0; 1 << 20]);
}
