//! The proxy has given up what it does not need. Tried from inside: a debugger makes the running proxy's own thread call the
//! kernel, as an attacker who has taken it over would.
//!
//! Only root may trace a process that is none of its children; anybody else is told so.

use std::{fs, process::Command};

use crate::harness::{Site, Stack, venv};

/// Attaches to a process and makes its main thread call the kernel: `PID`, then calls as JSON; prints their results.
const DEBUGGER: &str = r#"
import ctypes, json, os, sys

ATTACH, DETACH, GETREGS, SETREGS, STEP, POKE = 16, 17, 12, 13, 9, 5
NAMES = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
NAMES = NAMES.split()
Registers = type("Registers", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_ulonglong) for name in NAMES]})

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
pid, calls = int(sys.argv[1]), json.loads(sys.argv[2])

def ptrace(what, address=0, data=0):
    if libc.ptrace(what, pid, address, data) == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

ptrace(ATTACH)
os.waitpid(pid, 0x40000000)
saved = Registers()
ptrace(GETREGS, 0, ctypes.addressof(saved))
results = []
try:
    for number, *arguments in calls:
        registers = Registers.from_buffer_copy(saved)
        # Text goes on its stack, well below what it uses.
        place = (saved.rsp - 4096) & ~15
        values = []
        for argument in arguments:
            if isinstance(argument, str):
                text = argument.encode() + b"\0" * 8
                for offset in range(0, len(text) // 8 * 8, 8):
                    ptrace(POKE, place + offset, int.from_bytes(text[offset:offset + 8], "little"))
                values.append(place)
                place += len(text) // 8 * 8
            else:
                values.append(argument % 2**64)
        for name, value in zip(["rdi", "rsi", "rdx", "r10", "r8", "r9"], values):
            setattr(registers, name, value)
        # It waits in the kernel, so the instruction before is the one that calls it; nothing is to be restarted now.
        registers.rax, registers.orig_rax, registers.rip = number, 2**64 - 1, saved.rip - 2
        ptrace(SETREGS, 0, ctypes.addressof(registers))
        ptrace(STEP)
        os.waitpid(pid, 0x40000000)
        ptrace(GETREGS, 0, ctypes.addressof(registers))
        results.append(ctypes.c_longlong(registers.rax).value)
finally:
    ptrace(SETREGS, 0, ctypes.addressof(saved))
    ptrace(DETACH)
print(json.dumps(results))
"#;

const SITE: &str = r#"
[server]
http = ["127.0.0.1:0"]
spool = "spool"
[[site]]
routes = [{ path = "/", files = "public" }]
"#;

fn site() -> Site {
    Site::new(SITE)
        .file("public/page.txt", "a page")
        .file("spool/.keep", "")
        .file("secret.txt", "a secret")
}

fn may_try() -> bool {
    let may = rustix::process::geteuid().is_root() && cfg!(target_arch = "x86_64");
    if !may {
        eprintln!("!!! NOT TESTED: only root on x86-64 can look from inside the proxy");
    }
    may
}

const OPENAT: i64 = 257;
const HERE: i64 = -100;
const READ: i64 = 0;
const WRITE: i64 = 1;
const TEMPORARY: i64 = 0o20_200_002;
const DENIED: i64 = -13;
const UNKNOWN: i64 = -38;

/// What the kernel answers the proxy.
fn calls(stack: &Stack, calls: &serde_json::Value) -> Vec<i64> {
    let pid = stack.proxy().expect("it serves").to_string();
    let output = Command::new(venv::python())
        .args(["-c", DEBUGGER, &pid, &calls.to_string()])
        .output()
        .expect("there is a python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("a list")
}

fn in_folder(stack: &Stack, name: &str) -> String {
    stack.path().join(name).display().to_string()
}

/// Here everybody is root, so nothing but the confinement says no.
#[test]
fn the_proxy_can_open_what_it_serves_and_nothing_else() {
    if !may_try() {
        return;
    }
    let stack = site().start();
    let opened = calls(
        &stack,
        &serde_json::json!([
            [OPENAT, HERE, in_folder(&stack, "public/page.txt"), READ],
            [OPENAT, HERE, "/etc/shadow", READ],
            [OPENAT, HERE, in_folder(&stack, "secret.txt"), READ],
            [OPENAT, HERE, in_folder(&stack, "site.toml"), READ],
            [OPENAT, HERE, in_folder(&stack, "public/page.txt"), WRITE],
            [OPENAT, HERE, in_folder(&stack, "public"), TEMPORARY, 0o600],
            [OPENAT, HERE, in_folder(&stack, "spool"), TEMPORARY, 0o600],
        ]),
    );
    let denied = &opened[1..6];
    assert_eq!(denied, [DENIED; 5], "{}", stack.logged());
    assert!(opened[0] >= 0 && opened[6] >= 0, "{opened:?}");
    stack.until_logged("files: confined");
    assert_eq!(stack.get("/page.txt").text(), "a page", "and it goes on");
}

#[test]
fn the_proxy_cannot_start_a_program_or_reach_another_process() {
    if !may_try() {
        return;
    }
    let stack = site().start();
    let master = stack.pid();
    let (execve, clone, ptrace, kill, setuid, socket, listen) = (59, 56, 101, 62, 105, 41, 50);
    let packets = 17;
    let answers = calls(
        &stack,
        &serde_json::json!([
            [execve, "/bin/sh", 0, 0],
            [clone, 17, 0, 0, 0, 0],
            [ptrace, 16, master, 0, 0],
            [kill, master, 0],
            [setuid, 0],
            [socket, packets, 3, 0],
            [listen, 0, 1],
        ]),
    );
    assert_eq!(answers, [UNKNOWN; 7], "{}", stack.logged());
    stack.until_logged("system calls: confined by seccomp");
    assert_eq!(stack.get("/page.txt").text(), "a page");
}

/// Which shows as well that these tests can see the difference.
#[test]
fn each_can_be_switched_off() {
    if !may_try() {
        return;
    }
    let off = "[server]\nlandlock = false\nseccomp = false";
    let stack = site().edit("[server]", off).start();
    let kill = 62;
    let answers = calls(
        &stack,
        &serde_json::json!([[OPENAT, HERE, "/etc/shadow", READ], [kill, stack.pid(), 0]]),
    );
    assert!(answers[0] >= 0, "{answers:?}");
    assert_eq!(answers[1], 0);
    stack.until_logged("files: not confined, as server.landlock says");
    stack.until_logged("system calls: not confined, as server.seccomp says");
}

/// Wherever the configuration names a file to be served, it must be found among what is left.
#[test]
fn all_that_is_served_is_still_read() {
    let app = r#"
import os

def app(environ, start_response):
    path = environ["PATH_INFO"].replace("/handed", os.path.dirname(os.getcwd()))
    start_response("200 OK", [("X-Sendfile", path)])
    return [b""]
"#;
    let python = venv::python().display().to_string();
    let site = Site::new(
        r#"
[server]
http = ["127.0.0.1:0"]
spool = "spool"
[app.web]
wsgi = "app:app"
root = "app"
python = "PYTHON"
workers = 1
sendfile = ["invoices"]
[[site]]
errors = { 404 = "pages/404.html" }
routes = [{ path = "/handed/", app = "web" }]
"#,
    )
    .edit("PYTHON", &python)
    .file("spool/.keep", "")
    .file("app/app.py", app)
    .file("invoices/1.txt", "an invoice")
    .file("pages/404.html", "our own page");
    let stack = site.start();
    assert_eq!(
        stack.get("/handed/invoices/1.txt").text(),
        "an invoice",
        "{}",
        stack.logged()
    );
    let missing = stack
        .client()
        .send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")
        .answer(false);
    assert_eq!(missing.text(), "our own page", "{}", stack.logged());
}

/// The C library reads its configuration for that, and modules, whenever it likes.
#[test]
fn names_of_upstreams_are_still_looked_up() {
    let origin = Site::new(
        "[server]\nhttp = [\"127.0.0.1:0\"]\n[[site]]\nroutes = [{ path = \"/\", respond = \"behind\" }]",
    );
    let origin = origin.start();
    let upstream = format!(
        r#"{{ path = "/", upstream = "http://localhost:{}" }}"#,
        origin.http().port()
    );
    let stack = site()
        .edit(r#"{ path = "/", files = "public" }"#, &upstream)
        .start();
    assert_eq!(stack.get("/").text(), "behind", "{}", stack.logged());
}

/// A process of the same user could otherwise take the keys out of its memory.
#[test]
fn nobody_of_the_same_user_can_look_into_the_proxy() {
    if !may_try() {
        return;
    }
    use std::os::unix::fs::MetadataExt as _;
    let site = site().edit("[server]", "[server]\nuser = \"nobody\"");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(site.path(), open).expect("ours");
    std::os::unix::fs::chown(site.path().join("spool"), Some(65_534), None).expect("we are root");
    let stack = site.start();
    let proxy = stack.proxy().expect("it serves");
    let owner = fs::metadata(format!("/proc/{proxy}/mem"))
        .expect("it runs")
        .uid();
    assert_eq!(owner, 0, "proc(5): what cannot be dumped is root's");
}
