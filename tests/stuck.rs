//! A request that hangs is answered, said where it hangs, and its worker is replaced; and any worker says where it is.

use std::fs;

use rustix::process::Signal;

use crate::harness::{Client, Site, Stack, kill};

/// `/wait` touches `inside` and returns when there is `go`; `/ever` never does; `/held` never does either, and keeps the GIL.
const APP: &str = r#"
import ctypes, os, pathlib, re, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        pathlib.Path("inside").touch()
        wait_for_the_file()
    elif path == "/ever":
        pathlib.Path("inside").touch()
        loop_for_ever()
    elif path == "/held":
        pathlib.Path("inside").touch()
        backtrack()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

def wait_for_the_file():
    while not os.path.exists("go"):
        time.sleep(0.01)

def loop_for_ever():
    while True:
        time.sleep(0.01)

def backtrack():
    re.match(r"(a+)+$", "a" * 64 + "b")
"#;

fn inside(stack: &Stack, path: &str) -> Client {
    let file = stack.path().join("inside");
    let _ = fs::remove_file(&file);
    let mut client = stack.client();
    client.ask(path);
    stack.until("a request is inside", || file.exists());
    client
}

fn status(stack: &Stack) -> serde_json::Value {
    let (code, said) = stack.site().run_with("status", &["--json"]);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).expect("JSON")
}

#[test]
fn a_stuck_request_is_answered_and_shown_and_the_other_one_finishes() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 2\ntimeout = \"2s\"")
        .start();
    let before = stack.get("/").text();
    let mut stuck = inside(&stack, "/ever");
    let answer = stuck.answer(false);
    assert_eq!(answer.status, 504);
    let id = answer.field("x-request-id").expect("it has an id");
    let log = stack.until_logged("in loop_for_ever");
    assert!(
        log.contains(&format!(
            "is stuck: it has been running {id} (GET /ever) for 2"
        )),
        "{log}"
    );
    stack.until("another worker serves", || stack.get("/").text() != before);
    stack.until_logged("is replaced: a request is stuck in it");
    // What is stuck for ever is ended at last.
    stack.until("the old one is gone", || stack.workers().len() == 1);
    stack.until_logged("has not finished in time and is killed");
}

#[test]
fn the_other_requests_of_a_stuck_worker_are_finished() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 2\ntimeout = \"3s\"")
        .start();
    let mut stuck = inside(&stack, "/ever");
    // It comes so much later that its own time is not up when that of the first one is.
    stack.until("the first one has run for a second", || {
        let status = status(&stack);
        let slots = status["apps"][0]["workers"][0]["slots"].as_array();
        slots.is_some_and(|slots| {
            let since = slots
                .iter()
                .filter_map(|slot| slot["request"]["since"].as_u64());
            since.max().is_some_and(|since| since > 1000)
        })
    });
    let mut other = inside(&stack, "/wait");
    assert_eq!(stuck.answer(false).status, 504);
    stack.until_logged("is replaced: a request is stuck in it");
    stack.until_logged("web·2 (pid ");
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(other.answer(false).status, 200);
    stack.until("the old one is gone", || stack.workers().len() == 1);
}

/// Python itself cannot say where it is then: its main thread never gets the lock.
#[test]
fn where_c_code_holds_the_lock_is_shown_too() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 2\ntimeout = \"1s\"")
        .start();
    let mut stuck = inside(&stack, "/held");
    assert_eq!(stuck.answer(false).status, 504);
    let log = stack.until_logged("in backtrack");
    assert!(log.contains("C code holds the GIL"), "{log}");
    stack.until("another worker serves", || stack.get("/").status == 200);
}

#[test]
fn every_slot_stuck_is_a_worker_that_is_replaced() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 2\ntimeout = \"1s\"")
        .start();
    let mut all = [inside(&stack, "/ever"), inside(&stack, "/ever")];
    for client in &mut all {
        assert_eq!(client.answer(false).status, 504);
    }
    assert_eq!(stack.get("/").status, 200, "after a moment in the queue");
}

#[test]
fn a_trace_shows_who_is_busy_and_stops_nobody() {
    let stack = Site::with_app(APP).start();
    let (code, said) = stack.site().run("trace");
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "1 worker with nothing to do\n")
    );
    let mut client = inside(&stack, "/wait");
    let (code, said) = stack.site().run("trace");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("in wait_for_the_file"), "{said}");
    assert!(said.contains("(GET /wait) for "), "{said}");
    assert!(
        !said.contains("threading.py"),
        "only the app's frames: {said}"
    );
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(client.answer(false).status, 200);
    let (code, said) = stack.site().run_with("trace", &["nobody"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no app \"nobody\""), "{said}");
}

#[test]
fn a_status_shows_who_does_what() {
    let stack = Site::with_app(APP).start();
    stack.get("/");
    let _client = inside(&stack, "/wait");
    let status = status(&stack);
    let worker = &status["apps"][0]["workers"][0];
    assert_eq!(worker["name"], "web·1");
    assert_eq!(worker["state"], "ready");
    assert_eq!(worker["requests"], 1);
    let slots = worker["slots"].as_array().expect("a list");
    let busy: Vec<_> = slots
        .iter()
        .filter(|slot| !slot["request"].is_null())
        .collect();
    assert_eq!(busy.len(), 1);
    assert_eq!(busy[0]["request"]["target"], "/wait");
}

#[test]
fn an_import_that_hangs_is_ended_and_shown() {
    let stack = Site::with_app("import time\n\ndef connect():\n    time.sleep(600)\n\nconnect()\n")
        .edit("threads = 2", "threads = 2\nboot_timeout = \"1s\"")
        .start();
    let log = stack.until_logged("in connect");
    assert!(
        log.contains("cannot start: not ready within 1 s (boot_timeout)"),
        "{log}"
    );
    stack.until_logged("web·2 cannot start");
}

#[test]
fn what_was_running_in_a_worker_that_died_is_said() {
    let stack = Site::with_app(APP).start();
    let mut client = inside(&stack, "/wait");
    kill(stack.workers()[0], Signal::SEGV);
    let answer = client.answer(false);
    assert_eq!(answer.status, 502);
    let id = answer.field("x-request-id").expect("it has an id");
    stack.until_logged(&format!("it was running {id} (GET /wait) for "));
    stack.until("another one", || stack.get("/").status == 200);
}
