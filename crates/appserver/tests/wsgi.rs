//! Real interpreters load the real module, started exactly as the master starts them, and serve `apps/rules.py`.
//!
//! `STACK_TEST_PYTHONS` names the interpreters (paths, separated by `:`); without it they are `python3` and
//! `python3.10` … `python3.14` of `PATH`. Those that a worker must refuse are used for that.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    env, fs,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use appserver::assignment::{Assignment, BOOTSTRAP, BUILD_ID, Order, Report};
use config::site::Entry;
use supervisor::{
    child::{Child, Command, Exit, Signal, Stdio},
    fds, scoreboard,
};
use tokio::runtime::Runtime;

/// No wait of a test takes this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads what there is, through signals: a read with a time limit is never restarted by the kernel (signal(7)).
fn read_some(stream: &mut (impl Read + ?Sized), piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            end => return end,
        }
    }
}

/// What the app is given of the client in these tests.
const HANDOFF: &str = "_stack: 192.0.2.7 40000 https example.org 8443 id-1\r\n";

/// A worker, and the master's and the proxy's ends of it.
struct Worker {
    runtime: Runtime,
    child: Child,
    control: UnixStream,
    said: Vec<u8>,
    folder: tempfile::TempDir,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    text: Mutex<String>,
    grown: Condvar,
}

impl Output {
    /// Waits for a text, takes everything before and with it.
    fn expect(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap();
        loop {
            if let Some(place) = text.find(wanted) {
                return text.drain(..place + wanted.len()).collect();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{wanted:?} is not in the output:\n{text}");
            text = self.grown.wait_timeout(text, left).unwrap().0;
        }
    }

    fn copy(self: &Arc<Self>, from: Option<OwnedFd>) {
        let mut from = fs::File::from(from.expect("a pipe"));
        let this = Arc::clone(self);
        thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = read_some(&mut from, &mut block) {
                this.text
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&block[..count]));
                this.grown.notify_all();
            }
        });
    }
}

fn entry(text: &str) -> Entry {
    let (module, attribute) = text.split_once(':').expect("module:attribute");
    let factory = attribute.ends_with("()");
    let attribute = attribute.trim_end_matches("()").to_owned();
    Entry {
        module: module.to_owned(),
        attribute,
        factory,
    }
}

impl Worker {
    fn start(python: &Path, app: &str) -> Self {
        Self::start_with(python, app, |_| {})
    }

    fn start_with(python: &Path, app: &str, change: impl FnOnce(&mut Assignment)) -> Self {
        let module = env::current_exe().unwrap().with_file_name("lib_stack.so");
        Self::start_from(
            python,
            app,
            fs::File::open(module).expect("the module is built"),
            change,
        )
    }

    fn start_from(
        python: &Path,
        app: &str,
        module: fs::File,
        change: impl FnOnce(&mut Assignment),
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("web.1.sock")).unwrap();
        let (ours, theirs) = fds::socket_pair().unwrap();
        let root = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps")).unwrap();
        let mut assignment = Assignment {
            build: BUILD_ID.to_owned(),
            app: "web".to_owned(),
            number: 1,
            entry: entry(app),
            on_start: None,
            on_stop: None,
            root: root.clone(),
            threads: 2,
            workers: 1,
            listener: 6,
            control: 7,
            proxy_uid: rustix::process::getuid().as_raw(),
            scoreboard: 8,
            dump: 9,
            max_requests: None,
            dev: false,
        };
        change(&mut assignment);
        let scoreboard = scoreboard::create(assignment.threads).unwrap();
        let assignment = serde_json::to_vec(&assignment).unwrap();
        let _guard = runtime.enter();
        let mut child = Command::new(python)
            .arg("-c")
            .arg(r#"exec(compile(open(3).read(), "stack-bootstrap", "exec"))"#)
            .arg("web·1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .directory(root)
            .descriptor(
                fds::sealed_memory("bootstrap", BOOTSTRAP.as_bytes()).unwrap(),
                3,
            )
            .descriptor(fds::sealed_memory("assignment", &assignment).unwrap(), 4)
            .descriptor(module.into(), 5)
            .descriptor(listener.into(), 6)
            .descriptor(theirs, 7)
            .descriptor(scoreboard, 8)
            .descriptor(fs::File::create("/dev/null").unwrap().into(), 9)
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe)
            .stderr(Stdio::Pipe)
            .own_group()
            .spawn()
            .unwrap();
        let output = Arc::new(Output::default());
        output.copy(child.stdout.take());
        output.copy(child.stderr.take());
        drop(_guard);
        let control = UnixStream::from(ours);
        control.set_nonblocking(false).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            runtime,
            child,
            control,
            said: Vec::new(),
            folder,
            output,
        }
    }

    fn report(&mut self) -> Report {
        let mut block = [0; 4096];
        loop {
            if let Some(feed) = self.said.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.said.drain(..=feed).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            match read_some(&mut self.control, &mut block) {
                Ok(count @ 1..) => self.said.extend_from_slice(&block[..count]),
                end => panic!("no report ({end:?}):\n{}", self.output.text.lock().unwrap()),
            }
        }
    }

    fn ready(python: &Path, app: &str) -> Self {
        let mut worker = Self::start(python, app);
        assert_eq!(worker.report(), Report::Ready);
        worker
    }

    /// Why an app cannot be served; the worker has ended with 1 after saying so.
    fn refused(mut self) -> (String, String) {
        let Report::Failed { why, traceback } = self.report() else {
            panic!("it is ready")
        };
        assert_eq!(self.wait(), Exit::Code(1));
        (why, traceback)
    }

    /// A connection, not yet greeted.
    fn dial(&self) -> Proxy {
        let stream = UnixStream::connect(self.folder.path().join("web.1.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Proxy {
            stream,
            buffer: Vec::new(),
        }
    }

    fn connect(&self) -> Proxy {
        let mut proxy = self.dial();
        proxy.send(&format!(
            "OPTIONS * HTTP/1.1\r\n_greeting: {BUILD_ID}\r\n\r\n"
        ));
        let answer = proxy.answer(false);
        assert_eq!(answer.status, "204 No Content");
        assert!(
            answer.fields.starts_with("_greeting: web 1 "),
            "{}",
            answer.fields
        );
        proxy
    }

    /// Its memory, in KiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.unwrap().trim().trim_end_matches(" kB");
        size.parse().unwrap()
    }

    fn drain(&self) {
        let mut order = serde_json::to_vec(&Order::Drain).unwrap();
        order.push(b'\n');
        (&self.control).write_all(&order).unwrap();
    }

    fn wait(&mut self) -> Exit {
        let Self {
            runtime,
            child,
            output,
            ..
        } = self;
        runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, child.wait()).await {
                Ok(exit) => exit.unwrap(),
                Err(_) => panic!("it does not end:\n{}", output.text.lock().unwrap()),
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _guard = self.runtime.enter();
        // Most have ended by themselves.
        let _ = self.child.signal(Signal::KILL);
    }
}

/// The proxy's end of a connection.
struct Proxy {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// A response; `body` is `None` if the connection ended before its end.
#[derive(Debug)]
struct Answer {
    status: String,
    fields: String,
    body: Option<Vec<u8>>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_deref().expect("a whole body")).into_owned()
    }
}

impl Proxy {
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, "", b"")
    }

    fn request(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{HANDOFF}Host: example.org:8443\r\n{fields}{length}\r\n"
        );
        self.stream
            .write_all(&[head.as_bytes(), body].concat())
            .unwrap();
        self.answer(method == "HEAD")
    }

    fn fill(&mut self) -> bool {
        let mut block = [0; 65536];
        let count = read_some(&mut self.stream, &mut block).unwrap();
        self.buffer.extend_from_slice(&block[..count]);
        count > 0
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(place) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                return Some(self.buffer.drain(..place + end.len()).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn answer(&mut self, head: bool) -> Answer {
        let text = self.until(b"\r\n\r\n").expect("a response head");
        let text: String = text.iter().map(|&byte| char::from(byte)).collect();
        let (line, fields) = text.split_once("\r\n").unwrap();
        let status = line.strip_prefix("HTTP/1.1 ").unwrap().to_owned();
        let value = |name: &str| {
            fields
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let body = if head || status.starts_with("204") || status.starts_with("304") {
            Some(Vec::new())
        } else if let Some(length) = value("Content-Length") {
            self.exactly(length.parse().unwrap())
        } else {
            assert_eq!(value("Transfer-Encoding"), Some("chunked"), "{text}");
            self.chunks()
        };
        Answer {
            status,
            fields: fields.to_owned(),
            body,
        }
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n")?).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let chunk = self.exactly(length + 2)?;
            if length == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    /// Whether the worker has closed its end.
    fn is_closed(&mut self) -> bool {
        !self.fill()
    }
}

/// An interpreter and its version.
struct Python {
    path: PathBuf,
    version: (u32, u32),
}

fn pythons() -> Vec<Python> {
    let named: Vec<PathBuf> = match env::var_os("STACK_TEST_PYTHONS") {
        Some(paths) => env::split_paths(&paths).collect(),
        None => [
            "python3",
            "python3.9",
            "python3.10",
            "python3.11",
            "python3.12",
            "python3.13",
            "python3.14",
        ]
        .map(PathBuf::from)
        .into(),
    };
    let mut pythons: Vec<Python> = named.into_iter().filter_map(python).collect();
    // `python3` is one of the others.
    pythons.sort_by_key(|python| python.version);
    pythons.dedup_by_key(|python| python.version);
    assert!(!pythons.is_empty(), "no Python was found");
    pythons
}

/// `None` if it does not run, as the shims of version managers may.
fn python(path: PathBuf) -> Option<Python> {
    let code = "import sys; print(*sys.version_info[:2])";
    let output = process::Command::new(&path)
        .args(["-c", code])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some(Python {
        path,
        version: (major.parse().ok()?, minor.parse().ok()?),
    })
}

/// Those that can be a worker.
fn workers() -> impl Iterator<Item = PathBuf> {
    pythons()
        .into_iter()
        .filter(|python| python.version >= (3, 10))
        .map(|python| python.path)
}

/// What an app's response must be.
struct Case {
    path: &'static str,
    status: &'static str,
    /// A line among the fields.
    field: &'static str,
    body: &'static str,
}

const fn case(
    path: &'static str,
    status: &'static str,
    field: &'static str,
    body: &'static str,
) -> Case {
    Case {
        path,
        status,
        field,
        body,
    }
}

/// Apps that keep the rules; each is also served behind `wsgiref.validate`.
const GOOD: [Case; 12] = [
    case("/hello", "200 OK", "Content-Length: 5", "hello"),
    case(
        "/parts",
        "200 OK",
        "Content-Type: text/plain",
        "one two three",
    ),
    case("/empty", "200 OK", "Content-Type: text/plain", ""),
    case(
        "/generator",
        "200 OK",
        "Transfer-Encoding: chunked",
        "block 0\nblock 1\nblock 2\n",
    ),
    case(
        "/late-start",
        "200 OK",
        "Transfer-Encoding: chunked",
        "late",
    ),
    case("/sized", "200 OK", "Content-Length: 8", "fourmore"),
    case(
        "/imperative",
        "200 OK",
        "Transfer-Encoding: chunked",
        "written twice and returned",
    ),
    case(
        "/replaced",
        "500 Oops",
        "Content-Type: text/plain",
        "replaced",
    ),
    case("/not-modified", "304 Not Modified", "ETag: \"x\"", ""),
    case(
        "/file",
        "200 OK",
        "Content-Type: text/plain",
        "012345678901234567890123456789",
    ),
    case("/file-closed", "200 OK", "Content-Length: 4", "True"),
    case(
        "/closing",
        "200 OK",
        "Transfer-Encoding: chunked",
        "wholewholewhole",
    ),
];

/// Apps that the validator refuses, and we take as they are.
const TAKEN: [Case; 7] = [
    case("/restless", "203 Restarted", "Content-Length: 6", "single"),
    case(
        "/late-after-nothing",
        "200 OK",
        "Transfer-Encoding: chunked",
        "late",
    ),
    case("/single", "200 OK", "Content-Length: 6", "single"),
    case("/empty", "200 OK", "Content-Length: 0", ""),
    case("/no-content", "204 No Content", "", ""),
    case("/field-latin", "200 OK", "X-Name: caf\u{e9}", ""),
    case("/no-reason", "299 ", "X", "fine"),
];

#[test]
fn apps_that_keep_the_rules() {
    for python in workers() {
        for app in ["rules:application", "rules:validated"] {
            let worker = Worker::ready(&python, app);
            let mut proxy = worker.connect();
            // Between the validator's iterator and ours the length is lost.
            let framed = app == "rules:application";
            for case in GOOD
                .iter()
                .filter(|case| framed || !case.field.starts_with("Content-Length"))
            {
                check(&mut proxy, case);
            }
            assert_eq!(worker.output.text.lock().unwrap().as_str(), "", "{app}");
        }
        let worker = Worker::ready(&python, "rules:Nested.app");
        let mut proxy = worker.connect();
        TAKEN
            .iter()
            .filter(|case| case.field != "X")
            .for_each(|case| check(&mut proxy, case));
        assert_eq!(proxy.get("/no-reason").text(), "fine");
        let under = proxy.get("/field-latin");
        assert!(
            under.fields.contains("X_Under: kept\r\n"),
            "{}",
            under.fields
        );
        let nothing = proxy.get("/no-content");
        assert!(!nothing.fields.contains("Content-Length"), "RFC 9110 §8.6");
    }
}

fn check(proxy: &mut Proxy, case: &Case) {
    let answer = proxy.get(case.path);
    assert_eq!(answer.status, case.status, "{}", case.path);
    assert!(
        answer.fields.contains(case.field),
        "{}: {}",
        case.path,
        answer.fields
    );
    assert_eq!(answer.text(), case.body, "{}", case.path);
}

/// What the log says of an app that breaks a rule, and what the proxy is told.
const BROKEN: [(&str, &str, &str); 25] = [
    (
        "/too-short",
        "protocol",
        "ended 6 bytes before its Content-Length of 10",
    ),
    ("/raises", "exception", "LookupError: before the head"),
    ("/exits", "exception", "SystemExit: 3"),
    ("/interrupts", "exception", "KeyboardInterrupt"),
    ("/generator-exit", "exception", "GeneratorExit"),
    ("/silent", "protocol", "before it called start_response"),
    ("/swallows", "protocol", "before it called start_response"),
    ("/twice", "protocol", "a second time without exc_info"),
    ("/status-number", "protocol", "the status is int, not str"),
    (
        "/status-text",
        "protocol",
        "the status \"OK\" is not three digits",
    ),
    (
        "/status-interim",
        "protocol",
        "the status \"103 Early Hints\" is not three digits",
    ),
    ("/status-injected", "protocol", "\"200 OK\\r\\nEvil: 1\""),
    (
        "/field-injected",
        "protocol",
        "the value of the field \"Location\"",
    ),
    ("/field-nul", "protocol", "the value of the field \"X-Nul\""),
    (
        "/field-hop",
        "protocol",
        "the field \"Connection\" is hop-by-hop",
    ),
    (
        "/field-ours",
        "protocol",
        "the field name \"_failure\" starts with an underscore",
    ),
    (
        "/field-name",
        "protocol",
        "the field name \"X Y\" is not a token",
    ),
    (
        "/field-not-latin",
        "protocol",
        "the value of the field 'X-Name' is not latin-1",
    ),
    (
        "/field-bytes",
        "protocol",
        "the value of the field 'X-Bytes' is bytes, not str",
    ),
    (
        "/field-not-pair",
        "protocol",
        "the field ('X-Lone',) is not a tuple of name and value",
    ),
    (
        "/fields-none",
        "protocol",
        "the response fields are NoneType, not a list",
    ),
    (
        "/length-wrong",
        "protocol",
        "Content-Length \"many\" is not one decimal number",
    ),
    (
        "/gives-none",
        "protocol",
        "the app returned NoneType, not an iterable of bytes; is a `return` missing?",
    ),
    ("/gives-text", "protocol", "one block is str"),
    (
        "/closing-headless",
        "protocol",
        "before it called start_response",
    ),
];

#[test]
fn apps_that_break_a_rule_before_their_output() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        for (path, failure, log) in BROKEN {
            let answer = proxy.get(path);
            assert_eq!(answer.status, "500 Internal Server Error", "{path}");
            assert!(
                answer
                    .fields
                    .starts_with(&format!("_failure: {failure}\r\n")),
                "{path}: {}",
                answer.fields
            );
            let line = worker.output.expect(log);
            let named = format!("app web: GET {path} (request id-1) ");
            assert_eq!(line.matches(&named).count(), 1, "{path}: {line}");
        }
        check(&mut proxy, &GOOD[0]);
        let closed = proxy.get("/closed-so-far").text();
        assert_eq!(closed, r#"["headless"]"#);
    }
}

/// After the head is out: a path, whether the whole content arrived, what the log says. The connection ends each time but
/// for content that was too long, which is cut off in its frame.
const LATE: [(&str, Option<&str>, &str); 7] = [
    ("/raises-late", None, "LookupError: in the middle"),
    ("/replaced-late", None, "ValueError: after the head"),
    ("/closing-raised", None, "ValueError: broken iterator"),
    (
        "/too-short-stream",
        None,
        "ended 6 bytes before its Content-Length of 10",
    ),
    (
        "/close-raises",
        Some("close-raisesclose-raisesclose-raises"),
        "ValueError: in close",
    ),
    (
        "/too-long",
        Some("four"),
        "longer than its Content-Length of 4",
    ),
    (
        "/too-long-stream",
        Some("fourmo"),
        "longer than its Content-Length of 6",
    ),
];

#[test]
fn apps_that_break_a_rule_after_their_output_began() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        for (path, body, log) in LATE {
            let mut proxy = worker.connect();
            let answer = proxy.get(path);
            assert_eq!(answer.status, "200 OK", "{path}");
            assert_eq!(answer.body.as_deref(), body.map(str::as_bytes), "{path}");
            worker.output.expect(log);
            match body {
                Some(_) => check(&mut proxy, &GOOD[0]),
                None => assert!(proxy.is_closed(), "{path}"),
            }
        }
        let closed = worker.connect().get("/closed-so-far").text();
        assert_eq!(closed, r#"["raised", "close-raises"]"#);
    }
}

#[test]
fn the_environ_is_the_clients_truth() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        let fields = "_target: /%65nviron?a=%20b\r\nAccept: a\r\nX-Twice: 1\r\nAccept: b\r\nCookie: c=1\r\ncookie: d=2\r\n\
                      X_Twice: forged\r\nX-Request-ID: forged\r\nProxy: evil\r\nX-Latin: caf\u{e9}\r\nContent-Type: text/x\r\nX-Empty:\r\n";
        let answer = proxy.request("PUT", "/environ?a=%20b", fields, b"12345");
        let environ: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        for (key, value) in [
            ("REQUEST_METHOD", "PUT"),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", "/environ"),
            ("QUERY_STRING", "a=%20b"),
            ("RAW_URI", "/%65nviron?a=%20b"),
            ("REQUEST_URI", "/%65nviron?a=%20b"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "40000"),
            ("SERVER_NAME", "example.org"),
            ("SERVER_PORT", "8443"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            (
                "SERVER_SOFTWARE",
                concat!("stack/", env!("CARGO_PKG_VERSION")),
            ),
            ("wsgi.url_scheme", "https"),
            ("HTTPS", "on"),
            ("HTTP_HOST", "example.org:8443"),
            ("HTTP_ACCEPT", "a, b"),
            ("HTTP_COOKIE", "c=1; d=2"),
            ("HTTP_X_TWICE", "1"),
            ("HTTP_X_REQUEST_ID", "id-1"),
            ("HTTP_X_LATIN", "caf\u{c3}\u{a9}"),
            ("HTTP_X_EMPTY", ""),
            ("CONTENT_TYPE", "text/x"),
            ("CONTENT_LENGTH", "5"),
        ] {
            assert_eq!(environ[key], value, "{key}");
        }
        for (key, value) in [
            ("wsgi.multithread", true),
            ("wsgi.multiprocess", false),
            ("wsgi.run_once", false),
            ("wsgi.input_terminated", true),
        ] {
            assert_eq!(environ[key], value, "{key}");
        }
        assert_eq!(environ["wsgi.version"], serde_json::json!([1, 0]));
        for key in [
            "HTTP_PROXY",
            "HTTP_CONTENT_LENGTH",
            "HTTP_CONTENT_TYPE",
            "HTTP__STACK",
            "HTTP__TARGET",
        ] {
            assert!(environ.get(key).is_none(), "{key}");
        }
        let answer = proxy.get("/%65nviron");
        let plain: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        for key in [
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
            "HTTP_ACCEPT",
            "HTTP_COOKIE",
        ] {
            assert!(plain.get(key).is_none(), "{key} is of an earlier request");
        }
        assert_eq!(plain["PATH_INFO"], "/environ");
        assert_eq!(plain["QUERY_STRING"], "");
    }
}

#[test]
fn a_client_of_a_unix_socket_has_no_address() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        proxy.send("GET /environ HTTP/1.1\r\n_stack: - 0 http - 80 id-2\r\n\r\n");
        let environ: serde_json::Value = serde_json::from_str(&proxy.answer(false).text()).unwrap();
        for (key, value) in [
            ("REMOTE_ADDR", ""),
            ("REMOTE_PORT", ""),
            ("SERVER_NAME", "localhost"),
            ("wsgi.url_scheme", "http"),
        ] {
            assert_eq!(environ[key], value, "{key}");
        }
        assert!(environ.get("HTTPS").is_none());
    }
}

#[test]
fn the_input_is_a_file_of_its_length() {
    const TEXT: &[u8] = b"abcde\nfghij\nklmnopq\nrs\ntu\nlast";
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        let seen = proxy.request("POST", "/read-all-ways", "", TEXT).text();
        let expected = r"[b'', b'abc', b'de\n', b'fg', b'hij\n', 4, b'klmn', [b'opq\n'], b'rs\n', [b'tu\n', b'last'], b'', b'', b'', 0]";
        assert_eq!(seen, expected);
        assert_eq!(
            proxy
                .request("POST", "/wrapped-input", "", "grüße".as_bytes())
                .text(),
            "GRÜSSE"
        );
        assert_eq!(
            proxy.get("/read-all-ways").status,
            "500 Internal Server Error",
            "next() of nothing"
        );
        worker.output.expect("StopIteration");
        // What nobody read is not the next request.
        assert_eq!(
            proxy
                .request("POST", "/hello", "", &vec![b'G'; 3 << 20])
                .text(),
            "hello"
        );
        assert_eq!(
            proxy
                .request("POST", "/count", "", &vec![b'x'; 5 << 20])
                .text(),
            (5 << 20).to_string()
        );
        assert_eq!(
            proxy
                .request("POST", "/echo", "", &vec![b'y'; 1 << 20])
                .body
                .unwrap(),
            vec![b'y'; 1 << 20]
        );
    }
}

#[test]
fn an_input_that_comes_in_pieces() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        proxy.send(&format!("POST /echo HTTP/1.1\r\n{HANDOFF}"));
        proxy.send("Content-Length: 9\r\n\r");
        proxy.send("\nabc");
        // The other slot serves meanwhile: a wait for content holds no GIL.
        check(&mut worker.connect(), &GOOD[0]);
        proxy.send("def");
        proxy.send("ghi");
        assert_eq!(proxy.answer(false).text(), "abcdefghi");
        // The proxy is gone in the middle: an error of the app's read, and the next one is served.
        proxy.send(&format!(
            "POST /echo HTTP/1.1\r\n{HANDOFF}Content-Length: 9\r\n\r\nabc"
        ));
        drop(proxy);
        worker.output.expect("ConnectionResetError");
        check(&mut worker.connect(), &GOOD[0]);
    }
}

#[test]
fn responses_of_any_size() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        let big = proxy.get("/big");
        assert!(
            big.fields.contains("Content-Length: 3000010\r\n"),
            "{}",
            big.fields
        );
        assert!(big.text().ends_with("xyyyyyyyyyy"));
        assert_eq!(
            proxy.get("/big-blocks").body.unwrap(),
            vec![b'z'; 3_000_000]
        );
        for path in [
            "/big",
            "/big-blocks",
            "/hello",
            "/generator",
            "/sized",
            "/imperative",
        ] {
            let head = proxy.request("HEAD", path, "", b"");
            assert_eq!(head.status, "200 OK", "{path}");
        }
        let head = proxy.request("HEAD", "/hello", "", b"");
        assert!(
            head.fields.contains("Content-Length: 5\r\n"),
            "{}",
            head.fields
        );
        check(&mut proxy, &GOOD[0]);
    }
}

#[test]
fn a_proxy_that_leaves_is_no_fault_of_the_app() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        proxy.send(&format!("GET /closing-left HTTP/1.1\r\n{HANDOFF}\r\n"));
        assert!(proxy.fill());
        drop(proxy);
        let deadline = Instant::now() + PATIENCE;
        while worker.connect().get("/closed-so-far").text() != r#"["left"]"# {
            assert!(Instant::now() < deadline, "close() is not called");
        }
        assert_eq!(worker.output.text.lock().unwrap().as_str(), "");
    }
}

#[test]
fn what_an_app_keeps_is_of_its_own_request() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        assert_eq!(proxy.request("POST", "/keep", "", b"secret").text(), "kept");
        let answer = proxy.request("POST", "/use-kept", "", b"other");
        assert!(answer.fields.contains("X-Own: 1\r\n"), "{}", answer.fields);
        let over = "the request that this content belongs to is over";
        assert_eq!(
            answer.text(),
            format!(r#"["{over}", "the request is over", false]"#)
        );
    }
}

#[test]
fn errors_are_whole_lines_with_the_request() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        worker.connect().get("/errors");
        let text = worker.output.expect("an end\n");
        assert_eq!(
            text,
            "[id-1] first line\n[id-1] second line\n[id-1] without an end\n"
        );
    }
}

/// The keys that they become were interned, and CPython 3.12.0 to 3.12.4 frees no interned string: a client could fill the
/// memory of a worker with names.
#[test]
fn names_that_clients_invent_leave_nothing_behind() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        let mut names = 0..;
        let mut ask = |count: usize| {
            for _ in 0..count {
                let lines = names.by_ref().take(100);
                let lines = lines.map(|name| format!("X-Name-That-Is-New-{name}: 1\r\n"));
                let fields: String = lines.collect();
                assert_eq!(proxy.request("GET", "/hello", &fields, b"").text(), "hello");
            }
        };
        ask(100);
        let before = worker.resident();
        ask(2000);
        let grown = worker.resident().saturating_sub(before);
        assert!(grown < 4096, "{}: {grown} KiB", python.display());
    }
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        for (garbage, log) in [
            (
                "\x16\x03\x01 nonsense\r\n\r\n",
                "the request line is malformed",
            ),
            ("GET / HTTP/1.0\r\n\r\n", "the request line is malformed"),
            (
                "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n",
                "_stack is missing",
            ),
            (
                "GET /hello HTTP/1.1\r\n_stack: x\r\n\r\n",
                "_stack is missing or malformed",
            ),
            (
                "GET /hello HTTP/1.1\r\n_stack: - 0 http - 80 i\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Transfer-Encoding",
            ),
            (
                "GET /hello HTTP/1.1\r\n_stack: - 0 http - 80 i\r\n\r\nextra",
                "bytes follow the request",
            ),
            (
                "OPTIONS * HTTP/1.1\r\n_greeting: other\r\n\r\n",
                "the proxy is of build \"other\"",
            ),
        ] {
            let mut proxy = worker.dial();
            proxy.send(garbage);
            assert!(proxy.is_closed(), "{garbage:?}");
            worker.output.expect(log);
        }
        check(&mut worker.connect(), &GOOD[0]);
    }
}

#[test]
fn the_process_is_the_apps() {
    for python in workers() {
        let worker = Worker::ready(&python, "rules:application");
        let mut proxy = worker.connect();
        let process = proxy.get("/process").text();
        let process: serde_json::Value = serde_json::from_str(&process).unwrap();
        assert_eq!(process[0], serde_json::json!(["rules:application"]));
        assert_eq!(process[1], true, "sys.path[0] is the root");
        assert_eq!(process[2], serde_json::json!(["sys", "worker"]), "__main__");
        assert!(
            process[3].as_str().unwrap().starts_with("slot-"),
            "{process}"
        );
        assert_eq!(process[4], true);
        assert_eq!(proxy.get("/signals").text(), "[true, [true]]");
        assert_eq!(proxy.get("/spawned").text(), "7");
        // stdin, stdout, stderr, and the directory it lists.
        assert_eq!(proxy.get("/children").text(), "[4, []]");
        check(&mut proxy, &GOOD[0]);
    }
}

#[test]
fn draining_ends_it_once_the_proxy_lets_go() {
    for python in workers() {
        for by_order in [true, false] {
            let mut worker = Worker::ready(&python, "rules:application");
            let mut proxy = worker.connect();
            if by_order {
                worker.drain();
            } else {
                worker.control = UnixStream::pair().unwrap().0;
            }
            let deadline = Instant::now() + PATIENCE;
            while UnixStream::connect(worker.folder.path().join("web.1.sock")).is_ok() {
                assert!(Instant::now() < deadline, "it still accepts");
            }
            check(&mut proxy, &GOOD[0]);
            drop(proxy);
            assert_eq!(worker.wait(), Exit::Code(0));
            worker.output.expect("atexit ran");
        }
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    for python in workers() {
        for (app, reason, traceback) in [
            (
                "nowhere:app",
                "ModuleNotFoundError: No module named 'nowhere' in ",
                "",
            ),
            (
                "rules:missing",
                "has no attribute 'missing'; it has `application`",
                "",
            ),
            (
                "rules:text",
                "rules:text is of type str, not a WSGI application",
                "",
            ),
            ("rules:asgi", "rules:asgi is an ASGI application; ", ""),
            (
                "rules:asgi_instance",
                "rules:asgi_instance is an ASGI application; ",
                "",
            ),
            (
                "rules:create_app",
                "rules:create_app takes no arguments; if it returns the app, write it with ()",
                "",
            ),
            (
                "rules:create_nothing()",
                "is of type NoneType, not a WSGI application",
                "",
            ),
            (
                "rules:text()",
                "TypeError: 'str' object is not callable",
                "",
            ),
            (
                "broken:app",
                "ZeroDivisionError: division by zero",
                "broken.py\", line 5, in fails",
            ),
            ("unfinished:app", "SyntaxError: ", "unfinished.py\", line 3"),
            ("leaves:app", "SystemExit: 7", "leaves.py\", line 4"),
            (
                "needs:app",
                "ModuleNotFoundError: No module named 'flusk'",
                "needs.py\", line 3",
            ),
        ] {
            let (why, shown) = Worker::start(&python, app).refused();
            assert!(why.contains(reason), "{app}: {why}");
            assert!(shown.contains(traceback), "{app}: {shown}");
            assert!(!shown.contains("stack-bootstrap"), "{app}: {shown}");
        }
        let another = |assignment: &mut Assignment| assignment.build = "another".to_owned();
        let (why, _) = Worker::start_with(&python, "rules:application", another).refused();
        assert!(why.contains("the binary of another"), "{why}");
        let mut worker = Worker::start_from(
            &python,
            "rules:application",
            fs::File::open("/dev/null").unwrap(),
            |_| {},
        );
        let Report::Failed { why, .. } = worker.report() else {
            panic!("it is ready")
        };
        assert!(why.contains(" cannot load the module of stack: "), "{why}");
        assert_eq!(worker.wait(), Exit::Code(1));
        let worker = Worker::ready(&python, "rules:create_app()");
        check(&mut worker.connect(), &GOOD[0]);
    }
}

#[test]
fn hooks_run_once_before_the_first_and_after_the_last_request() {
    for python in workers() {
        let mut worker = Worker::start_with(&python, "rules:application", |assignment| {
            assignment.on_start = Some(entry("rules:warm_up"));
            assignment.on_stop = Some(entry("rules:say_goodbye"));
        });
        assert_eq!(worker.report(), Report::Ready);
        assert_eq!(worker.connect().get("/warm").text(), r#"["warm"]"#);
        worker.drain();
        assert_eq!(worker.wait(), Exit::Code(0));
        let said = worker.output.expect("atexit ran");
        assert_eq!(said, "goodbye\natexit ran");

        // An exception at the end is told, and ends nothing else.
        let mut worker = Worker::start_with(&python, "rules:application", |assignment| {
            assignment.on_stop = Some(entry("rules:stumble"));
        });
        assert_eq!(worker.report(), Report::Ready);
        worker.drain();
        assert_eq!(worker.wait(), Exit::Code(0));
        worker
            .output
            .expect("app web: on_stop raised an exception\nTraceback");
        worker.output.expect("RuntimeError: stumbled");

        for (hook, reason, traceback) in [
            (
                "rules:stumble",
                "RuntimeError: stumbled",
                "rules.py\", line ",
            ),
            (
                "rules:text",
                "rules:text is of type str, not a function",
                "",
            ),
            ("rules:missing", "has no attribute 'missing'", ""),
            ("nowhere:hook", "No module named 'nowhere' in ", ""),
        ] {
            let set = |assignment: &mut Assignment| assignment.on_start = Some(entry(hook));
            let (why, shown) = Worker::start_with(&python, "rules:application", set).refused();
            assert!(why.contains(reason), "{hook}: {why}");
            assert!(shown.contains(traceback), "{hook}: {shown}");
        }
        // A name that is wrong is told at the start, not at the end.
        let set = |assignment: &mut Assignment| assignment.on_stop = Some(entry("rules:missing"));
        let (why, _) = Worker::start_with(&python, "rules:application", set).refused();
        assert!(why.contains("has no attribute 'missing'"), "{why}");
    }
}

/// The socket's folder keeps others out; this is the second lock. Root may connect as anybody: that is how this test does it.
#[test]
fn a_stranger_is_not_served() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can make a connection of somebody else's");
        return;
    }
    for python in workers() {
        let mut worker = Worker::ready(&python, "rules:application");
        let socket = worker.folder.path().join("web.1.sock");
        fs::set_permissions(worker.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        // The credentials are those of the thread that connects.
        let stranger = thread::spawn(move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
            UnixStream::connect(socket).unwrap()
        });
        let stream = stranger.join().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stranger = Proxy {
            stream,
            buffer: Vec::new(),
        };
        assert!(stranger.is_closed());
        worker
            .output
            .expect("a connection was refused: it is not the proxy's user");
        check(&mut worker.connect(), &GOOD[0]);
        worker.drain();
        assert_eq!(worker.wait(), Exit::Code(0));
    }
}

#[test]
fn an_unsuitable_python_is_refused_by_name() {
    for python in pythons()
        .into_iter()
        .filter(|python| python.version < (3, 10) && python.version.0 == 3)
    {
        let (why, _) = Worker::start(&python.path, "rules:application").refused();
        assert!(why.contains("; stack needs CPython 3.10 or later"), "{why}");
    }
}
