//! `stack serve app:app` is gunicorn's command, with the same result and no file.

use std::{fs, os::unix::net::UnixStream};

use crate::harness::{Client, Site, stack_command, venv};

const HELLO: &str = "\
import os
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    said = [os.environ.get('GREETING', 'hello'), environ['wsgi.url_scheme'], os.getcwd()]
    return [' '.join(said).encode()]
";

fn serve(options: &[&str]) -> Site {
    let python = venv::python().display().to_string();
    let mut command = vec!["serve", "app:app", "--python", &python, "-w", "1"];
    command.extend(options);
    Site::without_file(&command)
}

#[test]
fn one_command_serves_an_app_and_its_files() {
    let stack = serve(&[
        "-b",
        "127.0.0.1:0",
        "--static",
        "/static=public",
        "-e",
        "GREETING=good day",
        "--log-file",
        "-",
    ])
    .file("app.py", HELLO)
    .file("public/a.css", "p {}")
    .start();
    let folder = stack.path().canonicalize().expect("it is there");
    assert_eq!(
        stack.get("/").text(),
        format!("good day http {}", folder.display())
    );
    assert_eq!(stack.get("/static/a.css").text(), "p {}");
    assert!(
        stack
            .logged()
            .contains("serving app:app at http://localhost:"),
        "{}",
        stack.logged()
    );
    stack.until_logged("\"GET /static/a.css HTTP/1.1\" 200");
}

#[test]
fn a_socket_and_a_pid_file_are_there_while_it_serves() {
    let stack = serve(&[
        "-b",
        "unix:web.sock",
        "-b",
        "127.0.0.1:0",
        "--pid",
        "stack.pid",
    ])
    .file("app.py", HELLO)
    .start();
    let pid = fs::read_to_string(stack.path().join("stack.pid")).expect("it was written");
    assert_eq!(pid, format!("{}\n", stack.pid()));
    let socket = UnixStream::connect(stack.path().join("web.sock")).expect("it listens");
    assert_eq!(Client::unix(socket).get("/").status, 200);
    stack.signal(rustix::process::Signal::TERM);
    assert!(stack.wait().success());
    assert!(!stack.path().join("stack.pid").exists());
    assert!(!stack.path().join("web.sock").exists());
}

#[test]
fn certfile_and_keyfile_make_it_speak_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let stack = serve(&[
        "-b",
        "127.0.0.1:0",
        "--certfile",
        "a.pem",
        "--keyfile",
        "b.pem",
    ])
    .file("app.py", HELLO)
    .file("a.pem", made.cert.pem())
    .file("b.pem", made.signing_key.serialize_pem())
    .start();
    let answer = stack.tls_client("localhost").get("/");
    assert!(
        answer.text().starts_with("hello https"),
        "{}",
        answer.text()
    );
}

/// Nothing else is served, so there is nothing to go on for; a container's platform wants to see the end.
#[test]
fn an_app_that_cannot_start_ends_it_with_the_traceback() {
    let stack = serve(&["-b", "127.0.0.1:0"])
        .file("app.py", "import no_such_module\n")
        .start_unready();
    assert_eq!(stack.wait().code(), Some(1));
    let log = stack
        .until_said("the app cannot start: ModuleNotFoundError: No module named 'no_such_module'");
    assert!(log.contains("app.py\", line 1"), "{log}");
}

#[test]
fn mistakes_are_shown_in_the_command_line() {
    let site = Site::without_file(&[]).file("app.py", HELLO);
    let said = |arguments: &[&str]| {
        let output = stack_command()
            .arg("serve")
            .args(arguments)
            .current_dir(site.path())
            .output()
            .expect("the binary was built");
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, text) = said(&[
        "app:app",
        "-w",
        "four",
        "-b",
        "nowhere:1",
        "--static",
        "/static=none",
        "--check-config",
    ]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("stack serve app:app --workers four --bind nowhere:1 --static /static=none"),
        "{text}"
    );
    assert!(
        text.contains("paths are taken from the working directory"),
        "{text}"
    );
    assert!(text.contains("3 mistakes in the command line"), "{text}");
    let cases: [(&[&str], Option<i32>, &str); 5] = [
        (
            &["app:app", "-c", "gunicorn.conf.py"],
            Some(2),
            "stack import gunicorn.conf.py",
        ),
        (&["app:app", "-D"], Some(2), "systemd keeps it"),
        (&["app:app", "-u", "no-such-user"], Some(1), "no-such-user"),
        (
            &["app:app", "-k", "gevent"],
            Some(1),
            "there is no worker class \"gevent\"",
        ),
        (&["app:app", "--certfile", "x.pem"], Some(2), "--keyfile"),
    ];
    for (arguments, expected, hint) in cases {
        let (code, text) = said(arguments);
        assert_eq!(code, expected, "{arguments:?}: {text}");
        assert!(text.contains(hint), "{arguments:?}: {text}");
    }
    let (code, printed) = said(&["app:app", "-w", "2", "--print-config"]);
    assert_eq!(code, Some(0), "{printed}");
    fs::write(site.path().join("site.toml"), printed).expect("the folder is ours");
    let (code, text) = site.run("check");
    assert_eq!(code, Some(0), "{text}");
}
