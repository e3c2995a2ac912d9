//! gRPC passes through to members that speak HTTP/2: a real client and a real server, with all kinds of calls between them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::harness::{Site, Stack, venv};

const REQUIREMENTS: &str = "grpcio==1.84.0\n";

/// Answers with what it was asked, in every way in which gRPC can. Messages are bytes: no schema is needed.
const SERVER: &str = r#"
import pathlib, sys, threading
from concurrent import futures
import grpc

folder = pathlib.Path(sys.argv[1])

def echo(request, context):
    context.send_initial_metadata((("x-head", dict(context.invocation_metadata())["x-asked"]),))
    context.set_trailing_metadata((("x-tail", "behind"), ("x-tail-bin", b"\x00\xff")))
    return request

def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing of that name: \u00e4 %")

def some_then_fail(request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no three")

def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number

def add(requests, context):
    return b"%d" % sum(len(request) for request in requests)

def chat(requests, context):
    for request in requests:
        yield request.upper()

def wait(request, context):
    ended = threading.Event()
    def end():
        (folder / ("cancelled" if request == b"cancel" else "late")).touch()
        ended.set()
    # Not behind the wait: who leaves soon enough leaves a generator that nobody goes on with.
    context.add_callback(end)
    yield b"waiting"
    ended.wait(60)

one, many = "unary", "stream"
kinds = {
    "Echo": (one, one, echo), "Fail": (one, one, fail), "SomeThenFail": (one, many, some_then_fail),
    "Count": (one, many, count), "Add": (many, one, add), "Chat": (many, many, chat), "Wait": (one, many, wait),
}
def handler(asked, answered, behaviour):
    return getattr(grpc, f"{asked}_{answered}_rpc_method_handler")(behaviour)
methods = {name: handler(*kind) for name, kind in kinds.items()}
server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.All", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
"#;

const CLIENT: &str = r#"
import queue, sys, threading
import grpc

target, what = sys.argv[1:]
channel = grpc.insecure_channel(target)

def call(kind, name):
    return getattr(channel, kind)("/test.All/" + name)

def failure(work):
    try:
        work()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")

def calls():
    reply, done = call("unary_unary", "Echo").with_call(b"hello", metadata=(("x-asked", "who"),), timeout=20)
    assert reply == b"hello", reply
    assert dict(done.initial_metadata())["x-head"] == "who", done.initial_metadata()
    tail = dict(done.trailing_metadata())
    assert tail["x-tail"] == "behind" and tail["x-tail-bin"] == b"\x00\xff", tail
    for size in (0, 1, 100_000, 3_000_000):
        reply = call("unary_unary", "Echo")(b"x" * size, metadata=(("x-asked", "who"),), timeout=20)
        assert len(reply) == size, (size, len(reply))
    error = failure(lambda: call("unary_unary", "Fail")(b"", timeout=20))
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    assert error.details() == "nothing of that name: \u00e4 %", error.details()
    answers = call("unary_stream", "SomeThenFail")(b"", timeout=20)
    assert [next(answers), next(answers)] == [b"one", b"two"]
    error = failure(lambda: next(answers))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and error.details() == "no three", error
    numbers = [int(one) for one in call("unary_stream", "Count")(b"5000", timeout=60)]
    assert numbers == list(range(5000)), len(numbers)
    total = call("stream_unary", "Add")(iter([b"abc"] * 5000), timeout=60)
    assert total == b"15000", total
    # Each message waits for the answer to the one before.
    asked = queue.Queue()
    answers = call("stream_stream", "Chat")(iter(asked.get, None), timeout=60)
    for number in range(500):
        asked.put(b"message %d" % number)
        assert next(answers) == b"MESSAGE %d" % number
    asked.put(None)
    assert list(answers) == []
    error = failure(lambda: call("unary_unary", "Unknown")(b"", timeout=20))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

def crowd():
    problems = []
    def many():
        try:
            for number in range(25):
                asked = b"%d" % number
                assert call("unary_unary", "Echo")(asked, metadata=(("x-asked", "a"),), timeout=60) == asked
                assert len(list(call("unary_stream", "Count")(b"20", timeout=60))) == 20
        except BaseException as error:
            problems.append(error)
    threads = [threading.Thread(target=many) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not problems, problems

def leave():
    answers = call("unary_stream", "Wait")(b"cancel")
    assert next(answers) == b"waiting"
    answers.cancel()
    answers = call("unary_stream", "Wait")(b"late", timeout=1)
    assert next(answers) == b"waiting"
    error = failure(lambda: next(answers))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

def gone():
    error = failure(lambda: call("unary_unary", "Echo")(b"", metadata=(("x-asked", "a"),), timeout=20))
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error

{"calls": calls, "crowd": crowd, "leave": leave, "gone": gone}[what]()
print("good")
"#;

/// A server, a stack before it, and a client that asks.
struct Calls {
    venv: PathBuf,
    server: Child,
    stack: Stack,
}

impl Calls {
    fn start(more: &str) -> Self {
        let venv = venv::with("grpc", REQUIREMENTS);
        let folder = Site::new("");
        let folder = folder.file("server.py", SERVER).file("client.py", CLIENT);
        let mut server = python(&venv)
            .arg(folder.path().join("server.py"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a Python");
        let mut port = String::new();
        let output = server.stdout.take().expect("piped");
        BufReader::new(output)
            .read_line(&mut port)
            .expect("it says its port");
        let site = folder.file(
            "site.toml",
            format!(
                "[server]\nhttp = [\"127.0.0.1:0\"]\nh2c = true\n[upstream.calls]\nmembers = [\"h2c://127.0.0.1:{}\"]\n{more}\n\
                 [[site]]\nroutes = [{{ path = \"/\", upstream = \"calls\" }}]\n",
                port.trim()
            ),
        );
        Self {
            venv,
            server,
            stack: site.start(),
        }
    }

    /// Runs a part of the client, which must be content.
    fn run(&self, what: &str) {
        let output = python(&self.venv)
            .arg(self.stack.path().join("client.py"))
            .arg(self.stack.http().to_string())
            .arg(what)
            .output()
            .expect("there is a Python");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            said(&output.stdout).trim(),
            "good",
            "{}\n{}",
            said(&output.stderr),
            self.stack.logged()
        );
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn python(venv: &Path) -> Command {
    let mut command = Command::new(venv.join("bin/python"));
    // It must find our address, whatever proxy this machine goes out by.
    command.env("no_proxy", "127.0.0.1");
    command
}

#[test]
fn every_kind_of_call_passes() {
    let calls = Calls::start("");
    calls.run("calls");
    let log = calls.stack.until_logged("/test.All/Chat");
    assert!(
        log.contains("\"POST /test.All/Echo HTTP/2.0\" 200"),
        "{log}"
    );
    calls.run("crowd");
    let log = calls.stack.logged();
    assert!(!log.contains("HTTP/2 connection of"), "no attack: {log}");
}

#[test]
fn who_leaves_a_call_leaves_it_at_the_server_too() {
    let calls = Calls::start("");
    calls.run("leave");
    for name in ["cancelled", "late"] {
        let file = calls.stack.path().join(name);
        calls.stack.until(name, || file.exists());
        fs::remove_file(file).expect("the folder is ours");
    }
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    let mut calls = Calls::start("");
    calls.run("calls");
    calls.server.kill().expect("it runs");
    calls.server.wait().expect("our child");
    calls.run("gone");
    calls.stack.until_logged("upstream-unreachable");
}
