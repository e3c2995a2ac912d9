//! Whoever dies, the rest goes on: a worker, the proxy, the master. And whoever lives has what it needs, nothing more.

use std::{collections::BTreeSet, fs, net::TcpStream};

use rustix::process::Signal;

use crate::harness::{
    Client, Site, Stack, children, command_line, descriptors, is_alive, kill, tls::Offer,
};

/// Does what its path says; `/wait` touches `inside` and returns when there is `go`.
const APP: &str = r#"
import ctypes, json, os, pathlib, subprocess, time

pathlib.Path("imported").open("a").write("x")

def app(environ, start_response):
    body = b"ok"
    path = environ["PATH_INFO"]
    if path == "/wait":
        pathlib.Path("inside").touch()
        while not os.path.exists("go"):
            time.sleep(0.01)
    elif path == "/exit":
        os._exit(3)
    elif path == "/crash":
        ctypes.string_at(0)
    elif path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/environment":
        body = json.dumps(dict(os.environ)).encode()
    elif path == "/child":
        # The worst case: nothing is closed for it.
        list_all = "ls -l /proc/self/fd"
        body = subprocess.run(["sh", "-c", list_all], close_fds=False, capture_output=True).stdout
    elif path == "/daemon":
        body = str(subprocess.Popen(["sleep", "600"]).pid).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"#;

/// Asks for `/wait` and returns when the app is inside.
fn busy(stack: &Stack) -> Client {
    let mut client = stack.client();
    client.ask("/wait");
    let inside = stack.path().join("inside");
    stack.until("a request is inside", || inside.exists());
    client
}

fn only_worker(stack: &Stack) -> u32 {
    let workers = stack.workers();
    assert_eq!(workers.len(), 1, "{}", stack.logged());
    workers[0]
}

#[test]
fn nobody_notices_the_death_of_an_idle_worker() {
    let stack = Site::with_app(APP).start();
    let mut client = stack.client();
    assert_eq!(client.get("/").status, 200);
    let worker = only_worker(&stack);
    kill(worker, Signal::KILL);
    // While it dies it can still take a request, and then that one is lost.
    stack.until("it is dead", || !is_alive(worker));
    assert_eq!(client.get("/").status, 200);
    stack.until_logged(&format!("web·1 (pid {worker}) died: killed by SIGKILL"));
    stack.until_logged("web·2");
}

#[test]
fn a_worker_that_is_killed_takes_its_own_request_along_and_no_other() {
    let stack = Site::with_app(APP)
        .edit("workers = 1", "workers = 2")
        .start();
    let mut client = busy(&stack);
    let worker: BTreeSet<u32> = stack.workers().into_iter().collect();
    // Which of the two has it, the other one answers.
    let other: u32 = stack.get("/pid").text().parse().expect("a process id");
    let worker = *worker.iter().find(|pid| **pid != other).expect("two");
    kill(worker, Signal::KILL);
    let answer = client.answer(false);
    assert_eq!(answer.status, 502);
    let id = answer.field("x-request-id").expect("it has an id");
    assert!(answer.text().contains(id), "the page says the id");
    stack.until_logged(&format!("(pid {worker}) died: killed by SIGKILL"));
    stack.until_logged(&format!("request {id} (GET /wait): 502 worker-died"));
    stack.until("a new worker", || stack.workers().len() == 2);
    assert_eq!(stack.get("/").status, 200);
}

/// What it was doing used to be an id, to be looked for in another log; the two lines now join by the worker's name.
#[test]
fn the_log_says_what_a_dead_worker_was_doing() {
    let stack = Site::with_app(APP).start();
    let mut client = busy(&stack);
    let pid = only_worker(&stack);
    kill(pid, Signal::SEGV);
    let answer = client.answer(false);
    let id = answer.field("x-request-id").expect("it has an id");
    stack.until_logged(&format!("web·1 (pid {pid}) died: killed by SIGSEGV"));
    stack.until_logged(&format!(
        "request {id} (GET /wait): 502 worker-died: worker web·1 died while it ran the request: killed by SIGSEGV"
    ));
}

#[test]
fn a_worker_that_leaves_by_itself_has_died() {
    let stack = Site::with_app(APP).start();
    for (path, how) in [("/exit", "exit code 3"), ("/crash", "killed by SIGSEGV")] {
        let answer = stack.get(path);
        assert_eq!(answer.status, 502, "{path}");
        stack.until_logged(&format!("died: {how}"));
        stack.until("another one", || stack.get("/").status == 200);
    }
    let log = stack.logged();
    // faulthandler's last words.
    assert!(
        log.contains("Fatal Python error: Segmentation fault"),
        "{log}"
    );
}

#[test]
fn a_crashing_app_is_started_less_and_less_often() {
    let stack = Site::with_app("import os\nos._exit(3)\n").start();
    stack.until_logged("exit code 3 before it was ready; next try in 800 ms");
    assert_eq!(stack.get("/").status, 503);
}

#[test]
fn the_death_of_the_proxy_is_one_broken_connection() {
    let stack = Site::with_app(APP).start();
    let workers = stack.workers();
    let mut open = stack.client();
    assert_eq!(open.get("/").status, 200);
    let proxy = stack.proxy().expect("it runs");
    kill(proxy, Signal::KILL);
    // Never refused: the socket is the master's.
    assert_eq!(stack.get("/").status, 200);
    assert!(open.is_closed());
    assert_eq!(stack.workers(), workers, "workers live on");
    assert_ne!(stack.proxy(), Some(proxy));
    stack.until_logged(&format!("the proxy (pid {proxy}) died: killed by SIGKILL"));
}

/// The wait used to grow to half a minute with each death that came soon after another, and with it that of every visitor.
#[test]
fn a_proxy_that_dies_often_is_soon_followed_by_another() {
    let stack = Site::with_app(APP).start();
    for _ in 0..7 {
        let proxy = stack.proxy().expect("it serves");
        kill(proxy, Signal::KILL);
        // In the backlog until the next one serves.
        assert_eq!(stack.get("/").status, 200);
    }
    stack.until_logged("another starts in 1 s");
    let longer = ["another starts in 1.6 s", "another starts in 3.2 s"];
    let logged = stack.logged();
    assert!(!longer.iter().any(|wait| logged.contains(wait)), "{logged}");
}

/// It used to be made anew by each proxy, so that a browser that had been told to trust it warned again after a crash.
#[test]
fn a_new_proxy_shows_the_same_self_signed_certificate() {
    let stack = Site::with_app(APP)
        .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
        .edit("hosts = [\"*\"]", "hosts = [\"*\"]\ntls = \"self-signed\"")
        .start();
    let shown = || Offer::nameless().certificate(stack.https());
    let before = shown();
    let proxy = stack.proxy().expect("it runs");
    kill(proxy, Signal::KILL);
    assert_eq!(shown(), before);
    assert_ne!(stack.proxy(), Some(proxy));
    let made = stack.logged().matches("self-signed certificate").count();
    assert_eq!(made, 1, "made once, said once");
}

/// A request that is inside when the proxy dies holds its slot until it is done, and then the slot is free for the new proxy.
#[test]
fn a_new_proxy_gets_the_slots_back() {
    let stack = Site::with_app(APP).start();
    let _lost = busy(&stack);
    kill(stack.proxy().expect("it runs"), Signal::KILL);
    assert_eq!(stack.get("/").status, 200, "the other slot");
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    let mut clients = [busy(&stack), busy(&stack)];
    for client in &mut clients {
        assert_eq!(client.answer(false).status, 200);
    }
}

#[test]
fn nothing_outlives_the_master() {
    let run = tempfile::tempdir().expect("a temporary folder");
    let stack = Site::with_app(APP)
        .env("XDG_RUNTIME_DIR", &run.path().display().to_string())
        .start();
    let address = stack.http();
    let mut family = stack.workers();
    family.extend(stack.proxy());
    assert_eq!(family.len(), 2);
    kill(stack.pid(), Signal::KILL);
    stack.wait();
    // The kernel kills them in the moment of its death; they need a moment for theirs.
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while family.iter().any(|pid| is_alive(*pid)) {
        assert!(std::time::Instant::now() < deadline, "orphans are left");
        std::thread::yield_now();
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    let again = stack
        .site()
        .edit("127.0.0.1:0", &address.to_string())
        .start();
    assert_eq!(again.http(), address);
    assert_eq!(again.get("/").status, 200);
    assert_eq!(fs::read_dir(run.path()).expect("ours").count(), 1);
}

#[test]
fn what_an_app_starts_ends_with_its_worker() {
    let stack = Site::with_app(APP).start();
    let daemon: u32 = stack.get("/daemon").text().parse().expect("a process id");
    // `Popen` returns when the old memory is let go of, which is a moment before the kernel shows the new command line.
    stack.until("it runs", || command_line(daemon).contains("sleep"));
    kill(only_worker(&stack), Signal::KILL);
    stack.until("it is gone", || !is_alive(daemon));
}

#[test]
fn what_an_app_starts_inherits_none_of_our_descriptors() {
    let stack = Site::with_app(APP).start();
    let listing = stack.get("/child").text();
    let numbers: Vec<&str> = listing
        .lines()
        .filter_map(|line| line.split_once(" -> ")?.0.rsplit(' ').next())
        .collect();
    // Standard streams, and the folder that `ls` itself has open.
    assert_eq!(numbers, ["0", "1", "2", "3"], "{listing}");
    assert!(listing.contains(" 3 -> /proc/"), "{listing}");
}

#[test]
fn an_app_sees_no_variable_that_was_meant_for_us() {
    let ours = [
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "STACK_LOG",
        "JOURNAL_STREAM",
        "INVOCATION_ID",
        "MAINPID",
    ];
    let mut site = Site::with_app(APP).env("FOR_THE_APP", "yes");
    for name in &ours[1..] {
        site = site.env(name, if *name == "STACK_LOG" { "info" } else { "1" });
    }
    let stack = site.start();
    let seen = stack.get("/environment").text();
    for name in ours {
        assert!(!seen.contains(&format!("\"{name}\"")), "{name}: {seen}");
    }
    assert!(seen.contains("\"FOR_THE_APP\": \"yes\""), "{seen}");
}

#[test]
fn each_process_has_what_it_needs_open_and_nothing_else() {
    let stack = Site::with_app(APP).start();
    assert_eq!(stack.get("/").status, 200);
    let worker: Vec<String> = described(only_worker(&stack));
    // Its listener, its end of the conversation (twice: to read and to write), a connection of each of two slots; the door
    // of its crew and the end of it; output, signals, and what it writes where it is to.
    let expected = [
        "/dev/null",
        "anon_inode",
        "anon_inode",
        "pipe",
        "pipe",
        "pipe",
        "pipe",
        "pipe",
        "socket",
        "socket",
        "socket",
        "socket",
        "socket",
    ];
    assert_eq!(worker, expected);
    let proxy = stack.proxy().expect("it runs");
    // The clock's time zone is read now and then. Sockets: the channel, the listener, two slots, tokio's own.
    // And the folder in which files without names are made.
    stack.until(
        "the proxy has only pipes, sockets, events and a folder",
        || {
            let open = described(proxy);
            let sockets = open.iter().filter(|what| *what == "socket").count();
            let kinds: BTreeSet<&str> = open.iter().map(String::as_str).collect();
            sockets <= 8
                && kinds
                    == BTreeSet::from(["/dev/null", "/var/tmp", "anon_inode", "pipe", "socket"])
        },
    );
}

/// What a process has open, without numbers.
fn described(pid: u32) -> Vec<String> {
    let mut all: Vec<String> = descriptors(pid)
        .into_iter()
        .map(|(_, what)| what.split(':').next().unwrap_or_default().to_owned())
        .collect();
    all.sort();
    all
}

/// Each worker costs the master a socket pair, two pipes and a pidfd, and the proxy its connections: all of it must come back.
#[test]
fn two_hundred_workers_later_nothing_has_leaked() {
    let stack = Site::with_app(APP)
        .edit("workers = 1", "workers = 40")
        .edit("threads = 2", "threads = 1")
        // With less, the log would be cut short.
        .env("STACK_LOG", "debug")
        .start();
    let proxy = stack.proxy().expect("it runs");
    let open = |pid| descriptors(pid).len();
    let connected = |ready: usize| {
        stack.until("as many workers as there should be", || {
            stack.logged().matches(" is ready after ").count() == ready
        });
        // A slot each, the listener, the channel, and tokio's own.
        let sockets = |pid| {
            descriptors(pid)
                .iter()
                .filter(|(_, what)| what.starts_with("socket"))
                .count()
        };
        stack.until("one connection to each", || {
            (40..50).contains(&sockets(proxy))
        });
    };
    connected(40);
    let before = open(stack.pid());
    for round in 2..=6 {
        for worker in stack.workers() {
            kill(worker, Signal::KILL);
        }
        connected(round * 40);
    }
    stack.until("the master has let go", || open(stack.pid()) <= before);
    let zombies = children(stack.pid())
        .into_iter()
        .filter(|pid| !is_alive(*pid));
    assert_eq!(zombies.count(), 0);
}

/// What `ps` shows, and `top`.
#[test]
fn everybody_says_who_they_are() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 2\nmax_requests = 10")
        .start();
    let shown = |pid| command_line(pid).trim().to_owned();
    let name = |pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.expect("it runs").trim().to_owned()
    };
    let file = stack.path().join("site.toml");
    let master = format!("stack: master {}", file.display());
    assert_eq!(shown(stack.pid()), master);
    let (proxy, worker) = (stack.proxy().expect("it runs"), only_worker(&stack));
    assert_eq!(shown(proxy), "stack: proxy");
    assert_eq!(shown(worker), "stack: worker web·1");
    let names = [stack.pid(), proxy, worker].map(name);
    assert_eq!(names, ["stack: master", "stack: proxy", "stack: web·1"]);
    // A worker that is worn out and still has a request inside.
    let mut client = busy(&stack);
    for _ in 0..12 {
        stack.get("/");
    }
    stack.until("the old one drains", || {
        shown(worker) == "stack: worker web·1 (draining)"
    });
    stack.signal(Signal::TERM);
    stack.until("so do we", || {
        shown(stack.pid()) == format!("{master} (draining)")
            && shown(proxy) == "stack: proxy (draining)"
    });
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(client.answer(false).status, 200);
    assert!(stack.wait().success());
}

/// Whether we may make a container of our own: a namespace of processes.
fn may_unshare() -> bool {
    let tried = std::process::Command::new("unshare")
        .args(CONTAINER)
        .arg("true")
        .output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("!!! NOT TESTED: this user may not make a namespace of processes");
    }
    may
}

const CONTAINER: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whom an app has started by a double fork becomes a child of the first process, and that is us.
#[test]
fn in_a_container_nobody_stays_a_zombie() {
    const DAEMONS: &str = r#"
import os, signal

def app(environ, start_response):
    # One that ends before us, and one that ends after its parent: both are left to the first process.
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                open("orphans", "a").write("x")
                os._exit(0)
            os._exit(0)
        os.wait()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getppid()).encode()]
"#;
    if !may_unshare() {
        return;
    }
    let mut launcher = vec!["unshare"];
    launcher.extend(CONTAINER);
    let stack = Site::with_app(DAEMONS).through(&launcher).start();
    let inside = children(stack.pid());
    let [master] = inside[..] else {
        panic!("one child of unshare: {inside:?}");
    };
    assert_eq!(
        stack.get("/").text(),
        "1",
        "the master is the first process"
    );
    let orphans = stack.path().join("orphans");
    stack.until("all have run", || {
        fs::read(&orphans).is_ok_and(|text| text.len() == 20)
    });
    stack.until("only the proxy and the worker are left", || {
        children(master).len() == 2
    });
    // Those whom we wait for are not taken from under us.
    let worker = children(master)
        .into_iter()
        .find(|pid| command_line(*pid).starts_with("stack: worker"));
    kill(worker.expect("it is one of the two"), Signal::KILL);
    stack.until_logged("died: killed by SIGKILL");
    stack.until("another one", || stack.get("/").status == 200);
}

/// Small pages keep us small, from the first on; what the app's Python does with its memory is not ours to say.
#[test]
fn only_we_do_without_huge_pages() {
    let stack = Site::with_app(APP).start();
    let proxy = stack.proxy().expect("it runs");
    let value = |pid, file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
        // Said since Linux 5.0, and not where the kernel has none.
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let may_have = |pid| value(pid, "status", "THP_enabled:");
    let own = may_have(std::process::id());
    for (pid, who) in [(stack.pid(), "the master"), (proxy, "the proxy")] {
        assert_eq!(may_have(pid), own.as_ref().map(|_| "0".to_owned()), "{who}");
        if let Some(has) = value(pid, "smaps_rollup", "AnonHugePages:") {
            assert_eq!(has, "0 kB", "{who} had some before");
        }
    }
    assert_eq!(
        may_have(stack.workers()[0]),
        own.map(|_| "1".to_owned()),
        "a worker"
    );
}

/// Who has the next request in its hands is not interrupted by who is to answer the last one.
#[test]
fn a_worker_that_wakes_interrupts_nobody() {
    let stack = Site::with_app(APP).start();
    // proc_pid_stat(5): the 41st value, of which the second is a name in parentheses.
    let policy = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let (_, behind_name) = stat.rsplit_once(") ").expect("a name in parentheses");
        let value = behind_name.split(' ').nth(41 - 3);
        value.expect("a policy").parse::<u32>().expect("a number")
    };
    let ours = policy(std::process::id());
    assert_eq!(policy(stack.proxy().expect("it runs")), ours);
    const ORDINARY: u32 = 0;
    const BATCH: u32 = 3;
    let expected = if ours == ORDINARY { BATCH } else { ours };
    assert_eq!(policy(stack.workers()[0]), expected);
}
