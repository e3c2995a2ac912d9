//! How it stops: what runs is finished within the grace, nothing is left behind, and a second Ctrl-C means now.

use std::{fs, net::TcpStream, path::PathBuf, time::Instant};

use rustix::process::Signal;

use crate::harness::{Client, PATIENCE, Site, Stack, h2::H2, is_alive, kill, read_some};

/// `/wait` touches `inside` and returns when there is `go`; `/big` is more than sockets and buffers hold.
const APP: &str = r#"
import atexit, os, pathlib, time

atexit.register(lambda: pathlib.Path("left").touch())

def app(environ, start_response):
    body = b"ok"
    path = environ["PATH_INFO"]
    if path == "/wait":
        pathlib.Path("inside").touch()
        while not os.path.exists("go"):
            time.sleep(0.01)
    elif path == "/big":
        body = b"x" * (32 << 20)
    elif path == "/ever":
        pathlib.Path("inside").touch()
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

/// A running stack whose run directory is known, and everybody who belongs to it.
struct Family {
    stack: Stack,
    run: tempfile::TempDir,
    members: Vec<u32>,
}

impl Family {
    fn start(site: Site) -> Self {
        let run = tempfile::tempdir().expect("a temporary folder");
        let stack = site
            .env("XDG_RUNTIME_DIR", &run.path().display().to_string())
            .start();
        let mut members = stack.workers();
        members.extend(stack.proxy());
        Self {
            stack,
            run,
            members,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.stack.path().join(name)
    }

    /// Asks for the path and returns when the app is inside.
    fn inside(&self, path: &str) -> Client {
        let mut client = self.stack.client();
        client.ask(path);
        self.stack
            .until("a request is inside", || self.file("inside").exists());
        client
    }

    /// Sends the signal and waits until it is obeyed.
    fn stop(&self, signal: Signal, said: &str) {
        self.stack.signal(signal);
        self.stack.until_logged(said);
    }

    /// It has ended well, and nothing of it is there any more.
    fn is_gone(&self) {
        let status = self.stack.wait();
        assert_eq!(status.code(), Some(0), "{}", self.stack.logged());
        for pid in &self.members {
            assert!(!is_alive(*pid), "{pid} is left: {}", self.stack.logged());
        }
        let left = fs::read_dir(self.run.path()).expect("ours").count();
        assert_eq!(left, 0, "the run directory is removed");
    }
}

#[test]
fn what_runs_is_finished_and_nothing_is_left() {
    for signal in [Signal::TERM, Signal::INT] {
        let family = Family::start(Site::with_app(APP));
        let address = family.stack.http();
        let mut running = family.inside("/wait");
        let mut idle = family.stack.client();
        assert_eq!(idle.get("/").status, 200);
        family.stop(signal, "stopping; running requests may take 30 s");
        assert!(idle.is_closed(), "idle connections close at once");
        family.stack.until("the socket is closed", || {
            TcpStream::connect(address).is_err() || is_unanswered(address)
        });
        assert!(family.stack.ended().is_none(), "it waits for what runs");
        fs::write(family.file("go"), "").expect("the folder is ours");
        let answer = running.answer(false);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        family.is_gone();
        assert!(TcpStream::connect(address).is_err());
        assert!(family.file("left").exists(), "atexit handlers have run");
    }
}

/// Whether a connection that was taken by the kernel gets no answer.
fn is_unanswered(address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return true;
    };
    stream
        .set_read_timeout(Some(std::time::Duration::from_millis(100)))
        .expect("a valid time");
    !matches!(read_some(&mut stream, &mut [0]), Ok(1..))
}

#[test]
fn an_idle_stack_stops_at_once() {
    let family = Family::start(Site::with_app(APP));
    let begun = Instant::now();
    family.stack.signal(Signal::TERM);
    family.is_gone();
    assert!(
        begun.elapsed() < PATIENCE / 4,
        "it took {:?}",
        begun.elapsed()
    );
}

#[test]
fn idle_http2_connections_are_told_and_closed() {
    let site = Site::with_app(APP)
        .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
        .edit("hosts = [\"*\"]", "hosts = [\"*\"]\ntls = \"self-signed\"");
    let family = Family::start(site);
    let mut h2 = H2::connect(family.stack.https(), "localhost");
    assert_eq!(h2.get("/").status, 200);
    let begun = Instant::now();
    family.stack.signal(Signal::TERM);
    family.is_gone();
    assert!(
        begun.elapsed() < PATIENCE / 4,
        "it took {:?}",
        begun.elapsed()
    );
}

#[test]
fn a_download_that_has_begun_is_finished() {
    let family = Family::start(Site::with_app(APP));
    let mut client = family.stack.client();
    client.ask("/big");
    let head = client.answer_head();
    assert_eq!(head.status, 200);
    family.stop(Signal::TERM, "stopping; running requests");
    assert_eq!(client.exactly(32 << 20).len(), 32 << 20);
    family.is_gone();
}

#[test]
fn a_second_interrupt_or_a_quit_does_not_wait() {
    for (first, second) in [(Some(Signal::INT), Signal::INT), (None, Signal::QUIT)] {
        let family = Family::start(Site::with_app(APP));
        let mut running = family.inside("/wait");
        if let Some(first) = first {
            family.stop(first, "stopping; running requests");
        }
        family.stop(second, "stopping at once");
        family.is_gone();
        assert!(running.is_closed(), "cut");
    }
}

#[test]
fn the_grace_ends() {
    let site = Site::with_app(APP).edit("[app.web]", "[limits]\ndrain_timeout = \"1s\"\n[app.web]");
    let family = Family::start(site);
    let mut running = family.inside("/ever");
    family.stop(Signal::TERM, "stopping; running requests may take 1 s");
    family.is_gone();
    assert!(running.is_closed(), "cut");
    let log = family.stack.logged();
    assert!(
        log.contains("1 connection cut: not finished within 1 s"),
        "{log}"
    );
    assert!(log.contains("web·1 (pid"), "{log}");
    assert!(
        log.contains("has not finished in time and is killed"),
        "{log}"
    );
}

/// A second TERM is what an impatient service manager sends; it changes nothing.
#[test]
fn told_twice_is_told_once() {
    let family = Family::start(Site::with_app(APP));
    let mut running = family.inside("/wait");
    family.stop(Signal::TERM, "stopping; running requests");
    family.stop(Signal::TERM, "already stopping");
    fs::write(family.file("go"), "").expect("the folder is ours");
    assert_eq!(running.answer(false).status, 200);
    family.is_gone();
}

/// The proxy used to be deaf while it finished what ran: a death became `worker-cut`, and those who waited for the dead
/// worker's slots waited until they were cut.
#[test]
fn a_death_while_it_stops_costs_one_request() {
    let family = Family::start(Site::with_app(APP).edit("threads = 2", "threads = 1"));
    let mut running = family.inside("/wait");
    let mut waiting = family.stack.client();
    waiting.ask("/");
    // Once the next connection is answered, the one before it was taken.
    family
        .stack
        .client()
        .send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        .answer(false);
    family.stop(Signal::TERM, "stopping; running requests");
    kill(family.stack.workers()[0], Signal::KILL);
    assert_eq!(running.answer(false).status, 502);
    assert_eq!(waiting.answer(false).status, 200, "by another worker");
    family.is_gone();
    let log = family.stack.logged();
    assert!(log.contains("502 worker-died: worker web·1"), "{log}");
}

#[test]
fn the_manager_is_told() {
    let stack = Site::with_app(APP).start();
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    assert_eq!(stack.told("STOPPING="), Some("1".to_owned()));
}
