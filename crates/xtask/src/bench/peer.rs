//! The servers: how each is started, how its processes are told apart, how it is ended.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    case,
    process::{self, Cpu, Member},
};

/// Where things are.
pub(crate) struct Place {
    /// Cargo's folder for everything that is made.
    pub(crate) target: PathBuf,
    /// The release build.
    pub(super) stack: PathBuf,
    /// The app that every server serves.
    pub(super) app: PathBuf,
    /// The peers' virtual environment.
    pub(super) venv: PathBuf,
}

/// Versions are pinned, so that figures of different days speak of the same peers.
const PEERS: &[&str] = &[
    "flask==3.1.3",
    "gunicorn==27.0.1",
    "granian==2.8.7",
    "waitress==3.0.2",
    "uwsgi==2.0.31",
];

impl Place {
    /// Builds what is ours, installs what is theirs.
    pub(crate) fn prepare(stack: Option<PathBuf>) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("no workspace")?;
        let target = root.join("target");
        let stack = match stack {
            Some(stack) => {
                fs::canonicalize(&stack).with_context(|| format!("no {}", stack.display()))?
            }
            None => {
                let mut cargo = Command::new("cargo");
                succeed(
                    cargo
                        .args(["build", "--release", "--package", "stack"])
                        .current_dir(root),
                )?;
                target.join("release/stack")
            }
        };
        let venv = target.join("bench-venv");
        let app = target.join("bench-app");
        fs::create_dir_all(&app)?;
        fs::write(app.join("app.py"), case::APP)?;
        fs::write(app.join("flask_app.py"), case::FLASK_APP)?;
        fs::create_dir_all(app.join("static"))?;
        for (name, length) in case::FILES {
            fs::write(app.join("static").join(name), vec![b'x'; *length])?;
        }
        if !venv.join("bin/python").exists() {
            succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        let pip = venv.join("bin/pip");
        succeed(
            Command::new(pip)
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(PEERS),
        )?;
        Ok(Self {
            stack,
            target,
            app,
            venv,
        })
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// One server, or several that stand behind each other.
pub(crate) struct Peer {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What its processes are called, in the order in which a request meets them.
    pub(crate) parts: &'static [&'static str],
    /// Whether it serves files.
    pub(crate) has_files: bool,
    pub(super) workers: usize,
    pub(super) threads: usize,
    pub(super) start: fn(&Scene<'_>) -> Result<Vec<Started>>,
}

/// A process tree that was started.
pub(super) struct Started {
    pub(super) child: Child,
    /// The part that a process plays, by its command line.
    pub(super) part: fn(&str) -> &'static str,
}

/// What a server is to serve, and where.
pub(super) struct Scene<'a> {
    pub(super) place: &'a Place,
    /// For its sockets, logs and temporary files.
    pub(super) folder: &'a Path,
    pub(super) port: u16,
    /// What it imports.
    pub(super) entry: &'a str,
    pub(super) workers: String,
    pub(super) threads: String,
}

impl Scene<'_> {
    /// A command in the app's folder, whose output goes to a file.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut options = fs::OpenOptions::new();
        let log = options
            .create(true)
            .append(true)
            .open(self.folder.join("output.log"))?;
        let mut command = Command::new(program);
        command
            .current_dir(&self.place.app)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }

    /// A program of the peers' environment.
    pub(super) fn installed(&self, program: &str) -> Result<Command> {
        self.command(self.place.venv.join("bin").join(program))
    }

    /// Where a server behind nginx listens.
    pub(super) fn socket(&self) -> String {
        format!("{}/app.sock", self.folder.display())
    }
}

/// A peer that serves.
pub(crate) struct Running {
    /// Where.
    pub(crate) url: String,
    /// From start to the first page.
    pub(crate) started_in: Duration,
    started: Vec<Started>,
    folder: PathBuf,
}

impl Peer {
    /// Starts it and waits for the first page.
    pub(crate) fn start(&self, place: &Place, entry: &str) -> Result<Running> {
        let folder = place.target.join("bench-run");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let port = free_port()?;
        let (workers, threads) = (self.workers.to_string(), self.threads.to_string());
        let scene = Scene {
            place,
            folder: &folder,
            port,
            entry,
            workers,
            threads,
        };
        let begun = Instant::now();
        let started = (self.start)(&scene)?;
        let url = format!("http://127.0.0.1:{port}");
        let mut running = Running {
            url,
            started_in: Duration::ZERO,
            started,
            folder,
        };
        wait_for_page(port)?;
        running.started_in = begun.elapsed();
        Ok(running)
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The first page that is a page: a proxy whose workers are not there yet answers too.
fn wait_for_page(port: u16) -> Result<()> {
    use std::io::{Read, Write};
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut answer = String::new();
            let asked =
                stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            if asked.is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
            {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("no page within 30 s; see target/bench-run/output.log")
}

impl Running {
    fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        for started in &self.started {
            for pid in process::tree(started.child.id()) {
                members.push(Member {
                    pid,
                    part: (started.part)(&process::command_line(pid)),
                });
            }
        }
        members
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        process::cpu(&self.members())
    }

    /// Memory now.
    pub(crate) fn memory(&self) -> Result<BTreeMap<&'static str, u64>> {
        process::memory(&self.members())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for started in &mut self.started {
            let pid = rustix::process::Pid::from_child(&started.child);
            // A server that has ended already is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(started.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            let _ = started.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
