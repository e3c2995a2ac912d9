//! Certificates by ACME, from a real authority (pebble): got, kept, renewed, and what happens when they cannot be had.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{
        Site, Stack, descriptors, kill,
        pebble::{Front, Pebble, free_port},
        tls::Offer,
    },
    upgrade::Heir,
};

pub(crate) const BOTH: &str = "http = [\"HTTP\"]\nhttps = [\"HTTPS\"]";
const TLS_ALONE: &str = "http = []\nhttps = [\"HTTPS\"]";

/// Whether the certificate is pebble's: the name of its issuer stands in it.
pub(crate) fn is_pebbles(certificate: &[u8]) -> bool {
    certificate
        .windows(b"Pebble Intermediate".len())
        .any(|part| part == b"Pebble Intermediate")
}

pub(crate) fn shown(stack: &Stack, name: &str) -> Vec<u8> {
    Offer::of(name).certificate(stack.https())
}

fn got(stack: &Stack, times: usize) {
    stack.until("the certificate is got", || {
        stack.logged().matches(": got by ").count() >= times
    });
}

pub(crate) fn until_shown(stack: &Stack, name: &str) -> Vec<u8> {
    stack.until("the certificate is shown", || {
        is_pebbles(&shown(stack, name))
    });
    shown(stack, name)
}

/// What `stack status` says of the first certificate by ACME.
pub(crate) fn status(site: &Site) -> Value {
    let (code, text) = site.run_with("status", &["--json"]);
    assert_eq!(code, Some(0), "{text}");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    status["acme"][0].clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

/// The file of the state directory that ends so.
pub(crate) fn kept(stack: &Stack, ending: &str) -> Option<PathBuf> {
    let folder = fs::read_dir(stack.path().join("state")).ok()?;
    let files = folder.flatten().map(|entry| entry.path());
    let mut files = files.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(ending) && !name.starts_with("account-") && !name.starts_with('.')
    });
    files.next()
}

#[test]
fn a_certificate_is_got_by_http_and_kept() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let site = pebble.site(&["a.example.com", "b.example.com"], BOTH);
    let stack = site.start();
    let before = Offer::of("a.example.com").connect(stack.https());
    let mut before = before.expect("a self-signed one is shown until then");
    let certificate = until_shown(&stack, "a.example.com");
    assert_eq!(
        certificate,
        shown(&stack, "b.example.com"),
        "all names are in one"
    );
    let text = stack.until_logged("got by http-01, valid for 89 days");
    assert!(
        text.contains("there is no certificate for a.example.com, b.example.com yet"),
        "{text}"
    );
    assert!(
        before
            .get("a.example.com", "/")
            .expect("the connection goes on")
            .contains("hello")
    );
    let state = stack.path().join("state");
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).expect("it is there") {
        let path = entry.expect("it can be read").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let site = stack.site();
    let acme = status(&site);
    assert_eq!(acme["standing"]["next"], "renew");
    assert_eq!(acme["standing"]["error"], Value::Null);
    let (_, metrics) = site.run("status");
    assert!(
        metrics.contains("acme a.example.com, b.example.com: valid for 89 days"),
        "{metrics}"
    );
    let (_, json) = site.run_with("status", &["--json"]);
    let status: Value = serde_json::from_str(&json).expect("JSON");
    let orders = status["figures"]["stack_acme_orders"].to_string();
    assert!(
        orders.contains("a.example.com,b.example.com") && orders.contains("done"),
        "{orders}"
    );
    drop(stack);
    let stack = site.start();
    assert_eq!(shown(&stack, "a.example.com"), certificate, "it was kept");
    assert!(!stack.logged().contains("there is no certificate"));
}

#[test]
fn a_certificate_is_got_by_tls_where_nothing_else_leads_here() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = pebble
        .site(&["a.example.com", "b.example.com"], TLS_ALONE)
        .start();
    until_shown(&stack, "b.example.com");
    stack.until_logged("got by tls-alpn-01");
    let other = Offer::of("a.example.com")
        .protocols(&["acme-tls/1"])
        .connect(stack.https());
    assert!(other.is_err(), "no challenge is left");
}

#[test]
fn what_does_not_lead_here_is_gone_round() {
    let Some(mut pebble) = Pebble::new() else {
        return;
    };
    let site = pebble.site(&["a.example.com"], BOTH);
    // It looks for HTTP where nobody is.
    pebble.http = free_port();
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = site.start();
    until_shown(&stack, "a.example.com");
    let text = stack.until_logged("got by tls-alpn-01");
    assert!(
        text.contains("http-01 has failed: a.example.com: "),
        "{text}"
    );
}

#[test]
fn a_certificate_is_renewed_and_no_connection_breaks() {
    let Some(pebble) = Pebble::new() else { return };
    let pebble = pebble.life(12);
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    let first = until_shown(&stack, "a.example.com");
    let mut connection = Offer::of("a.example.com")
        .connect(stack.https())
        .expect("a handshake");
    assert_eq!(connection.certificate, first);
    got(&stack, 2);
    stack.until("the new one is shown", || {
        shown(&stack, "a.example.com") != first
    });
    assert!(
        connection
            .get("a.example.com", "/")
            .expect("it goes on")
            .contains("hello")
    );
    let text = stack.logged();
    assert!(text.contains(": renew at "), "{text}");
}

#[test]
fn an_authority_that_is_away_is_asked_again_until_it_is_back() {
    let Some(pebble) = Pebble::new() else { return };
    let _names = pebble.names();
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    stack.until_logged("cannot connect to 127.0.0.1:");
    let site = stack.site();
    stack.until("the failure is told", || {
        status(&site)["standing"]["failures"] != 0
    });
    assert!(
        !is_pebbles(&shown(&stack, "a.example.com")),
        "it serves as it can"
    );
    let _pebble = pebble.start();
    until_shown(&stack, "a.example.com");
    let standing = status(&site)["standing"].clone();
    assert_eq!(
        (&standing["failures"], &standing["error"]),
        (&0.into(), &Value::Null)
    );
}

#[test]
fn what_the_authority_says_is_shown_and_a_reload_tries_again() {
    let Some(pebble) = Pebble::new() else { return };
    let (names, _pebble) = (pebble.names(), pebble.start());
    names.lead("b.example.com", "127.0.0.9");
    let stack = pebble
        .site(&["a.example.com", "b.example.com"], BOTH)
        .start();
    let text = stack
        .until_logged("no certificate for a.example.com, b.example.com: http-01: b.example.com: ");
    assert!(text.contains("127.0.0.9"), "{text}");
    let site = stack.site();
    stack.until("the failure is told", || {
        status(&site)["standing"]["failures"] == 1
    });
    let (_, text) = site.run("status");
    assert!(
        text.contains("no certificate yet, order in ")
            && text.contains("; 1 failure, the last: http-01"),
        "{text}"
    );
    let (code, text) = site.run_with("check", &["--acme"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("no certificate: http-01: b.example.com: "),
        "{text}"
    );
    names.lead("b.example.com", "127.0.0.1");
    let (code, text) = site.run_with("check", &["--acme"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("a.example.com, b.example.com: a certificate can be got, by http-01"),
        "{text}"
    );
    assert!(
        !is_pebbles(&shown(&stack, "a.example.com")),
        "that was a rehearsal"
    );
    assert_eq!(site.run("reload").0, Some(0));
    until_shown(&stack, "b.example.com");
}

#[test]
fn bad_nonces_are_overcome() {
    let Some(pebble) = Pebble::new() else { return };
    let pebble = pebble.env("PEBBLE_WFE_NONCEREJECT", "35");
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    until_shown(&stack, "a.example.com");
}

#[test]
fn an_account_that_is_lost_is_replaced() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, running) = (pebble.names(), pebble.start());
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    until_shown(&stack, "a.example.com");
    let certificate = kept(&stack, ".pem").expect("it is kept");
    stack.until("what was tried is noted", || {
        let noted = kept(&stack, ".json").and_then(|path| fs::read_to_string(path).ok());
        noted.is_some_and(|text| text.contains("\"failures\":0"))
    });
    let site = stack.site();
    drop(stack);
    // The authority has forgotten everything.
    drop(running);
    let _pebble = pebble.start();
    fs::remove_file(&certificate).expect("it is there");
    let stack = site.clone().start();
    stack.until_logged("the authority does not know our account");
    until_shown(&stack, "a.example.com");
    stack.until("it is kept", || certificate.exists());
    drop(stack);
    // And our key is gone.
    fs::remove_file(&certificate).expect("it is there");
    let state = fs::read_dir(site.path().join("state")).expect("it is there");
    let account = state.flatten().map(|entry| entry.path());
    let mut account = account.filter(|path| path.to_string_lossy().contains("account-"));
    fs::write(account.next().expect("it is kept"), "nonsense").expect("it is ours");
    let stack = site.start();
    stack.until_logged("the account that was kept cannot be read");
    until_shown(&stack, "a.example.com");
}

#[test]
fn what_cannot_be_kept_is_not_ordered() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let site = pebble
        .site(&["a.example.com"], BOTH)
        .file("state", "a file");
    let stack = site.clone().start_unready();
    assert_eq!(stack.wait().code(), Some(1));
    let text = stack.until_said("make it a folder that only the user");
    assert!(
        text.contains("cannot keep certificates in") && text.contains("state = \"state\""),
        "{text}"
    );
    drop(stack);
    fs::remove_file(site.path().join("state")).expect("it is ours");
    // It goes while the authority is asked: nothing can be kept any more, as on a full disk.
    drop(_pebble);
    let stack = site.start();
    stack.until_logged("cannot connect to 127.0.0.1:");
    let state = stack.path().join("state");
    fs::rename(&state, stack.path().join("away")).expect("it is ours");
    stack.until_logged("No such file or directory");
    let _pebble = pebble.start();
    fs::rename(stack.path().join("away"), &state).expect("it is ours");
    assert_eq!(stack.site().run("reload").0, Some(0));
    until_shown(&stack, "a.example.com");
}

#[test]
fn what_cannot_be_kept_is_used_and_kept_later() {
    let Some(pebble) = Pebble::new() else { return };
    let _names = pebble.names();
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    stack.until("what was tried is kept", || kept(&stack, ".json").is_some());
    // Where the file is to be a folder stands.
    let place = kept(&stack, ".json")
        .expect("it is there")
        .with_extension("pem");
    fs::create_dir(&place).expect("the folder is ours");
    let _pebble = pebble.start();
    until_shown(&stack, "a.example.com");
    stack.until_logged("is used, but cannot be kept");
    let certificate = shown(&stack, "a.example.com");
    assert_eq!(
        stack.site().run("reload").0,
        Some(1),
        "the place cannot be read"
    );
    assert_eq!(
        shown(&stack, "a.example.com"),
        certificate,
        "and nothing has changed"
    );
    fs::remove_dir(&place).expect("it is empty");
    stack.until("it is kept", || place.is_file());
    assert_eq!(
        stack.logged().matches(": got by ").count(),
        1,
        "it was not ordered again"
    );
}

#[test]
fn of_two_stacks_with_one_folder_one_orders() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let first = pebble.site(&["a.example.com"], BOTH);
    let state = format!("state = {:?}", first.path().join("state"));
    let _folder = first.clone();
    let first = first.start();
    let second = pebble
        .site(
            &["a.example.com"],
            "http = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]",
        )
        .edit("state = \"state\"", &state);
    let second = second.start();
    second.until_logged("another stack gets it");
    let certificate = until_shown(&first, "a.example.com");
    second.until("both show it", || {
        shown(&second, "a.example.com") == certificate
    });
    assert_eq!(status(&second.site())["elsewhere"], true);
    let (code, text) = second.site().run_with("check", &["--acme"]);
    assert!(code == Some(1) && text.contains("another stack"), "{text}");
    drop(first);
    second.until_logged("is got by this stack from now on");
    assert!(
        !second.logged().contains(": got by "),
        "it has what it needs"
    );
}

#[test]
fn its_process_has_no_rights_and_is_started_again() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let root = rustix::process::geteuid().is_root();
    let user = if root {
        format!("{BOTH}\nuser = \"nobody\"")
    } else {
        BOTH.to_owned()
    };
    let stack = pebble.site(&["a.example.com"], &user).start();
    until_shown(&stack, "a.example.com");
    let agent = || {
        stack
            .children(|line| line.starts_with("stack: acme"))
            .first()
            .copied()
    };
    let pid = agent().expect("it runs");
    let of = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = of
            .lines()
            .find(|line| line.starts_with(name))
            .expect("it is there");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    for (number, what) in descriptors(pid) {
        assert!(
            !what.starts_with('/') || what == "/dev/null",
            "{number}: {what}"
        );
    }
    if root {
        assert_ne!(field("Uid:"), "0");
        assert_eq!(field("CapEff:"), "0000000000000000");
    }
    kill(pid, Signal::KILL);
    stack.until_logged("the process that gets certificates is gone: killed by SIGKILL");
    stack.until("another one runs", || {
        agent().is_some_and(|other| other != pid)
    });
    assert_eq!(stack.logged().matches(": got by ").count(), 1);
}

#[test]
fn a_host_more_is_another_certificate_and_the_old_one_is_shown_meanwhile() {
    let Some(pebble) = Pebble::new() else { return };
    let (names, _pebble) = (pebble.names(), pebble.start());
    names.lead("c.example.com", "127.0.0.9");
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    let first = until_shown(&stack, "a.example.com");
    let site = stack.site().edit(
        "[\"a.example.com\"]",
        "[\"a.example.com\", \"c.example.com\"]",
    );
    assert_eq!(site.run("reload").0, Some(0));
    stack.until_logged("no certificate for a.example.com, c.example.com");
    assert_eq!(shown(&stack, "a.example.com"), first, "as long as it lives");
    names.lead("c.example.com", "127.0.0.1");
    assert_eq!(site.run("reload").0, Some(0));
    stack.until("all names are in it", || {
        shown(&stack, "a.example.com") != first
    });
    assert_eq!(
        shown(&stack, "a.example.com"),
        shown(&stack, "c.example.com")
    );
}

#[test]
fn another_master_takes_it_over() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    let certificate = until_shown(&stack, "a.example.com");
    let site = stack.site();
    assert_eq!(site.run("upgrade").0, Some(0));
    let _heir = Heir::of(&stack);
    assert_eq!(shown(&stack, "a.example.com"), certificate);
    stack.until_output("the heir cares for it", || {
        status(&site)["standing"]["next"] == "renew" && status(&site)["elsewhere"] == false
    });
}

#[test]
fn an_authority_that_wants_a_renewal_gets_one() {
    let Some(pebble) = Pebble::new() else { return };
    // Two thirds of it are forty seconds.
    let pebble = pebble.life(60);
    let (_names, _pebble, front) = (pebble.names(), pebble.start(), Front::before(&pebble));
    let retry = "Content-Type: application/json\r\nRetry-After: 60\r\n";
    front.say(
        Front::RENEWAL,
        "200 OK",
        retry,
        r#"{"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}, "explanationURL": "https://ca.example/why"}"#,
    );
    let place = |port: u16| format!("https://127.0.0.1:{port}/dir");
    let site = pebble.site(&["a.example.com"], BOTH);
    let stack = site.edit(&place(pebble.port), &place(front.port)).start();
    let first = until_shown(&stack, "a.example.com");
    let site = stack.site();
    stack.until("what was tried is noted", || kept(&stack, ".pem").is_some());
    drop(stack);
    let stack = site.start();
    let text = stack.until_logged("certificate for a.example.com: renew at ");
    assert!(text.contains("would like the certificate for a.example.com to be renewed now (https://ca.example/why)"), "{text}");
    // Pebble takes no order in the place of another certificate, which is only a word about it.
    stack.until("the new one is shown", || {
        shown(&stack, "a.example.com") != first
    });
}

#[test]
fn an_authority_that_says_when_is_not_asked_before() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble, front) = (pebble.names(), pebble.start(), Front::before(&pebble));
    front.say(
        Front::ORDER,
        "429 Too Many Requests",
        "Content-Type: application/problem+json\r\nRetry-After: 100000\r\n",
        r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates already issued", "status": 429}"#,
    );
    let place = |port: u16| format!("https://127.0.0.1:{port}/dir");
    let site = pebble.site(&["a.example.com"], BOTH);
    let stack = site.edit(&place(pebble.port), &place(front.port)).start();
    stack.until_logged("too many certificates already issued (rateLimited); next try in 27 h");
    let site = stack.site();
    assert_eq!(site.run("reload").0, Some(0));
    let (code, text) = site.run_with("check", &["--acme"]);
    assert!(
        code == Some(1) && text.contains("too many certificates already issued"),
        "{text}"
    );
    assert_eq!(
        front.asked(Front::ORDER),
        2,
        "the first time, and for the rehearsal"
    );
    drop(stack);
    let stack = site.start();
    stack.until("it is known", || {
        status(&stack.site())["standing"]["failures"] == 1
    });
    assert_eq!(front.asked(Front::ORDER), 2, "nor after a start");
}

#[test]
fn a_rehearsal_needs_no_stack_that_runs() {
    let Some(pebble) = Pebble::new() else { return };
    let (names, _pebble) = (pebble.names(), pebble.start());
    let site = pebble.site(&["a.example.com", "b.example.com"], BOTH);
    let (code, text) = site.run_with("check", &["--acme"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("a.example.com, b.example.com: a certificate can be got"),
        "{text}"
    );
    names.lead("b.example.com", "127.0.0.9");
    let (code, text) = site.run_with("check", &["--acme"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("no certificate: http-01: b.example.com: "),
        "{text}"
    );
    assert!(!site.path().join("state").exists(), "nothing is kept");
}

#[test]
fn nonsense_is_told_as_such_and_harms_nobody() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble, front) = (pebble.names(), pebble.start(), Front::before(&pebble));
    let place = |port: u16| format!("https://127.0.0.1:{port}/dir");
    let cases = [
        (
            "200 OK",
            "<html>",
            "the authority's answer is not understood",
        ),
        ("502 Bad Gateway", "<html>", "answers 502 Bad Gateway"),
        (
            "200 OK",
            r#"{"newNonce": 1}"#,
            "the authority's answer is not understood",
        ),
        (
            "200 OK",
            r#"{"newNonce": "nowhere", "newAccount": "", "newOrder": ""}"#,
            "does not begin with https://",
        ),
    ];
    let site = pebble.site(&["a.example.com"], BOTH);
    front.say("/dir", cases[0].0, "", cases[0].1);
    let stack = site.edit(&place(pebble.port), &place(front.port)).start();
    for (status, content, words) in cases {
        front.say("/dir", status, "", content);
        assert_eq!(stack.site().run("reload").0, Some(0));
        stack.until_logged(words);
    }
    let huge = "x".repeat(2 << 20);
    front.say("/dir", "200 OK", "", &huge);
    assert_eq!(stack.site().run("reload").0, Some(0));
    stack.until_logged("length limit exceeded");
    assert!(!is_pebbles(&shown(&stack, "a.example.com")));
}

#[test]
fn customers_have_a_key() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let Some(pebble) = Pebble::new() else { return };
    let pebble = pebble.customer("kid-1", KEY);
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let stack = pebble.site(&["a.example.com"], BOTH).start();
    stack.until_logged("externalAccountRequired");
    let site = stack.site().edit(
        "state =",
        "eab = { key_id = \"kid-1\", mac_key = \"eab.key\" }\nstate =",
    );
    let site = site.file("eab.key", "no key");
    let (code, text) = site.run("reload");
    assert!(
        code == Some(1) && text.contains("holds no key in base64"),
        "{text}"
    );
    let site = site.file("eab.key", format!("{KEY}\n"));
    assert_eq!(site.run("reload").0, Some(0));
    until_shown(&stack, "a.example.com");
}

#[test]
fn nobody_else_who_comes_in_is_let_in_with_a_challenge() {
    let Some(pebble) = Pebble::new() else { return };
    let (_names, _pebble) = (pebble.names(), pebble.start());
    let closed = "routes = [{ path = \"/\", respond = \"hello\" }]\nallow = [\"192.0.2.1\"]\nlimit = \"1/h\"\nauth = { basic = \"users\" }\nmaintenance = { on = true }";
    let site = pebble.site(&["a.example.com"], BOTH);
    let site = site.edit("routes = [{ path = \"/\", respond = \"hello\" }]", closed);
    let site = site.file(
        "users",
        "ann:$2y$05$abcdefghijklmnopqrstuuYqPmM3uVvY8DqjKqzqpqLkqzqzqzqzq\n",
    );
    let stack = site.start();
    until_shown(&stack, "a.example.com");
    let mut visitor = Offer::of("a.example.com")
        .connect(stack.https())
        .expect("a handshake");
    let path = "/.well-known/acme-challenge/nobodys";
    let answer = visitor.get("a.example.com", path).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 503"),
        "{answer}"
    );
}

#[test]
fn the_log_of_its_process_goes_where_all_goes() {
    let Some(pebble) = Pebble::new() else { return };
    let _names = pebble.names();
    let log = format!("{BOTH}\nlog = {{ file = \"log\" }}");
    let stack = pebble.site(&["a.example.com"], &log).start();
    let file = stack.path().join("log");
    let says =
        |path: &Path, text: &str| fs::read_to_string(path).unwrap_or_default().contains(text);
    stack.until("it says what it does", || {
        says(&file, "acme: no certificate for a.example.com")
    });
    let moved = stack.path().join("log.1");
    fs::rename(&file, &moved).expect("the folder is ours");
    stack.signal(Signal::USR1);
    stack.until("it goes on in another file", || {
        says(&file, "acme: no certificate for a.example.com")
    });
    let _pebble = pebble.start();
    stack.until("it says it there", || says(&file, "got by http-01"));
    assert!(!says(&moved, "got by http-01"));
    assert_eq!(stack.site().run_with("log", &["debug"]).0, Some(0));
    stack.until("it says more", || {
        says(&file, "acme: files: confined by Landlock")
    });
}
