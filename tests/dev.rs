//! `--dev`: what is saved is served by itself, what is broken is shown and does no harm, and nothing is kept in caches.

use std::{fs, os::unix::fs::symlink};

use crate::harness::{Answer, Site, Stack, stack_command};

/// An app of this version, whose path `/fail` raises and `/html` is a page.
fn version(number: u32) -> String {
    format!(
        r#"
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        secret = "<b>" * 3
        raise ValueError("no <script> here: " + secret)
    kind = "text/html" if path == "/html" else "text/plain"
    start_response("200 OK", [("Content-Type", kind), ("ETag", '"x"')])
    return [b"version {number}"]
"#
    )
}

fn site() -> Site {
    Site::with_app(&version(1)).option("--dev")
}

fn write(stack: &Stack, name: &str, text: impl AsRef<[u8]>) {
    let path = stack.path().join(name);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder is ours");
    fs::write(path, text).expect("the folder is ours");
}

fn until_served(stack: &Stack, path: &str, expected: &str) {
    stack.until(expected, || stack.get(path).text() == expected);
}

fn as_browser(stack: &Stack, path: &str) -> Answer {
    stack
        .client()
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*\r\n\r\n"
        ))
        .answer(false)
}

#[test]
fn what_is_saved_is_served() {
    let stack = site().start();
    assert_eq!(stack.get("/").text(), "version 1");
    assert!(
        stack.logged().contains("for development (--dev)"),
        "{}",
        stack.logged()
    );
    // As editors write: over the file, beside it and then in its place, and by way of a copy.
    write(&stack, "app.py", version(2));
    until_served(&stack, "/", "version 2");
    write(&stack, ".app.py.tmp", version(3));
    fs::rename(
        stack.path().join(".app.py.tmp"),
        stack.path().join("app.py"),
    )
    .expect("ours");
    until_served(&stack, "/", "version 3");
    fs::rename(stack.path().join("app.py"), stack.path().join("app.py~")).expect("ours");
    write(&stack, "app.py", version(4));
    until_served(&stack, "/", "version 4");
    let log = stack.until_logged("app.py has changed");
    assert!(!log.contains("cannot"), "{log}");
    // A module of its own, in a folder that comes now.
    write(&stack, "shop/cart.py", "VERSION = b'version 5'\n");
    write(
        &stack,
        "app.py",
        version(4).replace("b\"version 4\"", "__import__('shop.cart').cart.VERSION"),
    );
    until_served(&stack, "/", "version 5");
    write(&stack, "shop/cart.py", "VERSION = b'version 6'\n");
    until_served(&stack, "/", "version 6");
}

#[test]
fn many_files_at_once_are_one_change() {
    let stack = site().start();
    let reloads = || stack.logged().matches("master: reloading ").count();
    let before = reloads();
    for number in 0..100 {
        write(&stack, &format!("module{number}.py"), "pass\n");
    }
    write(&stack, "app.py", version(2));
    until_served(&stack, "/", "version 2");
    let many = reloads() - before;
    assert!((1..20).contains(&many), "{many} reloads for 101 files");
}

#[test]
fn what_is_broken_is_shown_while_the_last_good_version_serves() {
    let stack = site().start();
    write(&stack, "app.py", "def app(:\n");
    let shown = || as_browser(&stack, "/html").text();
    stack.until("it is shown", || shown().contains("SyntaxError"));
    let page = shown();
    assert!(page.starts_with("version 1"), "{page}");
    assert!(
        page.contains("stack --dev: the newest version cannot be served"),
        "{page}"
    );
    assert!(page.contains("def app(:"), "{page}");
    let marked = as_browser(&stack, "/html");
    assert_eq!(marked.field("cache-control"), Some("no-store"));
    assert_eq!(marked.field("etag"), None, "it is another page");
    // Whatever is no page is as it was.
    assert_eq!(stack.get("/").text(), "version 1");
    assert!(stack.logged().contains("SyntaxError"), "{}", stack.logged());
    write(&stack, "app.py", version(2));
    until_served(&stack, "/html", "version 2");
}

#[test]
fn code_that_hangs_is_given_up_when_other_code_is_saved() {
    let stack = site().start();
    write(
        &stack,
        "app.py",
        "open('hangs', 'w').close()\nimport time\ntime.sleep(600)\n",
    );
    stack.until("it is imported", || stack.path().join("hangs").exists());
    write(&stack, "app.py", version(2));
    until_served(&stack, "/", "version 2");
    stack.until("the other one is gone", || stack.workers().len() == 1);
}

#[test]
fn an_app_that_never_worked_shows_why_and_is_mended() {
    let site = Site::with_app("import no_such_module\n").option("--dev");
    let stack = site.start();
    let page = as_browser(&stack, "/");
    assert_eq!(page.status, 503);
    let text = page.text();
    assert!(
        text.contains("<h1>ModuleNotFoundError: No module named &#39;no_such_module&#39;</h1>"),
        "{text}"
    );
    assert!(text.contains("app.py&quot;, line 1"), "{text}");
    write(&stack, "app.py", version(2));
    until_served(&stack, "/", "version 2");
    assert_eq!(stack.get("/html").text(), "version 2");
}

#[test]
fn a_request_that_fails_shows_its_traceback() {
    let stack = site().start();
    let page = as_browser(&stack, "/fail");
    assert_eq!(page.status, 500);
    let text = page.text();
    for part in [
        "stack --dev",
        "<h1>ValueError: no &lt;script&gt; here: &lt;b&gt;&lt;b&gt;&lt;b&gt;</h1>",
        "raise ValueError(&quot;no &lt;script&gt; here: &quot; + secret)",
        "Visitors of a site without it get a plain page",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("<script>"), "{text}");
    assert_eq!(page.field("cache-control"), Some("no-store"));
    let plain = stack.get("/fail").text();
    assert!(
        plain.contains("ValueError: no <script> here") && plain.contains("Traceback"),
        "{plain}"
    );
    let json = "GET /fail HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
    let json = stack.client().send(json).answer(false).text();
    let json: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
    assert!(
        json["detail"].as_str().expect("text").contains("in app\n"),
        "{json}"
    );
    // A long one is cut where it begins.
    let deep =
        "def app(environ, start_response):\n    raise ValueError('\u{fc}' * 50_000 + 'the end')\n";
    write(&stack, "app.py", deep);
    stack.until("the end", || {
        as_browser(&stack, "/").text().contains("the end")
    });
}

#[test]
fn without_it_nobody_sees_anything() {
    let stack = Site::with_app(&version(1)).start();
    let page = as_browser(&stack, "/fail").text();
    assert!(
        !page.contains("ValueError") && !page.contains("--dev"),
        "{page}"
    );
    assert_eq!(as_browser(&stack, "/fail").field("_traceback"), None);
}

/// A proxy in front that is believed speaks for a client that is far away.
#[test]
fn who_is_far_away_sees_nothing() {
    let stack = site()
        .edit("[server]", "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .start();
    let ask = |client: &str| {
        let request = format!(
            "GET /fail HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\nX-Forwarded-Proto: http\r\n\r\n"
        );
        stack.client().send(&request).answer(false).text()
    };
    assert!(!ask("192.0.2.1").contains("ValueError"));
    assert!(ask("192.168.0.7").contains("ValueError"));
}

/// A tunnel to this machine brings the internet from 127.0.0.1; only what it says of its visitors tells it from a browser here.
#[test]
fn who_comes_by_a_tunnel_sees_nothing() {
    let stack = site().start();
    let ask = |fields: &str| {
        let request = format!("GET /fail HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        stack.client().send(&request).answer(false).text()
    };
    assert!(ask("").contains("ValueError"));
    for field in ["X-Forwarded-For: 192.168.0.7", "Via: 1.1 tunnel"] {
        let page = ask(&format!("{field}\r\n"));
        assert!(!page.contains("ValueError"), "{field}: {page}");
    }
}

#[test]
fn a_changed_configuration_is_taken_over_and_a_wrong_one_is_shown() {
    let stack = site().start();
    let workers = stack.workers();
    let route = "routes = [{ path = \"/\", app = \"web\" }";
    let more = |text: &str| format!("{route}, {{ path = \"/new\", respond = {text:?} }}");
    stack.site().edit(route, &more("one"));
    until_served(&stack, "/new", "one");
    assert_eq!(stack.workers(), workers, "code has not changed");
    stack
        .site()
        .edit(&more("one"), &more("two").replace("respond", "respnod"));
    let shown = || as_browser(&stack, "/html").text();
    stack.until("it is shown", || {
        shown().contains("did you mean `respond`?")
    });
    assert_eq!(stack.get("/new").text(), "one");
    stack.site().edit("respnod", "respond");
    until_served(&stack, "/new", "two");
    assert_eq!(shown(), "version 1");
}

#[test]
fn files_are_kept_nowhere() {
    let stack = site()
        .file("static/app.3f2a9c01d4e5.css", "a {}")
        .edit(
            "routes = [",
            "hsts = \"1y\"\ntls = { cert = \"no-such.pem\", key = \"no-such.key\" }\nroutes = [{ path = \"/static/\", files = \"static\", cache = \"immutable\" }, ",
        )
        .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
        .start();
    let log =
        stack.until_logged("no-such.pem is not there: a self-signed certificate takes its place");
    assert!(!log.contains("cannot"), "{log}");
    let mut client = stack.tls_client("localhost");
    for number in 0..20 {
        let text = format!("a {{ width: {number}px }}");
        write(&stack, "static/app.3f2a9c01d4e5.css", &text);
        let answer = client.get("/static/app.3f2a9c01d4e5.css");
        assert_eq!(
            answer.text(),
            text,
            "what was there a moment ago is never served"
        );
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("strict-transport-security"), None);
    }
    assert_eq!(
        stack.logged().matches("has changed").count(),
        0,
        "they are no code"
    );
}

#[test]
fn what_the_app_writes_itself_changes_nothing() {
    const WRITES: &str = r#"
import os, sqlite3
def app(environ, start_response):
    database = sqlite3.connect("db.sqlite3")
    database.execute("create table if not exists visits (at)")
    database.execute("insert into visits values (1)")
    database.commit()
    os.makedirs("__pycache__", exist_ok=True)
    for name in ("debug.log", "upload.json", "__pycache__/x.py", ".hidden.py"):
        open(name, "a").close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"#;
    let stack = Site::with_app(WRITES).option("--dev").start();
    symlink("app.py", stack.path().join("other.txt")).expect("the folder is ours");
    let first = stack.get("/").text();
    for _ in 0..10 {
        assert_eq!(stack.get("/").text(), first);
    }
    // The next change is the first that is seen.
    write(&stack, "app.py", version(2));
    until_served(&stack, "/", "version 2");
    let log = stack.logged();
    let seen: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" changed"))
        .collect();
    assert!(
        seen.len() == 1 && seen[0].contains(": app.py has changed"),
        "{seen:?}"
    );
}

#[test]
fn serve_takes_changes_over_as_well() {
    let python = crate::harness::venv::python().display().to_string();
    let site = Site::without_file(&[
        "serve",
        "app:app",
        "--python",
        &python,
        "-w",
        "1",
        "-b",
        "127.0.0.1:0",
        "--reload",
        "--reload-extra-file",
        "data/words.txt",
    ]);
    let reads = version(1).replace("b\"version 1\"", "open('data/words.txt', 'rb').read()");
    let stack = site
        .file("data/words.txt", "one")
        .file("app.py", "import nonsense\n")
        .start();
    assert!(stack.get("/").text().contains("No module named 'nonsense'"));
    let cached = format!(
        "WORDS = open('data/words.txt', 'rb').read()\n{}",
        version(1).replace("b\"version 1\"", "WORDS")
    );
    assert_ne!(reads, cached);
    write(&stack, "app.py", cached);
    until_served(&stack, "/", "one");
    write(&stack, "data/words.txt", "two");
    until_served(&stack, "/", "two");
}

#[test]
fn a_file_to_look_after_is_for_who_reloads() {
    let output = stack_command()
        .args(["serve", "app:app", "--reload-extra-file", "x"])
        .output()
        .expect("the binary was built");
    assert_eq!(output.status.code(), Some(2));
}
