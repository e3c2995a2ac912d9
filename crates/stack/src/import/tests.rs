//! The corpus: files as people have them. Each case of `corpus/` is a file, or a folder of files that belong together, and what
//! comes of it is `NAME.toml` beside it, to the letter. `BLESS=1` writes what comes of it now; read the difference before you keep it.

use std::{collections::BTreeSet, path::Path};

use proptest::prelude::*;

use super::{
    nginx::syntax::{self, Directive},
    *,
};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/corpus")
}

/// The name of each case, and the files that are named in its command.
fn cases() -> Vec<(String, Vec<(PathBuf, String)>)> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(corpus())
        .expect("it is in the repository")
        .flatten()
    {
        let path = entry.path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut sources = Vec::new();
        if path.is_dir() || path.extension().is_some_and(|ending| ending == "conf") {
            read(&path, &mut sources).expect("it can be read");
            cases.push((name, sources));
        }
    }
    cases.sort_by(|one, two| one.0.cmp(&two.0));
    assert!(cases.len() > 15, "{} cases", cases.len());
    cases
}

fn composed(sources: &[(PathBuf, String)]) -> Result<(Draft, String), String> {
    let draft = translate(sources).map_err(|failure| failure.text())?;
    let here = format!("{}/", corpus().display());
    let names: Vec<String> = sources
        .iter()
        .map(|(path, _)| path.display().to_string().replace(&here, ""))
        .collect();
    let text = draft.compose(&names).replace(&here, "");
    Ok((draft, text))
}

#[test]
fn what_comes_of_the_corpus_is_right_and_as_it_was() {
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (name, sources) in cases() {
        let (_, text) = composed(&sources).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Err(report) = config::parse(Path::new("/srv/site.toml"), text.clone(), true) {
            wrong.push(format!("{name}: it is no configuration:\n{text}\n{report}"));
            continue;
        }
        let expected = corpus().join(format!("{name}.toml"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &text).expect("the repository is ours");
        }
        if fs::read_to_string(&expected).ok().as_deref() != Some(&text) {
            wrong.push(format!("{name} is another now (BLESS=1 keeps it):\n{text}"));
        }
        known.insert(expected);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for entry in fs::read_dir(corpus()).expect("it is there").flatten() {
        let path = entry.path();
        let is_left_over =
            path.extension().is_some_and(|ending| ending == "toml") && !known.contains(&path);
        assert!(!is_left_over, "{} belongs to no case", path.display());
    }
}

/// One of many files that a pattern names would otherwise be missing without a word, and with it its sites.
#[test]
fn an_included_file_that_cannot_be_read_is_left_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("sites")).expect("a folder in it");
    let server = "server { listen 80; server_name a.example; root /srv/a; }";
    fs::write(path("sites/a.conf"), server).expect("written");
    let large = fs::File::create(path("sites/b.conf")).expect("made");
    large.set_len(LARGEST + 1).expect("it is all hole");
    fs::write(path("nginx.conf"), "http { include sites/*.conf; }").expect("written");
    let mut sources = Vec::new();
    read(&path("nginx.conf"), &mut sources).expect("it can be read");
    let (draft, _) = composed(&sources).expect("a site is left");
    assert_eq!(draft.sites.len(), 1);
    let left: Vec<&str> = draft.left.iter().map(|note| note.what.as_str()).collect();
    assert!(
        matches!(left[..], [what] if what.contains("b.conf cannot be read: file too large")),
        "{left:?}"
    );
    let refused = read(&path("sites/b.conf"), &mut sources).map_err(|failure| failure.text());
    assert!(refused.is_err_and(|why| why.contains("file too large")));
}

/// Each directive, with the lines of those that it stands in.
fn all(directives: &[Directive], around: &[usize], found: &mut Vec<(Directive, Vec<usize>)>) {
    for directive in directives {
        let mut lines = around.to_vec();
        lines.push(directive.line);
        found.push((directive.clone(), lines.clone()));
        all(
            directive.block.as_deref().unwrap_or_default(),
            &lines,
            found,
        );
    }
}

/// Whatever line becomes something that nobody knows: it is named, by itself or with what it stands in.
#[test]
fn no_line_is_dropped() {
    const UNKNOWN: &str = "zzz_unknown";
    let mut tried = 0;
    for (name, sources) in cases()
        .into_iter()
        .filter(|(_, sources)| sources.len() == 1)
    {
        let (path, text) = &sources[0];
        let Ok(directives) = syntax::parse(text, 0) else {
            continue;
        };
        let mut found = Vec::new();
        all(&directives, &[], &mut found);
        for (directive, lines) in found
            .iter()
            .filter(|(directive, _)| directive.block.is_none())
        {
            let changed: Vec<String> = text
                .lines()
                .enumerate()
                .map(|(at, line)| match at + 1 == directive.line {
                    true => line
                        .replacen(&format!("{} ", directive.name), &format!("{UNKNOWN} "), 1)
                        .replacen(&format!("{};", directive.name), &format!("{UNKNOWN};"), 1),
                    false => line.to_owned(),
                })
                .collect();
            let changed = changed.join("\n");
            // Where several are in one line, the name may stand in another one's words.
            if !changed.contains(UNKNOWN) || syntax::parse(&changed, 0).is_err() {
                continue;
            }
            tried += 1;
            let Ok((draft, _)) = composed(&[(path.clone(), changed)]) else {
                continue;
            };
            let places: Vec<String> = lines
                .iter()
                .map(|line| format!("{}:{line}", path.display()))
                .collect();
            let notes = draft.left.iter().chain(&draft.by_itself);
            let mut said = notes.filter(|note| places.contains(&note.place));
            assert!(
                said.next().is_some(),
                "{name}: nobody speaks of line {} as {UNKNOWN}: {}",
                directive.line,
                directive.show()
            );
        }
    }
    assert!(tried > 150, "{tried} lines");
}

#[test]
fn a_file_that_is_broken_is_named() {
    for (text, part) in [
        ("server {\n listen 80\n}", "x.conf:2: `listen` has no `;`"),
        ("events {}", "nothing to serve is in these files"),
        ("server { listen 80; }", "nothing to serve"),
    ] {
        let error = composed(&[("x.conf".into(), text.to_owned())]).expect_err(text);
        assert!(error.contains(part), "{error}");
    }
    let unit = [(
        PathBuf::from("x.service"),
        "[Service]\nExecStart=/bin/true\n".to_owned(),
    )];
    assert!(
        composed(&unit)
            .expect_err("no gunicorn")
            .contains("does not start gunicorn")
    );
}

/// `nginx -T` prints all files in one.
#[test]
fn what_nginx_prints_is_translated_once() {
    let text = "# configuration file /etc/nginx/nginx.conf:\nhttp {\n include /etc/nginx/sites-enabled/*;\n}\n\
                # configuration file /etc/nginx/sites-enabled/a:\nserver { server_name a.example; root /srv/a; }\n\
                # configuration file /etc/nginx/sites-enabled/b:\nserver { server_name b.example; root /srv/b; }\n";
    let (draft, text) = composed(&[("-".into(), text.to_owned())]).expect("it is right");
    assert_eq!(draft.sites.len(), 2, "{text}");
    assert!(draft.left.is_empty(), "{text}");
    assert!(text.contains("# /etc/nginx/sites-enabled/b:1\n"), "{text}");
}

/// Words of which files are made.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "server",
        "location",
        "listen",
        "server_name",
        "proxy_pass",
        "root",
        "alias",
        "try_files",
        "return",
        "if",
        "upstream",
        "http",
        "include",
        "rewrite",
        "error_page",
        "add_header",
        "limit_req",
        "limit_req_zone",
        "auth_basic",
        "expires",
        "client_max_body_size",
        "ssl_certificate",
        "ssl_certificate_key",
        "log_format",
        "access_log",
        "uwsgi_pass",
        "deny",
        "80",
        "443 ssl",
        "[::]:80",
        "example.org",
        "_",
        "/",
        "/x",
        "/x/",
        "= /",
        "~ \\.php$",
        "@app",
        "$uri",
        "=404",
        "301",
        "404",
        "all",
        "https://$host$request_uri",
        "http://unix:/run/x.sock:/y",
        "unix:",
        "http://a/",
        "($host = a.example)",
        "zone=a:1m",
        "rate=1r/s",
        "zone=a",
        "burst=5",
        "4g",
        "max",
        "-1",
        "'it is'",
        "\"q \\\" q\"",
        "${x}",
        "$",
        "\\",
        "#c\n",
        "\u{fc}\u{1f40d}",
        "\0",
        "{",
        "}",
        ";",
        ";",
        ";\n",
    ];
    prop_oneof![
        8 => prop::sample::select(words.to_vec()).prop_map(|word| format!("{word} ")),
        1 => any::<String>(),
        1 => Just("server { listen 80; server_name a.example; location / { ".to_owned()),
        1 => Just("; } }\n".to_owned()),
    ]
}

fn python() -> impl Strategy<Value = String> {
    let words = [
        "bind",
        "workers",
        "raw_env",
        "umask",
        "wsgi_app",
        "user",
        "=",
        " = ",
        "[",
        "]",
        "(",
        ")",
        ",",
        "'",
        "\"",
        "\"\"\"",
        "\\",
        "\n",
        "\n    ",
        "#",
        "1",
        "0o22",
        "-5",
        "None",
        "True",
        "'a:app'",
        "'A=1'",
        "def f():",
        "import os",
        "r'",
        "f'",
        "cpu_count()",
        "\u{fc}",
        "\t",
        "certfile",
        "'x\u{0}'",
    ];
    let word = prop_oneof![6 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_somebody_writes_panics(pieces in prop::collection::vec(piece(), 0..60), python in python(), unit in any::<String>()) {
        let web = [(PathBuf::from("/nowhere/a.conf"), pieces.concat())];
        if let Ok((_, text)) = composed(&web) {
            // Whether it is right is said; that it is a file must be so.
            let report = config::parse(Path::new("/srv/site.toml"), text.clone(), true).err();
            let report = report.map(|report| report.to_string()).unwrap_or_default();
            prop_assert!(!report.contains("expected `"), "{text}\n{report}");
        }
        let app = [(PathBuf::from("/nowhere/gunicorn.conf.py"), python.clone())];
        let _ = composed(&app);
        let unit = format!("[Service]\nExecStart=/x/gunicorn {unit}\nUser={python}");
        let _ = composed(&[(PathBuf::from("/nowhere/x.service"), unit)]);
    }
}
