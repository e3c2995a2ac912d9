//! The page of the repository under every CPython of this machine: those that can serve it do, the others say why not.
//!
//! Tried are those that `STACK_TEST_PYTHONS` names (paths, separated by colons), and `python3.6` to `python3.20`, the
//! free-threaded `python3.13t` to `python3.16t` and `pypy3` of `PATH`.
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

/// What an interpreter says of itself.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    version: (u32, u32),
    /// `cpython`, `pypy`.
    name: String,
    /// `t` for a free-threaded build (PEP 703).
    flags: String,
}

impl Kind {
    /// Why a worker refuses it.
    fn objection(&self) -> Option<String> {
        let (major, minor) = self.version;
        if self.name != "cpython" {
            Some(format!(
                "is {}; stack needs CPython 3.10 or later",
                self.name
            ))
        } else if self.version < OLDEST {
            Some(format!("is Python {major}.{minor}."))
        } else if self.flags.contains('t') {
            Some(format!(
                "is a free-threaded build of Python {major}.{minor}."
            ))
        } else {
            None
        }
    }
}

/// By kind, so that each is tried once however many names it has.
fn interpreters() -> BTreeMap<Kind, PathBuf> {
    let named = env::var_os("STACK_TEST_PYTHONS").unwrap_or_default();
    let named = env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    let usual = (6..=20).map(|minor| format!("python3.{minor}"));
    let usual = usual.chain((13..=16).map(|minor| format!("python3.{minor}t")));
    let usual = usual.chain(["pypy3".to_owned()]).map(PathBuf::from);
    named
        .chain(usual)
        .filter_map(|program| kind(&program))
        .collect()
}

/// An interpreter's kind and where it really is, which a version manager's script hides.
fn kind(program: &Path) -> Option<(Kind, PathBuf)> {
    let say = "import sys; i = sys.version_info; \
               print('%d %d %s %s-' % (i[0], i[1], sys.implementation.name, getattr(sys, 'abiflags', ''))); print(sys.executable)";
    let output = Command::new(program).args(["-c", say]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (kind, executable) = text.trim_end().split_once('\n')?;
    let mut words = kind.split(' ');
    let kind = Kind {
        version: (words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        name: words.next()?.to_owned(),
        flags: words.next()?.to_owned(),
    };
    Some((kind, PathBuf::from(executable)))
}

#[test]
fn every_interpreter_serves_or_is_refused() {
    let found = interpreters();
    assert!(
        found.keys().any(|kind| kind.objection().is_none()),
        "no Python that can be tried: {found:?}"
    );
    for (kind, python) in found {
        let site = Site::of_repository("config/site.toml").edit(
            "[app.hello]",
            &format!("[app.hello]\nworkers = 1\npython = {python:?}"),
        );
        let stack = site.start();
        let answer = stack.tls_client("localhost").get("/");
        if let Some(objection) = kind.objection() {
            assert_eq!(answer.status, 503, "{}", python.display());
            let log = stack.until_logged(&objection);
            assert!(!log.contains("Traceback"), "{log}");
            println!("TRIED: {kind:?} is refused ({})", python.display());
        } else {
            assert_eq!(answer.status, 200, "{}", python.display());
            assert!(answer.text().contains("hello"), "{}", answer.text());
            println!("TRIED: {kind:?} serves ({})", python.display());
        }
    }
}
