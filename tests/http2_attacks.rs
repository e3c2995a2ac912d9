//! Denials of service by HTTP/2, each tried: the connection ends, the log names the attack, the proxy's time and memory stay
//! small, and others are served meanwhile.

use std::{thread, time::Duration};

use crate::harness::{
    Site, Stack, cpu,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get,
    },
    h2::H2,
    memory,
};

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
access_log = { format = "json" }
[limits]
MORE
[[site]]
hosts = ["localhost", "127.0.0.1"]
tls = "self-signed"
routes = [{ path = "/", respond = "fixed" }, { path = "/files/", files = "files" }]
"#;

fn stack(more: &str) -> Stack {
    Site::new(&SITE.replace("MORE", more))
        .file("files/large.bin", vec![b'x'; 1 << 20])
        .start()
}

const ENHANCE_YOUR_CALM: u32 = 11;

/// As much as an attack may cost a proxy that is built for debugging, on a machine that does other things.
const MOST_CPU: Duration = Duration::from_secs(5);
const MOST_MEMORY_KIB: u64 = 24 * 1024;

/// Tries an attack: `start` once, and then `again` for each number until the server takes no more, at most `most` times: so many
/// that its last words still find a client that listens.
fn attack(stack: &Stack, name: &str, start: &[u8], most: u32, again: impl Fn(u32) -> Vec<u8>) {
    let proxy = stack.proxy().expect("it runs");
    let mut other = H2::connect(stack.https(), "localhost");
    assert_eq!(other.get("/").status, 200);
    let (memory_before, cpu_before) = (memory(proxy), cpu(proxy));
    let mut attacker = Frames::tls(stack.https());
    attacker.raw(start);
    for number in 0..most {
        if !attacker.raw(&again(number)) {
            break;
        }
    }
    let goaway = attacker.next_of(&[GOAWAY]).expect("a last word");
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM, "{name}");
    assert_eq!(goaway.payload[8..], *name.as_bytes());
    while attacker.next().is_some() {}
    // The others do not notice, on their old connections and on new ones.
    assert_eq!(other.get("/").status, 200, "{name}");
    assert_eq!(H2::connect(stack.https(), "localhost").get("/").status, 200);
    let used = cpu(proxy).saturating_sub(cpu_before);
    assert!(used < MOST_CPU, "{name}: {used:?}");
    let grown = memory(proxy).saturating_sub(memory_before);
    assert!(grown < MOST_MEMORY_KIB, "{name}: {grown} KiB");
    stack.until_logged(&format!("HTTP/2 connection of 127.0.0.1 closed, {name}: "));
    assert_eq!(stack.proxy(), Some(proxy), "the same process");
}

fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/"))
}

fn post(stream: u32) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "localhost"),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// CVE-2023-44487.
#[test]
fn rapid_reset() {
    attack(&stack(""), "rapid-reset", b"", 1000, |number| {
        let stream = 2 * number + 1;
        [ask(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
}

/// CVE-2025-8671: the client's errors make the server reset.
#[test]
fn made_you_reset() {
    attack(&stack(""), "made-you-reset", b"", 500, |number| {
        let stream = 2 * number + 1;
        [post(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
}

/// The same by requests that are none, and by more streams than are allowed.
#[test]
fn malformed_requests_without_end() {
    attack(&stack(""), "made-you-reset", b"", 500, |number| {
        let block = block(&[(":method", "GET"), (":path", "/"), ("X", "1")]);
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block)
    });
    attack(
        &stack("h2_streams = 5"),
        "made-you-reset",
        b"",
        500,
        |number| post(2 * number + 1),
    );
}

/// CVE-2019-9512. The client reads nothing meanwhile.
#[test]
fn ping_flood() {
    attack(&stack(""), "ping-flood", b"", 500, |_| {
        frame(PING, 0, 0, &[7; 8])
    });
}

/// What some honest clients need more of is the operator's to say, and so is less.
#[test]
fn allowances_are_what_the_configuration_says() {
    let more = stack("h2_pings = 1000000");
    let mut client = Frames::tls(more.https());
    for _ in 0..1000 {
        client.send(PING, 0, 0, &[7; 8]);
        client.next_of(&[PING]).expect("it is answered");
    }
    let less = stack("h2_resets = 3");
    attack(&less, "rapid-reset", b"", 10, |number| {
        let stream = 2 * number + 1;
        [ask(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    less.until_logged("rapid-reset: more than 3 in 10 s (limits.h2_resets)");
    attack(
        &stack("h2_empty_data = 0"),
        "empty-data",
        &post(1),
        1,
        |_| frame(DATA, 0, 1, b""),
    );
    attack(
        &stack("h2_window_updates = 10"),
        "window-flood",
        b"",
        20,
        |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
    );
}

/// CVE-2019-9515.
#[test]
fn settings_flood() {
    attack(&stack(""), "settings-flood", b"", 500, |number| {
        let [_, _, a, b] = number.to_be_bytes();
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, a, b])
    });
}

/// CVE-2024-27316: empty frames, and full ones.
#[test]
fn continuation_flood() {
    let start = frame(HEADERS, END_STREAM, 1, &get("/"));
    let stack = stack("");
    for (payload, most) in [(&[][..], 500), (&[0; 16_384], 15)] {
        attack(&stack, "continuation-flood", &start, most, |_| {
            frame(CONTINUATION, 0, 1, payload)
        });
    }
}

/// CVE-2019-9518.
#[test]
fn empty_and_tiny_content() {
    let stack = stack("");
    for payload in [&b""[..], b"x"] {
        attack(&stack, "empty-data", &post(1), 8000, |_| {
            frame(DATA, 0, 1, payload)
        });
    }
}

/// CVE-2019-9511: a large file, byte by byte.
#[test]
fn windows_opened_bit_by_bit() {
    let start = [
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &get("/files/large.bin"),
        ),
    ];
    attack(&stack(""), "window-flood", &start.concat(), 2500, |_| {
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])
    });
}

/// CVE-2019-9513, and frames that nobody knows.
#[test]
fn useless_frames() {
    let stack = stack("");
    attack(&stack, "useless-frames", b"", 1500, |number| {
        frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 1])
    });
    attack(&stack, "useless-frames", b"", 1500, |_| {
        frame(0x42, 0, 0, b"x")
    });
}

/// CVE-2016-6581, CVE-2026-49975: a large field in the table, and then one byte for each time that it is meant. What comes of
/// it is never kept.
#[test]
fn field_blocks_that_grow() {
    let stack = stack("");
    let proxy = stack.proxy().expect("it runs");
    let before = memory(proxy);
    let value = "v".repeat(4000);
    let mut first = get("/");
    first.extend([
        0x40,
        1,
        b'x',
        127,
        (4000_u16 - 127).to_le_bytes()[0] | 128,
        ((4000_u16 - 127) >> 7).to_le_bytes()[0],
    ]);
    first.extend(value.bytes());
    let mut clients: Vec<Frames> = (0..8).map(|_| Frames::tls(stack.https())).collect();
    for client in &mut clients {
        client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &first);
        // 12,000 times 4,000 bytes on each stream.
        let bomb = [get("/"), vec![0x80 | 62; 12_000]].concat();
        for stream in 1..90 {
            client.send(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &bomb);
        }
        for _ in 0..90 {
            let status = client.status().expect("each is answered");
            assert!(matches!(status, 200 | 431), "{status}");
        }
    }
    let grown = memory(proxy).saturating_sub(before);
    assert!(grown < MOST_MEMORY_KIB, "{grown} KiB");
    stack.until_logged("head-too-long");
    // Crumbs of cookies instead of large fields: counted.
    let mut client = Frames::tls(stack.https());
    let mut crumbs = get("/");
    crumbs.extend([0x60, 1, b'a']);
    crumbs.extend([0x80 | 62; 200]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &crumbs);
    assert_eq!(client.status(), Some(431));
}

/// CVE-2019-9517, CVE-2026-49975: a window that stays shut keeps responses for as long as a client that does not read.
#[test]
fn a_window_that_stays_shut() {
    let stack = stack("send_timeout = \"500ms\"");
    let mut client = Frames::tls(stack.https());
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in 0..50 {
        client.send(
            HEADERS,
            END_HEADERS | END_STREAM,
            2 * stream + 1,
            &get("/files/large.bin"),
        );
    }
    let mut cut = 0;
    while cut < 50 {
        let frame = client.next_of(&[RST_STREAM]).expect("each stream is cut");
        assert_eq!(frame.code(), 2);
        cut += 1;
    }
    stack.until_logged("send-timeout");
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 99]);
    client.raw(&ask(101));
    assert_eq!(
        client
            .next_of(&[DATA])
            .expect("the connection goes on")
            .payload,
        b"fixed"
    );
}

/// A client that asks and asks and reads nothing: what it does not take is bounded, and so is the time.
#[test]
fn a_client_that_never_reads() {
    let stack = stack("send_timeout = \"1s\"");
    let proxy = stack.proxy().expect("it runs");
    let before = memory(proxy);
    let mut client = Frames::tls(stack.https());
    client.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    for stream in 0..90 {
        client.send(
            HEADERS,
            END_HEADERS | END_STREAM,
            2 * stream + 1,
            &get("/files/large.bin"),
        );
    }
    // Whichever of its streams and the connection is late first.
    stack.until("the end of it", || {
        let log = stack.logged();
        log.contains("send-timeout") || log.contains("client-left")
    });
    let grown = memory(proxy).saturating_sub(before);
    assert!(grown < 2 * MOST_MEMORY_KIB, "{grown} KiB");
    assert_eq!(H2::connect(stack.https(), "localhost").get("/").status, 200);
}

/// Several at once, and the site is still there.
#[test]
fn many_attackers_and_one_visitor() {
    let stack = stack("keepalive_requests = 1000000");
    let address = stack.https();
    let attackers: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..5 {
                    let mut attacker = Frames::tls(address);
                    let mut stream = 1;
                    while attacker
                        .raw(&[ask(stream), frame(RST_STREAM, 0, stream, &[0; 4])].concat())
                    {
                        stream += 2;
                    }
                }
            })
        })
        .collect();
    let mut visitor = H2::connect(address, "localhost");
    while attackers.iter().any(|attacker| !attacker.is_finished()) {
        assert_eq!(visitor.get("/").status, 200);
    }
    stack.until_logged("rapid-reset");
}
