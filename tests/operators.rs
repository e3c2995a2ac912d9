//! What operators are told at an address of their own: to whom, whatever visitors do meanwhile, and in a browser.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use crate::harness::{Answer, Client, PATIENCE, Site, Stack, kill, read_some};

const APP: &str = "\
import os
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    if environ['PATH_INFO'].startswith('/wait'):
        open('inside', 'w').close()
        while not os.path.exists('go'):
            pass
    return [b'hello']
";

fn site(metrics: &str) -> Site {
    let server = format!("[server]\nadmin = \"unix:admin.sock\"\nmetrics = {metrics}");
    Site::with_app(APP).edit("[server]", &server)
}

const PLAIN: &str = "\"127.0.0.1:0\"";
const PAGE: &str = "{ listen = \"127.0.0.1:0\", page = true }";

fn address(stack: &Stack) -> SocketAddr {
    let told = stack.told("X_STACK_METRICS=").expect("told");
    told.parse().expect("an address")
}

fn ask(stack: &Stack, path: &str, fields: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    Client::plain(address(stack)).send(request).answer(false)
}

#[test]
fn the_same_figures_at_an_address_that_visitors_do_not_share() {
    let stack = site(PLAIN)
        .edit("[[site]]", "[limits]\nconnections = 1\n[[site]]")
        .start();
    // The only place for visitors is taken, and stays so.
    let mut visitor = stack.client();
    assert_eq!(visitor.get("/").status, 200);
    stack.until("it is counted", || {
        let text = ask(&stack, "/metrics", "").text();
        text.contains("stack_requests_total{site=\"*\",route=\"/\",code=\"200\"} 1\n")
    });
    let open = ask(
        &stack,
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
    );
    assert!(open.text().ends_with("# EOF\n"));
    let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
    let same = Client::unix(socket).get("/metrics").text();
    let names = |text: &str| {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&ask(&stack, "/metrics", "").text()), names(&same));
    assert_eq!(ask(&stack, "/-/live", "").text(), "live\n");
    assert_eq!(ask(&stack, "/-/ready", "").text(), "ready\n");
    for (path, status) in [("/status", 404), ("/reload", 404), ("/events", 404)] {
        assert_eq!(ask(&stack, path, "").status, status, "{path}");
    }
    let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let answer = Client::plain(address(&stack)).send(post).answer(false);
    assert_eq!(answer.status, 405);
    // Some load balancers ask for the head alone, and by whatever name.
    for path in ["/-/live", "/-/ready", "/metrics", "/"] {
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: balancer.example\r\n\r\n");
        let mut client = Client::plain(address(&stack));
        let answer = client.send(head).answer(true);
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer
                .field("content-length")
                .is_some_and(|length| length != "0"),
            "{path}"
        );
        assert!(client.is_closed(), "nothing follows: {path}");
    }
    let (_, status) = stack.site().run("status");
    assert!(
        status.contains(&format!("metrics: {}", address(&stack))),
        "{status}"
    );
}

#[test]
fn whoever_is_not_meant_hears_nothing_and_nonsense_is_refused() {
    let stack =
        site("{ listen = \"127.0.0.1:0\", page = true, allow = [\"192.0.2.0/24\"] }").start();
    for path in ["/metrics", "/-/ready", "/", "/events", "/nothing"] {
        assert_eq!(ask(&stack, path, "").status, 403, "{path}");
    }
    let stack = site(PAGE).start();
    for (bytes, status) in [
        ("GET /metrics HTTP/1.1\nHost: x\n\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /events HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (
            "GET /metrics HTTP/1.1\r\nHost: prometheus.example\r\n\r\n",
            200,
        ),
    ] {
        let answer = Client::plain(address(&stack)).send(bytes).answer(false);
        assert_eq!(answer.status, status, "{bytes:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(10_000));
    let answer = Client::plain(address(&stack)).send(long).answer(false);
    assert_eq!(answer.status, 414);
    // On the admin socket a page of somebody else's can do nothing, be there a tunnel to it or not.
    let post = "POST /drain HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n";
    let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
    assert_eq!(Client::unix(socket).send(post).answer(false).status, 403);
    assert_eq!(stack.get("/").status, 200, "it goes on");
}

/// More connections than there are places, all silent: those that speak are answered once the others' time is over or they leave.
#[test]
fn its_places_are_bounded_and_come_free() {
    let stack = site(PLAIN).start();
    let silent: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(address(&stack)).expect("it listens"))
        .collect();
    let mut waiting = Client::plain(address(&stack));
    waiting.send("GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(stack.get("/").status, 200, "visitors do not notice");
    drop(silent);
    assert_eq!(waiting.answer(false).text(), "live\n");
}

#[test]
fn it_answers_while_the_proxy_stops_and_again_after_it_died() {
    let stack = site(PLAIN).start();
    let before = stack.proxy().expect("it serves");
    kill(before, rustix::process::Signal::KILL);
    // The socket is the master's: who comes meanwhile waits.
    stack.until("ready again", || ask(&stack, "/-/ready", "").status == 200);
    assert_ne!(stack.proxy(), Some(before));
    let mut visitor = stack.client();
    visitor.ask("/wait");
    stack.until("it runs", || stack.path().join("inside").exists());
    stack.signal(rustix::process::Signal::TERM);
    stack.until("it says so", || {
        ask(&stack, "/-/ready", "").text() == "not ready: draining\n"
    });
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(visitor.answer(false).text(), "hello");
    assert!(stack.wait().success());
}

#[test]
fn a_reload_moves_it() {
    let stack = site(PLAIN).start();
    let before = address(&stack);
    let site = stack
        .site()
        .edit(&format!("metrics = {PLAIN}"), &format!("metrics = {PAGE}"));
    assert_eq!(site.run("reload").0, Some(0));
    assert_eq!(
        address(&stack),
        before,
        "the same address is the same socket"
    );
    assert!(ask(&stack, "/", "").text().contains("<title>stack</title>"));
    let site = site.edit(&format!("metrics = {PAGE}"), "");
    assert_eq!(site.run("reload").0, Some(0));
    stack.until("it is closed", || TcpStream::connect(before).is_err());
    assert_eq!(stack.get("/").status, 200);
}

/// A browser that stays on the page until it is dropped; what it prints goes to a file. `None` where there is no Chromium, which is
/// said loudly, and is an error in CI.
struct Browser {
    chromium: Child,
    profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let said = fs::File::create(profile.path().join("said")).expect("the folder is ours");
        let chromium = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args([
                "--disable-sync",
                "--enable-logging=stderr",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .current_dir(profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn();
        let Ok(chromium) = chromium else {
            assert!(std::env::var_os("CI").is_none(), "CI has no chromium");
            println!("!!! NOT TRIED IN A BROWSER: chromium is not installed");
            return None;
        };
        Some(Self { chromium, profile })
    }

    /// The titles of what it shows, as its debugger tells them; nothing before it listens.
    fn titles(&self) -> String {
        let port = fs::read_to_string(self.profile.path().join("DevToolsActivePort"));
        let port = port.ok().and_then(|text| text.lines().next()?.parse().ok());
        let Some(port) = port else {
            return String::new();
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut debugger = TcpStream::connect(address).expect("it listens");
        debugger
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid time");
        let asked = format!("GET /json/list HTTP/1.1\r\nHost: {address}\r\n\r\n");
        debugger.write_all(asked.as_bytes()).expect("it reads");
        // Its answers are not as strict as the harness's client.
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !answer.trim_ascii_end().ends_with(b"]") {
            let read = read_some(&mut debugger, &mut piece).expect("it answers");
            assert_ne!(read, 0, "the debugger ended");
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn complaints(&self) -> Vec<String> {
        let said = fs::read_to_string(self.profile.path().join("said")).expect("it is there");
        let lines = said.lines().filter(|line| line.contains("CONSOLE"));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.chromium.kill();
        let _ = self.chromium.wait();
    }
}

/// The page's title says how many requests come in a second, once its script has drawn all of a summary.
#[test]
fn a_browser_shows_what_runs_and_takes_paths_for_text() {
    let stack = site(PAGE).start();
    let mut visitor = stack.client();
    visitor.ask("/wait/%3Cimg%20src=x%20onerror=document.title=1%3E");
    stack.until("it runs", || stack.path().join("inside").exists());
    let mut events = Client::plain(address(&stack));
    events.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = events.answer_head();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(events.exactly(6), b"data: ");
    let Some(browser) = Browser::open(&format!("http://{}/", address(&stack))) else {
        return;
    };
    stack.until("the page is live", || {
        browser.titles().contains("\"0/s · stack\"")
    });
    for _ in 0..5 {
        stack.get("/");
    }
    stack.until("it has changed", || {
        let titles = browser.titles();
        titles.contains("/s · stack\"") && !titles.contains("\"0/s · stack\"")
    });
    assert_eq!(browser.complaints(), Vec::<String>::new());
    fs::write(stack.path().join("go"), "").expect("the folder is ours");
    assert_eq!(visitor.answer(false).text(), "hello");
}
