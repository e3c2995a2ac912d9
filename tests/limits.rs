//! Every limit ends what it is for, with the status and the cause that are documented, and nothing else. Limits that have files of
//! their own are tried there: heads and bodies in `http1`, buffers in `slow_clients`, the queue in `overload`.

use std::{fs, net::TcpStream};

use crate::harness::{Client, Site, Stack, memory, read_some, repository};

const APP: &str = r#"
def app(environ, start_response):
    body = [b"x" * 65536] * 64 if environ["PATH_INFO"] == "/large" else [b"ok"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter(body)
"#;

fn stack(limits: &str) -> Stack {
    let server = format!("[limits]\n{limits}\n[server]\naccess_log = {{ format = \"json\" }}");
    Site::with_app(APP).edit("[server]", &server).start()
}

fn caused(stack: &Stack, cause: &str) {
    stack.until_logged(&format!("\"cause\":\"{cause}\""));
}

/// Browsers keep connections that they seldom use: what one has read and sent is not kept for it.
#[test]
fn a_connection_at_rest_holds_next_to_nothing() {
    let stack = stack("");
    let proxy = stack.proxy().expect("it runs");
    let visit = |count: usize| -> Vec<Client> {
        let visitor = |_| {
            let mut client = stack.client();
            assert_eq!(client.get("/").status, 200);
            client
        };
        (0..count).map(visitor).collect()
    };
    // What the first ones bring into memory is for all.
    drop(visit(50));
    let before = memory(proxy);
    let _visitors = visit(500);
    let each = memory(proxy).saturating_sub(before) * 1024 / 500;
    assert!(each < 6 * 1024, "{each} bytes");
}

#[test]
fn a_handshake_that_is_not_finished_is_closed() {
    let server = "[limits]\nhandshake_timeout = \"50ms\"\n[server]";
    let stack = Site::with_app(APP)
        .edit("[server]", server)
        .edit("http = ", "https = [\"127.0.0.1:0\"]\nhttp = ")
        .start();
    let mut tcp = TcpStream::connect(stack.https()).expect("it listens");
    tcp.set_read_timeout(Some(crate::harness::PATIENCE))
        .expect("valid");
    assert_eq!(read_some(&mut tcp, &mut [0; 10]).unwrap_or(0), 0);
}

#[test]
fn a_head_has_its_time() {
    let stack = stack("head_timeout = \"50ms\"");
    let mut client = stack.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(client.answer(false).status, 408);
    caused(&stack, "head-timeout");
    // One who has said nothing at all gets nothing.
    assert!(stack.client().is_closed());
}

#[test]
fn a_body_may_pause_only_so_long() {
    let stack = stack("body_timeout = \"50ms\"");
    let mut client = stack.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    assert_eq!(client.answer(false).status, 408);
    caused(&stack, "body-timeout");
}

#[test]
fn a_body_may_not_trickle_for_ever() {
    let stack = stack("body_timeout = \"200ms\"\nbody_rate = \"1MiB\"");
    let mut client = stack.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    // Never silent for as long, and far from 1 MiB a second.
    while !stack.logged().contains("body-timeout") {
        if !client.try_send(b"x") {
            break;
        }
        stack.pause();
    }
    assert_eq!(client.answer(false).status, 408);
}

#[test]
fn who_takes_nothing_is_closed() {
    let stack = stack("send_timeout = \"50ms\"");
    let mut client = Client::with_small_buffer(stack.http());
    client.ask("/large");
    caused(&stack, "send-timeout");
}

#[test]
fn an_idle_connection_is_closed_and_one_that_is_old_or_tired() {
    for limit in [
        "keepalive_timeout = \"50ms\"",
        "keepalive_requests = 1",
        "keepalive_age = \"1ms\"",
    ] {
        let stack = stack(limit);
        let mut client = stack.client();
        let mut asked = 0;
        let closed = loop {
            asked += 1;
            let answer = client.get("/");
            assert_eq!(answer.status, 200);
            if limit.starts_with("keepalive_timeout") || answer.field("connection") == Some("close")
            {
                break client.is_closed();
            }
        };
        assert!(closed, "{limit}");
        assert!(
            asked <= if limit.contains("age") { 100 } else { 1 },
            "{limit}: {asked}"
        );
    }
}

#[test]
fn further_connections_wait_to_be_accepted() {
    let stack = stack("connections = 1");
    let mut first = stack.client();
    assert_eq!(first.get("/").status, 200);
    let mut second = stack.client();
    second.ask("/second");
    assert_eq!(first.get("/").status, 200);
    assert!(!stack.logged().contains("/second"));
    drop(first);
    assert_eq!(second.answer(false).status, 200);
}

#[test]
fn an_app_has_its_time() {
    let slow = r#"
import time

def app(environ, start_response):
    time.sleep(2)
    start_response("200 OK", [])
    return [b"late"]
"#;
    let stack = Site::with_app(slow)
        .edit("threads = 2", "threads = 2\ntimeout = \"50ms\"")
        .start();
    let answer = stack.get("/");
    assert_eq!(answer.status, 504);
    stack.until_logged("504 app-timeout");
}

#[test]
fn a_route_has_limits_of_its_own() {
    let stack = Site::with_app(APP)
        .edit("[server]", "[limits]\nbody = \"10\"\n[server]")
        .edit(
            "routes = [",
            "routes = [{ path = \"/upload\", app = \"web\", limits = { body = \"1MiB\" } }, ",
        )
        .start();
    let post = |path| stack.client().post(path, "a/b", &[b'x'; 1000]).status;
    assert_eq!((post("/"), post("/upload")), (413, 200));
}

/// The rows of a table of docs/limits.md.
fn rows(table: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(repository().join("docs/limits.md")).expect("the page");
    let start = format!("<!-- {table} -->");
    let (_, rest) = page.split_once(&start).expect("it begins");
    let (rows, _) = rest.split_once("<!-- end -->").expect("it ends");
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.trim().lines().skip(2).map(cells).collect()
}

/// The keys of a table of the reference, each with its default.
fn keys(table: &str) -> Vec<(String, String)> {
    let reference = fs::read_to_string(repository().join("config/reference.toml")).expect("ours");
    let (_, rest) = reference.split_once(table).expect("it begins");
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    let written = lines.filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    let keys = written.filter(|(key, _)| {
        key.bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'2')
    });
    keys.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// Whether there is such a test: `file::name` of these, or `crate::module::name`.
fn exists(test: &str) -> bool {
    let (module, name) = test.rsplit_once("::").expect("a path");
    let file = match module.strip_prefix("proxy::") {
        Some(module) => format!("crates/proxy/src/{}.rs", module.replace("::", "/")),
        None => format!("tests/{module}.rs"),
    };
    let text = fs::read_to_string(repository().join(file)).unwrap_or_default();
    text.contains(&format!("fn {name}()"))
}

/// A limit that nobody tries may bound nothing: each has a line in the documentation, and that names its test.
#[test]
fn every_limit_is_documented_and_has_a_test() {
    let of_limits = rows("limits");
    let named = |row: &Vec<String>, key: &str| row[0].trim_end_matches(" *") == format!("`{key}`");
    for (key, default) in keys("\n[limits]\n") {
        let row = of_limits.iter().find(|row| named(row, &key));
        let row = row.unwrap_or_else(|| panic!("{key} is not in docs/limits.md"));
        assert_eq!(row[1], default, "{key}");
    }
    let upstream = keys("\n[upstream.api]\n");
    for row in rows("upstream") {
        let known = |(key, default): &&(String, String)| named(&row, key) && row[1] == *default;
        let is_rule = row[0].starts_with('(');
        assert!(is_rule || upstream.iter().any(|key| known(&key)), "{row:?}");
    }
    for row in [of_limits, rows("app"), rows("upstream"), rows("auth")].concat() {
        let test = row[3].trim_matches('`');
        assert!(exists(test), "there is no test {test}");
    }
}
