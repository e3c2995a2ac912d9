//! Flask and Django, as PyPI has them, work behind TLS with no middleware: forms, uploads, sessions, CSRF, the admin.

use std::{path::Path, process::Command};

use crate::harness::{Answer, Client, Site, Stack, venv};

/// A client that keeps its cookies, as a browser does.
struct Browser {
    client: Client,
    origin: String,
    cookies: Vec<(String, String)>,
}

impl Browser {
    fn open(stack: &Stack) -> Self {
        let origin = format!("https://localhost:{}", stack.https().port());
        Self {
            client: stack.tls_client("localhost"),
            origin,
            cookies: Vec::new(),
        }
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "", b"")
    }

    fn submit(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        self.send(
            "POST",
            path,
            "application/x-www-form-urlencoded",
            pairs.join("&").as_bytes(),
        )
    }

    fn upload(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        name: &str,
        content: &[u8],
    ) -> Answer {
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!(
                "--line\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend_from_slice(part.as_bytes());
        }
        let part = format!(
            "--line\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x.bin\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--line--\r\n");
        self.send("POST", path, "multipart/form-data; boundary=line", &body)
    }

    fn send(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = cookies.join("; ");
        let referer = format!("{}{path}", self.origin);
        let mut fields = vec![("Cookie", cookies.as_str())];
        if method == "POST" {
            fields.extend([
                ("Content-Type", content_type),
                ("Origin", &self.origin),
                ("Referer", &referer),
            ]);
        }
        let answer = self.client.request(method, path, &fields, body);
        for (name, value) in &answer.fields {
            if name.eq_ignore_ascii_case("set-cookie") {
                let pair = value.split(';').next().expect("split gives one at least");
                let (name, value) = pair.split_once('=').expect("a cookie is a pair");
                self.cookies.retain(|(known, _)| known != name);
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }
}

fn flask() -> Stack {
    let site = Site::of_repository("config/flask.toml").with_venv(&venv::of_example("flask"));
    let uploads = site.path().join("uploads");
    site.env("FLASK_UPLOADS", uploads.to_str().expect("text"))
        .start()
}

#[test]
fn flask_sees_who_asked_and_how() {
    let stack = flask();
    let answer = Browser::open(&stack).get("/api/request?a=b");
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(seen["client"], "127.0.0.1");
    assert_eq!(seen["scheme"], "https");
    assert_eq!(seen["secure"], true);
    assert_eq!(
        seen["url"],
        format!("https://localhost:{}/api/request?a=b", stack.https().port())
    );
    assert_eq!(seen["request_id"].as_str(), answer.field("x-request-id"));
}

#[test]
fn flask_keeps_a_session_and_takes_forms_json_and_uploads() {
    let stack = flask();
    let mut browser = Browser::open(&stack);
    assert_eq!(browser.get("/").status, 200);
    let posted = browser.submit("/notes", &[("note", "remember+the+milk")]);
    assert_eq!((posted.status, posted.field("location")), (303, Some("/")));
    assert!(
        browser.get("/").text().contains("remember the milk"),
        "the session came back"
    );
    let sum = browser.send(
        "POST",
        "/api/sum",
        "application/json",
        br#"{"numbers": [1, 2, 39]}"#,
    );
    assert!(sum.text().contains("42"), "{}", sum.text());
    // Larger than what is kept in memory: it comes by a file.
    let content = vec![b'x'; 3 * 1024 * 1024];
    let uploaded = browser.upload("/upload", &[], "file", &content).text();
    assert!(uploaded.contains("3145728"), "{uploaded}");
    // sha256sum of three MiB of x.
    let digest = Command::new("sh")
        .args(["-c", "head -c 3145728 /dev/zero | tr '\\0' x | sha256sum"])
        .output();
    let digest = String::from_utf8(digest.expect("sha256sum is everywhere").stdout).expect("text");
    let digest = digest.split(' ').next().expect("split gives one at least");
    assert!(uploaded.contains(digest), "{uploaded}");
}

#[test]
fn flask_shows_its_own_error_pages_and_files_are_beside_it() {
    let stack = flask();
    let mut browser = Browser::open(&stack);
    assert_eq!(browser.get("/nowhere").status, 404);
    let failed = browser.get("/boom");
    assert_eq!(failed.status, 500);
    let id = failed
        .field("x-request-id")
        .expect("every answer has one")
        .to_owned();
    assert!(failed.text().contains(&id), "the page names the request");
    stack.until_logged("this page fails on purpose");
    assert_eq!(
        browser.get("/static/style.css").field("content-type"),
        Some("text/css; charset=utf-8")
    );
}

/// A Django project with its own database and collected static files, and a user who may do everything.
fn django() -> Stack {
    let venv = venv::of_example("django");
    let site = Site::of_repository("config/django.toml").with_venv(&venv);
    let folder = site.path().to_owned();
    let file = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let environment = [
        ("DJANGO_DB", file("db.sqlite3")),
        ("DJANGO_STATIC_ROOT", file("static")),
        ("DJANGO_MEDIA_ROOT", file("media")),
    ];
    let manage = |arguments: &[&str]| {
        let output = Command::new(venv.join("bin/python"))
            .arg("manage.py")
            .args(arguments)
            .current_dir(crate::harness::repository().join("examples/django"))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("DJANGO_SUPERUSER_PASSWORD", "correct-horse")
            .output()
            .expect("the venv has a Python");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    manage(&["migrate", "--verbosity", "0"]);
    manage(&["collectstatic", "--no-input", "--verbosity", "0"]);
    manage(&[
        "createsuperuser",
        "--no-input",
        "--username",
        "ada",
        "--email",
        "ada@example.org",
    ]);
    let collected = repository_static(&crate::harness::repository());
    let site = site.edit(&collected, &file("static"));
    environment
        .iter()
        .fold(site, |site, (name, value)| site.env(name, value))
        .start()
}

fn repository_static(repository: &Path) -> String {
    let path = repository.join("examples/django/static-collected");
    path.to_str().expect("text").to_owned()
}

/// The token that a form of Django carries.
fn token(page: &Answer) -> String {
    let text = page.text();
    let (_, rest) = text
        .split_once("name=\"csrfmiddlewaretoken\" value=\"")
        .expect("the form has a token");
    rest.split('"')
        .next()
        .expect("split gives one at least")
        .to_owned()
}

#[test]
fn django_logs_in_over_https_and_takes_an_upload() {
    let stack = django();
    let mut browser = Browser::open(&stack);
    let login = browser.get("/accounts/login/?next=/notes/");
    assert_eq!(login.status, 200);
    let form = [
        ("csrfmiddlewaretoken", token(&login)),
        ("username", "ada".to_owned()),
        ("password", "correct-horse".to_owned()),
        ("next", "/notes/".to_owned()),
    ];
    let form: Vec<(&str, &str)> = form
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let logged_in = browser.submit("/accounts/login/", &form);
    assert_eq!(
        (logged_in.status, logged_in.field("location")),
        (302, Some("/notes/")),
        "{}",
        logged_in.text()
    );
    let notes = browser.get("/notes/");
    assert_eq!(notes.status, 200);
    let token = token(&notes);
    let fields = [
        ("csrfmiddlewaretoken", token.as_str()),
        ("text", "with an attachment"),
    ];
    let saved = browser.upload("/notes/", &fields, "attachment", &vec![b'y'; 200_000]);
    assert_eq!(saved.status, 302, "{}", saved.text());
    assert!(browser.get("/notes/").text().contains("with an attachment"));
}

#[test]
fn django_refuses_a_form_from_elsewhere() {
    let stack = django();
    let mut browser = Browser::open(&stack);
    let login = browser.get("/accounts/login/");
    let token = token(&login);
    browser.origin = "https://evil.example".to_owned();
    let refused = browser.submit(
        "/accounts/login/",
        &[("csrfmiddlewaretoken", &token), ("username", "ada")],
    );
    assert_eq!(refused.status, 403);
}

#[test]
fn django_admin_has_its_style() {
    let stack = django();
    let mut browser = Browser::open(&stack);
    assert_eq!(browser.get("/admin/login/").status, 200);
    let style = browser.get("/static/admin/css/base.css");
    assert_eq!(
        (style.status, style.field("content-type")),
        (200, Some("text/css; charset=utf-8"))
    );
}

/// Those that people use beside Flask and Django, and two that speak ASGI.
const PACKAGES: &str =
    "bottle==0.13.4\nfalcon==4.4.0\npyramid==2.1\nWerkzeug==3.1.9\nfastapi==0.165.0\n";

/// The same small app in each: a page that greets, a form with an upload, a file, a stream, an error of its own.
const BOTTLE: &str = r#"
import bottle

app = bottle.Bottle()

@app.get("/hello/<name>")
def hello(name):
    bottle.response.set_cookie("seen", "yes")
    return "hello " + name

@app.post("/upload")
def upload():
    return "%s %d" % (bottle.request.forms.title, len(bottle.request.files.file.file.read()))

@app.get("/file")
def file():
    return bottle.static_file("big.bin", root=".", mimetype="application/x-test")

@app.get("/stream")
def stream():
    for number in range(3):
        yield "part %d\n" % number

@app.get("/fails")
def fails():
    raise LookupError("on purpose")
"#;

const FALCON: &str = r#"
import falcon

class Hello:
    def on_get(self, request, response, name):
        response.text = "hello " + name
        response.set_cookie("seen", "yes")

class Upload:
    def on_post(self, request, response):
        parts = {part.name: part.stream.read() for part in request.get_media()}
        response.text = "%s %d" % (parts["title"].decode(), len(parts["file"]))

class File:
    def on_get(self, request, response):
        response.content_type = "application/x-test"
        response.stream = open("big.bin", "rb")

class Stream:
    def on_get(self, request, response):
        response.stream = (b"part %d\n" % number for number in range(3))

class Fails:
    def on_get(self, request, response):
        raise LookupError("on purpose")

app = falcon.App()
app.add_route("/hello/{name}", Hello())
app.add_route("/upload", Upload())
app.add_route("/file", File())
app.add_route("/stream", Stream())
app.add_route("/fails", Fails())
"#;

const PYRAMID: &str = r#"
from pyramid.config import Configurator
from pyramid.response import FileResponse, Response

def hello(request):
    response = Response("hello " + request.matchdict["name"])
    response.set_cookie("seen", "yes")
    return response

def upload(request):
    return Response("%s %d" % (request.POST["title"], len(request.POST["file"].file.read())))

def file(request):
    return FileResponse("big.bin", request=request, content_type="application/x-test")

def stream(request):
    return Response(app_iter=(b"part %d\n" % number for number in range(3)))

def fails(request):
    raise LookupError("on purpose")

config = Configurator()
for view, path in [(hello, "/hello/{name}"), (upload, "/upload"), (file, "/file"), (stream, "/stream"), (fails, "/fails")]:
    config.add_route(view.__name__, path)
    config.add_view(view, route_name=view.__name__)
app = config.make_wsgi_app()
"#;

const WERKZEUG: &str = r#"
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

rules = Map([Rule("/" + path, endpoint=path.split("/")[0]) for path in ["hello/<name>", "upload", "file", "stream", "fails"]])

@Request.application
def app(request):
    try:
        endpoint, arguments = rules.bind_to_environ(request.environ).match()
    except HTTPException as error:
        return error
    if endpoint == "hello":
        response = Response("hello " + arguments["name"])
        response.set_cookie("seen", "yes")
        return response
    if endpoint == "upload":
        return Response("%s %d" % (request.form["title"], len(request.files["file"].read())))
    if endpoint == "file":
        return send_file("big.bin", request.environ, mimetype="application/x-test")
    if endpoint == "stream":
        return Response(b"part %d\n" % number for number in range(3))
    raise LookupError("on purpose")
"#;

#[test]
fn bottle_falcon_pyramid_and_werkzeug_serve_their_apps() {
    let venv = venv::with_packages("frameworks", PACKAGES);
    for (name, app) in [
        ("bottle", BOTTLE),
        ("falcon", FALCON),
        ("pyramid", PYRAMID),
        ("werkzeug", WERKZEUG),
    ] {
        let content: Vec<u8> = (0..700_000u32).map(|number| (number / 3) as u8).collect();
        let site = Site::with_app(app).file("big.bin", &content);
        let python = format!("python = {:?}", venv::python().display().to_string());
        let stack = site.edit(&python, &format!("venv = {venv:?}")).start();
        serves_the_small_app(name, &stack, &content);
    }
}

fn serves_the_small_app(name: &str, stack: &Stack, content: &[u8]) {
    let mut client = stack.client();
    let hello = client.get("/hello/J%C3%BCrgen");
    assert_eq!(hello.text(), "hello J\u{fc}rgen", "{name}");
    assert!(
        client.get("/hello/x").field("set-cookie").is_some(),
        "{name}"
    );
    let mut body = b"--line\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nholiday\r\n--line\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"x.bin\"\r\nContent-Type: a/b\r\n\r\n"
        .to_vec();
    body.extend_from_slice(&content[..200_000]);
    body.extend_from_slice(b"\r\n--line--\r\n");
    let uploaded = client.post("/upload", "multipart/form-data; boundary=line", &body);
    assert_eq!(uploaded.text(), "holiday 200000", "{name}");
    let file = client.get("/file");
    let kind = file.field("content-type").map(str::to_owned);
    assert!(
        kind.is_some_and(|kind| kind.starts_with("application/x-test")),
        "{name}"
    );
    assert!(file.body == content, "{name}: {} bytes", file.body.len());
    let head = client.request("HEAD", "/hello/x", &[], b"");
    assert!(
        matches!(head.status, 200 | 405) && head.body.is_empty(),
        "{name}: {}",
        head.status
    );
    assert_eq!(
        client.get("/stream").text(),
        "part 0\npart 1\npart 2\n",
        "{name}"
    );
    assert_eq!(client.get("/nowhere").status, 404, "{name}");
    assert_eq!(client.get("/fails").status, 500, "{name}");
    stack.until_logged("LookupError: on purpose");
    assert_eq!(client.get("/hello/again").text(), "hello again", "{name}");
}

#[test]
fn what_speaks_asgi_is_refused_by_name() {
    let venv = venv::with_packages("frameworks", PACKAGES);
    let python = format!("python = {:?}", venv::python().display().to_string());
    for (app, name) in [
        ("from fastapi import FastAPI\napp = FastAPI()\n", "FastAPI"),
        (
            "from starlette.applications import Starlette\napp = Starlette()\n",
            "Starlette",
        ),
        ("from falcon.asgi import App\napp = App()\n", "App"),
    ] {
        let stack = Site::with_app(app)
            .edit(&python, &format!("venv = {venv:?}"))
            .start();
        assert_eq!(stack.get("/").status, 503, "{name}");
        let wanted = format!(
            "app:app is an ASGI application ({name}); a `wsgi` app is called without async: wrap it"
        );
        stack.until_logged(&wanted);
    }
}
