//! The page of the repository under every CPython of this machine: those that can serve it do, the others say why not.
//!
//! Tried are those that `STACK_TEST_PYTHONS` names (paths, separated by colons) and `python3.6` to `python3.20` of `PATH`.
//! What was tried is printed: `cargo test -- --nocapture interpreters`.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::Site;

/// The oldest that can load the module.
const OLDEST: (u32, u32) = (3, 10);

/// By version, so that each is tried once however many names it has.
fn interpreters() -> BTreeMap<(u32, u32), PathBuf> {
    let named = env::var_os("STACK_TEST_PYTHONS").unwrap_or_default();
    let named = env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    let usual = (6..=20).map(|minor| PathBuf::from(format!("python3.{minor}")));
    let usual = std::iter::once(PathBuf::from("python2.7")).chain(usual);
    named
        .chain(usual)
        .filter_map(|program| version(&program))
        .collect()
}

/// The version of an interpreter and where it really is, which a version manager's script hides.
fn version(program: &Path) -> Option<((u32, u32), PathBuf)> {
    let say = "import sys; print('%d %d %s' % (sys.version_info[0], sys.version_info[1], sys.executable))";
    let output = Command::new(program).args(["-c", say]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.trim_end().splitn(3, ' ');
    let version = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((version, PathBuf::from(words.next()?)))
}

#[test]
fn every_interpreter_serves_or_is_refused() {
    let found = interpreters();
    assert!(
        found.keys().any(|version| *version >= OLDEST),
        "no Python that can be tried: {found:?}"
    );
    for ((major, minor), python) in found {
        let site = Site::of_repository("config/site.toml").edit(
            "[app.hello]",
            &format!("[app.hello]\nworkers = 1\npython = {python:?}"),
        );
        let stack = site.start();
        let answer = stack.tls_client("localhost").get("/");
        if (major, minor) >= OLDEST {
            assert_eq!(answer.status, 200, "{}", python.display());
            assert!(answer.text().contains("hello"), "{}", answer.text());
            println!(
                "TRIED: Python {major}.{minor} serves ({})",
                python.display()
            );
        } else {
            assert_eq!(answer.status, 503, "{}", python.display());
            let log = stack.until_logged("; stack needs CPython 3.10 or later");
            assert!(
                log.contains(&format!("is Python {major}.{minor}.")),
                "{log}"
            );
            assert!(!log.contains("Traceback"), "{log}");
            println!(
                "TRIED: Python {major}.{minor} is refused ({})",
                python.display()
            );
        }
    }
}
