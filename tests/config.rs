//! A configuration that is wrong is told so once, with all that is wrong, and nothing is started.

use std::{fs, process::Output};

use crate::harness::{Site, stack_command};

const APP: &str = "def app(environ, start_response): ...\n";

/// One mistake of each kind: an unknown key, a wrong type, an app that nobody describes, a bad duration, and two things
/// that only this machine can miss.
const MISTAKES: &str = r#"[server]
htpp = [":8080"]
[limits]
body_timeout = "30 parsecs"
[app.web]
wsgi = "app:app"
root = "no-such-root"
threads = "four"
[[site]]
hosts = ["*"]
routes = [
  { path = "/", app = "wbe" },
  { path = "/static/", files = "no-such-files" },
]
"#;

#[test]
fn all_mistakes_are_shown_in_one_run() {
    let site = Site::new(MISTAKES);
    for command in ["check", "up"] {
        let (code, text) = site.run(command);
        assert_eq!(code, Some(1), "{text}");
        // The line, what is underlined, what is wrong, what to do.
        let expected = [
            ("site.toml:2:", "^^^^", "htpp", "did you mean `http`?"),
            ("site.toml:4:", "^^^^^^^^^^^^", "30 parsecs", "30s"),
            (
                "site.toml:7:",
                "^^^^^^^^^^^^^^",
                "there is no folder",
                "paths are taken from the folder of this file",
            ),
            ("site.toml:8:", "^^^^^^", "threads", "4"),
            ("site.toml:12:", "^^^^^", "wbe", "did you mean `\"web\"`?"),
            (
                "site.toml:13:",
                "^^^^^^^^^^^^^^^",
                "no-such-files",
                "paths are taken from the folder of this file",
            ),
        ];
        for (place, underline, what, hint) in expected {
            let problem = text
                .split("\n\n")
                .find(|problem| problem.contains(place))
                .unwrap_or_else(|| panic!("nothing about {place}:\n{text}"));
            for part in [underline, what, hint] {
                assert!(problem.contains(part), "{part:?} is not in:\n{problem}");
            }
        }
        assert!(text.contains("6 mistakes in "), "{text}");
    }
}

#[test]
fn defaults_in_the_place_of_mistakes_make_no_further_ones() {
    // The root is not known, so nothing can be said of what lies in it.
    let site = Site::new(&MISTAKES.replace("\"no-such-root\"", "7"))
        .file("app/__init__.py", "")
        .edit("app:app", "app.wsgi:app");
    let (_, text) = site.run("check");
    assert!(!text.contains("there is no module"), "{text}");
    assert!(text.contains("6 mistakes in "), "{text}");
}

#[test]
fn check_says_by_its_exit_code_what_it_found() {
    let (code, text) = Site::with_app(APP).run("check");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("is valid: 1 site, 1 app, 1 route"), "{text}");
    let (code, text) = Site::new("[server]\nhttp = [\n").run("check");
    assert_eq!(code, Some(1), "{text}");
    let output = run(&["check", "--config", "/nowhere/site.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("cannot read the file: no such file"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    let cases: [(&[&str], &str); 6] = [
        (&[], "Usage"),
        (&["chekc"], "'check'"),
        (&["up", "--confg", "x"], "'--config'"),
        (&["up", "--config"], "a value is required"),
        (&["up", "site.toml"], "'--config site.toml'"),
        (&["up", "-w", "4"], "unexpected argument '-w'"),
    ];
    for (arguments, hint) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&output).contains(hint),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(help.stderr.is_empty());
}

#[test]
fn a_configuration_is_looked_for_in_the_usual_places() {
    let site = Site::with_app(APP);
    let text = fs::read_to_string(site.path().join("site.toml")).expect("it is there");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = || {
        let output = stack_command()
            .arg("check")
            .current_dir(folder.path())
            .output()
            .expect("the binary was built");
        said(&output)
    };
    if !std::path::Path::new("/etc/stack/site.toml").exists() {
        let nowhere = check();
        for place in ["./site.toml", "./config/site.toml", "/etc/stack/site.toml"] {
            assert!(nowhere.contains(place), "{nowhere}");
        }
    }
    fs::create_dir(folder.path().join("config")).expect("the folder is ours");
    fs::write(folder.path().join("config/site.toml"), &text).expect("the folder is ours");
    assert!(
        check().contains("./config/site.toml is valid"),
        "{}",
        check()
    );
    fs::write(folder.path().join("site.toml"), &text).expect("the folder is ours");
    assert!(check().contains("./site.toml is valid"), "{}", check());
}

#[test]
fn a_certificate_that_is_not_its_keys_is_found_before_anything_starts() {
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    let (one, two) = (made("one.example"), made("two.example"));
    let site = Site::with_app(APP)
        .edit("[app.web]", "https = [\"127.0.0.1:0\"]\n[app.web]")
        .edit(
            "hosts = [\"*\"]",
            "hosts = [\"*\"]\ntls = { cert = \"one.pem\", key = \"two.pem\" }",
        )
        .file("one.pem", one.cert.pem())
        .file("two.pem", two.signing_key.serialize_pem());
    for command in ["check", "up"] {
        let (code, text) = site.run(command);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("\"one.pem\""), "{text}");
        assert!(
            text.contains("check that the key belongs to the first certificate"),
            "{text}"
        );
    }
}

fn run(arguments: &[&str]) -> Output {
    stack_command()
        .args(arguments)
        .output()
        .expect("the binary was built")
}

/// All that it said.
fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}
