//! A reload brings new code and configuration without losing a request; one that fails changes nothing.

use std::{fs, os::unix::fs::symlink, thread};

use rustix::process::Signal;

use crate::{
    harness::{
        Site, Stack,
        h2::H2,
        kill,
        load::{APP, Load},
        origin::Origin,
    },
    tunnels::{SWITCHING, upgrade, upgrading},
};

/// The app of the load, in this version.
fn version(number: usize) -> String {
    APP.replace("VERSION = \"1\"", &format!("VERSION = \"{number}\""))
}

fn write(stack: &Stack, name: &str, text: impl AsRef<[u8]>) {
    fs::write(stack.path().join(name), text).expect("the folder is ours");
}

fn edit(stack: &Stack, from: &str, to: &str) {
    stack.site().edit(from, to);
}

/// Reloads, which must go well.
fn reload(stack: &Stack) {
    reload_with(stack, &[]);
}

fn reload_with(stack: &Stack, arguments: &[&str]) {
    let (code, said) = stack.site().run_with("reload", arguments);
    assert_eq!(code, Some(0), "{said}\n{}", stack.logged());
}

/// Reloads, which must fail and say this.
fn refused(stack: &Stack, says: &[&str]) {
    let (code, said) = stack.site().run("reload");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the old one serves on"), "{said}");
    for words in says {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

/// Which version answers.
fn served(stack: &Stack) -> String {
    let text = stack.get("/").text();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn new_code_under_load_is_noticed_by_nobody() {
    let stack = Site::with_app(APP)
        .edit("workers = 1", "workers = 2")
        .start();
    let load = Load::start(stack.http(), 4);
    for number in 2..8 {
        write(&stack, "app.py", version(number));
        reload(&stack);
        assert_eq!(
            served(&stack),
            number.to_string(),
            "once the command is done"
        );
    }
    load.finish(stack.path()).is_perfect();
    stack.until("the old workers are gone", || stack.workers().len() == 2);
    let log = stack.logged();
    assert!(!log.contains("died") && !log.contains("killed"), "{log}");
}

#[test]
fn code_that_does_not_start_changes_nothing() {
    let stack = Site::with_app(APP).start();
    let workers = stack.workers();
    let load = Load::start(stack.http(), 2);
    write(&stack, "app.py", "def app(:\n");
    refused(&stack, &["SyntaxError", "app.py\", line 1", "web·2"]);
    write(&stack, "app.py", "import nonsense\n");
    refused(&stack, &["No module named 'nonsense'", "Traceback"]);
    write(&stack, "app.py", "import os\nos._exit(3)\n");
    refused(&stack, &["exit code 3 before it was ready"]);
    write(
        &stack,
        "app.py",
        format!(
            "{}\ndef start():\n    raise RuntimeError('not today')\n",
            version(2)
        ),
    );
    edit(
        &stack,
        "threads = 2",
        "threads = 2\non_start = \"app:start\"",
    );
    refused(&stack, &["RuntimeError: not today"]);
    load.finish(stack.path()).is_perfect();
    assert_eq!(stack.workers(), workers);
    assert_eq!(served(&stack), "1");
    write(
        &stack,
        "app.py",
        format!("{}\ndef start():\n    pass\n", version(3)),
    );
    reload(&stack);
    assert_eq!(served(&stack), "3");
}

#[test]
fn code_that_hangs_changes_nothing() {
    let stack = Site::with_app(APP)
        .edit("threads = 2", "threads = 2\nboot_timeout = \"2s\"")
        .start();
    write(&stack, "app.py", "import time\ntime.sleep(600)\n");
    refused(&stack, &["not ready within 2 s (boot_timeout)"]);
    stack.until_logged("app.py\", line 2 in <module>");
    assert_eq!(served(&stack), "1");
}

#[test]
fn a_configuration_with_a_mistake_changes_nothing() {
    let stack = Site::with_app(APP).start();
    let proxy = stack.proxy();
    edit(&stack, "threads = 2", "threads = two");
    refused(&stack, &["site.toml:", "threads = two"]);
    edit(&stack, "threads = two", "threads = 2\nroot = \"nowhere\"");
    refused(&stack, &["`root` is written twice"]);
    edit(&stack, "threads = 2\nroot = \"nowhere\"", "threads = 2");
    edit(&stack, "[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]");
    write(&stack, "cert.pem", "nonsense");
    write(&stack, "key.pem", "nonsense");
    let tls = "hosts = [\"*\"]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }";
    edit(&stack, "hosts = [\"*\"]", tls);
    refused(&stack, &["cert.pem"]);
    assert_eq!(stack.proxy(), proxy);
    assert_eq!(served(&stack), "1");
}

#[test]
fn a_change_of_configuration_touches_no_worker_and_no_connection() {
    let stack = Site::with_app(APP).start();
    let (workers, proxy) = (stack.workers(), stack.proxy());
    let mut client = stack.client();
    assert_eq!(client.get("/").status, 200);
    let route = "routes = [{ path = \"/\", app = \"web\" }";
    let more = format!("{route}, {{ path = \"/new\", respond = \"here\" }}");
    edit(&stack, route, &more);
    reload_with(&stack, &["--config-only"]);
    assert_eq!(client.get("/new").text(), "here", "on the same connection");
    edit(&stack, "\"here\"", "\"there\"");
    edit(
        &stack,
        "threads = 2",
        "threads = 2\ntimeout = \"7s\"\nmax_age = \"1h\"",
    );
    reload_with(&stack, &["--config-only"]);
    assert_eq!(client.get("/new").text(), "there");
    assert_eq!((stack.workers(), stack.proxy()), (workers.clone(), proxy));
    // What a worker is made of is another matter.
    edit(&stack, "threads = 2", "threads = 3");
    reload_with(&stack, &["--config-only"]);
    stack.until("the old worker is gone", || stack.workers().len() == 1);
    assert_ne!(stack.workers(), workers);
    assert_eq!(
        client.get("/new").text(),
        "there",
        "and still the same connection"
    );
}

/// New code moves requests over, not connections: what lives long is told last, which is when we stop.
#[test]
fn a_reload_cuts_neither_a_tunnel_nor_http2() {
    let origin = upgrading(SWITCHING);
    let route = "routes = [{ path = \"/\", app = \"web\" }";
    let tunnel = format!(
        "tls = \"self-signed\"\n{route}, {{ path = \"/chat\", upstream = {:?} }}",
        origin.url()
    );
    let stack = Site::with_app(APP)
        .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
        .edit(route, &tunnel)
        .start();
    let mut websocket = stack.tls_client("localhost");
    upgrade(&mut websocket, "websocket");
    assert_eq!(websocket.answer_head().status, 101);
    assert_eq!(websocket.exactly(5), b"hello");
    let mut h2 = H2::connect(stack.https(), "localhost");
    for number in 2..=4 {
        let text = h2.get("/").text();
        assert!(text.starts_with(&format!("{} ", number - 1)), "{text}");
        write(&stack, "app.py", version(number));
        match number {
            2 => reload(&stack),
            3 => {
                edit(&stack, "workers = 1", "workers = 2");
                reload(&stack);
            }
            _ => reload_with(&stack, &["--app", "web"]),
        }
        websocket.send("still");
        assert_eq!(websocket.exactly(5), b"STILL");
    }
    let text = h2.get("/").text();
    assert!(text.starts_with("4 "), "{text}");
}

#[test]
fn the_number_of_workers_follows_the_configuration() {
    let stack = Site::with_app(APP).start();
    let first = stack.workers();
    edit(&stack, "workers = 1", "workers = 3");
    reload_with(&stack, &["--config-only"]);
    stack.until("three", || stack.workers().len() == 3);
    assert!(stack.workers().contains(&first[0]), "the first one goes on");
    edit(&stack, "workers = 3", "workers = 1");
    reload_with(&stack, &["--config-only"]);
    stack.until("one", || stack.workers().len() == 1);
    assert_eq!(stack.workers(), first);
}

#[test]
fn one_app_can_be_reloaded_alone() {
    let site = r#"
        [server]
        http = ["127.0.0.1:0"]
        [app.one]
        wsgi = "app:app"
        workers = 1
        [app.two]
        wsgi = "app:app"
        workers = 1
        [[site]]
        routes = [{ path = "/one/", app = "one" }, { path = "/two/", app = "two" }]
        "#;
    let stack = Site::new(site).file("app.py", APP).start();
    write(&stack, "app.py", version(2));
    reload_with(&stack, &["--app", "two"]);
    assert!(stack.get("/one/").text().starts_with("1 "));
    assert!(stack.get("/two/").text().starts_with("2 "));
    let (code, said) = stack.site().run_with("reload", &["--app", "three"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no app \"three\""), "{said}");
}

#[test]
fn apps_and_sockets_come_and_go() {
    let stack = Site::with_app(APP).start();
    let first = stack.http();
    let load = Load::start(first, 2);
    let mut client = stack.client();
    assert_eq!(client.get("/").status, 200);
    edit(
        &stack,
        "[app.web]",
        "[app.api]\nwsgi = \"api:app\"\npython = \"PYTHON\"\nworkers = 1\n[app.web]",
    );
    let python = crate::harness::venv::python().display().to_string();
    edit(&stack, "PYTHON", &python);
    let route = "routes = [{ path = \"/\", app = \"web\" }";
    edit(
        &stack,
        route,
        &format!("{route}, {{ path = \"/api/\", app = \"api\" }}"),
    );
    refused(&stack, &["No module named 'api'"]);
    stack.until("nothing is left of it", || stack.workers().len() == 1);
    write(&stack, "api.py", version(7));
    edit(
        &stack,
        "[\"127.0.0.1:0\"]",
        "[\"127.0.0.1:0\", \"127.0.0.1:0\"]",
    );
    reload(&stack);
    assert!(stack.get("/api/").text().starts_with("7 "));
    let both = stack.told("X_STACK_HTTP=").expect("told");
    let second: std::net::SocketAddr = both
        .split(',')
        .next_back()
        .expect("two")
        .parse()
        .expect("an address");
    assert_ne!(second, first);
    assert_eq!(crate::harness::Client::plain(second).get("/").status, 200);
    let api = ", { path = \"/api/\", app = \"api\" }";
    edit(&stack, api, "");
    edit(
        &stack,
        "[\"127.0.0.1:0\", \"127.0.0.1:0\"]",
        "[\"127.0.0.1:0\"]",
    );
    let text = fs::read_to_string(stack.path().join("site.toml")).expect("ours");
    let (before, after) = text.split_once("[app.api]").expect("it is there");
    let after = &after[after.find("[app.web]").expect("it is there")..];
    write(&stack, "site.toml", format!("{before}{after}"));
    reload(&stack);
    stack.until("one app's worker is left", || stack.workers().len() == 1);
    assert!(
        std::net::TcpStream::connect(second).is_err(),
        "nobody listens"
    );
    assert_eq!(
        client.get("/").status,
        200,
        "on the connection of the beginning"
    );
    load.finish(stack.path()).is_perfect();
}

#[test]
fn a_release_is_a_link_that_is_turned() {
    let site = Site::with_app("");
    for number in 1..=2 {
        site.clone()
            .file(&format!("releases/{number}/app.py"), version(number));
    }
    let link = site.path().join("current");
    symlink("releases/1", &link).expect("the folder is ours");
    let stack = site.edit("root = \".\"", "root = \"current\"").start();
    assert_eq!(served(&stack), "1");
    fs::remove_file(&link).expect("the folder is ours");
    symlink("releases/2", &link).expect("the folder is ours");
    // Who is started anew meanwhile is of the release that is served.
    kill(stack.workers()[0], Signal::KILL);
    stack.until_logged("web·2 (pid ");
    stack.until("another one", || stack.get("/").status == 200);
    assert_eq!(served(&stack), "1");
    reload(&stack);
    assert_eq!(served(&stack), "2");
}

#[test]
fn one_at_a_time_for_small_machines() {
    let stack = Site::with_app(APP)
        .edit("workers = 1", "workers = 3\nreload = \"rolling\"")
        .start();
    let load = Load::start(stack.http(), 3);
    write(&stack, "app.py", version(2));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                most = most.max(stack.workers().len());
            }
            most
        });
        reload(&stack);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        watch.join().expect("it does not panic")
    });
    assert_eq!(most, 4, "one more than there are");
    for _ in 0..12 {
        assert_eq!(served(&stack), "2");
    }
    write(&stack, "app.py", "import nonsense\n");
    refused(&stack, &["No module named 'nonsense'"]);
    load.finish(stack.path()).is_perfect();
}

#[test]
fn a_command_before_the_reload_may_forbid_it() {
    let keys = "threads = 2\nenv = { WHERE = \"there\" }\nbefore_reload = \"./migrate\"";
    let stack = Site::with_app(APP)
        .edit("threads = 2", keys)
        .program(
            "migrate",
            "#!/bin/sh\necho \"migrating $WHERE in $(pwd)\"\ncommand -v python > python\nexit 7\n",
        )
        .start();
    assert!(!stack.logged().contains("migrating"), "it is for reloads");
    write(&stack, "app.py", version(2));
    refused(
        &stack,
        &[
            "before_reload of app web failed: exit code 7",
            "migrating there in",
        ],
    );
    assert_eq!(served(&stack), "1");
    let python = fs::read_to_string(stack.path().join("python")).expect("it ran");
    assert_eq!(
        python.trim(),
        crate::harness::venv::python()
            .display()
            .to_string()
            .replace("python3", "python")
    );
    write(&stack, "migrate", "#!/bin/sh\necho done\n");
    reload(&stack);
    assert_eq!(served(&stack), "2");
    stack.until_logged("app web: before_reload: done");
    write(&stack, "migrate", "#!/bin/sh\nsleep 600\n");
    edit(
        &stack,
        "\"./migrate\"",
        "\"./migrate\"\nbefore_reload_timeout = \"1s\"",
    );
    refused(&stack, &["took longer than 1 s"]);
}

#[test]
fn a_storm_of_signals_and_commands_is_one_reload_after_the_other() {
    let stack = Site::with_app(APP).start();
    let load = Load::start(stack.http(), 2);
    write(&stack, "app.py", version(2));
    thread::scope(|scope| {
        let commands: Vec<_> = (0..3).map(|_| scope.spawn(|| reload(&stack))).collect();
        for _ in 0..50 {
            stack.signal(Signal::HUP);
        }
        for command in commands {
            command.join().expect("it went well");
        }
    });
    assert_eq!(served(&stack), "2");
    load.finish(stack.path()).is_perfect();
    let reloads = stack.logged().matches("master: reloading ").count();
    assert!(reloads < 10, "{reloads} for 53 wishes");
}

#[test]
fn what_is_on_its_way_is_finished_by_who_began_it() {
    const STREAM: &str = r#"
import os, pathlib, time

def app(environ, start_response):
    if environ["PATH_INFO"] != "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"1"]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    def events():
        yield b"begin\n"
        while not os.path.exists("go"):
            time.sleep(0.01)
        yield b"end\n"
    return events()
"#;
    let stack = Site::with_app(STREAM).start();
    let mut client = stack.client();
    client.ask("/stream");
    assert_eq!(client.answer_head().status, 200);
    let first = client.exactly("6\r\nbegin\n\r\n".len());
    assert!(first.ends_with(b"begin\n\r\n"), "{first:?}");
    write(&stack, "app.py", STREAM.replace("[b\"1\"]", "[b\"2\"]"));
    reload(&stack);
    assert_eq!(
        stack.get("/").text(),
        "2",
        "new requests are not kept waiting"
    );
    write(&stack, "go", "");
    let rest = client.exactly("4\r\nend\n\r\n0\r\n\r\n".len());
    assert!(rest.ends_with(b"end\n\r\n0\r\n\r\n"), "{rest:?}");
    stack.until("the old worker is gone", || stack.workers().len() == 1);
    assert!(!stack.logged().contains("has not finished in time"));
}

#[test]
fn a_reload_mends_an_app_that_crashes() {
    let stack = Site::with_app("import os\nos._exit(3)\n").start();
    assert_eq!(stack.get("/").status, 503);
    refused(&stack, &["exit code 3"]);
    // Its next try is not soon.
    stack.until_logged("next try in 1.6 s");
    write(&stack, "app.py", version(2));
    reload(&stack);
    assert_eq!(served(&stack), "2");
}

#[test]
fn whoever_dies_during_a_reload_the_reload_goes_on() {
    let slow = |number| format!("import time\ntime.sleep(1)\n{}", version(number));
    let stack = Site::with_app(APP)
        .edit("workers = 1", "workers = 2")
        .start();
    write(&stack, "app.py", slow(2));
    thread::scope(|scope| {
        let command = scope.spawn(|| reload(&stack));
        stack.until("new workers start", || stack.workers().len() == 4);
        let old = *stack.workers().iter().min().expect("four");
        kill(old, Signal::KILL);
        command.join().expect("it went well");
    });
    assert_eq!(served(&stack), "2");
    write(&stack, "app.py", slow(3));
    stack.until("two workers", || stack.workers().len() == 2);
    let proxy = stack.proxy().expect("it runs");
    thread::scope(|scope| {
        let command = scope.spawn(|| reload(&stack));
        stack.until("new workers start", || stack.workers().len() == 4);
        kill(proxy, Signal::KILL);
        command.join().expect("it went well");
    });
    assert_ne!(stack.proxy(), Some(proxy));
    assert_eq!(served(&stack), "3");
}

#[test]
fn a_stop_ends_a_reload() {
    let stack = Site::with_app(APP).start();
    write(&stack, "app.py", "import time\ntime.sleep(600)\n");
    thread::scope(|scope| {
        let command = scope.spawn(|| stack.site().run("reload"));
        stack.until("a new worker starts", || stack.workers().len() == 2);
        stack.signal(Signal::TERM);
        let (code, said) = command.join().expect("it ends");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("it is stopping"), "{said}");
    });
    assert_eq!(stack.wait().code(), Some(0));
}

/// A proxy has confined itself to the folders of its first configuration. Another one serves those of the next.
#[test]
fn what_needs_more_rights_is_another_proxy() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    fs::write(elsewhere.path().join("a.txt"), "elsewhere").expect("the folder is ours");
    // Outside of where temporary files may be written.
    let spool = tempfile::tempdir().expect("a temporary folder");
    let stack = Site::with_app(APP)
        .edit("[server]", &format!("[server]\nspool = {:?}", spool.path()))
        .start();
    let proxy = stack.proxy().expect("it runs");
    let load = Load::start(stack.http(), 3);
    let route = "routes = [{ path = \"/\", app = \"web\" }";
    let files = format!(
        "{route}, {{ path = \"/files/\", files = {:?} }}",
        elsewhere.path()
    );
    edit(&stack, route, &files);
    reload_with(&stack, &["--config-only"]);
    assert_eq!(stack.get("/files/a.txt").text(), "elsewhere");
    stack.until("the old proxy is gone", || !crate::harness::is_alive(proxy));
    stack.until("and its worker", || stack.workers().len() == 1);
    load.finish(stack.path()).is_perfect();
    assert!(stack.logged().contains("another one starts"));
}

/// What a reload does not change goes on: idle connections to the members of an upstream, and who of them is passed over.
#[test]
fn members_of_an_upstream_outlive_a_reload() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let stack = Site::new(&format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n[upstream.api]\nmembers = [\"unix:/nowhere/api.sock\", {:?}]\n\
         timeout = \"50s\"\nidle_timeout = \"1h\"\nretry_after = \"1h\"\n\
         [[site]]\nroutes = [{{ path = \"/\", upstream = \"api\" }}]\n",
        origin.url()
    ))
    .start();
    let ask = || {
        for _ in 0..4 {
            assert_eq!(stack.get("/").text(), "hello");
        }
        origin.seen().last().map(|seen| seen.connection)
    };
    let failed = || stack.logged().matches("api.sock fails").count();
    assert_eq!(ask(), Some(0));
    stack.until_logged("api.sock fails");
    edit(&stack, "timeout = \"50s\"", "timeout = \"40s\"");
    reload(&stack);
    assert_eq!(ask(), Some(0));
    assert_eq!(failed(), 1);
    // Members that are to behave otherwise are others.
    edit(&stack, "idle_timeout = \"1h\"", "idle_timeout = \"2h\"");
    reload(&stack);
    assert_eq!(ask(), Some(1));
    stack.until("it is tried anew", || failed() == 2);
}
