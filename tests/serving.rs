//! One command serves an app's pages and its files, over HTTP/1.1 and HTTP/2, in the clear and by TLS.

use crate::harness::{Site, h2::H2};

const HELLO: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from " + environ["PATH_INFO"].encode("latin-1")]
"#;

#[test]
fn an_app_answers() {
    let stack = Site::with_app(HELLO).start();
    let answer = stack.get("/a");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "hello from /a")
    );
    assert_eq!(answer.field("content-type"), Some("text/plain"));
    assert_eq!(answer.field("content-length"), Some("13"));
    assert_eq!(answer.field("server"), Some("stack"));
    assert!(answer.field("date").is_some());
}

#[test]
fn a_connection_carries_one_request_after_the_other() {
    let stack = Site::with_app(HELLO).start();
    let mut client = stack.client();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.get(path).text(), format!("hello from {path}"));
    }
}

#[test]
fn the_first_page_of_the_repository() {
    let stack = Site::of_repository("config/site.toml").start();
    let mut h2 = H2::connect(stack.https(), "localhost");
    let page = h2.get("/");
    assert_eq!(page.status, 200);
    assert!(
        page.field("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    assert_eq!(
        h2.get("/static/style.css").field("content-type"),
        Some("text/css; charset=utf-8")
    );
    let mut h1 = stack.tls_client("localhost");
    assert_eq!(h1.get("/").status, 200);
    let redirect = stack.get("/x?y=1");
    let to = format!("https://127.0.0.1:{}/x?y=1", stack.https().port());
    assert_eq!(
        (redirect.status, redirect.field("location")),
        (308, Some(to.as_str()))
    );
}
