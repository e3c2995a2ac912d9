//! Under a service manager: it may open the sockets for us, and it hears of us as long as we serve.

use std::{net::TcpStream, os::unix::net::UnixStream, path::Path};

use rustix::process::Signal;

use crate::harness::{Client, Site, kill, venv};

/// Opens sockets as systemd does and becomes the command that follows: `NAME=KIND` for each, then `--`.
const MANAGER: &str = r#"
import os, socket, sys

words = sys.argv[1:]
end = words.index("--")
sockets, names = [], []
for word in words[:end]:
    name, kind = word.split("=")
    if kind == "tcp":
        made = socket.create_server(("127.0.0.1", 0))
    elif kind == "udp":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        made = socket.socket(socket.AF_UNIX)
        made.bind(kind)
        made.listen()
    sockets.append(made)
    names.append(name)
for number, made in enumerate(sockets, 3):
    os.dup2(made.fileno(), 30 + number)
for number in range(3, 3 + len(sockets)):
    os.dup2(30 + number, number)
    os.close(30 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=":".join(names))
os.execv(words[end + 1], words[end + 1:])
"#;

fn given(site: Site, sockets: &[&str]) -> Site {
    let python = venv::python().display().to_string();
    let mut launcher = vec![python.as_str(), "-c", MANAGER];
    launcher.extend(sockets);
    launcher.push("--");
    site.through(&launcher)
}

const APP: &str = r#"
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [",".join(sorted(name for name in os.environ if name.startswith(("LISTEN", "WATCHDOG")))).encode()]
"#;

#[test]
fn sockets_of_the_manager_stand_in_for_those_of_the_file() {
    // Ports that nobody may take, so the answer can only come from what was given.
    let site = Site::with_app(APP)
        .edit("127.0.0.1:0", "192.0.2.1:1")
        .edit("[app.web]", "https = [\"192.0.2.1:2\"]\n[app.web]");
    let path = site.path().join("given.sock").display().to_string();
    let http_path = format!("http={path}");
    let stack = given(site, &["http=tcp", "https=tcp", &http_path]).start();
    assert_eq!(stack.get("/").status, 308, "to https");
    let answer = stack.tls_client("localhost").get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "", "nothing is left for the app");
    let stream = UnixStream::connect(&path).expect("it listens");
    assert_eq!(Client::unix(stream).get("/").status, 308);
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    assert!(Path::new(&path).exists(), "it is the manager's to remove");
}

#[test]
fn what_is_given_and_not_understood_is_refused() {
    for (socket, says) in [
        (
            "web=tcp",
            "the socket `web` of the service manager is for nothing that we know",
        ),
        (
            "http=udp",
            "the socket `http` of the service manager does not listen for streams",
        ),
    ] {
        let stack = given(Site::with_app(APP), &[socket]).start_unready();
        assert_eq!(stack.wait().code(), Some(1));
        assert!(stack.logged().contains(says), "{}", stack.logged());
    }
}

/// Somebody else's environment: a shell that was itself activated.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let stack = Site::with_app(APP)
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "2")
        .start();
    TcpStream::connect(stack.http()).expect("its own");
    assert_eq!(stack.get("/").text(), "");
}

#[test]
fn the_manager_hears_of_us_while_the_proxy_answers() {
    let stack = Site::with_app(APP).env("WATCHDOG_USEC", "150000").start();
    let beats = || stack.told_times("WATCHDOG=1");
    stack.until("it is heard of", || beats() >= 3);
    kill(stack.proxy().expect("it serves"), Signal::STOP);
    // One answer may have been on its way. Silence cannot be waited for; this is several times the pace.
    let before = beats();
    for _ in 0..10 {
        assert!(
            beats() <= before + 1,
            "somebody speaks for a proxy that hangs"
        );
    }
    kill(stack.proxy().expect("it is there"), Signal::CONT);
    let before = beats();
    stack.until("it is heard of again", || beats() > before);
    // A dead proxy is the master's affair, which is at work on it.
    kill(stack.proxy().expect("it serves"), Signal::KILL);
    let before = beats();
    stack.until("and all along", || beats() >= before + 3);
    assert_eq!(
        stack.get("/").text(),
        "",
        "nothing of this is left for the app"
    );
}
