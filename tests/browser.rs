//! A real browser shows the first page: over HTTP/2, with its style and its pictures, without a complaint on its console. It
//! jumps to places in a recording, and reads what was padded.

use std::process::{Child, Command, Stdio};

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

/// A browser that stays on a page until it is dropped.
struct Visit {
    chromium: Child,
    _profile: tempfile::TempDir,
}

impl Visit {
    fn begin(stack: &Stack, url: &str) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let chromium = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--mute-audio",
            ])
            .args(["--disable-component-update", "--disable-sync"])
            .args(["--ignore-certificate-errors", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .current_dir(stack.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(chromium) = chromium else {
            assert!(std::env::var_os("CI").is_none(), "CI has no chromium");
            println!("!!! NOT TRIED IN A BROWSER: chromium is not installed");
            return None;
        };
        Some(Self {
            chromium,
            _profile: profile,
        })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.chromium.kill();
        let _ = self.chromium.wait();
    }
}

const RECORDING: &str = r#"<!doctype html><title>a recording</title>
<audio id="it" preload="metadata" src="/media/recording.wav"></audio>
<script>
const it = document.getElementById("it");
const places = [0.9, 0.5, 0.1];
function jump() {
  if (places.length) it.currentTime = it.duration * places.shift();
  else fetch("/done?duration=" + Math.round(it.duration));
}
it.onloadedmetadata = jump;
it.onseeked = jump;
it.onerror = () => fetch("/done?error=" + it.error.code);
</script>
"#;

/// Ten minutes of silence, 100 MB of it, of which none lies on the disk.
fn recording(stack: &Stack) {
    const SECONDS: u32 = 600;
    const RATE: u32 = 44_100 * 4;
    let length = SECONDS * RATE;
    let mut head = Vec::new();
    head.extend_from_slice(b"RIFF");
    head.extend_from_slice(&(36 + length).to_le_bytes());
    head.extend_from_slice(b"WAVEfmt ");
    for (value, size) in [
        (16, 4),
        (1, 2),
        (2, 2),
        (44_100, 4),
        (RATE, 4),
        (4, 2),
        (16, 2),
    ] {
        head.extend_from_slice(&u32::to_le_bytes(value)[..size]);
    }
    head.extend_from_slice(b"data");
    head.extend_from_slice(&length.to_le_bytes());
    let path = stack.path().join("media/recording.wav");
    std::fs::write(&path, head).expect("the folder is ours");
    let file = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("ours");
    file.set_len(44 + u64::from(length)).expect("ours");
}

#[test]
fn a_browser_jumps_to_places_in_a_recording() {
    let stack = Site::new(
        r#"
[server]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
access_log = { format = "json" }
[[site]]
routes = [
  { path = "/", files = "public" },
  { path = "/media/", files = "media" },
  { path = "/done", respond = "" },
]
"#,
    )
    .file("public/index.html", RECORDING)
    .file("media/other", "")
    .start();
    recording(&stack);
    let url = format!("https://localhost:{}/", stack.https().port());
    let Some(_visit) = Visit::begin(&stack, &url) else {
        return;
    };
    let log = stack.until_logged("/done?");
    assert!(log.contains("/done?duration=600"), "{log}");
    let records = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let parts: Vec<serde_json::Value> = records
        .filter(|record: &serde_json::Value| record["target"] == "/media/recording.wav")
        .collect();
    assert!(parts.len() > 2, "it asks for more than one part:\n{log}");
    for part in &parts {
        assert_eq!(part["status"], 206, "{part}");
    }
    // Nobody has sent all of it to play a second.
    let sent: u64 = parts
        .iter()
        .filter_map(|part| part["bytes_out"].as_u64())
        .sum();
    assert!(sent < 90_000_000, "{sent} bytes of 106 million");
}

const PADDED: &str = r#"
LINE = b"All work and no play makes Jack a dull boy. "
PAGE = b"""<!doctype html><title>padded</title><script>
document.cookie = "session=1";
fetch("/text").then(async answer => {
  const text = await answer.text();
  fetch("/done?" + answer.headers.get("content-encoding") + "-" + text.length);
}, error => fetch("/done?" + error));
</script>"""

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = PAGE if path == "/" else LINE * 100 if path == "/text" else b""
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]
"#;

/// A browser that could not pass over the padding would fail here.
#[test]
fn a_browser_reads_what_was_padded() {
    let stack = Site::with_app(PADDED)
        .edit("http = [\"127.0.0.1:0\"]", "https = [\"127.0.0.1:0\"]")
        .start();
    let url = format!("https://localhost:{}/", stack.https().port());
    let Some(_visit) = Visit::begin(&stack, &url) else {
        return;
    };
    let log = stack.until_logged("/done?");
    assert!(log.contains("/done?zstd-4400"), "{log}");
}
