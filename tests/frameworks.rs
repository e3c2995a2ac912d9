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
