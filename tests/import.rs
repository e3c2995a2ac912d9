//! `stack import` makes of what nginx and gunicorn were told a file that serves the same.

use std::{fs, process::Output};

use crate::harness::{Site, stack_command, venv};

const NGINX: &str = "\
upstream app { server unix:/run/gunicorn/app.sock; }
server {
    listen 127.0.0.1:0;
    server_name localhost _;
    client_max_body_size 1m;
    location /static { alias FOLDER/public; expires 1h; }
    location /old { return 301 /new; }
    location / { proxy_pass http://app; proxy_set_header Host $host; }
    location /cached { proxy_cache zone; proxy_pass http://app; }
}
";

const UNIT: &str = "\
[Service]
WorkingDirectory=FOLDER/web
Environment=GREETING=hello
ExecStart=/usr/bin/gunicorn --bind unix:/run/gunicorn/app.sock --workers 1 app:app
";

const APP: &str = "\
import os
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [(os.environ['GREETING'] + ' ' + environ['PATH_INFO']).encode()]
";

fn import(site: &Site, arguments: &[&str]) -> Output {
    stack_command()
        .arg("import")
        .args(arguments)
        .current_dir(site.path())
        .output()
        .expect("the binary was built")
}

#[test]
fn what_it_writes_serves_the_same() {
    let site = Site::with_app("")
        .file("web/app.py", APP)
        .file("public/a.css", "p {}");
    let folder = site.path().display().to_string();
    let site = site
        .file("nginx.conf", NGINX.replace("FOLDER", &folder))
        .file("gunicorn.service", UNIT.replace("FOLDER", &folder));
    fs::remove_file(site.path().join("site.toml")).expect("the folder is ours");
    let output = import(
        &site,
        &["nginx.conf", "gunicorn.service", "--output", "site.toml"],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for part in [
        "wrote site.toml",
        "1 line could not be translated",
        "stack check --config site.toml",
    ] {
        assert!(said.contains(part), "{part:?}: {said}");
    }
    let text = fs::read_to_string(site.path().join("site.toml")).expect("it was written");
    assert!(
        text.contains("#   nginx.conf:9  proxy_cache zone;"),
        "{text}"
    );
    let python = venv::python().display().to_string();
    let stack = site
        .edit("[app.web]\n", &format!("[app.web]\npython = {python:?}\n"))
        .start();
    assert_eq!(stack.get("/page").text(), "hello /page");
    assert_eq!(stack.get("/cached").text(), "hello /cached");
    let css = stack.get("/static/a.css");
    assert_eq!(css.text(), "p {}");
    assert_eq!(css.field("cache-control"), Some("max-age=3600"));
    let old = stack.get("/old");
    assert_eq!((old.status, old.field("location")), (301, Some("/new")));
    let large = stack
        .client()
        .post("/", "text/plain", &vec![b'x'; (1 << 20) + 1]);
    assert_eq!(large.status, 413);
    let again = import(&stack.site(), &["nginx.conf", "--output", "site.toml"]);
    assert_eq!(again.status.code(), Some(1));
}

#[test]
fn what_cannot_be_read_is_named() {
    let site = Site::without_file(&[]).file("bad.conf", "server {\n listen 80\n}\n");
    for (arguments, code, part) in [
        (
            &["bad.conf"][..],
            1,
            "bad.conf:2: `listen` has no `;` at its end",
        ),
        (
            &["no-such.conf"],
            1,
            "cannot read no-such.conf: no such file",
        ),
        (&[], 2, "<FILE>"),
    ] {
        let output = import(&site, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.to_lowercase().contains(&part.to_lowercase()),
            "{part:?}: {said}"
        );
    }
}
