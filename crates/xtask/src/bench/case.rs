//! What is asked of every server: an app, a path, a body.

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its name on the command line and above its table.
    pub(crate) name: &'static str,
    /// What the servers import.
    pub(crate) entry: &'static str,
    /// What is asked for.
    pub(crate) path: &'static str,
    /// How many bytes are posted; 0 asks with GET.
    pub(crate) body: usize,
    /// Who answers.
    pub(crate) answers: Answers,
}

/// Who answers a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The Python app.
    App,
    /// A file: a server without files of its own has no part in it.
    File,
}

/// All of them.
pub(crate) const ALL: &[Case] = &[
    Case {
        name: "hello",
        entry: "app:app",
        path: "/",
        body: 0,
        answers: Answers::App,
    },
    Case {
        name: "flask",
        entry: "flask_app:app",
        path: "/",
        body: 0,
        answers: Answers::App,
    },
    Case {
        name: "post-64k",
        entry: "app:app",
        path: "/read",
        body: 64 * 1024,
        answers: Answers::App,
    },
    Case {
        name: "response-1m",
        entry: "app:app",
        path: "/mib",
        body: 0,
        answers: Answers::App,
    },
    Case {
        name: "busy-1ms",
        entry: "app:app",
        path: "/busy",
        body: 0,
        answers: Answers::App,
    },
    Case {
        name: "file-1k",
        entry: "app:app",
        path: "/static/1k",
        body: 0,
        answers: Answers::File,
    },
    Case {
        name: "file-100k",
        entry: "app:app",
        path: "/static/100k",
        body: 0,
        answers: Answers::File,
    },
    Case {
        name: "file-10m",
        entry: "app:app",
        path: "/static/10m",
        body: 0,
        answers: Answers::File,
    },
];

/// The plain app: as little as WSGI allows, so that what is measured is the server.
pub(crate) const APP: &str = r#"
import time

MIB = b"x" * (1 << 20)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        body = b"Hello, world!\n"
    elif path == "/read":
        body = b"%d\n" % len(environ["wsgi.input"].read())
    elif path == "/mib":
        body = MIB
    else:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        body = b"busy\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

/// Flask's own first example.
pub(crate) const FLASK_APP: &str = r#"
from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "<p>Hello, World!</p>"
"#;

/// The files: name and length in bytes.
pub(crate) const FILES: &[(&str, usize)] = &[
    ("1k", 1024),
    ("100k", 100 * 1024),
    ("10m", 10 * 1024 * 1024),
];
