//! What a worker may take of the machine: memory, descriptors, and a place of its own for temporary files.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{Site, Stack, kill},
    upgrade::Heir,
};

const APP: &str = r#"
import json, os, resource, tempfile

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hog":
        bytearray(2 << 30)
    if path == "/keep":
        open(os.path.join(tempfile.gettempdir(), "kept"), "w").close()
    said = {
        "nofile": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
        "data": list(resource.getrlimit(resource.RLIMIT_DATA)),
        "tmp": tempfile.gettempdir(),
        "kept": os.path.exists(os.path.join(tempfile.gettempdir(), "kept")),
        "pid": os.getpid(),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
"#;

const KEYS: &str = "workers = 1\nnofile = 256\nmemory_max = \"1GiB\"\nprivate_tmp = true";

/// Temporary files go into the site's own folder, so that the test can look into it.
fn stack(keys: &str) -> Stack {
    let site = Site::with_app(APP).edit("workers = 1", keys);
    let spool = site.path().display().to_string();
    site.edit("[server]", &format!("[server]\nspool = {spool:?}"))
        .start()
}

fn said(stack: &Stack, path: &str) -> Value {
    serde_json::from_slice(&stack.get(path).body).expect("JSON")
}

#[test]
fn a_worker_has_what_it_is_given_and_no_more() {
    let stack = stack(KEYS);
    let worker = said(&stack, "/");
    assert_eq!(worker["nofile"], serde_json::json!([256, 256]));
    let log = stack.until_logged("app web: each worker has 1 GiB of memory");
    assert!(
        log.contains(", 256 descriptors, TMPDIR of its own"),
        "{log}"
    );
    // Where a service manager has left us a control group, the limit is there instead, and has a test of its own.
    if log.contains("of a control group of its own") {
        println!(
            "!!! SKIPPED: the tests run in a delegated control group, so there is no RLIMIT_DATA"
        );
        return;
    }
    assert_eq!(worker["data"], serde_json::json!([1 << 30, 1 << 30]));
    // What it asks for beyond that is refused, as any other exception of the app, and the worker serves on.
    assert_eq!(stack.get("/hog").status, 500);
    stack.until_logged("MemoryError");
    assert_eq!(said(&stack, "/")["pid"], worker["pid"]);
}

#[test]
fn more_descriptors_than_there_are_is_said_and_less_is_given() {
    let log = stack("workers = 1\nnofile = 1073741824").until_logged("app web: each worker has");
    assert!(log.contains("and not the 1073741824 of `nofile`"), "{log}");
}

#[test]
fn temporary_files_are_the_apps_alone_until_it_ends() {
    let stack = stack(KEYS);
    let tmp = said(&stack, "/keep")["tmp"]
        .as_str()
        .expect("a path")
        .to_owned();
    let tmp = Path::new(&tmp);
    assert!(tmp.starts_with(stack.path()), "{}", tmp.display());
    let mode = tmp.metadata().expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(tmp.join("kept").exists());
    // Another worker and another generation have the same.
    kill(stack.workers()[0], Signal::KILL);
    stack.until_logged("died: killed by SIGKILL");
    stack.until("another one", || {
        let answer = stack.get("/");
        answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("\"kept\": true")
    });
    let (code, text) = stack.site().run("reload");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(said(&stack, "/")["kept"], true);
    // And nothing is left of it when we stop.
    stack.signal(Signal::TERM);
    stack.until_ended();
    assert!(!tmp.exists());
    assert!(!tmp.parent().expect("a folder").exists());
}

/// Each master has made a folder of its own, so each upgrade would leave one.
#[test]
fn temporary_files_of_a_master_that_was_followed_are_gone() {
    let stack = stack(KEYS);
    let directory = |answer: &Value| answer["tmp"].as_str().expect("a path").to_owned();
    let before = directory(&said(&stack, "/keep"));
    let (code, text) = stack.site().run("upgrade");
    assert_eq!(code, Some(0), "{text}");
    let heir = Heir::of(&stack);
    stack.until_ended();
    assert_ne!(directory(&said(&stack, "/")), before);
    let folders = || {
        let entries = fs::read_dir(stack.path()).expect("ours").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.starts_with("stack-tmp-"))
            .collect::<Vec<_>>()
    };
    assert_eq!(folders().len(), 1, "{:?}", folders());
    assert!(!Path::new(&before).exists());
    drop(heir);
}
