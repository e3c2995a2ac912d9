//! A worker that is worn out is replaced, and no request notices: the new one is ready before the old one leaves.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::harness::{
    Client, Site, Stack,
    load::{APP, Load},
};

fn with(keys: &str) -> Site {
    Site::with_app(APP).edit("workers = 1", keys)
}

/// How many workers have come, over all.
fn arrived(stack: &Stack) -> usize {
    stack.logged().matches(" is ready after ").count()
}

fn says(stack: &Stack, text: &str) -> usize {
    stack.logged().matches(text).count()
}

#[test]
fn max_requests_under_load_is_noticed_by_nobody() {
    let stack = with("workers = 2\nmax_requests = 20").start();
    let load = Load::start(stack.http(), 4);
    stack.until("twelve workers have come and ten have left", || {
        arrived(&stack) >= 12 && says(&stack, "has left: exit code 0") >= 10
    });
    let outcome = load.finish(stack.path());
    outcome.is_perfect();
    let log = stack.logged();
    assert!(
        log.contains("is replaced: it has served max_requests"),
        "{log}"
    );
    assert!(!log.contains("died"), "{log}");
    // Not many more than were asked for: a worker serves on until the next one is there, and no longer.
    assert!(outcome.answered > 10 * 18, "{}", outcome.answered);
}

#[test]
fn a_worker_that_is_too_old_or_too_large_is_replaced() {
    for (keys, why) in [
        ("workers = 1\nmax_age = \"300ms\"", "it has reached max_age"),
        ("workers = 1\nmax_rss = \"1MiB\"", "above max_rss"),
    ] {
        let stack = with(keys).start();
        let load = Load::start(stack.http(), 2);
        stack.until_logged(why);
        stack.until("another one", || arrived(&stack) >= 3);
        load.finish(stack.path()).is_perfect();
    }
}

#[test]
fn a_worker_that_cannot_be_replaced_serves_on() {
    let stack = with("workers = 1\nmax_requests = 10").start();
    std::fs::write(stack.path().join("app.py"), "import nonsense\n").expect("the folder is ours");
    let load = Load::start(stack.http(), 1);
    stack.until_logged("cannot start: ModuleNotFoundError: No module named 'nonsense'");
    let before = load.answered();
    stack.until("it goes on", || load.answered() > before + 50);
    load.finish(stack.path()).is_perfect();
    let text = APP.replace("VERSION = \"1\"", "VERSION = \"2\"");
    std::fs::write(stack.path().join("app.py"), text).expect("the folder is ours");
    stack.until("the next try is taken", || {
        stack.get("/").text().starts_with("2 ")
    });
}

#[test]
fn people_change_the_number_of_workers_by_signal() {
    let stack = with("workers = 1").start();
    let load = Load::start(stack.http(), 2);
    stack.signal(Signal::TTIN);
    stack.until("one more", || {
        stack.workers().len() == 2 && arrived(&stack) == 2
    });
    stack.signal(Signal::TTOU);
    stack.until("one less", || stack.workers().len() == 1);
    stack.signal(Signal::TTOU);
    stack.until("never none", || says(&stack, "workers from now on") == 2);
    load.finish(stack.path()).is_perfect();
}

/// Also where somebody asks how it is more often than the load is looked at, as `stack top` and what collects figures do.
#[test]
fn the_pool_grows_while_requests_wait() {
    const SLOW: &str = r#"
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"#;
    let stack = Site::with_app(SLOW)
        .edit("workers = 1", "workers = \"1..2\"")
        .edit("threads = 2", "threads = 1")
        .edit("[server]", "[server]\nadmin = \"unix:admin.sock\"")
        .start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while arrived(&stack) < 2 {
                let socket = UnixStream::connect(stack.path().join("admin.sock"));
                let mut client = Client::unix(socket.expect("it listens"));
                assert_eq!(client.get("/status").status, 200);
            }
        });
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = stack.client();
                while arrived(&stack) < 2 {
                    assert_eq!(client.get("/slow").status, 200);
                }
            });
        }
    });
    let log = stack.logged();
    assert!(log.contains("app web: 2 workers from now on"), "{log}");
}
