//! Who is started as root serves as nobody in particular: the proxy and each app run as the users that the file names, with
//! their groups, without capabilities, and what only root may read reaches them opened.
//!
//! Only root can try this. Anybody else is told so.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use crate::{
    harness::{Site, children, descriptors, is_alive, kill, stack_command},
    upgrade::Heir,
};

const APP: &str = r#"
import json, os

def status():
    return dict(line.split(":", 1) for line in open("/proc/self/status"))

def app(environ, start_response):
    open("made", "w").close()
    process = status()
    said = {
        "uids": list(os.getresuid()),
        "gids": list(os.getresgid()),
        "groups": sorted(os.getgroups()),
        "capabilities": [int(process[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
        "no_new_privileges": process["NoNewPrivs"].strip(),
        "home": os.environ["HOME"],
        "user": os.environ["USER"],
        "umask": process["Umask"].strip(),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
"#;

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
user = "nobody"
access_log = { file = "logs/access.log" }
[app.web]
wsgi = "app:app"
root = "app"
python = "/usr/bin/python3"
workers = 1
threads = 2
user = "daemon"
umask = "027"
[[site]]
hosts = ["*"]
tls = "off"
routes = [{ path = "/", app = "web" }, { path = "/files/", files = "files" }]
[[site]]
hosts = ["secure.test"]
tls = { cert = "keys/cert.pem", key = "keys/key.pem" }
routes = [{ path = "/", respond = "secret" }]
"#;

fn may_try() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("!!! NOT TESTED: only root can start processes of other users");
    }
    root
}

/// The numbers of a user of this machine.
fn ids(name: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("every system has it");
    let line = users
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")))
        .unwrap_or_else(|| panic!("there is no user {name}"));
    let mut numbers = line
        .split(':')
        .skip(2)
        .map(|text| text.parse().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    (next(), next())
}

/// A folder where everybody may enter what is for everybody, and keys and logs are root's alone.
fn site() -> Site {
    let certified =
        rcgen::generate_simple_self_signed(["secure.test".to_owned()]).expect("a certificate");
    let site = Site::new(SITE)
        .file("app/app.py", APP)
        .file("files/page.txt", "a page")
        .file("keys/cert.pem", certified.cert.pem())
        .file("keys/key.pem", certified.signing_key.serialize_pem())
        .file("logs/access.log", "");
    let set = |name: &str, mode| {
        fs::set_permissions(site.path().join(name), Permissions::from_mode(mode)).expect("ours");
    };
    set("", 0o755);
    set("keys", 0o700);
    set("keys/key.pem", 0o600);
    set("logs", 0o700);
    let (uid, gid) = ids("daemon");
    chown(site.path().join("app"), Some(uid), Some(gid)).expect("we are root");
    site
}

fn process(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let fields = line.expect("a line of that name").trim_start_matches(':');
    fields.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn proxy_and_workers_are_whom_the_file_names() {
    if !may_try() {
        return;
    }
    let stack = site().start();
    let said: serde_json::Value = serde_json::from_slice(&stack.get("/").body).expect("JSON");
    let (uid, gid) = ids("daemon");
    assert_eq!(
        said,
        serde_json::json!({
            "uids": [uid, uid, uid],
            "gids": [gid, gid, gid],
            "groups": [gid],
            "capabilities": [0, 0, 0, 0],
            "no_new_privileges": "1",
            "home": "/usr/sbin",
            "user": "daemon",
            "umask": "0027",
        })
    );
    let made = fs::metadata(stack.path().join("app/made")).expect("the app made it");
    assert_eq!((made.uid(), made.mode() & 0o777), (uid, 0o640));

    let proxy = stack.proxy().expect("it serves");
    let (uid, gid) = ids("nobody");
    assert_eq!(process(proxy, "Uid"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(process(proxy, "Gid"), format!("{gid} {gid} {gid} {gid}"));
    assert_eq!(process(proxy, "Groups"), gid.to_string());
    assert_eq!(process(proxy, "CapPrm"), "0000000000000000");
    assert_eq!(process(proxy, "NoNewPrivs"), "1");
}

#[test]
fn what_only_root_may_read_or_write_is_opened_for_the_proxy() {
    if !may_try() {
        return;
    }
    let stack = site().start();
    assert_eq!(stack.tls_client("secure.test").get("/").text(), "secret");
    assert_eq!(stack.get("/files/page.txt").text(), "a page");
    let log = stack.path().join("logs/access.log");
    stack.until("the record is written", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("/files/page.txt"))
    });
}

/// With an access log that has no causes, 403 alone would say nothing to who has forgotten a `chmod`.
#[test]
fn a_file_that_the_proxy_may_not_read_is_told_in_the_log() {
    if !may_try() {
        return;
    }
    let site = site();
    let path = site.path().join("files/private.txt");
    fs::write(&path, "not for all").expect("ours");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
    let stack = site.start();
    assert_eq!(stack.get("/files/private.txt").status, 403);
    stack.until_logged(
        "(GET /files/private.txt): 403 file-unreadable: the file cannot be read: Permission denied",
    );
}

/// Others do not get to the socket; the worker asks the kernel besides who has.
#[test]
fn only_the_proxy_gets_to_a_worker() {
    if !may_try() {
        return;
    }
    let stack = site().start();
    let sockets = fs::read_to_string("/proc/net/unix").expect("every Linux has it");
    let worker = stack.workers()[0];
    let inodes: Vec<String> = descriptors(worker)
        .into_iter()
        .map(|(_, what)| what)
        .collect();
    let socket = sockets
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| {
            fields.len() > 7
                && fields[7].contains("/web.1.")
                && inodes.contains(&format!("socket:[{}]", fields[6]))
        })
        .expect("the worker listens");
    let path = Path::new(socket[7]);
    let metadata = fs::metadata(path).expect("a socket");
    assert_eq!(
        (metadata.uid(), metadata.mode() & 0o777),
        (ids("nobody").0, 0o600)
    );
    let folder = path
        .parent()
        .expect("a folder")
        .metadata()
        .expect("a folder");
    assert_eq!(
        (folder.uid(), folder.gid(), folder.mode() & 0o777),
        (0, ids("nobody").1, 0o710)
    );
    assert_eq!(stack.get("/").status, 200);
}

/// The usual reason of a 403 or of an app that "cannot be found": a folder on the way that the user may not enter.
#[test]
fn a_folder_that_the_user_may_not_enter_is_named_before_anything_starts() {
    if !may_try() {
        return;
    }
    let site = site();
    for name in ["app", "files"] {
        let path = site.path().join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("ours");
        chown(path, Some(0), Some(0)).expect("we are root");
    }
    let (code, said) = site.run("check");
    assert_eq!(code, Some(1));
    let folder = site.path().display();
    for (user, name) in [("daemon", "app"), ("nobody", "files")] {
        let expected = format!("the user `{user}` may not enter {folder}/{name}");
        assert!(said.contains(&expected), "{expected} is not in:\n{said}");
    }
    let (code, said) = site
        .edit("user = \"nobody\"", "user = \"no-such-user\"")
        .run("up");
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no user `no-such-user`"), "{said}");
}

#[test]
fn exec_runs_a_command_as_the_app_runs() {
    if !may_try() {
        return;
    }
    let site = site();
    let output = stack_command()
        .args(["exec", "--config"])
        .arg(site.path().join("site.toml"))
        .args(["--", "sh", "-c", "id -u; id -G; echo $USER; umask; pwd"])
        .output()
        .expect("the binary was built");
    let (uid, gid) = ids("daemon");
    let root = site.path().join("app");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{uid}\n{gid}\ndaemon\n0027\n{}\n", root.display()),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The master of a service that is not root's has the right to take ports below 1024 from its manager
/// (`AmbientCapabilities=`). Its heir needs it for the next port of the file; nobody else gets it.
#[test]
fn another_master_keeps_the_right_to_low_ports() {
    const PLAIN: &str = r#"
[server]
http = ["127.0.0.1:0"]
[app.web]
wsgi = "app:app"
python = "/usr/bin/python3"
workers = 1
[[site]]
routes = [{ path = "/", app = "web" }]
"#;
    const APP: &str =
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n";
    if !may_try() {
        return;
    }
    let (uid, gid) = ids("nobody");
    let become_nobody = format!(
        "chmod 777 . notify.sock && exec setpriv --reuid={uid} --regid={gid} --clear-groups \
         --inh-caps=+net_bind_service --ambient-caps=+net_bind_service \"$@\""
    );
    let launcher = ["sh", "-c", &become_nobody, "sh"];
    let stack = Site::new(PLAIN)
        .file("app.py", APP)
        .through(&launcher)
        .start();
    // CAP_NET_BIND_SERVICE is the tenth.
    let right = "0000000000000400";
    let has_it = |pid: u32| process(pid, "CapEff") == right && process(pid, "CapAmb") == right;
    assert!(has_it(stack.pid()));
    kill(stack.pid(), rustix::process::Signal::USR2);
    stack.until_ended();
    let heir = Heir::of(&stack);
    assert_ne!(heir.0, stack.pid());
    assert!(has_it(heir.0));
    let children = children(heir.0);
    assert_eq!(children.len(), 2, "a proxy and a worker");
    for child in children {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(process(child, set), "0000000000000000", "{set}");
        }
    }
    kill(heir.0, rustix::process::Signal::TERM);
    stack.until_output("it stops", || !is_alive(heir.0));
}
