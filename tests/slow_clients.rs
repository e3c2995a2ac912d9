//! A client never holds a worker: not while it sends, not while it reads, not when it is gone. What it has not taken lies in memory
//! and then in files without names, within a budget; past that the worker waits, but never half of them.

use std::{fs, io::Write, net::TcpStream, process::Command};

use rustix::process::Signal;

use crate::harness::{Client, Site, Stack, descriptors, is_alive, kill, memory, read_some};

/// `/large` answers with 4 MiB, `/larger` with 16, `/closed` says how often a response was closed, `/events` sends one whenever
/// there is another `go`, everything else answers with the length of what was sent.
const APP: &str = r#"
import os, time

MIB = bytes(range(256)) * 4096
closed = []

class Body:
    def __init__(self, blocks):
        self.blocks = iter(blocks)
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.blocks)
    def close(self):
        closed.append(1)

def events(seconds):
    number = 0
    while True:
        yield b"data: %d\n\n" % number
        number += 1
        while not os.path.exists(f"go{number}"):
            time.sleep(0.01)

def wait():
    open("inside", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return [b"waited"]

def app(environ, start_response):
    path = environ["PATH_INFO"]
    fields = [("Content-Type", "text/plain")]
    if path == "/large":
        blocks = [MIB] * 4
    elif path == "/larger":
        blocks = [MIB] * 16
    elif path == "/events":
        fields = [("Content-Type", "text/event-stream; charset=utf-8")]
        blocks = events(0)
    elif path == "/accel":
        fields.append(("X-Accel-Buffering", "no"))
        blocks = events(0)
    elif path == "/trickle":
        blocks = events(0)
    elif path == "/closed":
        blocks = [b"%d" % len(closed)]
        start_response("200 OK", fields)
        return blocks
    elif path == "/wait":
        blocks = wait()
    else:
        blocks = [b"%d" % len(environ["wsgi.input"].read())]
    start_response("200 OK", fields)
    return Body(blocks)
"#;

/// One slot, unless there are more.
fn site(slots: usize, limits: &str) -> Site {
    Site::with_app(APP)
        .edit("threads = 2", &format!("threads = {slots}"))
        .edit(
            "[server]",
            &format!("[limits]\n{limits}\n[server]\nspool = \"spool\"\naccess_log = {{ format = \"json\" }}"),
        )
        .file("spool/.keep", "")
}

/// Asks, and takes nothing of the answer but its beginning.
fn slow(stack: &Stack, path: &str) -> Client {
    let mut client = Client::with_small_buffer(stack.http());
    client.ask(path);
    assert_eq!(client.answer_head().status, 200);
    client
}

fn large() -> Vec<u8> {
    let all: Vec<u8> = (0..=255).collect();
    all.repeat(4 * 4096)
}

/// How often the app's responses were closed.
fn closed(stack: &Stack) -> usize {
    stack.get("/closed").text().parse().expect("a number")
}

/// The files without names that the proxy has open.
fn unnamed(stack: &Stack) -> usize {
    unnamed_of(stack).len()
}

fn unnamed_of(stack: &Stack) -> Vec<u32> {
    let open = descriptors(stack.proxy().expect("it runs"));
    let spool = stack.path().join("spool");
    let is_in_spool =
        |what: &str| what.starts_with(&*spool.to_string_lossy()) && what.ends_with("(deleted)");
    open.into_iter()
        .filter(|(_, what)| is_in_spool(what))
        .map(|(number, _)| number)
        .collect()
}

/// How many bytes lie in them.
fn bytes_unnamed(stack: &Stack) -> u64 {
    let proxy = stack.proxy().expect("it runs");
    let size = |number: u32| {
        let metadata = fs::metadata(format!("/proc/{proxy}/fd/{number}"));
        metadata.map_or(0, |metadata| metadata.len())
    };
    unnamed_of(stack).into_iter().map(size).sum()
}

/// What lies in the folder by name.
fn named(stack: &Stack) -> usize {
    fs::read_dir(stack.path().join("spool"))
        .expect("ours")
        .count()
        - 1
}

fn record(stack: &Stack, target: &str) -> serde_json::Value {
    let needle = format!("\"target\":\"{target}\"");
    let log = stack.until_logged(&needle);
    let line = log.lines().rfind(|line| line.contains(&needle));
    serde_json::from_str(line.expect("it was found")).expect("JSON")
}

#[test]
fn a_client_that_reads_slowly_holds_no_slot() {
    let stack = site(1, "").start();
    let mut readers: Vec<Client> = (0..5).map(|_| slow(&stack, "/large")).collect();
    assert_eq!(closed(&stack), 5, "the app is done with all of them");
    assert_eq!((unnamed(&stack), named(&stack)), (5, 0));
    for reader in &mut readers {
        assert!(reader.body_of_length(4 << 20) == large());
    }
    stack.until("all files are gone", || unnamed(&stack) == 0);
}

#[test]
fn the_same_by_http2() {
    let site = site(1, "").edit("http = ", "https = [\"127.0.0.1:0\"]\nhttp = ");
    let stack = site.start();
    let mut h2 = crate::harness::h2::H2::connect(stack.https(), "localhost");
    let held = h2.get_head("/large");
    let mut client = stack.tls_client("localhost");
    assert_eq!(client.get("/closed").text(), "1");
    assert!(h2.rest(held).body == large());
}

#[test]
fn past_memory_and_disk_the_slot_waits_for_its_client_and_leaves_with_it() {
    let stack = site(1, "response_disk = 0\nqueue_timeout = \"100ms\"").start();
    let mut reader = slow(&stack, "/large");
    assert_eq!(stack.get("/closed").status, 503);
    assert_eq!(record(&stack, "/closed")["cause"], "queue-timeout");
    assert!(reader.body_of_length(4 << 20) == large());
    stack.until("the slot is free", || stack.get("/").status == 200);
    assert_eq!(closed(&stack), 2);
    drop(slow(&stack, "/large"));
    stack.until("its response is closed", || {
        let answer = stack.get("/closed");
        answer.status == 200 && answer.text() == "3"
    });
    stack.until_logged("\"cause\":\"client-left\"");
}

#[test]
fn of_slots_that_wait_for_their_clients_there_are_never_more_than_half() {
    let stack = site(4, "response_disk = 0").start();
    let mut readers: Vec<Client> = (0..3).map(|_| slow(&stack, "/large")).collect();
    let log = stack.until_logged("the slowest of them is cut: request ");
    assert!(log.contains("app web: 3 of 4 slots wait"), "{log}");
    stack.until("its response is closed", || closed(&stack) == 1);
    let whole: Vec<bool> = readers
        .iter_mut()
        .map(|reader| reader.rest_of(4 << 20) == large())
        .collect();
    assert_eq!(
        whole.iter().filter(|whole| !**whole).count(),
        1,
        "{whole:?}"
    );
    stack.until_logged("\"cause\":\"slow-reader\"");
}

#[test]
fn an_upload_lies_in_a_file_without_a_name_and_is_gone_with_its_client() {
    let stack = site(1, "").start();
    let mut client = stack.client();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 500_000]);
    stack.until("it is on disk", || unnamed(&stack) == 1);
    assert_eq!(named(&stack), 0);
    assert_eq!(stack.get("/").text(), "0", "the slot is free");
    client.send(vec![b'x'; 500_000]);
    assert_eq!(client.answer(false).text(), "1000000");
    stack.until("the file is gone", || unnamed(&stack) == 0);
    client.send("POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 500_000]);
    stack.until("it is on disk", || unnamed(&stack) == 1);
    drop(client);
    let record = record(&stack, "/left");
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&499.into(), &"client-left".into())
    );
    stack.until("the file is gone", || unnamed(&stack) == 0);
}

#[test]
fn nothing_is_left_after_a_kill() {
    let stack = site(1, "").start();
    let _reader = slow(&stack, "/large");
    let mut client = stack.client();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 500_000]);
    stack.until("both are on disk", || unnamed(&stack) == 2);
    let proxy = stack.proxy().expect("it runs");
    kill(proxy, Signal::KILL);
    stack.until("it is dead", || !is_alive(proxy));
    assert_eq!(named(&stack), 0);
}

#[test]
fn past_the_budget_uploads_are_refused_before_they_are_sent_and_small_requests_go_on() {
    let stack = site(1, "body = \"1MiB\"\nbuffers_disk = \"1MiB\"").start();
    let mut large = stack.client();
    large.send("POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
    large.send(vec![b'x'; 800_000]);
    stack.until("most of it is on disk", || bytes_unnamed(&stack) >= 700_000);
    let mut waits = stack.client();
    waits.send(
        "POST /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 500000\r\n\r\n",
    );
    let refused = waits.answer_head();
    assert_eq!(refused.status, 503);
    assert!(refused.field("retry-after").is_some());
    let record = record(&stack, "/refused");
    assert_eq!(record["cause"], "spool-full");
    // One that does not say how long it is gets as far as there is room.
    let mut chunked = stack.client();
    chunked.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    for _ in 0..15 {
        chunked.send(&chunk);
    }
    assert_eq!(chunked.answer(false).status, 503);
    let small = stack.client().post("/", "text/plain", &[b'x'; 60_000]);
    assert_eq!(small.text(), "60000");
    // As large as a body may be, and as all of the room: it used to be refused for want of an eighth that it did not need.
    large.send(vec![b'x'; 1_048_576 - 800_000]);
    assert_eq!(large.answer(false).text(), "1048576");
    let some = stack.client().post("/", "text/plain", &[b'x'; 1_048_576]);
    assert_eq!(some.text(), "1048576", "what was used is there again");
}

/// A file system of 1 MiB, as long as this lives. `None` where we may not mount.
struct Tiny<'s>(&'s Stack);

fn mount(site: &Site) -> bool {
    let spool = site.path().join("spool");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&spool)
        .stderr(std::process::Stdio::null())
        .status();
    mount.is_ok_and(|status| status.success())
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let spool = self.0.path().join("spool");
        // Lazily: the proxy may have a file open in it.
        let _ = Command::new("umount").arg("-l").arg(spool).status();
    }
}

#[test]
fn a_full_disk_is_the_affair_of_one_request() {
    let site = site(1, "queue_timeout = \"100ms\"");
    if !mount(&site) {
        println!("!!! NOT TESTED: a full disk. Only root may mount a small file system.");
        return;
    }
    let stack = site.start();
    let _tiny = Tiny(&stack);
    let mut client = stack.client();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    let mut sent = 0;
    while sent < 3_000_000 && client.try_send(&[b'x'; 10_000]) {
        sent += 10_000;
    }
    assert_eq!(client.answer(false).status, 503);
    assert_eq!(record(&stack, "/upload")["cause"], "spool-failed");
    stack.until_logged("No space left on device");
    assert_eq!(
        stack.client().post("/", "a/b", &[b'x'; 300_000]).text(),
        "300000"
    );
    // A response goes at its client's speed, and is whole.
    // Of this one the kernel does not take so much that the rest has room: it remembers whom it has sent fast to, and then takes
    // 4 MiB at once (`net.ipv4.tcp_wmem`).
    let mut reader = slow(&stack, "/larger");
    let log = stack.until_logged("goes at its client's speed: No space left");
    assert_eq!(
        log.matches("goes at its client's speed").count(),
        1,
        "{log}"
    );
    assert!(reader.body_of_length(16 << 20) == large().repeat(4));
    stack.until("the slot is free", || stack.get("/").status == 200);
}

/// `/progress` counts what it has read in the file `progress`, `/early` answers before it reads, everything else as in [`APP`].
const READER: &str = r#"
import os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"]
    fields = [("Content-Type", "text/plain")]
    if path == "/refuse":
        start_response("401 Unauthorized", fields)
        return [b"no"]
    if path == "/transform":
        start_response("200 OK", fields)
        return (piece.upper() for piece in iter(lambda: body.read(1000), b""))
    open("inside", "w").close()
    seen = 0
    while seen < length:
        piece = body.read(min(1000, length - seen))
        if not piece:
            break
        seen += len(piece)
        with open("new", "w") as new:
            new.write(str(seen))
        os.rename("new", "progress")
    start_response("200 OK", fields)
    return [str(seen).encode()]
"#;

fn streaming() -> Stack {
    Site::with_app(READER)
        .edit(
            "app = \"web\" }",
            "app = \"web\", request_buffering = false }",
        )
        .edit(
            "[server]",
            "[limits]\nbody_timeout = \"1s\"\n[server]\naccess_log = { format = \"json\" }",
        )
        .edit("threads = 2", "threads = 4\nstreams = 1\ntimeout = \"1s\"")
        .start()
}

#[test]
fn an_upload_is_passed_on_as_it_comes_where_the_route_says_so() {
    let stack = streaming();
    let mut client = stack.client();
    client.send("POST /progress HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    for part in 1..=20 {
        client.send(vec![b'x'; 10_000]);
        stack.until("the app has seen it", || {
            let progress = fs::read_to_string(stack.path().join("progress")).unwrap_or_default();
            progress == (part * 10_000).to_string()
        });
    }
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.text().as_str()), (200, "200000"));
    assert_eq!(record(&stack, "/progress")["bytes_in"], 200_000);
    assert_eq!(
        client.post("/again", "a/b", b"12345").text(),
        "5",
        "the slot and the connection go on"
    );
    let mut chunked = stack.client();
    chunked.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    );
    assert_eq!(chunked.answer(false).text(), "5", "read whole");
}

#[test]
fn an_app_may_answer_before_or_while_it_reads() {
    let stack = streaming();
    let mut client = stack.client();
    client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n12345");
    assert_eq!(client.answer(false).status, 401);
    assert!(client.is_closed(), "nobody reads the rest");
    let mut client = stack.client();
    client.send("POST /transform HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    for _ in 0..90 {
        client.send(vec![b'x'; 10_000]);
    }
    let answer = client.answer(false);
    assert!(
        answer.body == vec![b'X'; 900_000],
        "{} bytes",
        answer.body.len()
    );
}

#[test]
fn uploads_that_are_passed_on_take_no_more_slots_than_streams() {
    let stack = streaming();
    let head = "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    let mut silent = stack.client();
    // Who has not begun to send takes no slot.
    silent.send("POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    let mut slow = stack.client();
    slow.send(head).send(b"12345");
    stack.until("the app reads", || stack.path().join("inside").exists());
    let mut second = stack.client();
    second.send(head).send(b"12345");
    assert_eq!(second.answer(false).status, 503);
    stack.until_logged("\"cause\":\"streams-full\"");
    assert_eq!(stack.get("/").status, 200);
    assert_eq!(slow.answer(false).status, 408, "it sends no more");
    assert_eq!(silent.answer(false).status, 408);
    let mut third = stack.client();
    third.send(head).send(b"12345");
    drop(third);
    stack.until_logged("\"cause\":\"client-left\"");
    stack.until("its slot is free", || {
        stack.client().post("/", "a/b", b"12345").status == 200
    });
}

#[test]
fn what_trickles_is_passed_on_at_once() {
    for path in ["/events", "/accel", "/trickle"] {
        let stack = site(2, "").start();
        let mut client = stack.client();
        client.ask(path);
        let head = client.answer_head();
        assert_eq!(head.field("x-accel-buffering"), None);
        assert_eq!(client.chunk(), b"data: 0\n\n");
        for number in 1..4 {
            fs::write(stack.path().join(format!("go{number}")), "").expect("ours");
            assert_eq!(client.chunk(), format!("data: {number}\n\n").as_bytes());
        }
    }
}

#[test]
fn streams_do_not_take_every_slot() {
    let stack = site(4, "")
        .edit("threads = 4", "threads = 4\nstreams = 2")
        .start();
    let events = || {
        let mut client = stack.client();
        client.ask("/events");
        client
    };
    let (mut one, mut two) = (events(), events());
    assert_eq!(one.answer_head().status, 200);
    assert_eq!(two.answer_head().status, 200);
    let third = events().answer(false);
    assert_eq!(third.status, 503);
    assert_eq!(record(&stack, "/events")["cause"], "streams-full");
    assert_eq!(stack.get("/").status, 200);
    // A client that leaves is noticed while the app says nothing, and the app hears of it as soon as it speaks.
    drop(one);
    stack.until("one is free", || events().answer_head().status == 200);
    drop(two);
    for number in 1..9 {
        fs::write(stack.path().join(format!("go{number}")), "").expect("ours");
    }
    stack.until("the app has heard", || closed(&stack) >= 2);
}

#[test]
fn a_client_that_leaves_while_the_app_works_is_499_and_its_response_is_closed() {
    let stack = site(2, "").start();
    let mut client = stack.client();
    client.ask("/wait");
    let inside = stack.path().join("inside");
    stack.until("it runs", || inside.exists());
    drop(client);
    let record = record(&stack, "/wait");
    assert_eq!(
        (&record["status"], &record["cause"]),
        (&499.into(), &"client-left".into())
    );
    assert_eq!(stack.get("/closed").text(), "0", "it still runs");
    fs::write(stack.path().join("go"), "").expect("ours");
    stack.until("it is finished", || closed(&stack) == 1);
}

#[test]
fn a_client_that_leaves_in_its_head_is_nobody() {
    let stack = site(1, "").start();
    let mut tcp = TcpStream::connect(stack.http()).expect("it listens");
    tcp.write_all(b"GET /half HTTP/1.1\r\nHo")
        .expect("it takes it");
    tcp.shutdown(std::net::Shutdown::Both).expect("open");
    assert_eq!(read_some(&mut tcp, &mut [0; 10]).unwrap_or(0), 0);
    assert_eq!(stack.get("/").status, 200);
    assert!(!stack.logged().contains("/half"));
}

/// The allocator keeps what a thread has freed until that thread allocates again, and after a rush none does.
#[test]
fn the_memory_of_a_rush_goes_back_to_the_system() {
    let stack = site(1, "").start();
    let proxy = stack.proxy().expect("it runs");
    assert_eq!(stack.get("/").status, 200);
    let before = memory(proxy);
    let rush: Vec<Client> = (0..400)
        .map(|_| {
            let mut client = stack.client();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n");
            client.send([b'x'; 60_000]);
            client
        })
        .collect();
    let most = 16 << 10;
    stack.until("16 MiB are in memory", || memory(proxy) > before + most);
    drop(rush);
    stack.until("it is given back", || memory(proxy) < before + most / 4);
    assert_eq!(stack.get("/").status, 200);
}
