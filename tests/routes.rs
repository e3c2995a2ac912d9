//! What a route says beside who answers: where an app is mounted, which headers leave, where a redirect leads, and what stays
//! in the clear.

use crate::harness::{Answer, Client, Site, Stack, venv};

/// Says what it was asked, and more in headers than it should.
const ECHO: &str = r#"
import json

def app(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        raise RuntimeError("as asked")
    names = ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI"]
    body = json.dumps({name: environ[name] for name in names}).encode()
    start_response("200 OK", [("X-Powered-By", "python"), ("X-Frame-Options", "SAMEORIGIN"), ("X-Kept", "yes")])
    return [body]
"#;

fn site(https: &str, sites: &str) -> Stack {
    let interpreter = venv::python().display().to_string();
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n{https}\n\
         [app.web]\nwsgi = \"app:app\"\nroot = \".\"\npython = {interpreter:?}\nworkers = 1\nthreads = 1\n{sites}"
    );
    Site::new(&text)
        .file("app.py", ECHO)
        .file("public/a.txt", "a file")
        .file("challenges/token", "an answer")
        .start()
}

fn ask(client: &mut Client, host: &str, target: &str) -> Answer {
    client.request("GET", target, &[("Host", host)], b"")
}

#[test]
fn an_app_may_be_mounted_below_a_path() {
    let stack = site(
        "",
        r#"
        [[site]]
        routes = [
            { path = "/", app = "web" },
            { path = "/shop/", app = "web", strip = true },
            { path = "/ä/b/", app = "web", strip = true },
        ]
        "#,
    );
    for (target, script, path, query) in [
        ("/", "", "/", ""),
        ("/shop/", "/shop", "/", ""),
        ("/shop/a/b?c=d", "/shop", "/a/b", "c=d"),
        ("/shop/a%2Fb%20c", "/shop", "/a/b c", ""),
        ("/%73hop/x", "/shop", "/x", ""),
        ("/other/../shop//x/./y", "/shop", "/x/y", ""),
        ("/%C3%A4/b/c", "/ä/b", "/c", ""),
        ("/shopping", "", "/shopping", ""),
    ] {
        let seen: serde_json::Value = serde_json::from_slice(&stack.get(target).body).unwrap();
        // WSGI's strings are bytes, one character each (PEP 3333, "Unicode Issues").
        let latin: String = script.bytes().map(char::from).collect();
        assert_eq!(seen["SCRIPT_NAME"], latin.as_str(), "{target}");
        assert_eq!(seen["PATH_INFO"], path, "{target}");
        assert_eq!(seen["QUERY_STRING"], query, "{target}");
        assert_eq!(seen["REQUEST_URI"], target, "{target}");
        assert_eq!(seen["RAW_URI"], target, "{target}");
    }
    // Nothing is mounted at the path itself: relative links need the slash.
    let answer = stack.get("/shop?a=b");
    assert_eq!(
        (answer.status, answer.field("location")),
        (308, Some("/shop/?a=b"))
    );
}

#[test]
fn headers_are_set_and_removed_whatever_answers() {
    let stack = site(
        "",
        r#"
        [[site]]
        headers = { X-Frame-Options = "DENY", X-Powered-By = false, Server = false }
        routes = [
            { path = "/app/", app = "web", strip = true, headers = { X-Route = "one" } },
            { path = "/plain/", app = "web", headers = { X-Frame-Options = false, X-Powered-By = "us" } },
            { path = "/files/", files = "public", headers = { Cache-Control = "no-cache" } },
            { path = "/old", redirect = "/new" },
            { path = "/text", respond = "text" },
        ]
        "#,
    );
    let mut client = stack.client();
    for (path, status, frame, powered, server) in [
        ("/app/x", 200, Some("DENY"), None, None),
        ("/app/raise", 500, Some("DENY"), None, None),
        ("/plain/x", 200, None, Some("us"), None),
        ("/files/a.txt", 200, Some("DENY"), None, None),
        ("/files/b.txt", 404, Some("DENY"), None, None),
        ("/old", 302, Some("DENY"), None, None),
        ("/text", 200, Some("DENY"), None, None),
        ("/nowhere", 404, Some("DENY"), None, None),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.field("x-frame-options"), frame, "{path}: {answer:?}");
        assert_eq!(answer.field("x-powered-by"), powered, "{path}: {answer:?}");
        assert_eq!(answer.field("server"), server, "{path}: {answer:?}");
        let frames = answer
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-frame-options"));
        assert_eq!(
            frames.count(),
            usize::from(frame.is_some()),
            "{path}: {answer:?}"
        );
    }
    let answer = client.get("/app/x");
    assert_eq!(
        (answer.field("x-route"), answer.field("x-kept")),
        (Some("one"), Some("yes"))
    );
    let answer = client.get("/files/a.txt");
    assert_eq!(answer.field("cache-control"), Some("no-cache"));
}

#[test]
fn a_redirect_keeps_what_it_is_told_to_keep() {
    let stack = site(
        "",
        r#"
        [[site]]
        hosts = ["www.example.org"]
        routes = [{ path = "/", redirect = "https://example.org{path}{query}", status = 308 }]
        [[site]]
        hosts = ["example.org"]
        routes = [
            { path = "/old/", redirect = "/new/{rest}{query}" },
            { path = "/gone/", redirect = "/" },
        ]
        "#,
    );
    let mut client = stack.client();
    for (host, target, status, location) in [
        ("www.example.org", "/", 308, "https://example.org/"),
        (
            "www.example.org",
            "/a/b?c=d&e",
            308,
            "https://example.org/a/b?c=d&e",
        ),
        (
            "www.example.org",
            "/a%2Fb?",
            308,
            "https://example.org/a%2Fb?",
        ),
        (
            "www.example.org",
            "//evil.example/x",
            308,
            "https://example.org/evil.example/x",
        ),
        ("www.example.org", "/a/../b", 308, "https://example.org/b"),
        ("www.example.org:8080", "/x", 308, "https://example.org/x"),
        ("example.org", "/old/", 302, "/new/"),
        ("example.org", "/old/a%20b?c", 302, "/new/a%20b?c"),
        (
            "example.org",
            "/old/\\evil.example",
            302,
            "/new/%5Cevil.example",
        ),
        (
            "example.org",
            "/old//\\evil.example",
            302,
            "/new/%5Cevil.example",
        ),
        ("example.org", "/gone/a?b", 302, "/"),
    ] {
        let answer = ask(&mut client, host, target);
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.field("location"), Some(location), "{target}");
    }
}

#[test]
fn what_a_certificate_authority_looks_for_is_in_the_clear_and_nothing_else() {
    let stack = site(
        "https = [\"127.0.0.1:0\"]",
        r#"
        [[site]]
        hosts = ["with.example"]
        routes = [
            { path = "/", app = "web" },
            { path = "/.well-known/acme-challenge/", files = "challenges" },
        ]
        [[site]]
        hosts = ["without.example"]
        routes = [{ path = "/", app = "web" }, { path = "/.well-known/", files = "challenges" }]
        "#,
    );
    let port = stack.https().port();
    let mut client = stack.client();
    let answer = ask(
        &mut client,
        "with.example",
        "/.well-known/acme-challenge/token",
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "an answer"));
    let answer = ask(
        &mut client,
        "with.example",
        "/.well-known/acme-challenge/other",
    );
    assert_eq!(answer.status, 404);
    for (host, target, place) in [
        ("with.example", "/a%2Fb?c", "/a%2Fb?c"),
        (
            "with.example",
            "/.well-known/acme-challenge",
            "/.well-known/acme-challenge",
        ),
        ("with.example", "/.well-known/acme-challenge/../../x", "/x"),
        (
            "without.example",
            "/.well-known/acme-challenge/token",
            "/.well-known/acme-challenge/token",
        ),
    ] {
        let answer = ask(&mut client, host, target);
        assert_eq!(answer.status, 308, "{target}");
        let location = format!("https://{host}:{port}{place}");
        assert_eq!(
            answer.field("location"),
            Some(location.as_str()),
            "{target}"
        );
    }
}
