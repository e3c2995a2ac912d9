//! The code that is deployed: it writes down each request that it runs, and says of which version it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What the app is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framework {
    /// Nothing.
    None,
    /// Flask.
    Flask,
    /// Django.
    Django,
    /// Nothing, and all that an app can do wrong.
    Rough,
}

/// A folder with the app in it.
#[derive(Clone, Debug)]
pub(super) struct Code {
    folder: PathBuf,
    framework: Framework,
}

/// A request takes some milliseconds, so that there are always some inside.
const COMMON: &str = r#"
import os, time

VERSION = "@VERSION@"
ran = os.open(@RAN@, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def run(path, query):
    if path == "/id":
        os.write(ran, (query + "\n").encode())
        time.sleep(0.005)
    return VERSION
"#;

const PLAIN: &str = r#"
def app(environ, start_response):
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = run(environ["PATH_INFO"], environ.get("QUERY_STRING", "")).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

const FLASK: &str = r#"
from flask import Flask, request

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"], defaults={"path": ""})
@app.route("/<path:path>", methods=["GET", "POST"])
def answer(path):
    request.get_data()
    return run("/" + path, request.query_string.decode())
"#;

const DJANGO: &str = r#"
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import re_path

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a benchmark",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)


def answer(request):
    request.body
    return HttpResponse(run(request.path, request.META.get("QUERY_STRING", "")))


urlpatterns = [re_path("", answer)]
app = get_wsgi_application()
"#;

const ROUGH: &str = r#"
import ctypes, threading

first, second = threading.Lock(), threading.Lock()


def both(one, other):
    with one:
        time.sleep(0.1)
        with other:
            pass


def eat():
    eaten = []
    try:
        while True:
            eaten.append(b"x" * (8 << 20))
    except MemoryError:
        # What libraries do that ask for memory and cannot say that there is none.
        os.abort()


def events():
    for number in range(20):
        yield b"data: %d\n\n" % number
        time.sleep(0.05)


def app(environ, start_response):
    path, kind = environ["PATH_INFO"], "text/plain"
    if path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events()
    if path == "/big":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [b"x" * 65536] * 16
    if path == "/raise":
        raise RuntimeError("as it should")
    if path == "/segfault":
        ctypes.string_at(0)
    if path == "/deadlock":
        threading.Thread(target=both, args=(second, first), daemon=True).start()
        both(first, second)
    if path == "/never":
        threading.Event().wait()
    if path == "/gil":
        ctypes.PyDLL(None).sleep(60)
    if path == "/eat":
        eat()
    read = 0
    while block := environ["wsgi.input"].read(65536):
        read += len(block)
    query = environ.get("QUERY_STRING", "")
    if path == "/upload" and query:
        os.write(ran, (query + "\n").encode())
    body = (str(read) if path == "/upload" else run(path, query)).encode()
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
"#;

impl Code {
    /// An empty folder at this path, with version 1 in it.
    pub(super) fn make(folder: &Path, framework: Framework) -> io::Result<Self> {
        // Only there if there was a run before.
        let _ = fs::remove_dir_all(folder);
        // Sites of the benchmark serve files too.
        fs::create_dir_all(folder.join("static"))?;
        let code = Self {
            folder: folder.to_owned(),
            framework,
        };
        code.write(1)?;
        Ok(code)
    }

    /// Puts this version there, in one step: whoever imports meanwhile has the one or the other.
    pub(super) fn write(&self, version: u32) -> io::Result<()> {
        let ran = format!("{:?}", self.ran());
        let common = COMMON
            .replace("@VERSION@", &version.to_string())
            .replace("@RAN@", &ran);
        let app = match self.framework {
            Framework::None => PLAIN,
            Framework::Flask => FLASK,
            Framework::Django => DJANGO,
            Framework::Rough => ROUGH,
        };
        self.put(&format!("{common}{app}"))
    }

    /// Puts something there that cannot be imported.
    pub(super) fn break_it(&self) -> io::Result<()> {
        self.put("import nothing_of_that_name\n")
    }

    fn put(&self, text: &str) -> io::Result<()> {
        let next = self.folder.join("app.py.next");
        fs::write(&next, text)?;
        fs::rename(next, self.folder.join("app.py"))
    }

    /// Where the app writes the ids of what it runs.
    pub(super) fn ran(&self) -> PathBuf {
        self.folder.join("ran")
    }
}
