//! `auth = { forward = … }`: a server that is asked who may come in. Whatever is asked, however it is spelt and over whichever
//! protocol, nobody comes in whom it has not let in, and nobody says in its place who they are.

use std::sync::{Arc, Mutex};

use crate::harness::{
    Answer, Site, Stack,
    h2::H2,
    origin::{Origin, Seen, Then},
};

const APP: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    keys = ("PATH_INFO", "REMOTE_USER", "HTTP_REMOTE_USER", "HTTP_REMOTE_GROUPS")
    said = [environ.get(key, "-") for key in keys]
    if environ["PATH_INFO"].endswith("/type"):
        said.append(environ.get("AUTH_TYPE", "none"))
    return [" ".join(said).encode(), environ["wsgi.input"].read()]
"#;

const SITE: &str = r#"
[server]
access_log = { format = "json" }
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1"]
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[upstream.guard]
members = ["GUARD"]
retry_after = "1ms"
[[site]]
hosts = ["localhost"]
tls = "off"
routes = [
    { path = "/", app = "web" },
    { path = "/in/", app = "web", auth = { forward = "GUARD/verify?x=1", copy = ["Remote-Groups"] } },
    { path = "/files/", files = "public", auth = { forward = "/verify", upstream = "guard" } },
    { path = "/up/", upstream = "BACK", auth = { forward = "/verify", upstream = "guard", copy = ["Authorization"] } },
    { path = "/either/", app = "web", allow = ["10.0.0.0/8"], auth = { forward = "/verify", upstream = "guard" }, satisfy = "any" },
    { path = "/both/", app = "web", allow = ["10.0.0.0/8"], auth = { forward = "/verify", upstream = "guard" } },
    { path = "/soon/", app = "web", auth = { forward = "/verify", upstream = "guard", timeout = "200ms" } },
    { path = "/away/", app = "web", auth = { forward = "http://127.0.0.1:1/verify" } },
]
[[site]]
hosts = ["safe.localhost"]
tls = "self-signed"
routes = [
    { path = "/in/", app = "web", auth = { forward = "/verify", upstream = "guard", copy = ["Remote-Groups"] } },
]
"#;

/// Lets in who has the cookie `key=ann`, and says what else it is told to.
fn guard() -> (Origin, Arc<Mutex<Option<String>>>) {
    let told: Arc<Mutex<Option<String>>> = Arc::default();
    let says = Arc::clone(&told);
    let origin = Origin::tcp(move |stream, seen| {
        if let Some(answer) = says.lock().expect("no holder panics").clone() {
            let _ = stream.write_all(answer.as_bytes());
            return Then::Closes;
        }
        let answer = match seen.fields("cookie").contains(&"key=ann") {
            true => {
                "HTTP/1.1 204 No Content\r\nRemote-User: ann\r\nRemote-Groups: staff\r\nRemote-Groups: all\r\n\
                 Authorization: Bearer inner\r\nSet-Cookie: seen=now\r\nX-Other: no\r\n\r\n"
            }
            false => {
                "HTTP/1.1 302 Found\r\nLocation: https://login.example.org/?rd=x\r\nSet-Cookie: back=1\r\n\
                 Remote-User: nobody\r\nContent-Length: 5\r\n\r\nlogin"
            }
        };
        let _ = stream.write_all(answer.as_bytes());
        Then::Goes
    });
    (origin, told)
}

struct Guarded {
    stack: Stack,
    guard: Origin,
    back: Origin,
    told: Arc<Mutex<Option<String>>>,
}

impl Guarded {
    fn start() -> Self {
        let (guard, told) = guard();
        let back = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback");
        let stack = Site::new(SITE)
            .edit("GUARD", &guard.url())
            .edit("BACK", &back.url())
            .file("app.py", APP)
            .file("public/a.txt", "a file")
            .start();
        Self {
            stack,
            guard,
            back,
            told,
        }
    }

    fn ask(&self, target: &str, fields: &str) -> Answer {
        self.stack.ask("localhost", target, fields)
    }

    /// What the guard is to say from now on.
    fn tell(&self, answer: impl Into<String>) {
        *self.told.lock().expect("no holder panics") = Some(answer.into());
    }

    fn last_question(&self) -> Seen {
        self.guard.seen().pop().expect("it was asked")
    }
}

const KEY: &str = "Cookie: key=ann\r\n";

/// RFC 3875 §4.1.1: a cookie is no scheme, and nobody has shown to be ann by `Basic`.
#[test]
fn an_app_hears_by_which_scheme_if_by_any() {
    let guarded = Guarded::start();
    let answer = guarded.ask("/in/type", KEY);
    assert_eq!(answer.text(), "/in/type ann - staff, all none");
    let token = format!("{KEY}Authorization: Bearer abc\r\n");
    let answer = guarded.ask("/in/type", &token);
    assert_eq!(answer.text(), "/in/type ann - staff, all Bearer");
}

#[test]
fn who_is_let_in_is_who_the_guard_says() {
    let guarded = Guarded::start();
    let answer = guarded.ask("/in/x", KEY);
    assert_eq!(answer.text(), "/in/x ann - staff, all");
    assert_eq!(answer.field("set-cookie"), Some("seen=now"));
    assert_eq!(answer.field("x-other"), None);
    assert_eq!(guarded.ask("/files/a.txt", KEY).text(), "a file");
    assert_eq!(guarded.ask("/up/x", KEY).text(), "back");
    let behind = guarded.back.seen().pop().expect("asked");
    assert_eq!(behind.fields("authorization"), ["Bearer inner"]);
    guarded.stack.until_logged("\"user\":\"ann\"");
    // With the content of a POST the guard has nothing to do.
    let mut client = guarded.stack.client();
    let post =
        format!("POST /in/x HTTP/1.1\r\nHost: localhost\r\n{KEY}Content-Length: 4\r\n\r\nbody");
    let answer = client.send(post).answer(false);
    assert_eq!(answer.text(), "/in/x ann - staff, allbody");
    let question = guarded.last_question();
    assert_eq!(question.fields("content-length"), [""; 0]);
    assert_eq!(question.fields("x-forwarded-method"), ["POST"]);
}

#[test]
fn the_guard_learns_what_is_asked_and_by_whom() {
    let guarded = Guarded::start();
    let from = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Uri: /public\r\nX-Original-URL: http://localhost/public\r\n\
                X-Forwarded-Method: HEAD\r\nAuthorization: Basic eA==\r\nRange: bytes=0-1\r\nIf-None-Match: *\r\n\
                Remote-User: root\r\nAccept: text/html\r\n";
    let answer = guarded.ask("/a/../in/%73ecret%20x?q=%2f", &format!("{from}{KEY}"));
    assert_eq!(answer.status, 200);
    let question = guarded.last_question();
    assert_eq!(question.line(), "GET /verify?x=1 HTTP/1.1");
    let host = format!("127.0.0.1:{}", guarded.guard.port());
    for (name, values) in [
        ("host", &[host.as_str()][..]),
        ("x-forwarded-method", &["GET"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-host", &["localhost"]),
        ("x-forwarded-uri", &["/in/secret%20x?q=%2f"]),
        ("x-forwarded-for", &["192.0.2.7"]),
        ("x-original-method", &["GET"]),
        ("x-original-url", &["http://localhost/in/secret%20x?q=%2f"]),
        ("authorization", &["Basic eA=="]),
        ("cookie", &["key=ann"]),
        ("accept", &["text/html"]),
        ("range", &[]),
        ("if-none-match", &[]),
        ("remote-user", &[]),
    ] {
        assert_eq!(question.fields(name), values, "{name}");
    }
}

#[test]
fn a_refusal_is_the_guards_own_answer() {
    let guarded = Guarded::start();
    let before = guarded.back.seen().len();
    for target in ["/in/x", "/files/a.txt", "/up/x"] {
        let answer = guarded.ask(target, "");
        assert_eq!(answer.status, 302, "{target}");
        assert_eq!(
            answer.field("location"),
            Some("https://login.example.org/?rd=x")
        );
        assert_eq!(answer.field("set-cookie"), Some("back=1"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("remote-user"), None, "that is for the app");
        assert_eq!(answer.text(), "login");
    }
    assert_eq!(guarded.back.seen().len(), before, "nothing went further");
    guarded.tell(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n",
    );
    let answer = guarded.ask("/in/x", KEY);
    assert_eq!(answer.status, 401);
    assert_eq!(answer.field("www-authenticate"), Some("Negotiate"));
    assert!(answer.text().contains("401 Unauthorized"), "{answer:?}");
    guarded.stack.until_logged("\"cause\":\"auth-refused\"");
}

#[test]
fn every_spelling_meets_the_guard_over_http1_and_http2() {
    let guarded = Guarded::start();
    for target in [
        "/in/",
        "/in",
        "/in/x",
        "//in/x",
        "/in//x",
        "/./in/x",
        "/a/../in/x",
        "/a/%2e%2e/in/x",
        "/%69n/x",
        "/in/?x",
        "/in?x",
        "http://localhost/in/x",
        "/files/a.txt",
        "/files//a.txt",
        "/files/./a.txt",
        "/files/b/../a.txt",
        "/%66iles/a.txt",
        "/up/x",
        "/UP/../up/x",
    ] {
        assert_eq!(guarded.ask(target, "").status, 302, "{target}");
    }
    let mut h2 = H2::connect(guarded.stack.https(), "safe.localhost");
    for path in [
        "/in/",
        "/in/x",
        "//in/x",
        "/a/%2e%2e/in/x",
        "/%69n/x",
        "/in",
    ] {
        let answer = h2.request("GET", path, &[("remote-user", "root")], b"");
        // The path without its slash has no route on this site, and nothing to tell.
        let expected = if path == "/in" { 404 } else { 302 };
        assert_eq!(answer.status, expected, "{path}");
    }
    let fields = [
        ("cookie", "key=ann"),
        ("remote-user", "root"),
        ("remote-groups", "wheel"),
    ];
    let answer = h2.request("GET", "/in/x", &fields, b"");
    assert_eq!(answer.text(), "/in/x ann - staff, all");
}

#[test]
fn nobody_says_in_the_guards_place_who_they_are() {
    let guarded = Guarded::start();
    let forged = "Remote-User: root\r\nRemote-Groups: wheel\r\nREMOTE-GROUPS: wheel\r\nRemote_Groups: wheel\r\n";
    assert_eq!(
        guarded.ask("/in/x", &format!("{forged}{KEY}")).text(),
        "/in/x ann - staff, all"
    );
    // Nor where nobody is asked: the app reads the field in the same way there.
    for target in ["/x", "/inner", "/in/../x"] {
        let text = guarded.ask(target, forged).text();
        assert!(text.ends_with(" - - -"), "{target}: {text}");
    }
    // Who comes in by its address has no name.
    let inside = format!("X-Forwarded-For: 10.0.0.1\r\n{forged}");
    assert_eq!(guarded.ask("/either/", &inside).text(), "/either/ - - -");
    // A guard that says nothing has said nothing.
    guarded.tell("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(guarded.ask("/in/x", forged).text(), "/in/x - - -");
    // What clients log in with is theirs elsewhere, and the guard's where it says so.
    let basic = "Authorization: Basic eA==\r\n";
    assert_eq!(guarded.ask("/up/x", basic).status, 200);
    let behind = guarded.back.seen().pop().expect("asked");
    assert_eq!(behind.fields("authorization"), [""; 0]);
}

#[test]
fn the_address_or_the_guard_and_both() {
    let guarded = Guarded::start();
    let (inside, outside) = (
        "X-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-For: 11.0.0.1\r\n",
    );
    for (target, from, key, status) in [
        ("/either/", inside, "", 200),
        ("/either/", outside, "", 302),
        ("/either/", outside, KEY, 200),
        ("/both/", inside, "", 302),
        ("/both/", outside, KEY, 403),
        ("/both/", inside, KEY, 200),
    ] {
        let answer = guarded.ask(target, &format!("{from}{key}"));
        assert_eq!(answer.status, status, "{target} {from} {key}");
    }
}

#[test]
fn a_guard_that_is_away_lets_nobody_in() {
    let guarded = Guarded::start();
    let closed = |target: &str| {
        let answer = guarded.ask(target, KEY);
        assert_eq!(answer.status, 503, "{target}: {answer:?}");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    };
    closed("/away/x");
    guarded.stack.until_logged("\"cause\":\"auth-unavailable\"");
    for broken in [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nRemote-User: ann b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nRemote-User:\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200",
        "nonsense\r\n\r\n",
        "",
    ] {
        guarded.tell(broken);
        closed("/in/x");
        closed("/files/a.txt");
    }
    // One that says nothing at all is not waited for: the test's own client would be, for a minute.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", silent.local_addr().expect("bound"));
    let site = Site::new(SITE)
        .edit("GUARD", &address)
        .edit("BACK", &address)
        .file("app.py", APP)
        .file("public/a.txt", "a file");
    let stack = site.start();
    let request = "GET /soon/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = stack.client().send(request).answer(false);
    assert_eq!(answer.status, 503);
    stack.until_logged("\"cause\":\"auth-unavailable\"");
}
