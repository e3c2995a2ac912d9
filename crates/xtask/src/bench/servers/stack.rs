//! Ours: a whole site, and a worker without its master and its proxy.

use std::{
    fs,
    process::{Child, Command},
};

use anyhow::Result;

use super::echo;
use crate::bench::{
    apps,
    peer::{Address, Scene, Started, Tree, free_port},
};

/// What our proxy tells a slot of the client.
pub(super) const FIELDS: &str =
    "_stack: 192.0.2.7 40000 https example.org 443 0123456789abcdef\r\n";

pub(super) fn site(scene: &Scene<'_>) -> Result<Started> {
    site_with(scene, "")
}

/// One that keeps nothing back: uploads go on as they come, and the app says that its responses are to.
pub(super) fn unbuffered(scene: &Scene<'_>) -> Result<Started> {
    let env = format!("env = {{ {} = \"1\" }}\n", apps::UNBUFFERED);
    let keys = Keys {
        app: &env,
        route: ", request_buffering = false",
        ..Keys::default()
    };
    site_of(scene, keys)
}

/// One that writes no access log.
pub(super) fn unlogged(scene: &Scene<'_>) -> Result<Started> {
    let keys = Keys {
        access_log: "\"off\"",
        ..Keys::default()
    };
    site_of(scene, keys)
}

/// One that counts the requests of each client, and would send too fast ones away.
pub(super) fn limited(scene: &Scene<'_>) -> Result<Started> {
    let keys = Keys {
        route: ", limit = \"1000000/s burst 1000000\"",
        ..Keys::default()
    };
    site_of(scene, keys)
}

/// One that is told to be quick about what hangs, and says of each request which it was; by TLS as well, and before another
/// server. It stands on the folders of a soak.
pub(super) fn rough(scene: &Scene<'_>) -> Result<Started> {
    let Scene {
        port,
        entry,
        workers,
        threads,
        ..
    } = scene;
    let tls = free_port()?;
    let (root, venv) = (&scene.place.app, &scene.place.venv);
    let files = scene.place.target.join("bench-app/static");
    let soak = scene.place.soak();
    let ground = soak.display();
    let routes = format!(
        "routes = [{{ path = \"/static/\", files = {files:?} }}, {{ path = \"/socket\", upstream = \"unix:{ground}/echo.sock\" }}, \
         {{ path = \"/\", app = \"bench\" }}]\n"
    );
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:{port}\"]\nhttps = [\"127.0.0.1:{tls}\"]\nspool = \"{ground}/spool\"\n\
         access_log = {{ file = \"{ground}/logs/access.log\", format = '$time_iso $request_id $status $cause $total $target' }}\n\
         [app.bench]\nwsgi = {entry:?}\nroot = {root:?}\nvenv = {venv:?}\nworkers = {workers}\nthreads = {threads}\ntimeout = \"3s\"\n\
         memory_max = \"320MiB\"\nprivate_tmp = true\n\
         [[site]]\nhosts = [\"*\"]\ntls = \"off\"\n{routes}\
         [[site]]\nhosts = [\"127.0.0.1\"]\ntls = {{ cert = \"{ground}/tls/cert.pem\", key = \"{ground}/tls/key.pem\" }}\n{routes}",
    );
    let mut command = command(scene, &text)?;
    let clock = soak.join("clock.so");
    if clock.exists() {
        command
            .env("LD_PRELOAD", clock)
            .env("SOAK_CLOCK", soak.join("clock"));
    }
    Ok(Started {
        trees: vec![tree(command.spawn()?)],
        address: Address::Tls { port: *port, tls },
    })
}

/// Only the proxy: everything goes to the server at the address that stands for the app.
pub(super) fn relay(scene: &Scene<'_>) -> Result<Started> {
    relay_to(scene, scene.entry)
}

/// The same for a server of WebSockets.
pub(super) fn websocket(scene: &Scene<'_>) -> Result<Started> {
    relay_to(scene, &echo::address()?.to_string())
}

fn relay_to(scene: &Scene<'_>, address: &str) -> Result<Started> {
    let site = format!(
        "[[site]]\nhosts = [\"*\"]\nroutes = [{{ path = \"/\", upstream = \"http://{address}\" }}]\n",
    );
    sites(scene, &site)
}

/// Only the proxy, with these sites.
pub(super) fn sites(scene: &Scene<'_>, sites: &str) -> Result<Started> {
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:{port}\"]\n\
         access_log = {{ file = \"access.log\", format = \"combined\" }}\n\
         [limits]\nkeepalive_requests = 100000000\n{sites}",
        port = scene.port,
    );
    up(scene, &text)
}

/// With more keys of the app.
pub(super) fn site_with(scene: &Scene<'_>, keys: &str) -> Result<Started> {
    let keys = Keys {
        app: keys,
        ..Keys::default()
    };
    site_of(scene, keys)
}

/// What a configuration says beside what all say.
struct Keys<'a> {
    access_log: &'a str,
    /// Lines of the app's table.
    app: &'a str,
    /// Keys of the app's route, each with a comma before it.
    route: &'a str,
}

impl Default for Keys<'_> {
    fn default() -> Self {
        Self {
            access_log: "{ file = \"access.log\", format = \"combined\" }",
            app: "",
            route: "",
        }
    }
}

fn site_of(scene: &Scene<'_>, keys: Keys<'_>) -> Result<Started> {
    let Keys {
        access_log,
        app: of_app,
        route: of_route,
    } = keys;
    let Scene {
        port,
        entry,
        workers,
        threads,
        ..
    } = scene;
    let (root, venv) = (&scene.place.app, &scene.place.venv);
    let files = root.join("static");
    let text = format!(
        "[server]\nhttp = [\"127.0.0.1:{port}\"]\n\
         access_log = {access_log}\n\
         [limits]\nkeepalive_requests = 1000000\n\
         [app.bench]\nwsgi = {entry:?}\nroot = {root:?}\nvenv = {venv:?}\nworkers = {workers}\nthreads = {threads}\nstreams = 1000\n{of_app}\
         [[site]]\nhosts = [\"*\"]\nroutes = [{{ path = \"/static/\", files = {files:?} }}, {{ path = \"/\", app = \"bench\"{of_route} }}]\n",
    );
    up(scene, &text)
}

fn up(scene: &Scene<'_>, text: &str) -> Result<Started> {
    Ok(Started {
        trees: vec![start(scene, text)?],
        address: Address::Port(scene.port),
    })
}

/// Starts it with this configuration.
pub(super) fn start(scene: &Scene<'_>, text: &str) -> Result<Tree> {
    Ok(tree(command(scene, text)?.spawn()?))
}

fn command(scene: &Scene<'_>, text: &str) -> Result<Command> {
    let config = scene.folder.join("site.toml");
    let unconfined = "[server]\nlandlock = false\nseccomp = false\n";
    let text = match scene.place.unconfined {
        true => text.replacen("[server]\n", unconfined, 1),
        false => text.to_owned(),
    };
    fs::write(&config, text)?;
    let mut command = scene.command(&scene.place.stack)?;
    command.args(["up", "--config"]).arg(&config);
    Ok(command)
}

fn tree(child: Child) -> Tree {
    let part = |line: &str| match line {
        _ if line.contains(" proxy") => "proxy",
        _ if line.contains("python") || line.contains(": worker ") => "worker",
        _ => "master",
    };
    Tree { child, part }
}

/// What the master does to start a worker, and nothing else of it: descriptors at their numbers, then the bootstrap.
const LAUNCHER: &str = r#"
import fcntl, json, os, socket, subprocess, sys

bootstrap, module, path, root, entry, threads = sys.argv[1:]
ask = """if True:
    import importlib.machinery, importlib.util, sys
    loader = importlib.machinery.ExtensionFileLoader("_stack", sys.argv[1])
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_stack", loader))
    loader.exec_module(module)
    print(module.BUILD_ID)
    """
build = subprocess.run([sys.executable, "-c", ask, module], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
name, attribute = entry.split(":")
assignment = {
    "build": build, "app": "bench", "number": 1, "entry": {"module": name, "attribute": attribute, "factory": False},
    "on_start": None, "on_stop": None, "root": root, "threads": int(threads), "workers": 1, "listener": 6, "control": 7,
    "proxy_uid": os.getuid(), "scoreboard": 8, "dump": 9, "max_requests": None, "dev": False,
}


def memory(text):
    descriptor = os.memfd_create("bench", 0)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(128)
ours, theirs = socket.socketpair()
scoreboard = os.memfd_create("bench", 0)
os.ftruncate(scoreboard, int(threads) * 512)
given = [memory(open(bootstrap).read()), memory(json.dumps(assignment)), os.open(module, os.O_RDONLY), listener.fileno(), theirs.fileno(), scoreboard, os.open("/dev/null", os.O_WRONLY)]
if os.fork() == 0:
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20) for descriptor in given]
    for number, descriptor in enumerate(above, 3):
        os.dup2(descriptor, number)
    code = 'exec(compile(open(3).read(), "stack-bootstrap", "exec"))'
    os.execv(sys.executable, [sys.executable, "-c", code, "bench"])
theirs.close()
# What the worker says of itself: why it did not start, if so.
for line in ours.makefile():
    print(line, end="", flush=True)
os.wait()
"#;

pub(super) fn worker(scene: &Scene<'_>) -> Result<Started> {
    let bootstrap = scene.folder.join("bootstrap.py");
    fs::write(
        &bootstrap,
        include_str!("../../../../python/src/bootstrap.py"),
    )?;
    let mut command = scene.command(scene.place.python())?;
    let command = command.args(["-c", LAUNCHER]).arg(&bootstrap);
    let command = command.arg(scene.place.module()?).arg(scene.socket());
    let command = command
        .arg(&scene.place.app)
        .args([scene.entry, &scene.threads]);
    let part = |line: &str| match line {
        _ if line.contains("stack-bootstrap\"") || line.contains(": worker ") => "worker",
        _ => "launcher",
    };
    Ok(Started {
        trees: vec![Tree {
            child: command.spawn()?,
            part,
        }],
        address: Address::Socket(scene.socket().into()),
    })
}
