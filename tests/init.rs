//! `stack init` writes a configuration that serves what is in the folder, without running any of it.

use std::{fs, path::Path, process::Output};

use crate::harness::{Site, repository, stack_command, venv};

fn init(folder: &Path, options: &[&str]) -> Output {
    stack_command()
        .arg("init")
        .arg(folder)
        .args(options)
        .env_remove("VIRTUAL_ENV")
        .output()
        .expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An empty folder with these files.
fn folder(files: &[(&str, &str)]) -> Site {
    files
        .iter()
        .fold(Site::without_file(&["up"]), |site, (name, content)| {
            site.file(name, content)
        })
}

const FLASK: &str = "from flask import Flask\napp = Flask(__name__)\n";
const WSGI: &str =
    "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'served']\n";

#[test]
fn what_it_writes_is_served() {
    let site = folder(&[("hello.py", WSGI), ("static/a.txt", "a file")]);
    let output = init(site.path(), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    for part in [
        "a WSGI app: hello:app (hello.py)",
        "wrote ",
        "stack check",
        "stack up",
    ] {
        assert!(said.contains(part), "{part:?}: {said}");
    }
    let python = venv::python().display().to_string();
    let stack = site
        .edit("\":8080\"", "\"127.0.0.1:0\"")
        .edit("#venv = ", &format!("python = {python:?}\n#venv = "))
        .start();
    assert_eq!(stack.get("/").text(), "served");
    assert_eq!(stack.get("/static/a.txt").text(), "a file");
    let again = init(stack.path(), &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("is there already; `--force`"),
        "{}",
        text(&again.stderr)
    );
}

#[test]
fn the_examples_are_known_for_what_they_are() {
    for (name, entry) in [
        ("flask", "wsgi = \"app:app\""),
        ("django", "wsgi = \"mysite.wsgi:application\""),
        ("hello", "wsgi = \"app:app\""),
    ] {
        let output = init(&repository().join("examples").join(name), &["--print"]);
        let printed = text(&output.stdout);
        assert!(printed.contains(entry), "{name}: {printed}");
        assert!(printed.contains("\"/static/\""), "{name}: {printed}");
    }
}

#[test]
fn an_app_is_found_by_many_signs() {
    let manage = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'conf.settings')\n";
    let cases: [(&[(&str, &str)], &str); 6] = [
        (
            &[
                (
                    "Procfile",
                    "web: gunicorn --bind :$PORT shop.web:create_app --log-file -\n",
                ),
                ("app.py", FLASK),
            ],
            "shop.web:create_app",
        ),
        (
            &[
                ("manage.py", manage),
                (
                    "conf/settings.py",
                    "WSGI_APPLICATION = 'conf.wsgi.application'\n",
                ),
                ("app.py", FLASK),
            ],
            "conf.wsgi:application",
        ),
        (&[("tool.py", FLASK), ("wsgi.py", FLASK)], "wsgi:app"),
        (
            &[(
                "shop/__init__.py",
                "from flask import Flask\ndef create_app():\n    app = Flask(__name__)\n    return app\n",
            )],
            "shop:create_app()",
        ),
        (
            &[("shop/__init__.py", ""), ("shop/app.py", FLASK)],
            "shop.app:app",
        ),
        (&[("test_app.py", FLASK), ("web.py", WSGI)], "web:app"),
    ];
    for (files, entry) in cases {
        let site = folder(files);
        let output = init(site.path(), &["--print"]);
        let printed = text(&output.stdout);
        assert!(
            printed.contains(&format!("wsgi = {entry:?}")),
            "{files:?}: {printed}{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn what_is_no_wsgi_app_is_said_so() {
    let empty = folder(&[("notes.txt", "")]);
    let output = init(empty.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("there is no WSGI app"),
        "{}",
        text(&output.stderr)
    );
    assert!(!empty.path().join("site.toml").exists());
    let asgi = folder(&[("main.py", "app = FastAPI()\n")]);
    let output = init(asgi.path(), &[]);
    assert!(
        text(&output.stderr).contains("FastAPI app, which speaks ASGI"),
        "{}",
        text(&output.stderr)
    );
}

/// A folder that is served must not be changed by a look at it, nor run.
#[test]
fn nothing_is_run() {
    let site = folder(&[(
        "app.py",
        "open('run', 'w')\nfrom flask import Flask\napp = Flask(__name__)\n",
    )]);
    assert!(init(site.path(), &["--print"]).status.success());
    let names: Vec<_> = fs::read_dir(site.path())
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["app.py"]);
}

/// What people have that is not the plainest: a package in `src`, and a command that goes into a folder first.
#[test]
fn an_app_is_found_where_its_project_has_it() {
    let src = folder(&[
        ("pyproject.toml", "[project]\nname = \"shop\"\n"),
        ("src/shop/__init__.py", ""),
        ("src/shop/wsgi.py", WSGI),
    ]);
    let elsewhere = folder(&[
        (
            "Procfile",
            "web: gunicorn --chdir ./backend config.wsgi:app --log-file -\n",
        ),
        ("backend/config/__init__.py", ""),
        ("backend/config/wsgi.py", WSGI),
    ]);
    let python = venv::python().display().to_string();
    for (site, expected) in [
        (src, "env = { PYTHONPATH = \"src\" }"),
        (elsewhere, "root = \"backend\""),
    ] {
        let output = init(site.path(), &[]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let written = fs::read_to_string(site.path().join("site.toml")).expect("it was written");
        assert!(written.contains(expected), "{written}");
        let stack = site
            .edit("\":8080\"", "\"127.0.0.1:0\"")
            .edit("#venv = ", &format!("python = {python:?}\n#venv = "))
            .start();
        assert_eq!(stack.get("/").text(), "served");
    }
}

#[test]
fn pages_without_an_app_are_served() {
    let site = folder(&[
        ("dist/index.html", "<h1>hello</h1>"),
        ("package.json", "{}"),
    ]);
    let output = init(site.path(), &[]);
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.contains("pages: dist/index.html"),
        "{said}"
    );
    let stack = site.edit("\":8080\"", "\"127.0.0.1:0\"").start();
    assert_eq!(stack.get("/").text(), "<h1>hello</h1>");
    assert_eq!(stack.get("/no/file").status, 404);
    drop(stack);
    // A configuration among the pages would be one of them.
    let bare = folder(&[("index.html", "<h1>hello</h1>")]);
    let output = init(bare.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("write it elsewhere"),
        "{}",
        text(&output.stderr)
    );
}
