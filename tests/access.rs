//! Who may come in, and how often: each spelling of a guarded path meets its guard, limits hold over keep-alive, protocols and
//! reloads, and who is let in is who the app hears of.

use std::{
    io::{ErrorKind, Write},
    process::Stdio,
};

use crate::harness::{Answer, Site, Stack, kill, stack_command};

const APP: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Frame-Options", "DENY"),
                              ("Access-Control-Allow-Origin", "https://evil.example")])
    said = [environ.get(key, "-") for key in ("PATH_INFO", "REMOTE_USER", "AUTH_TYPE", "HTTP_REMOTE_USER")]
    return [" ".join(said).encode()]
"#;

const SITE: &str = r#"
[server]
access_log = { format = "json" }
http = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1"]
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[[site]]
hosts = ["localhost"]
security_headers = true
routes = [
    { path = "/", app = "web" },
    { path = "/staff/", app = "web", allow = ["10.0.0.0/8"] },
    { path = "/secret/", app = "web", auth = { basic = "users", realm = "Staff" } },
    { path = "/either/", app = "web", allow = ["10.0.0.0/8"], auth = { basic = "users" }, satisfy = "any" },
    { path = "/few", app = "web", limit = "3/h" },
    { path = "/keyed", app = "web", limit = { rate = "1/h", by = "header:X-Api-Key" } },
    { path = "/banned", app = "web", limit = { rate = "1/s", ban = "1h", ban_after = 3 } },
    { path = "/api/", app = "web", cors = ["https://app.example.org"], auth = { basic = "users" } },
    { path = "/open/", app = "web", cors = "*" },
    { path = "/files/", files = "public", deny = ["192.0.2.0/24"] },
    { path = "/internal/", files = "public", internal = true, auth = { basic = "users" } },
]
"#;

// ann: "open sesame".
const USERS: &str = "ann:$2y$05$XZdm/YAc083zuUuIPOl2/enldwzaBIzG8Q5kxd1XfQCtIbr4FscEi\n";
const ANN: &str = "Authorization: Basic YW5uOm9wZW4gc2VzYW1l\r\n";

fn site() -> Site {
    Site::new(SITE)
        .file("app.py", APP)
        .file("users", USERS)
        .file("public/a.txt", "a file")
}

fn ask(stack: &Stack, target: &str, fields: &str) -> Answer {
    stack.ask("localhost", target, fields)
}

fn from(address: &str) -> String {
    format!("X-Forwarded-For: {address}\r\n")
}

#[test]
fn every_spelling_of_a_guarded_path_meets_its_guard() {
    let stack = site().start();
    for target in [
        "/staff/",
        "/staff",
        "/staff/x",
        "//staff/x",
        "/staff//x",
        "/./staff/x",
        "/a/../staff/x",
        "/a/%2e%2e/staff/x",
        "/%73taff/x",
        "/s%74aff/",
        "/staff/../staff/x",
        "/staff/.",
        "/staff/?x",
        "/staff?x",
        "http://localhost/staff/x",
    ] {
        let outside = ask(&stack, target, &from("11.0.0.1"));
        assert_eq!(outside.status, 403, "{target}: {outside:?}");
        let inside = ask(&stack, target, &from("10.0.0.1"));
        assert_eq!(inside.status, 200, "{target}: {inside:?}");
    }
    // What is routed elsewhere is another place, for the app as well.
    for target in [
        "/STAFF/x",
        "/staffx",
        "/staff;x/",
        "/staff/../x",
        "/staff/%2e%2e%2fx",
    ] {
        let answer = ask(&stack, target, &from("11.0.0.1"));
        assert_eq!(answer.status, 200, "{target}");
        assert!(
            !answer.text().starts_with("/staff/"),
            "{target}: {answer:?}"
        );
    }
    let denied = ask(&stack, "/files/a.txt", &from("192.0.2.7"));
    assert_eq!(denied.status, 403);
    assert_eq!(ask(&stack, "/files/a.txt", &from("192.0.3.7")).status, 200);
    stack.until_logged("address-denied");
}

#[test]
fn a_name_is_what_the_app_hears_and_nobody_can_claim_one() {
    let stack = site().start();
    let question = ask(&stack, "/secret/x", "");
    assert_eq!(question.status, 401);
    let challenge = question.field("www-authenticate");
    assert_eq!(challenge, Some("Basic realm=\"Staff\", charset=\"UTF-8\""));
    assert_eq!(
        ask(&stack, "/secret/x", "Authorization: Basic YW5uOndyb25n\r\n").status,
        401
    );
    assert_eq!(
        ask(&stack, "/secret", "").status,
        401,
        "the slash is no key"
    );
    let answer = ask(&stack, "/secret/x", ANN);
    assert_eq!(answer.text(), "/secret/x ann Basic -");
    let forged = "_user: root\r\nRemote_User: root\r\nREMOTE-USER: root\r\n";
    assert_eq!(
        ask(&stack, "/x", forged).text(),
        "/x - - root",
        "a plain field is no more than that"
    );
    stack.until_logged("\"user\":\"ann\"");
}

#[test]
fn either_the_place_or_the_name_is_enough_where_it_says_so() {
    let stack = site().start();
    for (fields, status) in [
        (from("11.0.0.1"), 401),
        (from("10.0.0.1"), 200),
        (from("11.0.0.1") + ANN, 200),
    ] {
        assert_eq!(ask(&stack, "/either/", &fields).status, status, "{fields}");
    }
}

#[test]
fn limits_hold_over_connections_and_are_each_clients_own() {
    let stack = site().start();
    let one = from("198.51.100.1");
    let statuses: Vec<u16> = (0..5).map(|_| ask(&stack, "/few", &one).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = ask(&stack, "/few", &one);
    let retry: u32 = refused
        .field("retry-after")
        .expect("said")
        .parse()
        .expect("seconds");
    assert!((1..=1201).contains(&retry), "one every 20 minutes: {retry}");
    assert_eq!(
        refused.field("ratelimit-policy"),
        Some("\"limit\";q=3;w=3600")
    );
    assert!(
        refused
            .field("ratelimit")
            .is_some_and(|left| left.starts_with("\"limit\";r=0;t=")),
        "{refused:?}"
    );
    assert_eq!(ask(&stack, "/few", &from("198.51.100.2")).status, 200);
    // One subscriber has a /64.
    for host in 1..=3 {
        assert_eq!(
            ask(&stack, "/few", &from(&format!("2001:db8::{host}"))).status,
            200
        );
    }
    assert_eq!(ask(&stack, "/few", &from("2001:db8::ffff")).status, 429);
    for (key, status) in [("a", 200), ("b", 200), ("a", 429)] {
        assert_eq!(
            ask(&stack, "/keyed", &format!("X-Api-Key: {key}\r\n")).status,
            status,
            "{key}"
        );
    }
    stack.until_logged("rate-limited");
}

#[test]
fn who_does_not_stop_is_banned() {
    let stack = site().start();
    let one = from("198.51.100.1");
    let answers: Vec<Answer> = (0..5).map(|_| ask(&stack, "/banned", &one)).collect();
    assert_eq!(answers[4].status, 429);
    let retry: u32 = answers[4]
        .field("retry-after")
        .expect("said")
        .parse()
        .expect("seconds");
    assert!(retry > 3000, "an hour: {retry}");
    stack.until_logged("\"cause\":\"banned\"");
}

#[test]
fn pages_of_other_origins_ask_what_they_may() {
    let stack = site().start();
    let preflight = |origin: &str| {
        let request = format!(
            "OPTIONS /api/x HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
             Access-Control-Request-Headers: x-a\r\nConnection: close\r\n\r\n"
        );
        stack.client().send(request).answer(false)
    };
    let known = preflight("https://app.example.org");
    assert_eq!(known.status, 204, "no password is asked of a preflight");
    assert_eq!(
        known.field("access-control-allow-origin"),
        Some("https://app.example.org")
    );
    assert_eq!(known.field("access-control-allow-methods"), Some("PUT"));
    assert_eq!(known.field("access-control-allow-headers"), Some("x-a"));
    assert_eq!(
        known.field("access-control-allow-credentials"),
        Some("true")
    );
    let other = preflight("https://evil.example");
    assert_eq!(other.field("access-control-allow-origin"), None);
    assert_eq!(other.field("access-control-allow-methods"), None);
    let with = format!("Origin: https://app.example.org\r\n{ANN}");
    let answer = ask(&stack, "/api/x", &with);
    assert_eq!(
        answer.field("access-control-allow-origin"),
        Some("https://app.example.org")
    );
    let refused = ask(&stack, "/api/x", "Origin: https://app.example.org\r\n");
    assert_eq!(refused.status, 401);
    let told = refused.field("access-control-allow-origin");
    assert_eq!(
        told,
        Some("https://app.example.org"),
        "a script may know why it failed"
    );
    let any = ask(&stack, "/open/x", "Origin: https://else.example\r\n");
    assert_eq!(any.field("access-control-allow-origin"), Some("*"));
    assert_eq!(any.field("access-control-allow-credentials"), None);
}

#[test]
fn fields_of_caution_come_where_nobody_said_otherwise() {
    let stack = site().start();
    let answer = ask(&stack, "/x", "");
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        answer.field("x-frame-options"),
        Some("DENY"),
        "the app knows better"
    );
    assert_eq!(
        answer.field("referrer-policy"),
        Some("strict-origin-when-cross-origin")
    );
}

#[test]
fn stack_passwd_writes_what_is_read() {
    let site = site();
    let passwd = |arguments: &[&str], password: &str| {
        let mut child = stack_command()
            .arg("passwd")
            .args(arguments)
            .current_dir(site.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let mut stdin = child.stdin.take().expect("piped");
        // Who refuses the arguments may be gone before it reads.
        let written = stdin.write_all(password.as_bytes());
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.expect("it reads"),
        }
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, said) = passwd(&["bob", "users"], "let me in please\n");
    assert_eq!(
        (code, said.contains("bob is added")),
        (Some(0), true),
        "{said}"
    );
    let (code, said) = passwd(&["cid", "users"], "short\n");
    assert_eq!(
        (code, said.contains("too short")),
        (Some(1), true),
        "{said}"
    );
    assert_eq!(passwd(&["a b", "users"], "let me in please\n").0, Some(1));
    assert_eq!(passwd(&["nobody", "users", "--remove"], "").0, Some(1));
    let stack = site.start();
    // bob: "let me in please".
    let bob = "Authorization: Basic Ym9iOmxldCBtZSBpbiBwbGVhc2U=\r\n";
    assert_eq!(ask(&stack, "/secret/", bob).text(), "/secret/ bob Basic -");
    assert_eq!(
        ask(&stack, "/secret/", ANN).status,
        200,
        "the others are as they were"
    );
}

/// Without a reload, and without a word about anybody else.
#[test]
fn a_changed_file_of_users_is_taken_and_a_bad_one_is_not() {
    let stack = site().start();
    let ann = || ask(&stack, "/secret/", ANN).status;
    assert_eq!(ann(), 200);
    let users = stack.path().join("users");
    let write = |text: &str| std::fs::write(&users, text).expect("the folder is ours");
    write(&format!("{USERS}bob:$apr1$abc$def\n"));
    stack.until_logged("stay as they are: line 2: MD5 hashes are guessed in no time");
    assert_eq!(ann(), 200);
    write(&USERS.replace("ann", "cid"));
    stack.until_logged("new users: ");
    stack.until("she is out, whoever remembers her", || ann() == 401);
    write(USERS);
    stack.until("she is in again", || ann() == 200);
    std::fs::remove_file(&users).expect("the folder is ours");
    stack.until_logged("stay as they are: cannot read");
    assert_eq!(ann(), 200);
    // Another proxy is told the same.
    let before = stack.proxy().expect("it serves");
    kill(before, rustix::process::Signal::KILL);
    stack.until("another serves", || {
        stack.proxy().is_some_and(|proxy| proxy != before)
            && stack.site().run("status").1.contains("proxy: serving")
    });
    assert_eq!(ann(), 200);
}

#[test]
fn a_bad_file_of_users_is_said_at_its_place() {
    let site = site().file("users", "ann:$apr1$abc$def\n");
    let (code, said) = site.run("check");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("line 1: MD5 hashes are guessed in no time"),
        "{said}"
    );
    assert!(said.contains("auth = { basic = \"users\""), "{said}");
}

/// A question for a password would say that there is something.
#[test]
fn what_is_internal_is_not_there_for_anybody() {
    let stack = site().start();
    for target in ["/internal/a.txt", "/internal/missing", "/internal/"] {
        for fields in ["", ANN] {
            let answer = ask(&stack, target, fields);
            assert_eq!(answer.status, 404, "{target} {fields}");
            assert_eq!(answer.field("www-authenticate"), None);
        }
    }
    assert_eq!(ask(&stack, "/internal", "").text(), "/internal - - -");
}
