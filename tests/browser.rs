//! A real browser shows the first page: over HTTP/2, with its style and its pictures, without a complaint on its console.

use std::process::Command;

use crate::harness::{Site, Stack};

/// Runs headless Chromium on a page; what it printed of the page, and what it said meanwhile. `None` where there is no
/// Chromium, which is said loudly, and is an error in CI.
fn chromium(stack: &Stack, url: &str) -> Option<(String, String)> {
    let profile = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--ignore-certificate-errors",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .current_dir(stack.path())
        .output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "CI has no chromium");
        println!("!!! NOT TRIED IN A BROWSER: chromium is not installed");
        return None;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

#[test]
fn the_first_page_in_a_browser() {
    let stack = Site::of_repository("config/site.toml")
        .edit(
            "[server]\n",
            "[server]\naccess_log = { format = \"json\" }\n",
        )
        .start();
    let url = format!("https://localhost:{}/?from=browser", stack.https().port());
    let Some((page, said)) = chromium(&stack, &url) else {
        return;
    };
    assert!(
        page.contains("from=browser"),
        "the page shows its request:\n{page}\n{said}"
    );
    let complaints: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert_eq!(complaints, Vec::<&str>::new());
    let log = stack.until_logged("/static/way.png");
    for line in log.lines().filter(|line| line.starts_with('{')) {
        let record: serde_json::Value = serde_json::from_str(line).expect("each record is JSON");
        assert_eq!(record["status"], 200, "{line}");
        assert_eq!(record["protocol"], "HTTP/2.0", "{line}");
    }
}
