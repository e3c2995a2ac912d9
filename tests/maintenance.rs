//! Maintenance and health: who is sent away, who comes in nevertheless, and what load balancers are told meanwhile.

use rustix::process::Signal;

use crate::{
    harness::{Site, Stack, kill},
    upgrade::Heir,
};

const APP: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"#;

const SITE: &str = r#"
[server]
access_log = { format = "json" }
http = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1"]
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[[site]]
hosts = ["one.localhost", "www.one.localhost"]
maintenance = { page = "sorry.html", allow = ["10.0.0.0/8"], retry_after = "10m" }
health = "/healthz"
routes = [
    { path = "/", app = "web" },
    { path = "/files/", files = "public" },
    { path = "/.well-known/acme-challenge/", respond = "token" },
]
[[site]]
hosts = ["two.localhost"]
routes = [{ path = "/", app = "web" }]
"#;

fn site() -> Site {
    Site::new(SITE)
        .file("app.py", APP)
        .file("sorry.html", "<h1>soon</h1>")
        .file("public/a.txt", "a file")
}

fn statuses(stack: &Stack) -> (u16, u16) {
    let status = |host| stack.ask(host, "/", "").status;
    (status("one.localhost"), status("two.localhost"))
}

const INSIDE: &str = "X-Forwarded-For: 10.0.0.1\r\n";
const GUEST: &str = "X-Forwarded-For: 192.0.2.7\r\n";

/// `stack maintenance`, with these words.
fn maintenance(stack: &Stack, words: &[&str]) -> (Option<i32>, String) {
    stack.site().run_with("maintenance", words)
}

#[test]
fn visitors_are_sent_away_with_a_page_and_those_who_work_come_in() {
    let stack = site().start();
    assert_eq!(statuses(&stack), (200, 200));
    let (code, said) = maintenance(&stack, &["on", "--allow", "192.0.2.7"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("everything, but for 192.0.2.7/32"), "{said}");
    let away = stack.ask("one.localhost", "/x", "");
    assert_eq!((away.status, away.text().as_str()), (503, "<h1>soon</h1>"));
    assert_eq!(away.field("retry-after"), Some("600"));
    assert_eq!(away.field("cache-control"), Some("no-store"));
    let plain = stack.ask("two.localhost", "/files/a.txt", "");
    assert_eq!(
        (plain.status, plain.field("retry-after")),
        (503, Some("60"))
    );
    stack.until_logged("\"cause\":\"maintenance\"");
    for (host, from, status) in [
        ("one.localhost", INSIDE, 200),
        ("two.localhost", INSIDE, 503),
        ("one.localhost", GUEST, 200),
        ("two.localhost", GUEST, 200),
        ("www.one.localhost", "", 503),
    ] {
        assert_eq!(stack.ask(host, "/", from).status, status, "{host} {from}");
    }
    let path = "/.well-known/acme-challenge/x";
    assert_eq!(stack.ask("one.localhost", path, "").text(), "token");
    assert_eq!(stack.ask("one.localhost", "/healthz", "").text(), "ok\n");
    // It is no failure of ours that the error log would have to tell.
    assert!(!stack.logged().contains("WARN proxy: request"));
    let (_, status) = stack.site().run("status");
    assert!(
        status.contains("closed for maintenance: everything"),
        "{status}"
    );
    let (_, figures) = stack.site().run_with("status", &["--json"]);
    assert!(figures.contains("\"stack_maintenance\""), "{figures}");
    assert_eq!(maintenance(&stack, &["off"]).1, "everything is open\n");
    assert_eq!(statuses(&stack), (200, 200));
}

#[test]
fn it_outlives_a_reload_a_proxy_and_an_upgrade() {
    let stack = site().start();
    maintenance(&stack, &["on", "--site", "www.one.localhost"]);
    assert_eq!(statuses(&stack), (503, 200));
    assert_eq!(stack.site().run("reload").0, Some(0));
    assert_eq!(statuses(&stack), (503, 200));
    let before = stack.proxy().expect("it serves");
    kill(before, Signal::KILL);
    stack.until("another proxy serves", || {
        stack.proxy().is_some_and(|proxy| proxy != before)
            && stack.site().run("status").1.contains("proxy: serving")
    });
    assert_eq!(statuses(&stack), (503, 200));
    let (code, said) = stack.site().run("upgrade");
    assert_eq!(code, Some(0), "{said}");
    let _heir = Heir::of(&stack);
    assert_eq!(statuses(&stack), (503, 200));
    maintenance(&stack, &["off", "--site", "www.one.localhost"]);
    assert_eq!(statuses(&stack), (200, 200));
}

#[test]
fn an_app_alone_and_what_is_not_there() {
    let stack = site().start();
    maintenance(&stack, &["on", "--app", "web"]);
    assert_eq!(statuses(&stack), (503, 503));
    let file = stack.ask("one.localhost", "/files/a.txt", "");
    assert_eq!(file.text(), "a file");
    let away = stack.ask("one.localhost", "/", "");
    assert_eq!(away.text(), "<h1>soon</h1>");
    for (words, why) in [
        (
            &["on", "--app", "wob"][..],
            "there is no app \"wob\"; the apps are web",
        ),
        (&["on", "--site", "no.localhost"], "there is no site"),
        (&["on", "--allow", "me"], "write an address"),
    ] {
        let (code, said) = maintenance(&stack, words);
        assert_ne!(code, Some(0), "{words:?}");
        assert!(said.contains(why), "{words:?}: {said}");
    }
    assert_eq!(statuses(&stack), (503, 503), "nothing has changed");
}

#[test]
fn the_file_says_so_too() {
    let stack = site().edit("{ page", "{ on = true, page").start();
    assert_eq!(statuses(&stack), (503, 200));
    assert_eq!(stack.ask("one.localhost", "/", INSIDE).status, 200);
    let (_, said) = maintenance(&stack, &["off"]);
    assert!(
        said.contains("by the configuration: site one.localhost, but for 10.0.0.0/8"),
        "{said}"
    );
    assert_eq!(statuses(&stack), (503, 200), "who wrote it takes it back");
    let site = stack.site().edit("on = true, ", "");
    assert_eq!(site.run("reload").0, Some(0));
    assert_eq!(statuses(&stack), (200, 200));
}

/// Both questions on one connection: the app holds its slot until the test lets go.
const SLOW: &str = r#"
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    while not os.path.exists("go"):
        pass
    return [b"served"]
"#;

#[test]
fn load_balancers_hear_whether_it_is_well() {
    let stack = site()
        .file("app.py", "raise ValueError('no')")
        .start_unready();
    stack.until_logged("ValueError: no");
    stack.until("it says so", || {
        stack.ask("one.localhost", "/healthz", "").text() == "app web is not ready\n"
    });
    let ill = stack.ask("one.localhost", "/healthz", "");
    assert_eq!(
        (ill.status, ill.field("cache-control")),
        (503, Some("no-store"))
    );
    assert_eq!(stack.ask("two.localhost", "/healthz", "").status, 503);
    // As a balancer asks that knows addresses and no names.
    let by_address = stack.ask("192.0.2.1:8080", "/healthz", "");
    assert_eq!(by_address.text(), "app web is not ready\n");
    assert_eq!(stack.ask("192.0.2.1:8080", "/", "").status, 421);
    drop(stack);

    let stack = site().file("app.py", SLOW).start();
    assert_eq!(stack.ask("one.localhost", "/healthz?x", "").status, 200);
    assert_eq!(stack.ask("one.localhost", "/%68ealthz", "").status, 200);
    assert_eq!(stack.ask("192.0.2.1:8080", "/healthz", "").text(), "ok\n");
    assert_eq!(stack.ask("192.0.2.1:8080", "/health", "").status, 421);
    let post = "POST /healthz HTTP/1.1\r\nHost: one.localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(stack.client().send(post).answer(false).status, 405);
    let head = "HEAD /healthz HTTP/1.1\r\nHost: one.localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(stack.client().send(head).answer(true).status, 200);
    // A balancer's request that is on its way when the stop comes: the head is complete only after it.
    let mut balancer = stack.client();
    balancer.send("GET /healthz HTTP/1.1\r\nHost: one");
    let mut visitor = stack.client();
    visitor.send("GET / HTTP/1.1\r\nHost: one.localhost\r\n\r\n");
    stack.until("the request runs", || {
        stack.site().run("status").1.contains("RUNNING")
    });
    stack.signal(Signal::TERM);
    stack.until("it drains", || {
        stack.site().run("status").1.starts_with("draining")
    });
    balancer.send(".localhost\r\n\r\n");
    let answer = balancer.answer(false);
    assert_eq!((answer.status, answer.text().as_str()), (503, "stopping\n"));
    std::fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(visitor.answer(false).text(), "served");
}
