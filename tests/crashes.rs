//! A crash under load costs what was inside, and nothing else: every request has an id, the app writes down which it ran.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::harness::{
    Site, Stack, is_alive, kill,
    load::{APP, Load, Outcome, Why},
};

/// The app of the load, slow enough that a worker which is killed has requests inside.
fn site() -> Site {
    let write = "        os.write(ran, (environ[\"QUERY_STRING\"] + \"\\n\").encode())\n";
    assert!(APP.contains(write), "the app writes its file so");
    let slow = APP.replace(write, &format!("{write}        time.sleep(0.005)\n"));
    // With less, lines that repeat would be cut short, and each failure is to have its own.
    Site::with_app(&slow.replace("import os", "import os, time"))
        .edit("workers = 1", "workers = 2")
        .env("STACK_LOG", "debug")
}

/// Waits for a worker that was not there before.
fn another_than(stack: &Stack, known: &BTreeSet<u32>) {
    stack.until("all workers are ready again", || {
        let log = stack.logged();
        let ready = |pid: &u32| log.contains(&format!("(pid {pid}) is ready after"));
        let workers = stack.workers();
        workers.len() == 2
            && workers.iter().all(ready)
            && workers.iter().any(|pid| !known.contains(pid))
    });
}

/// Every failure is a 502 that the log names, and says that a worker died.
fn only_died_inside(outcome: &Outcome, stack: &Stack) {
    let log = stack.logged();
    for failed in &outcome.failed {
        let Why::Status {
            status: 502,
            request_id,
            content,
        } = &failed.why
        else {
            panic!("{failed:?}");
        };
        assert!(content.contains(request_id), "the page says the id");
        let line = format!("request {request_id} (");
        let named = |text: &&str| text.contains(&line) && text.contains("502 worker-died: ");
        assert_eq!(log.lines().filter(named).count(), 1, "{failed:?}");
    }
    outcome.ran_once();
    assert!(outcome.answered > 0);
}

#[test]
fn a_killed_worker_takes_what_is_inside_it_and_nothing_else() {
    const KILLS: usize = 12;
    let stack = site().start();
    let load = Load::start(stack.http(), 6);
    for kills in 0..KILLS {
        let before = load.answered();
        stack.until("it is under load", || load.answered() > before + 50);
        let workers: BTreeSet<u32> = stack.workers().into_iter().collect();
        let victim = *workers.iter().nth(kills % 2).expect("two");
        kill(victim, Signal::KILL);
        stack.until_logged(&format!("(pid {victim}) died: killed by SIGKILL"));
        another_than(&stack, &workers);
    }
    let outcome = load.finish(stack.path());
    only_died_inside(&outcome, &stack);
    // Two slots each.
    assert!(outcome.failed.len() <= KILLS * 2, "{:?}", outcome.failed);
    assert!(!outcome.failed.is_empty(), "the kills met nothing");
}

#[test]
fn a_killed_proxy_breaks_connections_and_refuses_none() {
    const KILLS: usize = 4;
    let stack = site().start();
    let load = Load::start(stack.http(), 4);
    let workers = stack.workers();
    for _ in 0..KILLS {
        let before = load.answered();
        stack.until("it serves", || load.answered() > before + 50);
        let proxy = stack.proxy().expect("it runs");
        kill(proxy, Signal::KILL);
        stack.until("another one", || {
            stack.proxy().is_some_and(|pid| pid != proxy) && !is_alive(proxy)
        });
    }
    let before = load.answered();
    stack.until("it serves again", || load.answered() > before + 50);
    let outcome = load.finish(stack.path());
    outcome.ran_once();
    let broke = |why: &Why| matches!(why, Why::Broke(_));
    assert!(
        outcome.failed.iter().all(|failed| broke(&failed.why)),
        "{:?}",
        outcome.failed
    );
    // One of each client.
    assert!(outcome.failed.len() <= KILLS * 4, "{:?}", outcome.failed);
    assert_eq!(stack.workers(), workers, "workers live on");
}

/// All at once: a deploy, worn workers, and crashes.
#[test]
fn crashes_during_reloads_cost_what_is_inside() {
    let stack = site()
        .edit("workers = 2", "workers = 2\nmax_requests = 100")
        .start();
    let load = Load::start(stack.http(), 4);
    let mut kills = 0;
    for _ in 0..4 {
        std::thread::scope(|scope| {
            let command = scope.spawn(|| stack.site().run("reload"));
            let workers = stack.workers();
            // One that is on its way out, on its way in, or serves.
            if let Some(victim) = workers.first()
                && is_alive(*victim)
            {
                kill(*victim, Signal::KILL);
                kills += 1;
            }
            let (code, said) = command.join().expect("it ends");
            // One that is killed before it is ready is the end of its reload.
            let ended = code == Some(0) || said.contains("killed by SIGKILL");
            assert!(ended, "{said}");
        });
    }
    let outcome = load.finish(stack.path());
    only_died_inside(&outcome, &stack);
    assert!(outcome.failed.len() <= kills * 2, "{:?}", outcome.failed);
}

/// A process that becomes a daemon closes all that it finds, and so does an app that takes that over. Among it is what is ours.
#[test]
fn an_app_that_closes_what_is_ours_loses_its_worker() {
    const APP: &str = r#"
import os

def app(environ, start_response):
    if environ["PATH_INFO"] == "/close":
        os.closerange(3, 1024)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"#;
    for threads in ["threads = 1", "threads = 2"] {
        let stack = Site::with_app(APP).edit("threads = 2", threads).start();
        let before = stack.get("/").text();
        assert_eq!(stack.get("/close").status, 502, "{threads}");
        stack.until("another worker serves", || {
            let answer = stack.get("/");
            answer.status == 200 && answer.text() != before
        });
    }
}
