//! What programs of others find, which were written to bring servers down or to judge them: slowhttptest and testssl.sh.

use std::{fs, process::Command};

use crate::harness::{Site, Stack, tls::Pair};

/// What is sent to `/upload` reaches nobody: none of it is ever whole.
const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
access_log = { format = "json" }
[limits]
LIMITS
[[site]]
routes = [{ path = "/", files = "files" }, { path = "/upload", upstream = "http://127.0.0.1:1" }]
"#;

fn stack(limits: &str) -> Stack {
    Site::new(&SITE.replace("LIMITS", limits))
        .file("files/large.bin", vec![b'x'; 4 << 20])
        .file("files/small.txt", "small")
        .start()
}

/// What a program has said; `None`, aloud, where it is not there.
fn said(command: &mut Command, package: &str) -> Option<String> {
    let Ok(output) = command.output() else {
        println!("!!! SKIPPED: {command:?} does not run; it is in the package {package}");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// 200 clients at once in one of slowhttptest's modes: all are sent away for this cause, and others are served meanwhile.
fn slow(stack: &Stack, path: &str, mode: &[&str], cause: &str) {
    let proxy = stack.proxy();
    let mut command = Command::new("slowhttptest");
    command
        .args(["-c", "200", "-r", "200", "-i", "1", "-l", "120", "-p", "20"])
        .args(mode)
        .args(["-u", &format!("http://{}{path}", stack.http())]);
    let Some(text) = said(&mut command, "slowhttptest") else {
        return;
    };
    assert!(
        text.contains("No open connections left"),
        "some are still there: {text}"
    );
    stack.until_logged(cause);
    assert_eq!(stack.get("/small.txt").text(), "small");
    assert_eq!(stack.proxy(), proxy, "the same process");
}

#[test]
fn slow_heads() {
    let stack = stack("head_timeout = \"2s\"");
    slow(&stack, "/small.txt", &["-H", "-x", "24"], "head-timeout");
}

#[test]
fn slow_bodies() {
    let stack = stack("body_timeout = \"2s\"");
    let mode = ["-B", "-s", "8192", "-x", "10"];
    slow(&stack, "/upload", &mode, "body-timeout");
}

/// Whoever takes nothing is reset, so that the kernel does not go on for us with what it holds.
#[test]
fn slow_readers() {
    let stack = stack("send_timeout = \"2s\"");
    // Fast enough to come soon to the end of what its own kernel has, and far too slow for the rest.
    let mode = ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "512"];
    slow(&stack, "/large.bin", &mode, "send-timeout");
}

/// Protocols, suites, forward secrecy and every weakness that has a name. The certificates are self-signed, so they are not judged.
#[test]
fn testssl_finds_nothing() {
    let (ecdsa, rsa) = (Pair::new("a.example"), Pair::rsa("a.example"));
    let stack = Site::new(
        "[server]\nhttps = [\"127.0.0.1:0\"]\n[[site]]\nhosts = [\"a.example\"]\n\
         tls = [{ cert = \"e.pem\", key = \"e.key\" }, { cert = \"r.pem\", key = \"r.key\" }]\n\
         routes = [{ path = \"/\", respond = \"fixed\" }]\n",
    )
    .file("e.pem", ecdsa.cert)
    .file("e.key", ecdsa.key)
    .file("r.pem", rsa.cert)
    .file("r.key", rsa.key)
    .start();
    let findings = stack.path().join("findings.json");
    let mut command = Command::new("testssl");
    command
        .args(["--quiet", "--color=0", "--warnings=off", "--nodns=none"])
        .args(["--ip=127.0.0.1", "--protocols", "--standard", "--fs"])
        .args(["--server-preference", "--vulnerable", "--jsonfile"])
        .arg(&findings)
        .arg(format!("https://a.example:{}/", stack.https().port()));
    let Some(text) = said(&mut command, "testssl.sh") else {
        return;
    };
    let json = fs::read(&findings).unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("JSON");
    let is_bad = |finding: &&serde_json::Value| {
        // Every suite is a good one, so the client chooses: a phone without AES in its processor takes ChaCha20.
        let is_choice = finding["id"] == "cipher_order";
        !is_choice && !matches!(finding["severity"].as_str(), Some("OK" | "INFO"))
    };
    let bad: Vec<_> = findings.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    // That it has looked at all.
    for id in [
        "TLS1_3",
        "cipherlist_STRONG",
        "heartbleed",
        "ROBOT",
        "LUCKY13",
    ] {
        assert!(
            findings.iter().any(|finding| finding["id"] == id),
            "{id}: {text}"
        );
    }
}
