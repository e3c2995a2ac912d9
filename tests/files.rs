//! Files as a site needs them: folders and their pages, names that are nobody's business, types, how long they may be kept,
//! and files before an app.

use std::{
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use crate::harness::{Answer, Client, Site, Stack, descriptors, memory, venv};

/// A site whose only route is this folder, with these keys more.
fn site(keys: &str) -> Site {
    Site::new(&format!(
        r#"
[server]
http = ["127.0.0.1:0"]
[[site]]
routes = [{{ path = "/", files = "public"{keys} }}]
"#
    ))
}

fn accept(stack: &Stack, path: &str, accept: &str) -> Answer {
    stack
        .client()
        .request("GET", path, &[("Accept", accept)], b"")
}

#[test]
fn a_folder_answers_with_its_index() {
    let stack = site(r#", index = ["index.html", "index.htm"]"#)
        .file("public/index.html", "top")
        .file("public/old/index.htm", "old")
        .file("public/bare/a.txt", "a")
        .start();
    assert_eq!(stack.get("/").text(), "top");
    assert_eq!(stack.get("/old/").text(), "old");
    let answer = stack.get("/old?a=1&b=%2F");
    assert_eq!(
        (answer.status, answer.field("location")),
        (301, Some("/old/?a=1&b=%2F"))
    );
    // Nothing is told of a folder that has nothing to show.
    assert_eq!(stack.get("/bare/").status, 404);
    assert_eq!(stack.get("/bare").status, 404);
    assert_eq!(stack.get("/bare/a.txt").text(), "a");
}

#[test]
fn other_methods_are_told_what_there_is() {
    let stack = site("").file("public/a.txt", "a").start();
    let asked = |method: &str| stack.client().request(method, "/a.txt", &[], b"");
    let allow = Some("GET, HEAD, OPTIONS");
    for method in ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"] {
        let answer = asked(method);
        assert_eq!(
            (answer.status, answer.field("allow")),
            (405, allow),
            "{method}"
        );
    }
    let options = asked("OPTIONS");
    assert_eq!((options.status, options.field("allow")), (204, allow));
    let head = asked("HEAD");
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("1"))
    );
    assert_eq!(head.text(), "");
}

#[test]
fn the_page_of_a_single_page_app_answers_for_its_paths_and_not_for_its_scripts() {
    let stack = site(r#", fallback = "index.html", cache = "1h""#)
        .file("public/index.html", "page")
        .file("public/app.js", "script")
        .start();
    for path in ["/", "/users/7", "/users/", "/index.html"] {
        let answer = stack.get(path);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "page"),
            "{path}"
        );
        assert_eq!(answer.field("cache-control"), Some("no-cache"), "{path}");
        assert_eq!(
            answer.field("content-type"),
            Some("text/html; charset=utf-8")
        );
    }
    assert_eq!(
        stack.get("/app.js").field("cache-control"),
        Some("max-age=3600")
    );
    assert_eq!(stack.get("/gone.js").status, 404);
    let page = accept(&stack, "/users/jane.doe", "text/html,*/*;q=0.8");
    assert_eq!(page.text(), "page");
    assert_eq!(page.field("vary"), Some("Accept"));
    assert_eq!(stack.get("/.env").status, 404);
    assert_eq!(
        stack.client().request("POST", "/users/7", &[], b"").status,
        405
    );
}

#[test]
fn a_folder_is_shown_where_the_site_says_so() {
    let stack = site(", listing = true")
        .file("public/b & c.txt", "text")
        .file("public/sub/index.html", "sub")
        .file("public/deep/a", "a")
        .file("public/.hidden", "h")
        .file("public/draft.txt~", "d");
    symlink("b & c.txt", stack.path().join("public/link")).expect("linked");
    symlink("/etc/passwd", stack.path().join("public/outside")).expect("linked");
    let stack = stack.start();
    let page = stack.get("/").text();
    for expected in [
        r#"<a href="sub/">sub/</a>"#,
        r#"<a href="b%20%26%20c.txt">b &amp; c.txt</a><td>4 B"#,
        r#"<a href="link">link</a>"#,
    ] {
        assert!(page.contains(expected), "{expected}:\n{page}");
    }
    for hidden in ["hidden", "draft", "outside"] {
        assert!(!page.contains(hidden), "{hidden}:\n{page}");
    }
    let json = accept(&stack, "/", "application/json");
    assert_eq!(json.field("content-type"), Some("application/json"));
    assert_eq!(json.field("vary"), Some("Accept"));
    let items: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    let names: Vec<_> = items
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            let text = |key: &str| item[key].as_str().expect("text").to_owned();
            assert!(text("mtime").ends_with(" GMT"), "{item}");
            (text("name"), text("type"), item["size"].as_u64())
        })
        .collect();
    let file = |name: &str, size| (name.to_owned(), "file".to_owned(), Some(size));
    let folder = |name: &str| (name.to_owned(), "directory".to_owned(), None);
    assert_eq!(
        names,
        [
            folder("deep"),
            folder("sub"),
            file("b & c.txt", 4),
            file("link", 4)
        ]
    );
    assert_eq!(stack.get("/sub/").text(), "sub", "an index goes first");
    assert_eq!(stack.get("/deep").status, 301);
    assert!(stack.get("/deep/").text().contains("<a href=\"../\">"));
    assert_eq!(stack.get("/missing/").status, 404);
}

#[test]
fn what_may_be_kept_is_said() {
    let names = [
        "public/a.css",
        "public/a.3f2a9c01d4e5.css",
        "public/assets/i-DiwrgTda.js",
    ];
    for (keys, expected) in [
        (
            "",
            [
                None,
                Some("max-age=31536000, immutable"),
                Some("max-age=31536000, immutable"),
            ],
        ),
        (
            r#", cache = "1d""#,
            [
                Some("max-age=86400"),
                Some("max-age=31536000, immutable"),
                Some("max-age=31536000, immutable"),
            ],
        ),
        (
            r#", cache = "immutable""#,
            [Some("max-age=31536000, immutable"); 3],
        ),
        (r#", cache = "0s""#, [Some("max-age=0"); 3]),
    ] {
        let site = names
            .iter()
            .fold(site(keys), |site, name| site.file(name, "x"));
        let stack = site.start();
        for (name, expected) in names.iter().zip(expected) {
            let path = name.trim_start_matches("public");
            let answer = stack.get(path);
            assert_eq!(answer.field("cache-control"), expected, "{keys} {path}");
            let etag = answer.field("etag").expect("it has one");
            let again = stack
                .client()
                .request("GET", path, &[("If-None-Match", etag)], b"");
            assert_eq!(
                (again.status, again.field("cache-control")),
                (304, expected)
            );
        }
        assert_eq!(
            stack.get("/missing.css").field("cache-control"),
            Some("no-store")
        );
    }
}

#[test]
fn types_can_be_said_otherwise() {
    let stack = site(r#", types = { ".md" = "text/markdown", dat = "application/x-ours" }"#)
        .file("public/a.md", "x")
        .file("public/a.dat", "x")
        .file("public/a.css", "x")
        .start();
    for (path, kind) in [
        ("/a.md", "text/markdown; charset=utf-8"),
        ("/a.dat", "application/x-ours"),
        ("/a.css", "text/css; charset=utf-8"),
    ] {
        let answer = stack.get(path);
        assert_eq!(answer.field("content-type"), Some(kind));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn links_lead_where_the_site_lets_them() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(outside.path().join("a.txt"), "outside").expect("written");
    for (keys, status) in [
        ("", 404),
        (r#", symlinks = "inside""#, 404),
        (r#", symlinks = "follow""#, 200),
    ] {
        let site = site(keys).file("public/b.txt", "inside");
        symlink(
            outside.path().join("a.txt"),
            site.path().join("public/a.txt"),
        )
        .expect("linked");
        symlink(outside.path(), site.path().join("public/folder")).expect("linked");
        symlink("b.txt", site.path().join("public/c.txt")).expect("linked");
        let stack = site.start();
        assert_eq!(stack.get("/a.txt").status, status, "{keys}");
        assert_eq!(stack.get("/folder/a.txt").status, status, "{keys}");
        assert_eq!(stack.get("/c.txt").text(), "inside");
    }
}

/// Archives are unpacked with whatever times are in them, and no field has a date before 1970.
#[test]
fn a_file_from_before_1970_is_served_without_a_date() {
    let site = site(", listing = true").file("public/old.txt", "old");
    let file = std::fs::File::options()
        .write(true)
        .open(site.path().join("public/old.txt"))
        .expect("it is there");
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
    file.set_modified(before).expect("ours");
    let stack = site.start();
    for _ in 0..2 {
        let answer = stack.get("/old.txt");
        assert_eq!(answer.text(), "old");
        assert_eq!((answer.status, answer.field("last-modified")), (200, None));
    }
    assert!(stack.get("/").text().contains("old.txt"));
}

const APP: &str = r#"
def app(environ, start_response):
    body = ("app " + environ["REQUEST_METHOD"] + " " + environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

#[test]
fn a_file_goes_before_the_app_and_only_a_file() {
    let site = r#"
        [server]
        http = ["127.0.0.1:0"]
        [app.web]
        wsgi = "app:app"
        python = "PYTHON"
        workers = 1
        [[site]]
        routes = [{ path = "/", files = "public", app = "web" }]
        "#;
    let stack = Site::new(&site.replace("PYTHON", &venv::python().display().to_string()))
        .file("app.py", APP)
        .file("public/robots.txt", "robots")
        .file("public/docs/index.html", "docs")
        .file("public/admin/logo.png", "logo")
        .file("public/.env", "secret")
        .start();
    for (path, text) in [
        ("/robots.txt", "robots"),
        ("/docs/", "docs"),
        ("/admin/logo.png", "logo"),
        ("/", "app GET /"),
        ("/admin", "app GET /admin"),
        ("/admin/", "app GET /admin/"),
        ("/.env", "app GET /.env"),
        ("/a%2Fb", "app GET /a/b"),
        ("/missing.css", "app GET /missing.css"),
    ] {
        let answer = stack.get(path);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, text),
            "{path}"
        );
    }
    assert_eq!(stack.get("/docs").status, 301);
    for method in ["POST", "OPTIONS", "DELETE"] {
        let answer = stack.client().request(method, "/robots.txt", &[], b"");
        assert_eq!(answer.text(), format!("app {method} /robots.txt"));
    }
    // A file that comes later is seen.
    std::fs::write(stack.path().join("public/missing.css"), "here").expect("written");
    stack.until("the file", || stack.get("/missing.css").text() == "here");
}

/// That it is told is tried where it is heard (`files::watch`); here, that the proxy may listen, confined as it is.
#[test]
fn the_kernel_tells_the_proxy_of_changes() {
    let watched = |stack: &Stack| {
        let proxy = stack.proxy().expect("it runs");
        let mut open = descriptors(proxy).into_iter();
        let inotify = open.find(|(_, what)| what.contains("inotify"));
        inotify.map(|(number, _)| {
            let place = format!("/proc/{proxy}/fdinfo/{number}");
            let said = std::fs::read_to_string(place).expect("it is open");
            said.matches("inotify wd:").count()
        })
    };
    let stack = site("").file("public/css/deep/a.css", "a").start();
    assert_eq!(stack.get("/css/deep/a.css").text(), "a");
    // The folder, and those above it.
    stack.until("the watches", || {
        // What was written a moment ago is not remembered yet.
        assert_eq!(stack.get("/css/deep/a.css").text(), "a");
        watched(&stack) == Some(3)
    });
    std::fs::write(stack.path().join("public/css/deep/a.css"), "b").expect("ours");
    stack.until("the new one", || stack.get("/css/deep/a.css").text() == "b");
    let stack = site("")
        .edit("[server]", "[limits]\nfile_watches = 0\n[server]")
        .file("public/a.css", "a")
        .start();
    assert_eq!(stack.get("/a.css").text(), "a");
    assert_eq!(watched(&stack), None);
}

/// A download takes from the page cache what its client takes from it, and holds nothing meanwhile.
#[test]
fn downloads_that_nobody_reads_hold_next_to_nothing() {
    const CLIENTS: u64 = 300;
    let stack = site("").file("public/image", "").start();
    let image = std::fs::File::options()
        .write(true)
        .open(stack.path().join("public/image"));
    let image = image.expect("ours");
    image
        .set_len(1 << 30)
        .expect("the file system has sparse files");
    let (proxy, address) = (stack.proxy().expect("it runs"), stack.http());
    let begin = |count: u64| -> Vec<Client> {
        let begun = (0..count).map(|_| {
            let mut client = Client::with_small_buffer(address);
            client.ask("/image");
            assert_eq!(client.answer_head().status, 200);
            client
        });
        begun.collect()
    };
    // What the first ones bring about is there for all.
    let _first = begin(20);
    let before = memory(proxy);
    let _others = begin(CLIENTS);
    let each = memory(proxy).saturating_sub(before) / CLIENTS;
    assert!(each < 64, "{each} KiB for each");
}
