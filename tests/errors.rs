//! What a visitor sees when something is missing or broken: the site's own page, or a plain one that names the request.

use crate::harness::{Answer, Site, Stack};

const APP: &str = r#"
import os

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("on purpose")
    if path == "/die":
        os._exit(3)
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"the app's own"]
"#;

fn site() -> Site {
    Site::with_app(APP)
        .edit(
            "routes = [",
            r#"errors = { 404 = "pages/404.html", 502 = "pages/gone.txt", 5xx = "pages/sorry.html" }
           routes = [{ path = "/files/", files = "pages" }, "#,
        )
        .file("pages/404.html", "<p>not here</p>")
        .file("pages/gone.txt", "gone")
        .file("pages/sorry.html", "<p>sorry</p>")
}

fn ask(stack: &Stack, path: &str, accept: &str) -> Answer {
    stack
        .client()
        .request("GET", path, &[("Accept", accept)], b"")
}

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

#[test]
fn a_site_has_pages_of_its_own() {
    let stack = site().start();
    for accept in [BROWSER, "*/*"] {
        for (path, status, kind, text) in [
            (
                "/files/missing",
                404,
                "text/html; charset=utf-8",
                "<p>not here</p>",
            ),
            ("/raise", 500, "text/html; charset=utf-8", "<p>sorry</p>"),
            ("/other", 404, "text/plain", "the app's own"),
        ] {
            let answer = ask(&stack, path, accept);
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (status, text),
                "{path}"
            );
            assert_eq!(answer.field("content-type"), Some(kind), "{path}");
        }
    }
    let answer = ask(&stack, "/raise", BROWSER);
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let json = ask(&stack, "/files/missing", "application/json");
    let value: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!(value["cause"], "no-file");
    assert_eq!(value["request_id"].as_str(), json.field("x-request-id"));
    // What went wrong may be the disk.
    std::fs::remove_dir_all(stack.path().join("pages")).expect("ours");
    assert_eq!(ask(&stack, "/raise", BROWSER).text(), "<p>sorry</p>");
    let died = ask(&stack, "/die", BROWSER);
    assert_eq!((died.status, died.text().as_str()), (502, "gone"));
    assert_eq!(
        died.field("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

#[test]
fn without_one_it_is_plain_and_names_the_request() {
    let stack = Site::with_app(APP).start();
    for (accept, kind) in [
        (BROWSER, "text/html; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("application/json", "application/json"),
    ] {
        let answer = ask(&stack, "/raise", accept);
        assert_eq!(
            (answer.status, answer.field("content-type")),
            (500, Some(kind))
        );
        let id = answer.field("x-request-id").expect("it has one");
        assert!(answer.text().contains(id), "{}", answer.text());
        assert!(answer.body.len() < 1000, "light");
        stack.until_logged(&format!("request {id} (GET /raise): 500 app-failed"));
    }
}

#[test]
fn a_page_that_is_not_there_is_said_before_anything_starts() {
    let site = site();
    std::fs::remove_file(site.path().join("pages/sorry.html")).expect("ours");
    let (code, said) = site.run("check");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("sorry.html: no such file"), "{said}");
}
