//! `stack exec APP -- …` runs a command as the app runs: folder, environment, Python.

use std::process::Output;

use crate::harness::{Site, stack_command, venv};

fn exec(site: &Site, arguments: &[&str]) -> Output {
    stack_command()
        .arg("exec")
        .args(arguments)
        .current_dir(site.path())
        .env("PYTHONPATH", "/elsewhere")
        .output()
        .expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Django's `collectstatic` makes the folder that a route serves, and certbot the certificate.
#[test]
fn what_a_command_is_to_make_need_not_be_there() {
    let site = Site::with_app("NAME = 'the app'\n").edit(
        "routes = [",
        "tls = { cert = \"none.pem\", key = \"none.key\" }\nroutes = [\n{ path = \"/static/\", files = \"static\" },",
    );
    let site = site.edit("[server]", "[server]\nhttps = [\"127.0.0.1:0\"]");
    let output = exec(
        &site,
        &["--", "python", "-c", "import os; os.mkdir('static')"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(site.path().join("static").is_dir());
    // What the command itself needs is asked for all the same.
    let site = site.edit("root = \".\"", "root = \"nowhere\"");
    let output = exec(&site, &["--", "python", "-c", ""]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("there is no folder") && said.contains("nowhere"),
        "{said}"
    );
    assert!(!said.contains("none.pem"), "{said}");
}

#[test]
fn a_command_sees_what_the_app_sees() {
    let site = Site::with_app("NAME = 'the app'\n")
        .edit("root = \".\"", "root = \"web\"\nenv = { GREETING = \"hello\" }\nenv_file = \"app.env\"")
        .file("app.env", "FROM_FILE=yes\n")
        .file("web/app.py", "NAME = 'the app'\n")
        .file(
            "web/show.py",
            "import os, sys, app\n\
             print(app.NAME, os.getcwd(), os.environ['GREETING'], os.environ['FROM_FILE'], sys.argv[1:])\n\
             print(os.environ['PYTHONPATH'], sys.executable)\n\
             sys.exit(7)\n",
        );
    let output = exec(&site, &["--", "python", "show.py", "--flag", "two words"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let root = site.path().canonicalize().expect("it is there").join("web");
    let said = text(&output.stdout);
    let expected = format!(
        "the app {} hello yes ['--flag', 'two words']\n",
        root.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains("/web:/elsewhere "), "{said}");
    assert!(
        said.contains(&venv::python().display().to_string()),
        "{said}"
    );
    // Programs of the venv come first, and its module path too.
    let output = exec(&site, &["web", "--", "sh", "-c", "echo $PATH"]);
    let folder = venv::python()
        .parent()
        .expect("in a folder")
        .display()
        .to_string();
    assert!(
        text(&output.stdout).starts_with(&folder),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn what_cannot_be_run_is_said() {
    let site = Site::with_app("");
    let cases: [(&[&str], Option<i32>, &str); 4] = [
        (
            &["wbe", "--", "true"],
            Some(1),
            "there is no app \"wbe\" in ./site.toml; it has web",
        ),
        (
            &["--", "no-such-program"],
            Some(1),
            "cannot run no-such-program",
        ),
        (
            &["python", "manage.py"],
            Some(2),
            "the command comes after `--`",
        ),
        (&[], Some(2), "required"),
    ];
    for (arguments, code, hint) in cases {
        let output = exec(&site, arguments);
        assert_eq!(output.status.code(), code, "{arguments:?}");
        assert!(
            text(&output.stderr).contains(hint),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}

/// What we do without ourselves is not the command's to do without.
#[test]
fn a_command_may_have_huge_pages() {
    let site = Site::with_app("NAME = 'the app'\n");
    let shown = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('THP_enabled')])";
    let ours = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let output = exec(&site, &["--", "python", "-c", shown]);
    let expected = match ours.contains("THP_enabled") {
        true => "['1']\n",
        false => "[]\n",
    };
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}
