//! TLS: the right certificate for each name, renewed while it is served, and clients with certificates of their own.

use std::{fs, io::Write, net::TcpStream, os::unix::fs::PermissionsExt, process::Command};

use rustix::process::Signal;

use crate::harness::{
    Client, PATIENCE, Site, Stack,
    frames::{END_HEADERS, END_STREAM, Frames, HEADERS, block, get},
    kill, read_some,
    tls::{Authority, Offer, Pair},
};

const ENVIRON: &str = r#"
import json

def app(environ, start_response):
    body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
"#;

/// A site for each name, with `routes` of its own in the answer.
fn sites(server: &str, sites: &[(&str, &str)]) -> Site {
    let mut text = format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\naccess_log = {{ format = \"json\" }}\n{server}\n"
    );
    for (hosts, keys) in sites {
        text.push_str(&format!(
            "[[site]]\nhosts = [{hosts}]\n{keys}\nroutes = [{{ path = \"/\", respond = 'I am {}' }}]\n",
            hosts.replace('"', "")
        ));
    }
    Site::new(&text)
}

fn with_pair(site: Site, name: &str, pair: &Pair) -> Site {
    let site = site
        .file(&format!("{name}.pem"), &pair.cert)
        .file(&format!("{name}.key"), &pair.key);
    let key = site.path().join(format!("{name}.key"));
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("the folder is ours");
    site
}

const ONE: (&str, &str) = (
    "\"a.example\"",
    "tls = { cert = \"a.pem\", key = \"a.key\" }",
);

#[test]
fn each_name_has_its_certificate() {
    let names = ["a", "wild", "deep"];
    let pairs: Vec<Pair> = names
        .iter()
        .map(|name| Pair::new(&format!("{name}.example")))
        .collect();
    let keys = |name: &str| format!("tls = {{ cert = \"{name}.pem\", key = \"{name}.key\" }}");
    let mut site = sites(
        "",
        &[
            ("\"a.example\"", &keys("a")),
            ("\"*.b.example\", \"b.example\"", &keys("wild")),
            ("\"x.deep.b.example\"", &keys("deep")),
        ],
    );
    for (name, pair) in names.iter().zip(&pairs) {
        site = with_pair(site, name, pair);
    }
    let stack = site.start();
    for (name, expected) in [
        ("a.example", 0),
        ("A.EXAMPLE", 0),
        ("b.example", 1),
        ("www.b.example", 1),
        ("a.b.c.b.example", 1),
        ("x.deep.b.example", 2),
        ("y.deep.b.example", 1),
        ("unknown.example", 0),
    ] {
        let shown = Offer::of(name).certificate(stack.https());
        assert_eq!(shown, pairs[expected].der(), "{name}");
    }
    assert_eq!(Offer::nameless().certificate(stack.https()), pairs[0].der());
    // A name that nobody has gets a page that says so.
    let mut client = Offer::of("unknown.example")
        .connect(stack.https())
        .expect("a handshake");
    assert!(
        client
            .get("unknown.example", "/")
            .expect("an answer")
            .starts_with("HTTP/1.1 421 ")
    );
    // One connection may ask for several sites where none of them asks for more.
    let mut client = Offer::of("a.example")
        .connect(stack.https())
        .expect("a handshake");
    assert!(
        client
            .get("b.example", "/")
            .expect("an answer")
            .contains("I am *.b.example")
    );
}

#[test]
fn unknown_names_can_be_refused() {
    let pair = Pair::new("a.example");
    let stack = with_pair(sites("unknown_names = \"refuse\"", &[ONE]), "a", &pair).start();
    assert_eq!(
        Offer::of("a.example").certificate(stack.https()),
        pair.der()
    );
    let refused = Offer::of("b.example")
        .connect(stack.https())
        .err()
        .expect("no handshake");
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    assert!(Offer::nameless().connect(stack.https()).is_err());
}

#[test]
fn old_clients_get_the_certificate_that_they_know() {
    let (ecdsa, rsa) = (Pair::new("a.example"), Pair::rsa("a.example"));
    let keys = "tls = [{ cert = \"e.pem\", key = \"e.key\" }, { cert = \"r.pem\", key = \"r.key\", ocsp = \"r.ocsp\" }]";
    let site = sites("", &[("\"a.example\"", keys)]).file("r.ocsp", b"whatever they say");
    let stack = with_pair(with_pair(site, "e", &ecdsa), "r", &rsa).start();
    let modern = Offer::of("a.example")
        .connect(stack.https())
        .expect("a handshake");
    assert_eq!((&modern.certificate, modern.ocsp.len()), (&ecdsa.der(), 0));
    let old = Offer::rsa_only("a.example")
        .connect(stack.https())
        .expect("a handshake");
    assert_eq!(old.certificate, rsa.der());
    assert_eq!(old.ocsp, b"whatever they say");
}

#[test]
fn certificates_are_renewed_while_they_are_served() {
    let (first, second, third) = (
        Pair::new("a.example"),
        Pair::new("a.example"),
        Pair::new("a.example"),
    );
    let stack = with_pair(sites("", &[ONE]), "a", &first).start();
    let offer = Offer::of("a.example");
    let shown = || offer.certificate(stack.https());
    let mut old = offer.connect(stack.https()).expect("a handshake");
    assert_eq!(old.certificate, first.der());

    let site = with_pair(stack.site(), "a", &second);
    stack.until("the second certificate", || shown() == second.der());
    stack.until_logged("new certificate for a.example");
    assert!(
        old.get("a.example", "/")
            .expect("the connection lives")
            .contains("I am a.example")
    );

    // The third without its key: nothing changes, and it is said.
    let site = site.file("a.pem", &third.cert);
    stack.until_logged("the certificates stay as they are: site a.example: ");
    assert_eq!(shown(), second.der());
    let site = site.file("a.pem", "nonsense");
    stack.until_logged("the certificate file holds no certificate");
    assert_eq!(shown(), second.der());
    fs::remove_file(site.path().join("a.key")).expect("it was there");
    stack.until_logged("cannot read");
    assert_eq!(shown(), second.der());
    // A proxy that is started anew gets what is good.
    let proxy = stack.proxy().expect("it runs");
    kill(proxy, Signal::KILL);
    stack.until("another proxy", || {
        stack.proxy().is_some_and(|other| other != proxy)
    });
    stack.until("it serves", || TcpStream::connect(stack.https()).is_ok());
    assert_eq!(shown(), second.der());

    with_pair(site, "a", &third);
    stack.until("the third certificate", || shown() == third.der());
    assert!(
        old.get("a.example", "/").is_err(),
        "that went with its proxy"
    );
}

#[test]
fn sessions_are_resumed_by_the_next_proxy_too() {
    let stack = with_pair(sites("", &[ONE]), "a", &Pair::new("a.example")).start();
    let offer = Offer::of("a.example");
    let visit = || {
        let mut client = offer.connect(stack.https()).expect("a handshake");
        // Tickets come behind the handshake.
        client.get("a.example", "/").expect("an answer");
        client.is_resumed()
    };
    assert!(!visit());
    assert!(visit());
    let proxy = stack.proxy().expect("it runs");
    kill(proxy, Signal::KILL);
    stack.until("another proxy", || {
        stack.proxy().is_some_and(|other| other != proxy)
    });
    assert!(visit(), "the keys are the master's");
    // Not for another name.
    assert!(
        !Offer::of("b.example")
            .connect(stack.https())
            .expect("a handshake")
            .is_resumed()
    );
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let stack = with_pair(sites("", &[ONE]), "a", &Pair::new("a.example")).start();
    let mut client = Client::plain(stack.https());
    let answer = client.get("/");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert!(client.is_closed());
    stack.until_logged("plain-on-tls-port");
    // The other way round.
    let mut client = Client::plain(stack.http());
    client.send(b"\x16\x03\x01\x02\x00\x01\x00");
    assert_eq!(client.answer_head().status, 400);
    // What is neither is closed.
    let mut client = Client::plain(stack.https());
    client.send(b"\0\0\0\0\0\0\0\0\0\0");
    client.rest();
}

#[test]
fn browsers_are_told_to_come_by_tls_alone() {
    let more = format!(
        "{}\nhsts = {{ age = \"1y\", subdomains = true, preload = true }}",
        ONE.1
    );
    let site = sites(
        "",
        &[
            ("\"a.example\"", &more),
            ("\"b.example\"", "tls = \"self-signed\"\nhsts = \"1d\""),
        ],
    );
    let stack = with_pair(site, "a", &Pair::new("a.example")).start();
    let ask = |name: &str, path: &str| {
        let mut client = Offer::of(name).connect(stack.https()).expect("a handshake");
        client.get(name, path).expect("an answer").to_lowercase()
    };
    for path in ["/", "/%zz"] {
        let says = ask("a.example", path).contains(
            "strict-transport-security: max-age=31536000; includesubdomains; preload\r\n",
        );
        assert_eq!(says, path == "/", "{path}");
    }
    assert!(ask("b.example", "/").contains("strict-transport-security: max-age=86400\r\n"));
    // Never in the clear (RFC 6797 §7.2).
    let answer = Client::plain(stack.http()).request("GET", "/", &[("Host", "a.example")], b"");
    assert_eq!(answer.status, 308);
    assert_eq!(answer.field("strict-transport-security"), None);
}

#[test]
fn keys_that_everybody_reads_and_ends_that_are_near_are_warned_of() {
    let soon = Pair::with("a.example", |params| {
        params.not_after = rcgen::date_time_ymd(2024, 1, 1);
        params.not_before = rcgen::date_time_ymd(2023, 1, 1);
    });
    let site = with_pair(sites("", &[ONE]), "a", &soon);
    let key = site.path().join("a.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the folder is ours");
    let stack = site.start();
    let log = stack.until_logged("the certificate for a.example has expired");
    assert!(
        log.contains("a.key can be read by every user of this machine (mode 644)"),
        "{log}"
    );
}

/// Silent clients hold the places of others no longer than the time of a handshake, and plain HTTP does not wait for them.
#[test]
fn handshakes_have_places_of_their_own() {
    let pair = Pair::new("a.example");
    let limits = "[limits]\nhandshakes = 2\nhandshake_timeout = \"1s\"";
    let site = sites(limits, &[ONE, ("\"*\"", "tls = \"off\"")]);
    let stack = with_pair(site, "a", &pair).start();
    let mut silent: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(stack.https()).expect("it listens"))
        .collect();
    silent[1].write_all(b"\x16\x03\x01").expect("it listens");
    assert_eq!(stack.get("/").status, 200);
    assert_eq!(
        Offer::of("a.example").certificate(stack.https()),
        pair.der()
    );
    for client in &mut silent {
        client
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid time");
        assert_eq!(read_some(client, &mut [0; 10]).expect("closed"), 0);
    }
}

fn mutual(need: &str) -> (Stack, Authority) {
    let authority = Authority::new("Clients");
    let text = format!(
        r#"
[server]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
access_log = {{ format = "json" }}
[app.web]
wsgi = "app:app"
root = "."
workers = 1
threads = 2
[[site]]
hosts = ["open.example"]
routes = [{{ path = "/", app = "web" }}]
[[site]]
hosts = ["closed.example"]
client_ca = "clients.pem"
client_auth = "{need}"
routes = [{{ path = "/", app = "web" }}, {{ path = "/.well-known/acme-challenge/", respond = "token" }}]
"#
    );
    let site = Site::new(&text)
        .file("app.py", ENVIRON)
        .file("clients.pem", &authority.cert);
    (site.start(), authority)
}

fn environ(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
}

#[test]
fn clients_with_certificates() {
    let (stack, authority) = mutual("required");
    let good = authority.sign("Ada, Countess of Lovelace\r\nX: y");
    let stranger = Authority::new("Others").sign("Eve");
    for refused in [
        Offer::of("closed.example"),
        Offer::showing("closed.example", &stranger),
    ] {
        let connected = refused.connect(stack.https());
        // In TLS 1.3 the client learns it when it reads.
        let answered = connected.map(|mut client| client.get("closed.example", "/"));
        assert!(
            !matches!(answered, Ok(Ok(_))),
            "no certificate, no connection"
        );
    }
    let offer = Offer::showing("closed.example", &good);
    let mut client = offer.connect(stack.https()).expect("a handshake");
    let answer = client
        .send("GET / HTTP/1.1\r\nHost: closed.example\r\n_certificate: NONE\r\nSSL_CLIENT_VERIFY: NONE\r\nSSL-Client-S-DN: CN=Eve\r\n\r\n")
        .expect("an answer");
    let environ_of = environ(&answer);
    assert_eq!(environ_of["SSL_CLIENT_VERIFY"], "SUCCESS");
    assert_eq!(
        environ_of["SSL_CLIENT_S_DN"],
        "CN=Ada\\, Countess of Lovelace\\0D\\0AX: y"
    );
    assert_eq!(
        environ_of["SSL_CLIENT_I_DN"]
            .as_str()
            .map(|name| name.contains("CN=Clients")),
        Some(true)
    );
    assert_eq!(
        environ_of["SSL_CLIENT_FINGERPRINT"].as_str().map(str::len),
        Some(64)
    );
    // Every handshake asks again: nothing is resumed past it (CVE-2025-23419).
    client.get("closed.example", "/").expect("an answer");
    assert!(
        !offer
            .connect(stack.https())
            .expect("a handshake")
            .is_resumed()
    );

    // What was shown to one site is not for another, nor the other way round, in either protocol.
    let misdirected = client.get("open.example", "/").expect("an answer");
    assert!(misdirected.starts_with("HTTP/1.1 421 "), "{misdirected}");
    let mut open = Offer::of("open.example")
        .connect(stack.https())
        .expect("a handshake");
    let answer = open
        .send("GET / HTTP/1.1\r\nHost: open.example\r\n_certificate: SUCCESS\tCN=Eve\tCN=Eve\t1\t2\r\n\r\n")
        .expect("an answer");
    assert_eq!(
        environ(&answer)["SSL_CLIENT_VERIFY"],
        serde_json::Value::Null
    );
    assert!(
        open.get("closed.example", "/")
            .expect("an answer")
            .starts_with("HTTP/1.1 421 ")
    );
    let config = Offer::of("open.example").protocols(&["h2"]).config();
    let mut frames = Frames::with(stack.https(), config, "open.example");
    let closed = block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "closed.example"),
    ]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &closed);
    assert_eq!(frames.status(), Some(421));
    stack.until_logged("other-connection");
    // A certificate authority still finds its challenge, in the clear and nowhere else.
    let ask = |path: &str| {
        Client::plain(stack.http())
            .request("GET", path, &[("Host", "closed.example")], b"")
            .status
    };
    assert_eq!((ask("/.well-known/acme-challenge/x"), ask("/")), (200, 308));
}

#[test]
fn clients_that_may_have_certificates() {
    let (stack, authority) = mutual("optional");
    let ask = |offer: Offer| {
        let mut client = offer.connect(stack.https()).expect("a handshake");
        environ(&client.get("closed.example", "/").expect("an answer"))
    };
    let without = ask(Offer::of("closed.example"));
    assert_eq!(
        (&without["SSL_CLIENT_VERIFY"], &without["SSL_CLIENT_S_DN"]),
        (&"NONE".into(), &serde_json::Value::Null)
    );
    let with = ask(Offer::showing("closed.example", &authority.sign("Ada")));
    assert_eq!(
        (&with["SSL_CLIENT_VERIFY"], &with["SSL_CLIENT_S_DN"]),
        (&"SUCCESS".into(), &"CN=Ada".into())
    );
}

#[test]
fn http2_in_the_clear_only_where_it_is_wanted() {
    let text = "[server]\nhttp = [\"127.0.0.1:0\"]\nMORE\n[[site]]\nroutes = [{ path = \"/\", respond = \"fixed\" }]\n";
    let stack = Site::new(&text.replace("MORE", "h2c = true")).start();
    let mut frames = Frames::plain(stack.http());
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &get("/"));
    assert_eq!(frames.status(), Some(200));
    // HTTP/1.1 beside it, whole and byte by byte; what only begins like the preface is not it.
    assert_eq!(stack.get("/").text(), "fixed");
    let mut client = stack.client();
    for byte in b"PRIVATE / HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer(false).status, 200);
    let stack = Site::new(&text.replace("MORE", "")).start();
    let mut client = stack.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.answer_head().status, 505);
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_started() {
    let (one, two) = (Pair::new("a.example"), Pair::new("a.example"));
    let keys = "tls = [{ cert = \"a.pem\", key = \"a.key\" }, { cert = \"b.pem\", key = \"a.key\" }]\nclient_ca = \"a.key\"";
    let site = with_pair(
        with_pair(sites("", &[("\"a.example\"", keys)]), "a", &one),
        "b",
        &two,
    );
    let (code, says) = site.run("check");
    assert_eq!(code, Some(1), "{says}");
    assert!(says.contains("this key is not the certificate's"), "{says}");
    assert!(
        says.contains("the certificates of `client_ca` cannot be used"),
        "{says}"
    );
    assert!(says.contains("2 mistakes"), "{says}");
}

/// What a scanner of weaknesses finds: nothing old, and certificates of both kinds.
#[test]
fn a_scanner_finds_nothing_weak() {
    let (ecdsa, rsa) = (Pair::new("a.example"), Pair::rsa("a.example"));
    let keys =
        "tls = [{ cert = \"e.pem\", key = \"e.key\" }, { cert = \"r.pem\", key = \"r.key\" }]";
    let site = sites("", &[("\"a.example\"", keys)]);
    let stack = with_pair(with_pair(site, "e", &ecdsa), "r", &rsa).start();
    let scan = Command::new("sslscan")
        .args(["--no-colour", "--sni-name=a.example"])
        .arg(stack.https().to_string())
        .output();
    let Ok(scan) = scan else {
        println!("!!! SKIPPED: there is no sslscan; it is in the package of that name");
        return;
    };
    let text = String::from_utf8_lossy(&scan.stdout).into_owned();
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        let line = text.lines().find(|line| line.starts_with(version));
        assert!(
            line.is_some_and(|line| line.ends_with("disabled")),
            "{version}: {text}"
        );
    }
    for version in [
        "TLSv1.2   enabled",
        "TLSv1.3   enabled",
        "Session renegotiation not supported",
    ] {
        assert!(text.contains(version), "{version}: {text}");
    }
    assert!(
        !text.contains(" vulnerable to heartbleed")
            || text.contains("not vulnerable to heartbleed"),
        "{text}"
    );
    // Forward secrecy and authenticated encryption in every suite.
    let suites: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"))
        .collect();
    assert!(suites.len() >= 6, "{text}");
    for suite in suites {
        let is_good = (suite.contains("TLS_") || suite.contains("ECDHE-"))
            && (suite.contains("GCM") || suite.contains("CHACHA20"));
        assert!(is_good, "{suite}");
    }
}
