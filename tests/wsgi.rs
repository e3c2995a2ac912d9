//! WSGI (PEP 3333) from the client's side: what an app gives is what a client gets, and what it gives wrongly harms nobody.

use std::{thread, time::Instant};

use rustix::process::Signal;

use crate::harness::{Answer, Client, PATIENCE, Site, Stack, descriptors, h2::H2, memory};

/// `file_wrapper` with all that people give it; the path chooses. Every `close` is counted.
const FILES: &str = r#"
import gzip, io, json, os, tempfile

closed = []

class Counting(io.BytesIO):
    def close(self):
        closed.append("bytes")
        super().close()

class Shouting(io.FileIO):
    def read(self, size=-1):
        return super().read(size).upper()

class Proxy:
    """As Django's File: its `read` is that of the file within."""
    def __init__(self, file):
        self.file = file
    read = property(lambda self: self.file.read)
    def close(self):
        closed.append("proxy")
        self.file.close()

def start(path):
    if path == "/whole":
        file = open("big.bin", "rb")
    elif path == "/rest":
        file = open("big.bin", "rb")
        file.read(100)
    elif path == "/end":
        file = open("big.bin", "rb")
        file.seek(0, os.SEEK_END)
    elif path == "/raw":
        file = open("big.bin", "rb", buffering=0)
    elif path == "/temporary":
        file = tempfile.TemporaryFile()
        file.write(b"temporary")
        file.seek(4)
    elif path == "/named":
        file = tempfile.NamedTemporaryFile()
        file.write(b"named")
        file.seek(0)
    elif path == "/proxy":
        file = Proxy(open("big.bin", "rb"))
    elif path == "/bytes":
        file = Counting(b"in memory")
    elif path == "/gzip":
        file = gzip.open("packed.gz", "rb")
    elif path == "/shouting":
        file = Shouting("small.txt")
    elif path == "/text":
        file = open("small.txt")
    elif path == "/pipe":
        reader, writer = os.pipe()
        os.write(writer, b"through a pipe")
        os.close(writer)
        file = os.fdopen(reader, "rb")
    else:
        file = open("small.txt", "rb")
    return file

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/closed":
        body = json.dumps([closed, len(os.listdir("/proc/self/fd"))]).encode()
        closed.clear()
        start_response("200 OK", [])
        return [body]
    if path == "/pack":
        with gzip.open("packed.gz", "wb") as file:
            file.write(b"unpacked")
        start_response("204 No Content", [])
        return []
    fields = [("Content-Type", "application/x-test")]
    if path == "/less":
        fields.append(("Content-Length", "3"))
    elif path == "/more":
        fields.append(("Content-Length", "300"))
    elif path == "/exact":
        fields.append(("Content-Length", "5"))
    write = start_response("304 Not Modified" if path == "/unchanged" else "200 OK", fields)
    if path == "/written":
        write(b"before, ")
    wrapper = environ["wsgi.file_wrapper"](start(path), 8192)
    if path == "/reversed":
        return reversed(list(wrapper))
    return wrapper
"#;

fn big() -> Vec<u8> {
    (0..3_000_000u32)
        .map(|number| (number / 7).to_le_bytes()[0])
        .collect()
}

fn files() -> Stack {
    Site::with_app(FILES)
        .file("big.bin", big())
        .file("small.txt", "small")
        .start()
}

#[test]
fn a_file_is_what_is_left_of_it() {
    let stack = files();
    let mut client = stack.client();
    assert_eq!(client.get("/pack").status, 204);
    let big = big();
    for (path, content) in [
        ("/whole", &big[..]),
        ("/rest", &big[100..]),
        ("/end", b""),
        ("/raw", &big),
        ("/temporary", b"orary"),
        ("/named", b"named"),
        ("/proxy", &big),
        ("/exact", b"small"),
        ("/bytes", b"in memory"),
        // They have a descriptor, but what they give is not what it has.
        ("/gzip", b"unpacked"),
        ("/shouting", b"SMALL"),
        ("/pipe", b"through a pipe"),
        ("/written", b"before, small"),
        ("/reversed", b"small"),
        ("/less", b"sma"),
        ("/unchanged", b""),
    ] {
        let answer = client.get(path);
        let status = if path == "/unchanged" { 304 } else { 200 };
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.field("content-type"),
            Some("application/x-test"),
            "{path}"
        );
        assert!(
            answer.body == content,
            "{path}: {} bytes",
            answer.body.len()
        );
    }
    let head = client.request("HEAD", "/rest", &[], b"");
    let left = (big.len() - 100).to_string();
    assert_eq!(head.field("content-length"), Some(left.as_str()));
    assert_eq!(client.get("/text").status, 500);
    stack.until_logged("one block is str");
    // The promise cannot be kept: the client must see that it was not.
    let mut short = stack.client();
    short.ask("/more");
    let answer = short.answer_head();
    assert_eq!(answer.field("content-length"), Some("300"));
    assert_eq!(short.rest(), b"small");
    stack.until_logged("ended 295 bytes before its Content-Length of 300");
}

#[test]
fn every_file_is_closed_once_and_no_descriptor_stays() {
    let stack = files();
    let mut client = stack.client();
    let closed = |client: &mut Client| -> serde_json::Value {
        serde_json::from_slice(&client.get("/closed").body).expect("JSON")
    };
    let before = closed(&mut client)[1].clone();
    let proxy = stack.proxy().expect("it runs");
    let open = descriptors(proxy).len();
    for _ in 0..10 {
        for path in ["/proxy", "/bytes", "/named", "/whole"] {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
    }
    let after = closed(&mut client);
    let names = ["proxy", "bytes"].repeat(10);
    assert_eq!(after[0], serde_json::json!(names));
    assert_eq!(after[1], before, "descriptors of the worker");
    stack.until("the proxy has closed them", || {
        descriptors(proxy).len() <= open
    });
}

/// Both slots would be held by two clients that do not read, if the worker had to send what they asked for.
#[test]
fn a_file_frees_its_slot_at_once() {
    let stack = Site::with_app(FILES)
        .edit("threads = 2", "threads = 1")
        .file("big.bin", vec![b'x'; 64 << 20])
        .file("small.txt", "small")
        .start();
    let mut slow: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = stack.client();
            client.ask("/whole");
            client
        })
        .collect();
    assert_eq!(stack.get("/exact").text(), "small");
    for client in &mut slow {
        assert_eq!(client.answer(false).body.len(), 64 << 20);
    }
}

#[test]
fn a_file_by_http2() {
    let stack = Site::with_app(FILES)
        .edit("[server]", "[server]\nhttps = [\"127.0.0.1:0\"]")
        .edit(r#"hosts = ["*"]"#, "hosts = [\"*\"]\ntls = \"self-signed\"")
        .file("big.bin", big())
        .start();
    let mut h2 = H2::connect(stack.https(), "localhost");
    assert!(h2.get("/rest").body == big()[100..]);
}

/// A real app behind wsgiref's validator, which complains of whatever a server does against PEP 3333.
const VALIDATED: &str = r#"
from wsgiref.validate import validator

def plain(environ, start_response):
    stream = environ["wsgi.input"]
    content = b"".join(stream) if environ["PATH_INFO"] == "/lines" else stream.read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.errors"].write("seen\n")
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/write":
        write(b"written, ")
    if environ["PATH_INFO"] == "/generator":
        return (piece for piece in [b"one ", b"two"])
    return [b"got ", content]

app = validator(plain)
"#;

#[test]
fn the_validator_has_nothing_to_say() {
    let stack = Site::with_app(VALIDATED).start();
    let mut client = stack.client();
    let post = |client: &mut Client, path: &str, body: &[u8]| -> String {
        client.post(path, "text/plain", body).text()
    };
    assert_eq!(client.get("/").text(), "got ");
    assert_eq!(post(&mut client, "/", b"content"), "got content");
    assert_eq!(post(&mut client, "/lines", b"a\nb\n"), "got a\nb\n");
    assert_eq!(post(&mut client, "/write", b"more"), "written, got more");
    assert_eq!(client.get("/generator").text(), "one two");
    assert_eq!(client.get("/%C3%BC?x=%20").text(), "got ");
    let head = client.request("HEAD", "/", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let large = vec![b'x'; 300_000];
    assert_eq!(post(&mut client, "/", &large).len(), 300_004);
    let log = stack.logged();
    assert!(!log.contains("Traceback"), "{log}");
}

/// What can go wrong on an app's side.
const WRONG: &str = r#"
import ctypes, sys, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise LookupError("before the head")
    if path == "/exit":
        sys.exit(3)
    if path == "/interrupt":
        raise KeyboardInterrupt
    if path == "/generator-exit":
        raise GeneratorExit
    if path == "/memory":
        bytearray(1 << 60)
    if path == "/silent":
        return [b"no head"]
    if path == "/field":
        start_response("200 OK", [("X-Evil", "a\r\nSet-Cookie: b")])
    if path == "/crash":
        ctypes.string_at(0)
    if path == "/mid":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return middle()
    if path == "/mid-sized":
        start_response("200 OK", [("Content-Length", "100")])
        return middle()
    if path == "/too-long":
        start_response("200 OK", [("Content-Length", "4")])
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    if path == "/204":
        start_response("204 No Content", [("Content-Length", "4")])
        return [b"body"]
    if path == "/304":
        start_response("304 Not Modified", [("ETag", '"x"')])
        return [b"body"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/endless":
        return endless()
    return [b"fine"]

def middle():
    yield b"begun"
    raise LookupError("in the middle")

closed = 0

def endless():
    try:
        while True:
            yield b"x" * 65536
    finally:
        print("the generator is closed")
"#;

fn id(answer: &Answer) -> String {
    answer
        .field("x-request-id")
        .expect("every answer has one")
        .to_owned()
}

#[test]
fn an_exception_is_one_line_and_one_traceback() {
    let stack = Site::with_app(WRONG).start();
    let mut client = stack.client();
    for (path, what) in [
        ("/raise", "LookupError: before the head"),
        ("/exit", "SystemExit: 3"),
        ("/interrupt", "KeyboardInterrupt"),
        ("/generator-exit", "GeneratorExit"),
        ("/memory", "MemoryError"),
        ("/silent", "before it called start_response"),
        ("/field", "the value of the field \"X-Evil\""),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, 500, "{path}");
        let id = id(&answer);
        assert!(answer.text().contains(&id), "{path}: the page has the id");
        assert!(
            !answer.text().contains("Traceback"),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(answer.field("set-cookie"), None);
        stack.until_logged(what);
        let log = stack.logged();
        let named = format!("app web: GET {path} (request {id}) ");
        assert_eq!(log.matches(&named).count(), 1, "{path}: {log}");
        assert_eq!(client.get("/").text(), "fine", "after {path}");
    }
    assert_eq!(stack.workers().len(), 1);
}

#[test]
fn a_response_that_breaks_off_is_seen_to_break_off() {
    let stack = Site::with_app(WRONG).start();
    for path in ["/mid", "/mid-sized"] {
        let mut client = stack.client();
        client.ask(path);
        // The head may be out already, or a 502 may still be possible; whole it must not seem.
        let head = client.answer_head();
        let rest = client.rest();
        if head.status == 200 {
            assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 100, "{path}");
        } else {
            assert_eq!(head.status, 502, "{path}");
        }
        stack.until_logged("LookupError: in the middle");
        assert_eq!(stack.get("/").text(), "fine");
    }
}

#[test]
fn framing_is_ours() {
    let stack = Site::with_app(WRONG).start();
    let mut client = stack.client();
    assert_eq!(client.get("/too-long").text(), "HTTP");
    stack.until_logged("longer than its Content-Length of 4");
    let nothing = client.get("/204");
    assert_eq!(
        (nothing.status, nothing.field("content-length")),
        (204, None)
    );
    assert_eq!(client.get("/304").status, 304);
    assert_eq!(client.request("HEAD", "/", &[], b"").status, 200);
    let whole = client.get("/");
    assert_eq!(whole.field("content-length"), Some("4"));
    assert_eq!(whole.text(), "fine");
}

#[test]
fn a_crash_costs_one_request() {
    let stack = Site::with_app(WRONG)
        .edit("workers = 1", "workers = 2")
        .start();
    let mut bystander = stack.client();
    bystander.ask("/endless");
    assert_eq!(bystander.answer_head().status, 200);
    let answer = stack.get("/crash");
    assert_eq!(answer.status, 502);
    stack.until_logged("Fatal Python error: Segmentation fault");
    assert_eq!(stack.get("/").text(), "fine");
    stack.until("another worker", || stack.workers().len() == 2);
}

#[test]
fn a_client_that_leaves_closes_the_iterator() {
    let stack = Site::with_app(WRONG).start();
    let mut client = stack.client();
    client.ask("/endless");
    assert_eq!(client.answer_head().status, 200);
    drop(client);
    stack.until_logged("the generator is closed");
    assert!(!stack.logged().contains("Traceback"));
}

/// A response larger than `response_memory` waited for room that there never was.
#[test]
fn responses_larger_than_what_is_held_in_memory() {
    let app = r#"
def app(environ, start_response):
    size = int(environ["PATH_INFO"][1:])
    start_response("200 OK", [("Content-Length", str(size))])
    return [b"x" * size]
"#;
    let stack = Site::with_app(app).start();
    let mut client = stack.client();
    for size in [0, 1, 65_536, 262_143, 262_144, 262_145, 1 << 20, 20 << 20] {
        let answer = client.get(&format!("/{size}"));
        assert_eq!(answer.body.len(), size);
    }
}

/// Counts what it reads, in pieces, as a framework does it.
const COUNTING: &str = r#"
def app(environ, start_response):
    total = 0
    while block := environ["wsgi.input"].read(65536):
        total += len(block)
    start_response("200 OK", [])
    return [str(total).encode()]
"#;

/// Neither the proxy, which has it on disk, nor the worker, which reads it in pieces, holds an upload.
#[test]
fn an_upload_of_any_size_is_nowhere_in_memory() {
    const SIZE: usize = 128 << 20;
    let stack = Site::with_app(COUNTING)
        .edit("[app.web]", "[limits]\nbody = \"1GiB\"\n[app.web]")
        .start();
    assert_eq!(
        stack.client().post("/", "a/b", &[b'x'; 100_000]).text(),
        "100000"
    );
    let processes = [stack.workers()[0], stack.proxy().expect("it runs")];
    let before = processes.map(memory);
    let mut client = stack.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let block = vec![b'x'; 1 << 20];
    for _ in 0..SIZE / block.len() {
        client.send(&block);
    }
    assert_eq!(client.answer(false).text(), SIZE.to_string());
    for (pid, before) in processes.into_iter().zip(before) {
        let grown = memory(pid).saturating_sub(before);
        assert!(grown < 8 * 1024, "process {pid} has grown by {grown} KiB");
    }
}

/// A million of them in a soak; here so many that a leak of 100 bytes each would show.
#[test]
fn requests_leave_nothing_behind() {
    let app = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Query", environ["QUERY_STRING"])])
    return [environ["wsgi.input"].read() or b"nothing"]
"#;
    let stack = Site::with_app(app).start();
    let worker = stack.workers()[0];
    let ask = |count: usize| {
        thread::scope(|scope| {
            for half in 0..2 {
                let stack = &stack;
                scope.spawn(move || {
                    let mut client = stack.client();
                    for number in 0..count / 2 {
                        // A connection ends after its thousandth.
                        if number % 1000 == 999 {
                            client = stack.client();
                        }
                        let field = format!("X-{}", number % 1000);
                        let path = format!("/{half}/{number}?{number}");
                        let answer = client.request("POST", &path, &[(&field, "1")], b"content");
                        assert_eq!(answer.text(), "content");
                    }
                });
            }
        });
    };
    ask(4000);
    let before = memory(worker);
    ask(20_000);
    let grown = memory(worker).saturating_sub(before);
    assert!(grown < 1024, "the worker has grown by {grown} KiB");
}

/// The end that an operator asks for lets the app end as any program: its hook, `atexit`, its modules.
#[test]
fn a_graceful_end_is_the_apps_end_too() {
    let app = r#"
import atexit, sys

ready = False

def warm_up():
    global ready
    ready = True

def goodbye():
    print("on_stop ran")

class Module:
    def __del__(self):
        sys.__stdout__.write("torn down\n")
        sys.__stdout__.flush()

held = Module()
atexit.register(lambda: print("atexit ran"))

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(ready).encode()]
"#;
    let hooks = "wsgi = \"app:app\"\non_start = \"app:warm_up\"\non_stop = \"app:goodbye\"";
    let stack = Site::with_app(app)
        .edit("wsgi = \"app:app\"", hooks)
        .start();
    assert_eq!(stack.get("/").text(), "True");
    stack.signal(Signal::TERM);
    assert!(stack.wait().success());
    // Its last lines may still be on their way to us.
    let deadline = Instant::now() + PATIENCE;
    while !stack.logged().contains("torn down") && Instant::now() < deadline {
        thread::yield_now();
    }
    let log = stack.logged();
    let place = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("{text:?} is not in the log:\n{log}"))
    };
    assert!(place("on_stop ran") < place("atexit ran"));
    assert!(place("atexit ran") < place("torn down"));
}
