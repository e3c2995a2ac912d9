//! Parts of files (RFC 9110 §14): what a video player, a download that goes on, and a PDF viewer ask for.

use crate::harness::{Answer, Site, Stack, h2::H2};

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
[[site]]
hosts = ["localhost"]
routes = [{ path = "/", files = "public" }]
[[site]]
hosts = ["127.0.0.1"]
tls = "off"
routes = [{ path = "/", files = "public" }]
"#;

/// Larger than what is kept in memory, and than what is made sure of at once.
const LARGE: usize = 3 * 1024 * 1024 + 17;

fn large() -> Vec<u8> {
    (0..LARGE)
        .map(|index| (index * 7 + index / 251) as u8)
        .collect()
}

fn stack() -> Stack {
    Site::new(SITE)
        .file("public/ten", "0123456789")
        .file("public/large.bin", large())
        .start()
}

fn part(stack: &Stack, path: &str, range: &str) -> Answer {
    stack
        .client()
        .request("GET", path, &[("Range", range)], b"")
}

#[test]
fn a_part_is_sent_with_its_place() {
    let stack = stack();
    for (range, body, place) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let answer = part(&stack, "/ten", range);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (206, body),
            "{range}"
        );
        assert_eq!(answer.field("content-range"), Some(place), "{range}");
    }
    assert_eq!(stack.get("/ten").field("accept-ranges"), Some("bytes"));
}

#[test]
fn parts_of_a_large_file_are_exact_however_they_travel() {
    let (stack, large) = (stack(), large());
    let name = "localhost";
    let mut h2 = H2::connect(stack.https(), name);
    for (from, to) in [
        (0, 0),
        (1_048_575, 1_048_577),
        (5, 3_000_000),
        (LARGE - 1, LARGE - 1),
    ] {
        let range = format!("bytes={from}-{to}");
        let expected = &large[from..=to];
        let fields = [("Range", range.as_str())];
        assert!(
            part(&stack, "/large.bin", &range).body == expected,
            "plain {range}"
        );
        let tls = stack
            .tls_client(name)
            .request("GET", "/large.bin", &fields, b"");
        assert!(tls.body == expected, "TLS {range}");
        assert!(
            h2.request("GET", "/large.bin", &fields, b"").body == expected,
            "h2 {range}"
        );
    }
    assert!(stack.get("/large.bin").body == large, "the whole");
}

#[test]
fn several_parts_come_as_one_answer() {
    let (stack, large) = (stack(), large());
    for (path, parts) in [
        ("/ten", [(0, 1), (4, 5)]),
        ("/large.bin", [(10, 19), (2_000_000, 2_000_099)]),
    ] {
        let ranges: Vec<String> = parts
            .iter()
            .map(|(from, to)| format!("{from}-{to}"))
            .collect();
        let answer = part(&stack, path, &format!("bytes={}", ranges.join(", ")));
        assert_eq!(answer.status, 206);
        let kind = answer.field("content-type").expect("it has one");
        let boundary = kind
            .strip_prefix("multipart/byteranges; boundary=")
            .expect("parts have a boundary");
        let whole = if path == "/ten" {
            b"0123456789".to_vec()
        } else {
            large.clone()
        };
        let mut expected = Vec::new();
        for (from, to) in parts {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {from}-{to}/{}\r\n\r\n",
                whole.len()
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&whole[from..=to]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(answer.body == expected, "{path}");
    }
}

#[test]
fn what_is_not_there_is_said() {
    let stack = stack();
    let answer = part(&stack, "/ten", "bytes=10-");
    assert_eq!(
        (answer.status, answer.field("content-range")),
        (416, Some("bytes */10"))
    );
}

#[test]
fn a_download_goes_on_only_in_the_same_file() {
    let stack = stack();
    let etag = stack
        .get("/ten")
        .field("etag")
        .expect("it has one")
        .to_owned();
    let with = |tag: &str| {
        let fields = [("Range", "bytes=5-"), ("If-Range", tag)];
        stack.client().request("GET", "/ten", &fields, b"")
    };
    assert_eq!(with(&etag).status, 206);
    let other = with("\"another\"");
    assert_eq!((other.status, other.text().as_str()), (200, "0123456789"));
}

#[test]
fn a_changed_file_is_served_after_a_second_at_the_latest() {
    let stack = stack();
    assert_eq!(stack.get("/ten").text(), "0123456789");
    std::fs::write(stack.path().join("public/ten"), "changed").expect("the folder is ours");
    stack.until("the new content", || stack.get("/ten").text() == "changed");
    std::fs::remove_file(stack.path().join("public/ten")).expect("the folder is ours");
    stack.until("its end", || stack.get("/ten").status == 404);
}
