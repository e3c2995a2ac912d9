//! One worker: a Python process that serves one app.
//!
//! Its way: a listening socket in the run directory, descriptors at fixed numbers, `exec` of the user's interpreter with
//! the bootstrap, then a conversation of JSON lines. What comes of it is told as events of the pool. This module decides
//! nothing: neither whether a worker is started again nor when it must leave.

mod conversation;
mod dump;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{OwnedFd, RawFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use config::site::{App, Entry, Located};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use supervisor::{
    child::{self, Child, Command, Exit, Signal, SpawnError, Stdio},
    fds,
    group::Group,
    notify,
    scoreboard::{self, Board},
    user::{Permission, User},
};
use telemetry::panics::Vital;
use tokio::{net::UnixStream, sync::mpsc};
use tracing::{error, warn};

use self::{conversation::Conversation, dump::Dump};
use crate::{
    allowance::Allowance,
    assignment::{self, Assignment, BOOTSTRAP, BUILD_ID, DUMP_SIGNAL, Report, Stack},
    output::{Output, Terminal},
    pool::{Event, Wear, jittered},
};

/// Where the worker finds what it is given; the bootstrap knows the first three by heart.
const BOOTSTRAP_FD: RawFd = 3;
const ASSIGNMENT_FD: RawFd = 4;
const MODULE_FD: RawFd = 5;
const LISTENER_FD: RawFd = 6;
const CONTROL_FD: RawFd = 7;
const SCOREBOARD_FD: RawFd = 8;
const DUMP_FD: RawFd = 9;

/// What Python is to do first; the rest comes from [`BOOTSTRAP_FD`].
const STARTER: &str = r#"import os; exec(compile(os.fdopen(3).read(), "stack-bootstrap", "exec"))"#;

/// The kernel takes less if `net.core.somaxconn` is less. The proxy never has more than a few connections on their way.
const BACKLOG: i32 = 128;

/// The module that workers load, opened once: a build that replaces the file does not change what this run loads.
#[derive(Debug)]
pub struct Module {
    file: OwnedFd,
}

/// The module cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Python module is missing: neither {} nor {} can be opened ({source}); build all of it with `cargo build`",
    first.display(),
    second.display()
)]
pub struct ModuleError {
    first: PathBuf,
    second: PathBuf,
    #[source]
    source: io::Error,
}

impl Module {
    /// One that came inside the executable, as memory that nobody can change any more.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn embedded(bytes: &[u8]) -> io::Result<Self> {
        let file = fds::sealed_memory("stack-module", bytes)?;
        Ok(Self { file })
    }

    /// Finds it beside this executable: where Cargo leaves it, or where a person put it.
    ///
    /// # Errors
    /// When it is in neither place.
    pub fn beside(executable: &Path) -> Result<Self, ModuleError> {
        const NAME: &str = "lib_stack.so";
        let folder = executable.parent().unwrap_or_else(|| Path::new("/"));
        let (first, second) = (folder.join("deps").join(NAME), folder.join(NAME));
        match File::open(&first).or_else(|_| File::open(&second)) {
            Ok(file) => Ok(Self { file: file.into() }),
            Err(source) => Err(ModuleError {
                first,
                second,
                source,
            }),
        }
    }
}

/// What all workers of an app have in common.
#[derive(Clone, Debug)]
pub struct Template {
    /// The app.
    pub app: App,
    /// Its interpreter.
    pub interpreter: PathBuf,
    /// The folder for sockets, which only we can enter.
    pub run_directory: PathBuf,
    /// What each of them loads.
    pub module: Arc<Module>,
    /// The user that the proxy runs as.
    pub proxy_uid: u32,
    /// The user that workers run as, if it is not ours.
    pub user: Option<User>,
    /// What each may take.
    pub allowance: Allowance,
    /// Time that running requests may take once their worker is to leave.
    pub grace: Duration,
    /// Whether somebody develops the app, who is to see tracebacks.
    pub dev: bool,
}

impl Template {
    /// The socket of the worker with this number. Ours is in it: while one master takes over from another, both have workers.
    #[must_use]
    pub fn socket(&self, number: u32) -> PathBuf {
        let ours = std::process::id();
        let name = format!("{}.{number}.{ours}.sock", self.app.name);
        self.run_directory.join(name)
    }

    /// Whether a worker that was made of this is the same as one that is made of `other`: only then can it serve on under
    /// another configuration. Who says how long it may take, and how many there are, is not asked.
    #[must_use]
    pub fn makes_same(&self, other: &Self) -> bool {
        let hook = |hook: &Option<Located<Entry>>| hook.as_ref().map(|hook| hook.value.clone());
        let (one, two) = (&self.app, &other.app);
        self.interpreter == other.interpreter
            && self.user == other.user
            && one.wsgi.value == two.wsgi.value
            && one.root.value == two.root.value
            && one.threads == two.threads
            && one.env == two.env
            && one.umask == two.umask
            && one.memory_max == two.memory_max
            && one.nofile == two.nofile
            && one.private_tmp == two.private_tmp
            && hook(&one.on_start) == hook(&two.on_start)
            && hook(&one.on_stop) == hook(&two.on_stop)
    }

    /// What the worker with this number is called: `web·3`.
    #[must_use]
    pub fn name(&self, number: u32) -> String {
        format!("{}·{number}", self.app.name)
    }
}

/// A worker has no process.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its socket.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its memory, pipes and pairs.
    #[error("no descriptors for a worker: {0}")]
    Descriptors(#[from] io::Error),
    /// Its working directory.
    #[error("the app's folder {} is gone", .0.display())]
    Root(PathBuf),
    /// Its user, who lacks a permission.
    #[error("the user `{user}` may not enter or run {}", path.display())]
    Forbidden {
        /// Who.
        user: String,
        /// What.
        path: PathBuf,
    },
    /// Its program.
    #[error("{0}; install it, or name another with `venv` or `python` in [app.{app}]", app = .1)]
    Interpreter(#[source] SpawnError, String),
}

/// A worker that was started.
#[derive(Debug)]
pub struct Worker {
    number: u32,
    name: String,
    socket: Socket,
    child: Child,
    conversation: Conversation,
    output: Output,
    board: Arc<Board>,
    dump: Dump,
    /// Its own control group, where it has one.
    group: Option<Group>,
}

/// What a worker can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No request will come any more; those that run have their time.
    Retire,
    /// Finish what runs, then leave.
    Drain,
    /// Be gone.
    Kill,
    /// Say where the busy slots are: [`Said::Stacks`].
    Trace,
    /// Write where every thread is, whatever it does: [`Said::Dump`].
    Dump,
}

/// What is heard of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// What its pool must know. [`Event::Exited`] is the last of all.
    Event(Event),
    /// Where its busy slots are.
    Stacks {
        /// Which worker.
        number: u32,
        /// One for each.
        stacks: Vec<Stack>,
    },
    /// Where all its threads are, as faulthandler writes it, the innermost frame first.
    Dump {
        /// Which worker.
        number: u32,
        /// Its words.
        text: Vec<u8>,
    },
}

/// The path of a worker's socket, removed when the worker is.
#[derive(Debug)]
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Ok(()) => {}
            // A master that gives up removes its run directory, with all that is in it, before its keepers are gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!("cannot remove {}: {error}", self.0.display()),
        }
    }
}

impl Worker {
    /// Starts one. Must be called on the master's main thread: see [`Command::spawn`].
    ///
    /// # Errors
    /// When it has no process; nothing is left behind.
    pub fn start(template: &Template, number: u32) -> Result<Self, StartError> {
        let (socket, listener) = listen(template.socket(number), template.proxy_uid)?;
        let (ours, theirs) = fds::socket_pair()?;
        let memory = scoreboard::create(template.app.threads)?;
        let board = Arc::new(Board::new(&memory, template.app.threads)?);
        let (dump, dump_to) = Dump::new()?;
        let gifts = [
            (listener, LISTENER_FD),
            (theirs, CONTROL_FD),
            (memory, SCOREBOARD_FD),
            (dump_to, DUMP_FD),
        ];
        let name = template.name(number);
        let group = template.allowance.group(&template.app.name, number);
        let mut child = template
            .allowance
            .apply(command(template, number, gifts)?, group.as_ref())
            .spawn()
            .map_err(|error| explain(template, error))?;
        if let Some(group) = &group
            && let Err(error) = group.add(child.pid())
        {
            warn!("{name} is not in a control group of its own: {error}");
        }
        let output = Output::new(
            name.clone(),
            Terminal::new(),
            child.stdout.take(),
            child.stderr.take(),
        )?;
        let conversation = Conversation::new(ours)?;
        Ok(Self {
            number,
            name,
            socket,
            child,
            conversation,
            output,
            board,
            dump,
            group,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// What its slots do, and did when it died.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Lives with it to its end. The last that is said is [`Event::Exited`].
    pub async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        said: mpsc::UnboundedSender<Said>,
    ) {
        let _vital = Vital::new("who watches a worker");
        let exit = loop {
            tokio::select! {
                exit = self.child.wait() => break exit,
                Some(order) = orders.recv() => self.obey(order),
                () = self.conversation.readable() => {
                    self.conversation.read(UnixStream::try_read);
                    self.pass_on(&said);
                }
                () = self.output.copy(), if !self.output.is_over() => {}
                text = self.dump.next() => {
                    let number = self.number;
                    tell(&said, Said::Dump { number, text });
                }
            }
        };
        let exit = exit.unwrap_or_else(|error| {
            error!("cannot learn how {} ended: {error}", self.name);
            Exit::Unknown
        });
        self.bury(exit, &said);
    }

    fn obey(&self, order: Order) {
        let done = match order {
            Order::Retire => self.conversation.say(assignment::Order::Retire),
            Order::Drain => self.conversation.say(assignment::Order::Drain),
            Order::Kill => self.child.signal(Signal::KILL),
            Order::Trace => self.conversation.say(assignment::Order::Trace),
            Order::Dump => self.child.signal(child::real_time(DUMP_SIGNAL)),
        };
        if let Err(error) = done {
            warn!("cannot tell {} anything: {error}", self.name);
        }
    }

    fn pass_on(&mut self, said: &mpsc::UnboundedSender<Said>) {
        for line in self.conversation.lines() {
            match serde_json::from_slice(&line) {
                Ok(report) => tell(said, self.understood(report)),
                Err(error) => {
                    warn!("{} says what nobody understands: {error}", self.name);
                    self.conversation.end();
                    return;
                }
            }
        }
    }

    fn understood(&self, report: Report) -> Said {
        let number = self.number;
        Said::Event(match report {
            Report::Ready => Event::Ready { number },
            Report::Failed { why, traceback } => Event::Failed {
                number,
                why,
                traceback,
            },
            Report::Worn => Event::Worn {
                number,
                why: Wear::Requests,
            },
            Report::Stacks(stacks) => return Said::Stacks { number, stacks },
        })
    }

    /// What it said and printed before its end is heard before its end is told.
    fn bury(mut self, exit: Exit, said: &mpsc::UnboundedSender<Said>) {
        self.conversation
            .read(|stream, buffer| Ok(rustix::io::read(stream, buffer)?));
        self.pass_on(said);
        let number = self.number;
        if let Some(text) = self.dump.rest() {
            tell(said, Said::Dump { number, text });
        }
        self.output.drain();
        if !self.output.is_over() {
            // A process that the app started and that has left the group: it may print for as long as it lives.
            let mut output = self.output;
            tokio::spawn(async move { output.copy().await });
        }
        drop(self.socket);
        // With whatever it has started and left behind.
        drop(self.group);
        tell(said, Said::Event(Event::Exited { number, exit }));
    }
}

fn tell(to: &mpsc::UnboundedSender<Said>, said: Said) {
    // The pool is gone only when the master is.
    let _ = to.send(said);
}

/// Makes the socket. Only we and the proxy can enter the folder, and only the proxy may connect; the worker also asks who does.
fn listen(path: PathBuf, proxy_uid: u32) -> Result<(Socket, OwnedFd), StartError> {
    let listener = try_listen(&path, proxy_uid);
    match listener {
        Ok(listener) => Ok((Socket(path), listener)),
        Err(source) => Err(StartError::Socket { path, source }),
    }
}

fn try_listen(path: &Path, proxy_uid: u32) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let listener = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&listener, &address)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if proxy_uid != rustix::process::geteuid().as_raw() {
        std::os::unix::fs::chown(path, Some(proxy_uid), None)?;
    }
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn command(template: &Template, number: u32, gifts: [(OwnedFd, RawFd); 4]) -> io::Result<Command> {
    let name = template.name(number);
    let assignment = serde_json::to_vec(&assign(template, number))?;
    let mut command = Command::new(&template.interpreter)
        .arg("-c")
        .arg(STARTER)
        .arg(&name)
        .directory(&*template.app.root)
        .env_remove(telemetry::log::FILTER_VARIABLE)
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Pipe)
        .descriptor(
            fds::sealed_memory("stack-bootstrap", BOOTSTRAP.as_bytes())?,
            BOOTSTRAP_FD,
        )
        .descriptor(
            fds::sealed_memory("stack-assignment", &assignment)?,
            ASSIGNMENT_FD,
        )
        .descriptor(template.module.file.try_clone()?, MODULE_FD)
        .own_group()
        // Who wakes it is the proxy, which has the next request in its hands already.
        .wakes_politely();
    if let Some(user) = &template.user {
        command = command.user(user.clone()).no_new_privileges();
    }
    if let Some(mask) = template.app.umask {
        command = command.umask(mask);
    }
    for (descriptor, number) in gifts {
        command = command.descriptor(descriptor, number);
    }
    for name in notify::FROM_MANAGER {
        command = command.env_remove(name);
    }
    command = template.allowance.apply_tmp(command);
    for (name, value) in &template.app.env {
        command = command.env(name, value);
    }
    Ok(command)
}

fn assign(template: &Template, number: u32) -> Assignment {
    let app = &template.app;
    Assignment {
        build: BUILD_ID.to_owned(),
        app: app.name.clone(),
        number,
        entry: app.wsgi.value.clone(),
        on_start: app.on_start.as_ref().map(|hook| hook.value.clone()),
        on_stop: app.on_stop.as_ref().map(|hook| hook.value.clone()),
        root: app.root.value.clone(),
        threads: app.threads,
        workers: app.workers.most,
        listener: LISTENER_FD,
        control: CONTROL_FD,
        proxy_uid: template.proxy_uid,
        scoreboard: SCOREBOARD_FD,
        dump: DUMP_FD,
        max_requests: app.max_requests.map(|most| jittered(most, number)),
        dev: template.dev,
    }
}

/// "No such file" may be about the program or about the folder: the kernel does not say which.
fn explain(template: &Template, error: SpawnError) -> StartError {
    let root = &*template.app.root;
    if let (Some(user), io::ErrorKind::PermissionDenied) = (&template.user, error.source.kind()) {
        let obstacle = user
            .obstacle(root, Permission::Enter)
            .or_else(|| user.obstacle(&template.interpreter, Permission::Enter));
        if let Some(path) = obstacle {
            let user = user.name.clone();
            return StartError::Forbidden { user, path };
        }
    }
    if root.is_dir() {
        StartError::Interpreter(error, template.app.name.clone())
    } else {
        StartError::Root(root.clone())
    }
}
