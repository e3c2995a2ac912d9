//! A server: how it is started, how its processes are told apart, how it is ended.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    case::Size,
    place::Place,
    process::{self, Cpu, Member},
};

/// One server, or several that stand behind each other.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What its processes are called, in the order in which a request meets them.
    pub(crate) parts: &'static [&'static str],
    /// Field lines that it needs of whoever stands before it.
    pub(crate) fields: &'static str,
    /// Programs that it cannot be without: of the system, or beside our binary.
    pub(crate) needs: &'static [&'static str],
    /// How many cores its processes may run on, instead of all.
    pub(crate) cores: Option<usize>,
    /// Connections that stay open at once, instead of what the case says.
    pub(crate) connections: Option<usize>,
    /// Starts it.
    pub(crate) start: fn(&Scene<'_>) -> Result<Started>,
}

/// What was started: process trees, and where the first of them that a request meets listens.
pub(crate) struct Started {
    /// The trees.
    pub(crate) trees: Vec<Tree>,
    /// Where to ask.
    pub(crate) address: Address,
}

/// A process and its descendants.
pub(crate) struct Tree {
    /// The first of them.
    pub(crate) child: Child,
    /// The part that a process plays, by its command line.
    pub(crate) part: fn(&str) -> &'static str,
}

/// Where a server is asked.
pub(crate) enum Address {
    /// On this port of 127.0.0.1.
    Port(u16),
    /// On one port of 127.0.0.1 in the clear, on another by TLS.
    Tls {
        /// In the clear.
        port: u16,
        /// By TLS.
        tls: u16,
    },
    /// On a Unix socket.
    Socket(PathBuf),
}

/// What a server is to serve, and where.
pub(crate) struct Scene<'a> {
    /// Where things are.
    pub(crate) place: &'a Place,
    /// For its sockets, logs and temporary files.
    pub(crate) folder: &'a Path,
    /// A free port.
    pub(crate) port: u16,
    /// What it imports, or the address of the server that it passes requests to.
    pub(crate) entry: &'a str,
    /// Worker processes, as an argument.
    pub(crate) workers: String,
    /// Threads of each, as an argument.
    pub(crate) threads: String,
}

impl Scene<'_> {
    /// A command in the app's folder, whose output goes to a file.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
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
    pub(crate) fn installed(&self, program: &str) -> Result<Command> {
        self.command(self.place.venv.join("bin").join(program))
    }

    /// Where a server without a port listens.
    pub(crate) fn socket(&self) -> String {
        format!("{}/app.sock", self.folder.display())
    }
}

/// A peer that serves. Ended when it is dropped.
pub(crate) struct Running {
    /// From start to the first page.
    pub(crate) started_in: Duration,
    /// See [`Peer::fields`].
    pub(crate) fields: &'static str,
    /// Its sockets, logs and temporary files.
    pub(crate) folder: PathBuf,
    address: Address,
    trees: Vec<Tree>,
}

impl Peer {
    /// The first program that it needs and that is not here.
    pub(crate) fn missing(&self, place: &Place) -> Option<&'static str> {
        let path = env::var_os("PATH").unwrap_or_default();
        let beside = place.stack.parent().map(Path::to_owned);
        let folders: Vec<PathBuf> = env::split_paths(&path).chain(beside).collect();
        let is_here = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
        self.needs.iter().copied().find(|program| !is_here(program))
    }

    /// Starts it and waits for the first page.
    pub(crate) fn start(&self, place: &Place, entry: &str, size: Size) -> Result<Running> {
        let folder = place.target.join("bench-run");
        // Only there if a run was killed.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let scene = Scene {
            place,
            folder: &folder,
            port: free_port()?,
            entry,
            workers: size.workers.to_string(),
            threads: size.threads.to_string(),
        };
        let begun = Instant::now();
        let Started { trees, address } = match self.cores {
            None => (self.start)(&scene)?,
            Some(count) => process::on_cores(count, || (self.start)(&scene))?,
        };
        let mut running = Running {
            started_in: Duration::ZERO,
            fields: self.fields,
            folder,
            address,
            trees,
        };
        running.wait_for_page()?;
        running.started_in = begun.elapsed();
        Ok(running)
    }
}

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Running {
    /// `http://…`, without a path.
    pub(crate) fn url(&self) -> Result<String> {
        match &self.address {
            Address::Port(port) | Address::Tls { port, .. } => {
                Ok(format!("http://127.0.0.1:{port}"))
            }
            Address::Socket(_) => bail!("this server listens on a Unix socket"),
        }
    }

    /// `https://…`, without a path.
    pub(crate) fn tls_url(&self) -> Result<String> {
        match &self.address {
            Address::Tls { tls, .. } => Ok(format!("https://127.0.0.1:{tls}")),
            _ => bail!("this server does not speak TLS"),
        }
    }

    /// Its Unix socket.
    pub(crate) fn socket(&self) -> Result<&Path> {
        match &self.address {
            Address::Port(_) | Address::Tls { .. } => bail!("this server listens on a port"),
            Address::Socket(path) => Ok(path),
        }
    }

    /// The first process of the first tree: of what clients are connected to.
    pub(crate) fn first_root(&self) -> u32 {
        self.trees.first().map_or(0, |tree| tree.child.id())
    }

    /// The first process of the last tree: of what runs the app.
    pub(crate) fn last_root(&self) -> u32 {
        self.trees.last().map_or(0, |tree| tree.child.id())
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        process::cpu(&self.members())
    }

    /// Proportional set size of all its processes, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        process::memory(&self.members())
    }

    /// Proportional set size of what clients are connected to, in MiB.
    pub(crate) fn front_memory(&self) -> Result<f64> {
        process::memory(&self.front())
    }

    /// How many descriptors that has open.
    pub(crate) fn front_descriptors(&self) -> usize {
        self.front()
            .iter()
            .map(|member| process::descriptors(member.pid))
            .sum()
    }

    /// The proxy, or the server where there is none.
    fn front(&self) -> Vec<Member> {
        let mut members = self.members();
        if members.iter().any(|member| member.part == "proxy") {
            members.retain(|member| member.part == "proxy");
        }
        members
    }

    fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        for tree in &self.trees {
            for pid in process::tree(tree.child.id()) {
                members.push(Member {
                    pid,
                    part: (tree.part)(&process::command_line(pid)),
                });
            }
        }
        members
    }

    /// The first page that is a page: a proxy whose workers are not there yet answers too.
    fn wait_for_page(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && !self.has_ended() {
            if self
                .first_page()
                .is_ok_and(|page| page.starts_with(b"HTTP/1.1 200"))
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let log = fs::read_to_string(self.folder.join("output.log")).unwrap_or_default();
        bail!("no page within 30 s; it said:\n{log}")
    }

    fn has_ended(&mut self) -> bool {
        let mut trees = self.trees.iter_mut();
        trees.any(|tree| !matches!(tree.child.try_wait(), Ok(None)))
    }

    fn first_page(&self) -> Result<Vec<u8>> {
        let request = format!(
            "GET / HTTP/1.1\r\n{}Host: localhost\r\nConnection: close\r\n\r\n",
            self.fields
        );
        let mut page = [0; 12];
        match &self.address {
            Address::Port(port) | Address::Tls { port, .. } => {
                exchange(
                    TcpStream::connect(("127.0.0.1", *port))?,
                    &request,
                    &mut page,
                )?;
            }
            Address::Socket(path) => exchange(UnixStream::connect(path)?, &request, &mut page)?,
        }
        Ok(page.to_vec())
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, page: &mut [u8]) -> Result<()> {
    stream.write_all(request.as_bytes())?;
    stream.read_exact(page).context("no answer")
}

impl Drop for Running {
    fn drop(&mut self) {
        for tree in &mut self.trees {
            let pid = rustix::process::Pid::from_child(&tree.child);
            // A server that has ended already is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(tree.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            let _ = tree.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
