//! What every server serves: a plain app, a Flask app, files.

use std::{fs, path::Path};

use anyhow::Result;

/// As little as WSGI allows, so that what is measured is the server.
const PLAIN: &str = r#"
import os, time

MIB = b"x" * (1 << 20)
LIVE = [("X-Accel-Buffering", "no")] if os.environ.get("BENCH_UNBUFFERED") else []


def events():
    while True:
        yield b"data: %d\n\n" % time.monotonic_ns()
        time.sleep(1)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        body = b"Hello, world!\n"
    elif path == "/read":
        body = b"%d\n" % len(environ["wsgi.input"].read())
    elif path == "/mib":
        body = MIB
    elif path == "/page":
        body = MIB[: 512 * 1024]
    elif path == "/ten":
        time.sleep(0.010)
        body = b"ten\n"
    elif path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events()
    else:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        body = b"busy\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *LIVE])
    return [body]
"#;

/// The variable that has the plain app say of its responses that nobody is to keep them back.
pub(crate) const UNBUFFERED: &str = "BENCH_UNBUFFERED";

/// Flask's own first example; a page of a template, JSON.
const FLASK: &str = r#"
from flask import Flask, jsonify, render_template

app = Flask(__name__)
THINGS = [{"name": f"Thing {number}", "price": number * 1.5, "tags": ["new", "<b>"]} for number in range(40)]
RECORD = {"users": [{"id": number, "name": f"User {number}", "active": number % 2 == 0} for number in range(20)]}


@app.get("/")
def hello():
    return "<p>Hello, World!</p>"


@app.get("/page")
def page():
    return render_template("page.html", title="Things", things=THINGS)


@app.get("/json")
def record():
    return jsonify(RECORD)
"#;

/// As templates are: one that extends another, a loop, a condition, filters, escaping.
const BASE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{{ title }}</title></head>
<body>
{% block content %}{% endblock %}
</body>
</html>
"#;
const PAGE: &str = r#"{% extends "base.html" %}
{% block content %}
<h1>{{ title }} ({{ things|length }})</h1>
<ul>
{% for thing in things %}
  <li class="{{ loop.cycle('odd', 'even') }}">{{ thing.name }}: {{ "%.2f"|format(thing.price) }}
  {%- if thing.tags %} ({{ thing.tags|join(", ") }}){% endif %}</li>
{% endfor %}
</ul>
{% endblock %}
"#;

/// Name and length in bytes.
const FILES: &[(&str, usize)] = &[
    ("1k", 1024),
    ("100k", 100 * 1024),
    ("10m", 10 * 1024 * 1024),
];

/// How many files there are in the folder `many`.
pub(crate) const MANY: usize = 10_000;

/// The length of `sparse`, of which no disk holds anything.
pub(crate) const SPARSE: u64 = 1 << 30;

/// Writes all of it into a folder; the files are in its folder `static`.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let files = folder.join("static");
    fs::create_dir_all(&files)?;
    fs::write(folder.join("app.py"), PLAIN)?;
    fs::write(folder.join("flask_app.py"), FLASK)?;
    let templates = folder.join("templates");
    fs::create_dir_all(&templates)?;
    fs::write(templates.join("base.html"), BASE)?;
    fs::write(templates.join("page.html"), PAGE)?;
    for (name, length) in FILES {
        fs::write(files.join(name), vec![b'x'; *length])?;
    }
    fs::File::create(files.join("sparse"))?.set_len(SPARSE)?;
    let many = files.join("many");
    fs::create_dir_all(&many)?;
    for number in 0..MANY {
        fs::write(many.join(number.to_string()), [b'x'; 1024])?;
    }
    Ok(())
}
