//! More than there is room for is refused at once and by name: requests past the queue, connections past their number. What was
//! let in is served, and nothing spins.

use std::{sync::mpsc, thread};

use rustix::process::{Pid, Resource, Rlimit};

use crate::harness::{Answer, Client, Site, Stack, descriptors};

/// `/wait` says that it is inside and returns when there is `go`; everything else returns at once.
const APP: &str = r#"
import os, pathlib, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    with open("seen", "a") as seen:
        seen.write(path + "\n")
    if path.startswith("/wait"):
        pathlib.Path("inside").touch()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [path.encode()]
"#;

/// One slot.
fn narrow(limits: &str) -> Site {
    Site::with_app(APP)
        .edit("threads = 2", "threads = 1")
        .edit(
            "[server]",
            &format!("[limits]\n{limits}\n[server]\ntrusted_proxies = [\"127.0.0.1\"]\naccess_log = {{ format = \"json\" }}"),
        )
        .edit(
            "routes = [",
            "routes = [{ path = \"/health\", app = \"web\", queue = \"first\" }, ",
        )
}

/// Takes the only slot.
fn busy(stack: &Stack) -> Client {
    let mut client = stack.client();
    client.ask("/wait");
    let inside = stack.path().join("inside");
    stack.until("a request is inside", || inside.exists());
    client
}

fn go(stack: &Stack) {
    std::fs::write(stack.path().join("go"), "").expect("the folder is ours");
}

/// So many clients ask for the path at once, each as whom it says it is; their answers as they come.
fn ask_all(stack: &Stack, clients: &[(&'static str, &'static str)]) -> mpsc::Receiver<Answer> {
    let (sender, answers) = mpsc::channel();
    for &(address, path) in clients {
        let (mut client, sender) = (stack.client(), sender.clone());
        thread::spawn(move || {
            let answer = client.request("GET", path, &[("X-Forwarded-For", address)], b"");
            // The test may have failed meanwhile.
            let _ = sender.send(answer);
        });
    }
    answers
}

fn next(answers: &mpsc::Receiver<Answer>) -> Answer {
    answers
        .recv_timeout(crate::harness::PATIENCE)
        .expect("an answer")
}

/// The access record of a request for this target.
fn record(stack: &Stack, target: &str) -> serde_json::Value {
    let needle = format!("\"target\":\"{target}\"");
    let log = stack.until_logged(&needle);
    let line = log.lines().find(|line| line.contains(&needle));
    serde_json::from_str(line.expect("it was found")).expect("JSON")
}

#[test]
fn past_the_queue_it_is_503_and_those_in_it_are_served() {
    let stack = narrow("queue_length = 2").start();
    let mut inside = busy(&stack);
    let answers = ask_all(
        &stack,
        &[
            ("192.0.2.1", "/a"),
            ("192.0.2.2", "/a"),
            ("192.0.2.3", "/a"),
        ],
    );
    let refused = next(&answers);
    assert_eq!(refused.status, 503);
    let seconds = refused.field("retry-after").expect("it says when");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0));
    assert_eq!(record(&stack, "/a")["cause"], "queue-full");
    go(&stack);
    assert_eq!(next(&answers).status, 200);
    assert_eq!(next(&answers).status, 200);
    assert_eq!(inside.answer(false).status, 200);
}

#[test]
fn one_client_does_not_take_all_places() {
    let stack = narrow("queue_per_client = 1").start();
    let mut inside = busy(&stack);
    let greedy = ask_all(
        &stack,
        &[("2001:db8::1", "/greedy"), ("2001:db8::2", "/greedy")],
    );
    assert_eq!(next(&greedy).status, 503, "one /64 is one client");
    assert_eq!(record(&stack, "/greedy")["cause"], "queue-client");
    let other = ask_all(&stack, &[("192.0.2.1", "/other")]);
    go(&stack);
    assert_eq!(next(&greedy).status, 200);
    assert_eq!(next(&other).status, 200);
    assert_eq!(inside.answer(false).status, 200);
}

#[test]
fn health_checks_go_first_even_past_a_full_queue() {
    let stack = narrow("queue_length = 1").start();
    let mut inside = busy(&stack);
    let visitors = ask_all(&stack, &[("192.0.2.1", "/a"), ("192.0.2.2", "/a")]);
    // One waits, and the other knows that the queue is full.
    assert_eq!(next(&visitors).status, 503);
    let checks = ask_all(
        &stack,
        &[("192.0.2.1", "/health"), ("192.0.2.1", "/nothing")],
    );
    // The check is in the queue by the time at which the other one has been refused, or a moment later.
    assert_eq!(next(&checks).status, 503);
    go(&stack);
    assert_eq!(next(&checks).text(), "/health");
    assert_eq!(next(&visitors).status, 200);
    assert_eq!(inside.answer(false).status, 200);
}

#[test]
fn who_waits_for_too_long_is_told() {
    let stack = narrow("queue_timeout = \"50ms\"").start();
    let mut inside = busy(&stack);
    assert_eq!(stack.get("/late").status, 503);
    let record = record(&stack, "/late");
    assert_eq!(record["cause"], "queue-timeout");
    assert!(record["queue_ms"].as_f64().is_some_and(|time| time >= 50.0));
    go(&stack);
    assert_eq!(inside.answer(false).status, 200);
}

#[test]
fn a_client_that_left_the_queue_is_never_run() {
    let stack = narrow("").start();
    let mut inside = busy(&stack);
    stack.client().ask("/left");
    let record = record(&stack, "/left");
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&499.into(), &"client-left".into())
    );
    assert!(record["queue_ms"].is_number(), "{record}");
    go(&stack);
    assert_eq!(inside.answer(false).status, 200);
    assert_eq!(stack.get("/after").status, 200);
    let seen = std::fs::read_to_string(stack.path().join("seen")).expect("the app wrote it");
    assert_eq!(seen, "/wait\n/after\n");
}

#[test]
fn a_client_has_so_many_connections_and_no_more() {
    let site =
        Site::with_app(APP).edit("[server]", "[limits]\nconnections_per_client = 2\n[server]");
    let stack = site.start();
    let (mut one, mut two) = (stack.client(), stack.client());
    assert_eq!(one.get("/1").status, 200);
    assert_eq!(two.get("/2").status, 200);
    assert!(stack.client().is_closed(), "the third");
    let mut other = Client::plain_from("127.0.0.2", stack.http());
    assert_eq!(other.get("/other").status, 200, "another client");
    drop(one);
    stack.until("its place is free", || {
        let mut next = stack.client();
        next.try_get("/next")
            .is_some_and(|answer| answer.status == 200)
    });
    assert_eq!(two.get("/2").status, 200);
}

/// It used to warn ten times a second for as long as it lasted.
#[test]
fn without_descriptors_it_pauses_says_so_once_and_goes_on() {
    let stack = Site::with_app(APP).start();
    let proxy = stack.proxy().expect("it runs");
    let mut before = stack.client();
    assert_eq!(before.get("/before").status, 200);
    let limit = |most: u64| {
        let pid = Pid::from_raw(i32::try_from(proxy).expect("a pid"));
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let limit = Rlimit {
            current: Some(most),
            ..limit
        };
        rustix::process::prlimit(pid, Resource::Nofile, limit).expect("ours");
    };
    // Every number up to the highest in use is taken, and there is no other.
    let open = descriptors(proxy);
    let highest = open
        .iter()
        .map(|(number, _)| u64::from(*number))
        .max()
        .expect("some");
    let gaps = highest + 1 - open.len() as u64;
    limit(highest + 1);
    let mut filling: Vec<Client> = (0..gaps).map(|_| stack.client()).collect();
    for client in &mut filling {
        assert_eq!(client.get("/fills").status, 200);
    }
    let mut waiting = stack.client();
    waiting.ask("/next");
    stack.until_logged("cannot accept on 127.0.0.1:");
    assert_eq!(before.get("/inside").status, 200, "whoever is in is served");
    drop(before);
    assert_eq!(waiting.answer(false).status, 200);
    limit(1024);
    stack.until("it goes on", || {
        assert_eq!(stack.get("/").status, 200);
        stack.logged().contains("accepting on 127.0.0.1:")
    });
    let log = stack.logged();
    assert_eq!(log.matches("cannot accept").count(), 1, "{log}");
}

#[test]
fn a_plan_for_more_connections_than_descriptors_is_said_to_be_one() {
    let launcher = ["prlimit", "--nofile=500:1000"];
    let site = Site::with_app(APP).through(&launcher);
    let log = site.start().until_logged("leaves room for");
    assert!(
        log.contains(
            "limits.connections is 16384, and the limit of open files, 1000, leaves room for 656"
        ),
        "{log}"
    );
    let few = Site::with_app(APP).edit("[server]", "[limits]\nconnections = 100\n[server]");
    let stack = few.through(&launcher).start();
    assert_eq!(stack.get("/").status, 200);
    assert!(
        !stack.logged().contains("leaves room"),
        "{}",
        stack.logged()
    );
}
