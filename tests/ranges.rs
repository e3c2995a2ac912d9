//! Parts of files (RFC 9110 §14): what a video player, a download that goes on, and a PDF viewer ask for.

use crate::harness::{Answer, Site, Stack, h2::H2};

const SITE: &str = r#"
[server]
access_log = { format = "json" }
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
        .map(|index| (index * 7 + index / 251).to_le_bytes()[0])
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
    for range in ["bytes=10-", "bytes=0-5,3-7"] {
        let answer = part(&stack, "/ten", range);
        assert_eq!(
            (answer.status, answer.field("content-range")),
            (416, Some("bytes */10"))
        );
        let id = answer.field("x-request-id").expect("it has one").to_owned();
        assert!(answer.text().contains(&id), "{}", answer.text());
        let line = stack.until_logged(&id);
        assert!(line.contains("no-such-part"), "{line}");
    }
}

#[test]
fn a_condition_that_does_not_hold_is_said() {
    let stack = stack();
    let fields = [("If-Match", "\"another\""), ("Accept", "application/json")];
    let answer = stack.client().request("GET", "/ten", &fields, b"");
    let value: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (answer.status, value["cause"].as_str()),
        (412, Some("precondition-failed"))
    );
    let head = stack.client().request("HEAD", "/ten", &fields, b"");
    assert_eq!((head.status, head.body.len()), (412, 0));
}

/// A disk image: its ends are where 32 bits are not enough, and nothing is between them.
#[test]
fn a_file_of_five_gib_has_parts() {
    use std::os::unix::fs::FileExt;
    const LENGTH: u64 = 5 << 30;
    let stack = stack();
    let file = std::fs::File::create(stack.path().join("public/image")).expect("ours");
    file.set_len(LENGTH)
        .expect("the file system has sparse files");
    for (place, text) in [
        (0, b"begin"),
        ((1 << 32) - 2, b"cross"),
        (LENGTH - 5, b"ended"),
    ] {
        file.write_all_at(text, place).expect("ours");
    }
    for (range, place, body) in [
        ("bytes=0-4", "0-4", "begin"),
        (
            "bytes=4294967294-4294967298",
            "4294967294-4294967298",
            "cross",
        ),
        ("bytes=5368709115-", "5368709115-5368709119", "ended"),
        ("bytes=-5", "5368709115-5368709119", "ended"),
        ("bytes=-5,99999999999-", "5368709115-5368709119", "ended"),
    ] {
        for mut client in [stack.client(), stack.tls_client("localhost")] {
            let answer = client.request("GET", "/image", &[("Range", range)], b"");
            let place = format!("bytes {place}/{LENGTH}");
            assert_eq!(
                (
                    answer.status,
                    answer.text().as_str(),
                    answer.field("content-range")
                ),
                (206, body, Some(place.as_str())),
                "{range}"
            );
        }
    }
    let head = stack.client().request("HEAD", "/image", &[], b"");
    assert_eq!(head.field("content-length"), Some("5368709120"));
    let past = part(&stack, "/image", "bytes=5368709120-");
    assert_eq!(past.status, 416);
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
