//! Whoever runs the stack can ask it, and nobody else: the admin socket and the commands that use it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use crate::harness::{Client, Site, Stack};

const APP: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"#;

fn served_at(path: &str) -> Stack {
    Site::with_app(APP)
        .edit("[server]", &format!("[server]\nadmin = \"unix:{path}\""))
        .start()
}

#[test]
fn a_command_finds_the_master_of_its_configuration() {
    let stack = Site::with_app(APP).start();
    let (code, said) = stack.site().run("status");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with(&format!("serving (pid {})", stack.pid())),
        "{said}"
    );
    assert!(said.contains(&format!("http: {}", stack.http())), "{said}");
    assert!(said.contains("app web: 1 worker ready, 2 slots"), "{said}");
    let other = Site::with_app(APP);
    let (code, said) = other.run("status");
    assert_eq!(code, Some(1));
    assert!(said.contains("is not being served here"), "{said}");
}

#[test]
fn the_socket_is_ours_alone_and_goes_with_us() {
    let stack = served_at("admin.sock");
    let socket = stack.path().join("admin.sock");
    let mode = fs::metadata(&socket)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // Found although its place is a matter of the configuration, which a command does not read.
    fs::write(stack.path().join("site.toml"), "broken").expect("the folder is ours");
    assert_eq!(stack.site().run("status").0, Some(0));
    stack.signal(rustix::process::Signal::TERM);
    stack.wait();
    assert!(!socket.exists());
}

#[test]
fn it_is_http_and_refuses_as_http_does() {
    let stack = served_at("admin.sock");
    let ask = |bytes: &str| {
        let socket = stack.path().join("admin.sock");
        let stream = UnixStream::connect(socket).expect("it listens");
        let mut client = Client::unix(stream);
        client.send(bytes).answer(false)
    };
    let answer = ask("GET /status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert!(
        answer.text().contains("\"name\":\"web\""),
        "{}",
        answer.text()
    );
    for (asked, status) in [
        ("GET /nothing HTTP/1.1\r\n\r\n", 404),
        ("DELETE /status HTTP/1.1\r\n\r\n", 405),
        (
            "GET /status HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n",
            413,
        ),
        ("GET /status HTTP/1.1\nHost: x\n\n", 400),
    ] {
        let answer = ask(asked);
        assert_eq!(answer.status, status, "{asked}");
        assert!(
            answer.text().starts_with("{\"error\":"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn a_worker_is_replaced_for_who_asks() {
    let stack = served_at("admin.sock");
    let ask = |worker: &str| {
        let socket = UnixStream::connect(stack.path().join("admin.sock")).expect("it listens");
        let content = format!("{{\"worker\": \"{worker}\"}}");
        Client::unix(socket).post("/recycle", "application/json", content.as_bytes())
    };
    let before = stack.workers();
    assert_eq!(ask("web.7").status, 409);
    assert_eq!(ask("web·1").text(), "{\"done\":\"web·1 is replaced\"}\n");
    stack.until_logged(" has left: exit code 0");
    assert_eq!(stack.get("/").text(), "hello");
    assert_ne!(stack.workers(), before);
}

/// With `stack serve` there is no file to name it by.
#[test]
fn the_only_one_that_runs_needs_no_name() {
    let runtime = tempfile::tempdir().expect("a temporary folder");
    let python = crate::harness::venv::python().display().to_string();
    let place = runtime.path().display().to_string();
    let serve = || {
        Site::without_file(&[
            "serve",
            "app:app",
            "-w",
            "1",
            "-b",
            "127.0.0.1:0",
            "--python",
            &python,
        ])
        .file("app.py", APP)
        .env("XDG_RUNTIME_DIR", &place)
        .env("TMPDIR", &place)
        .start()
    };
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let run = |command: &[&str]| {
        let output = crate::harness::stack_command()
            .args(command)
            .env("XDG_RUNTIME_DIR", &place)
            .env("TMPDIR", &place)
            .current_dir(elsewhere.path())
            .output()
            .expect("the binary was built");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let stack = serve();
    let (code, said) = run(&["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with(&format!("serving (pid {})", stack.pid())),
        "{said}"
    );
    assert_eq!(
        run(&["log", "debug"]),
        (Some(0), "what is logged: debug\n".to_owned())
    );
    assert_eq!(
        run(&["log"]),
        (Some(0), "what is logged: info\n".to_owned())
    );
    let (code, said) = run(&["top"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("needs a terminal"), "{said}");
    let _second = serve();
    let (code, said) = run(&["status"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("2 configurations are served here: name one"),
        "{said}"
    );
}
