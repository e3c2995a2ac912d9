//! Nothing outside a folder is ever sent: by no spelling of a path, by no link, and not while somebody changes the folder.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::harness::{Client, Site, Stack};

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
[[site]]
routes = [{ path = "/files/", files = "public/inside" }, { path = "/", files = "public/top" }]
"#;

/// What must never be seen.
const SECRET: &str = "it-must-not-be-seen";

fn stack() -> Stack {
    Site::new(SITE)
        .file("secret.txt", SECRET)
        .file("public/secret.txt", SECRET)
        .file("public/inside/a.txt", "inside")
        .file("public/inside/sub/b.txt", "below")
        .file("public/inside/.env", SECRET)
        .file("public/inside/.git/config", SECRET)
        .file("public/inside/settings.py~", SECRET)
        .file("public/inside/settings.py.bak", SECRET)
        .file("public/inside/.settings.py.swp", SECRET)
        .file("public/inside/#settings.py#", SECRET)
        .file("public/top/index.html", "top")
        .start()
}

/// Targets as they stand in a request line.
const TARGETS: [&str; 52] = [
    "/files/../secret.txt",
    "/files/../../secret.txt",
    "/files/../../../../../../../../etc/passwd",
    "/files/sub/../../secret.txt",
    "/files/./../secret.txt",
    "/files/.//../secret.txt",
    "/files//../secret.txt",
    "/files/..//secret.txt",
    "/files/%2e%2e/secret.txt",
    "/files/%2E%2E/secret.txt",
    "/files/.%2e/secret.txt",
    "/files/%2e./secret.txt",
    "/files/%2e%2e%2fsecret.txt",
    "/files/..%2fsecret.txt",
    "/files/..%2Fsecret.txt",
    "/files/..%5csecret.txt",
    "/files/..\\secret.txt",
    "/files/%2e%2e%5csecret.txt",
    "/files/%252e%252e/secret.txt",
    "/files/%252e%252e%252fsecret.txt",
    "/files/%25252e%25252e/secret.txt",
    "/files/%c0%ae%c0%ae/secret.txt",
    "/files/%c0%ae%c0%ae%c0%afsecret.txt",
    "/files/..%c0%afsecret.txt",
    "/files/%e0%80%ae%e0%80%ae/secret.txt",
    "/files/%f0%80%80%ae%f0%80%80%ae/secret.txt",
    "/files/..%ef%bc%8fsecret.txt",
    "/files/%uff0e%uff0e/secret.txt",
    "/files/%u002e%u002e/secret.txt",
    "/files/..;/secret.txt",
    "/files/..%00/secret.txt",
    "/files/a.txt%00.html",
    "/files/%00",
    "/files/.../secret.txt",
    "/files/....//secret.txt",
    "/files/....//....//secret.txt",
    "/files/..%0d%0a/secret.txt",
    "/files/..%20/secret.txt",
    "/files/%2e%2e%3f/secret.txt",
    "/files../secret.txt",
    "/files/%2Fetc/passwd",
    "/files//etc/passwd",
    "/files///etc/passwd",
    "/files/sub%2f..%2f..%2fsecret.txt",
    "/files/sub%2fb.txt",
    "/files/sub%5cb.txt",
    "/files/.env",
    "/files/%2eenv",
    "/files/.git/config",
    "/files/settings.py~",
    "/files/settings.py.bak",
    "/files/.settings.py.swp",
];

#[test]
fn no_spelling_leads_outside() {
    let stack = stack();
    for target in TARGETS
        .iter()
        .chain(&["/files/%23settings.py%23", "/files/settings.py%7e"])
    {
        for request in [
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            format!("GET {target} HTTP/1.0\r\n\r\n"),
            format!("GET http://a{target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ] {
            let mut client = Client::plain(stack.http());
            let answer = String::from_utf8_lossy(&client.send(&request).rest()).into_owned();
            let line = answer.lines().next().unwrap_or_default();
            assert!(
                line.contains(" 400 ") || line.contains(" 404 "),
                "{request:?}: {answer}"
            );
            assert!(!answer.contains(SECRET), "{request:?}");
            assert!(!answer.contains("root:"), "{request:?}");
        }
    }
    assert_eq!(stack.get("/files/sub/../a.txt").text(), "inside");
    assert_eq!(stack.get("/files/sub//b.txt").text(), "below");
}

/// Between a look and an opening is time enough for a link: the kernel does both at once.
#[test]
fn a_link_that_comes_and_goes_never_leads_outside() {
    let stack = stack();
    let (inside, outside) = (
        stack.path().join("public/inside"),
        stack.path().join("outside"),
    );
    fs::create_dir(&outside).expect("ours");
    fs::write(outside.join("c.txt"), SECRET).expect("ours");
    fs::create_dir(inside.join("real")).expect("ours");
    fs::write(inside.join("real/c.txt"), "fine").expect("ours");
    symlink(&outside, inside.join("link")).expect("ours");
    let done = AtomicBool::new(false);
    let (real, link, name) = (
        inside.join("real"),
        inside.join("link"),
        inside.join("name"),
    );
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for place in [&real, &link] {
                    fs::rename(place, &name).expect("ours");
                    fs::rename(&name, place).expect("ours");
                }
            }
        });
        // Checked when the other thread has ended: a panic before would leave it running.
        let mut answers = Vec::new();
        for _ in 0..5 {
            let mut client = stack.client();
            answers.extend((0..500).map(|_| client.get("/files/name/c.txt")));
        }
        done.store(true, Ordering::Relaxed);
        for answer in &answers {
            assert!(matches!(answer.status, 200 | 404), "{}", answer.status);
            assert!(!answer.text().contains(SECRET), "from outside");
        }
    });
}

#[test]
fn what_is_no_file_is_not_there_and_holds_nobody() {
    let stack = stack();
    let inside = stack.path().join("public/inside");
    rustix::fs::mkfifoat(rustix::fs::CWD, inside.join("fifo"), rustix::fs::Mode::RWXU)
        .expect("ours");
    let _socket = std::os::unix::net::UnixListener::bind(inside.join("socket")).expect("ours");
    symlink("/dev/zero", inside.join("device")).expect("ours");
    symlink("device", inside.join("self")).expect("ours");
    symlink("loop", inside.join("loop")).expect("ours");
    for name in [
        "fifo", "socket", "device", "self", "loop", "sub", "a.txt/", "a.txt/b",
    ] {
        assert_eq!(stack.get(&format!("/files/{name}")).status, 404, "{name}");
    }
    assert_eq!(stack.get("/files/a.txt").text(), "inside");
}

const LARGE: usize = 32 * 1024 * 1024;

#[test]
fn a_file_that_is_replaced_goes_on_from_what_it_was() {
    let stack = stack();
    let file = stack.path().join("public/inside/large");
    fs::write(&file, vec![b'a'; LARGE]).expect("ours");
    let mut client = stack.client();
    client.ask("/files/large");
    assert_eq!(client.answer_head().status, 200);
    let new = file.with_extension("new");
    fs::write(&new, vec![b'b'; LARGE]).expect("ours");
    fs::rename(&new, &file).expect("ours");
    assert!(client.exactly(LARGE).iter().all(|byte| *byte == b'a'));
    stack.until("the new one", || {
        let fields = [("Range", "bytes=0-0")];
        let answer = stack.client().request("GET", "/files/large", &fields, b"");
        answer.text() == "b"
    });
}

#[test]
fn a_file_that_becomes_shorter_ends_the_connection_and_is_a_line_in_the_log() {
    let stack = stack();
    let file = stack.path().join("public/inside/large");
    fs::write(&file, vec![b'a'; LARGE]).expect("ours");
    let mut client = stack.client();
    client.ask("/files/large");
    assert_eq!(client.answer_head().status, 200);
    let open = fs::File::options().write(true).open(&file).expect("ours");
    open.set_len(1024).expect("ours");
    assert!(client.rest().len() < LARGE, "it cannot be whole");
    stack.until_logged("/files/large");
}
