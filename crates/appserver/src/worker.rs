//! One worker: a Python process that serves one app.
//!
//! Its way: a listening socket in the run directory, descriptors at fixed numbers, `exec` of the user's interpreter with
//! the bootstrap, then a conversation of JSON lines. What comes of it is told as events of the pool. This module decides
//! nothing: neither whether a worker is started again nor when it must leave.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd, RawFd},
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
    fds, notify,
    scoreboard::{self, Board},
    user::{Permission, User},
};
use tokio::{
    net::{UnixStream, unix::pipe},
    sync::mpsc,
    time::Instant,
};
use tracing::{error, warn};

use crate::{
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
const STARTER: &str = r#"exec(compile(open(3).read(), "stack-bootstrap", "exec"))"#;

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
    /// Time that running requests may take once their worker is to leave.
    pub grace: Duration,
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
        if let Err(error) = fs::remove_file(&self.0) {
            warn!("cannot remove {}: {error}", self.0.display());
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
        let mut child = command(template, number, gifts)?
            .spawn()
            .map_err(|error| explain(template, error))?;
        let name = template.name(number);
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
        tell(said, Said::Event(Event::Exited { number, exit }));
    }
}

fn tell(to: &mpsc::UnboundedSender<Said>, said: Said) {
    // The pool is gone only when the master is.
    let _ = to.send(said);
}

/// The pipe that [`DUMP_SIGNAL`] writes to. A dump has no end that could be seen, so it ends when nothing more has come for
/// a moment; the writer is a signal handler that waits for nothing.
#[derive(Debug)]
struct Dump {
    pipe: pipe::Receiver,
    text: Vec<u8>,
    /// When the dump is taken as whole, if one has begun.
    whole: Option<Instant>,
}

/// Nothing more has come for so long: a handler writes line after line without a wait.
const QUIET: Duration = Duration::from_millis(200);

/// Most bytes of a dump that are kept; the stacks of some hundred threads.
const DUMP_MAX: usize = 256 * 1024;

impl Dump {
    /// Our end and the worker's. Where a dump is larger than the pipe and we are slow, its rest is lost: a handler that waits
    /// would stop the very thread that it is to describe.
    fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        let dump = Self {
            pipe: pipe::Receiver::from_owned_fd(read)?,
            text: Vec::new(),
            whole: None,
        };
        Ok((dump, write))
    }

    /// The next whole dump. Cancel-safe; never ends when the pipe has.
    async fn next(&mut self) -> Vec<u8> {
        loop {
            let Some(whole) = self.whole else {
                if self.pipe.readable().await.is_err() || !self.take() {
                    std::future::pending::<()>().await;
                }
                continue;
            };
            tokio::select! {
                biased;
                ready = self.pipe.readable() => if ready.is_ok() && self.take() {
                    continue;
                },
                () = tokio::time::sleep_until(whole) => {}
            }
            self.whole = None;
            return std::mem::take(&mut self.text);
        }
    }

    /// Reads what there is; false at the end.
    fn take(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.pipe.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => {
                let room = DUMP_MAX - self.text.len().min(DUMP_MAX);
                self.text.extend_from_slice(&buffer[..read.min(room)]);
                self.whole = Some(Instant::now() + QUIET);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }

    /// What is there of a worker that has ended.
    fn rest(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 16 * 1024];
        while self.text.len() < DUMP_MAX
            && let Ok(read @ 1..) = rustix::io::read(&self.pipe, &mut buffer)
        {
            self.text.extend_from_slice(&buffer[..read]);
        }
        (!self.text.is_empty()).then(|| std::mem::take(&mut self.text))
    }
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
        .own_group();
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

/// Our end of the conversation.
#[derive(Debug)]
struct Conversation {
    stream: UnixStream,
    heard: Vec<u8>,
    state: Hearing,
}

/// Whether the worker may still say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    Open,
    Over,
}

/// Longest report: a traceback of thousands of frames. What a worker says is input; it must not fill our memory.
const REPORT_MAX: usize = 4 << 20;

impl Conversation {
    fn new(ours: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&ours, true)?;
        let stream = UnixStream::from_std(ours.into())?;
        Ok(Self {
            stream,
            heard: Vec::new(),
            state: Hearing::Open,
        })
    }

    async fn readable(&self) {
        match self.state {
            // An error shows again at the read that follows.
            Hearing::Open => drop(self.stream.readable().await),
            Hearing::Over => std::future::pending().await,
        }
    }

    /// Reads what is there now.
    fn read(&mut self, read: impl Fn(&UnixStream, &mut [u8]) -> io::Result<usize>) {
        let mut buffer = [0; 8 * 1024];
        while self.state == Hearing::Open {
            match read(&self.stream, &mut buffer) {
                Ok(0) => self.end(),
                Ok(read) if self.heard.len() + read > REPORT_MAX => self.end(),
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.end(),
            }
        }
    }

    /// The whole lines that were heard.
    fn lines(&mut self) -> Vec<Vec<u8>> {
        let Some(end) = memchr::memrchr(b'\n', &self.heard) else {
            return Vec::new();
        };
        let rest = self.heard.split_off(end + 1);
        let whole = std::mem::replace(&mut self.heard, rest);
        whole
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }

    fn end(&mut self) {
        self.state = Hearing::Over;
    }

    /// A line that short always fits, unless the worker has not listened for thousands of them.
    fn say(&self, order: assignment::Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        rustix::net::send(self.stream.as_fd(), &line, flags)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use config::site::{Interpreter, Strategy, Workers};

    use super::*;

    /// A folder with an interpreter that is this shell script.
    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn with(script: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let python = folder.path().join("python");
            fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
            Self { folder }
        }

        fn template(&self) -> Template {
            let path = self.folder.path();
            Template {
                app: app(path),
                interpreter: path.join("python"),
                run_directory: path.to_owned(),
                module: Arc::new(Module {
                    file: File::open("/dev/null").unwrap().into(),
                }),
                proxy_uid: rustix::process::geteuid().as_raw(),
                user: None,
                grace: Duration::from_secs(30),
            }
        }
    }

    fn app(root: &Path) -> App {
        let entry = Entry {
            module: "app".to_owned(),
            attribute: "app".to_owned(),
            factory: false,
        };
        App {
            name: "web".to_owned(),
            wsgi: Located {
                value: entry,
                span: None,
            },
            on_start: None,
            on_stop: None,
            account: None,
            umask: None,
            root: Located {
                value: root.to_owned(),
                span: None,
            },
            interpreter: Located {
                value: Interpreter::Search,
                span: None,
            },
            workers: Workers::fixed(2),
            threads: 4,
            streams: None,
            env: BTreeMap::from([("GIVEN".to_owned(), "yes".to_owned())]),
            sendfile: Vec::new(),
            timeout: Duration::from_secs(30),
            boot_timeout: Duration::from_secs(60),
            max_requests: None,
            max_rss: None,
            max_age: None,
            reload: Strategy::SideBySide,
            before_reload: None,
            before_reload_timeout: Duration::from_secs(600),
        }
    }

    async fn life(worker: Worker, orders: &[Order]) -> Vec<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for order in orders {
            sender.send(*order).unwrap();
        }
        let (report_to, mut reports) = mpsc::unbounded_channel();
        tokio::time::timeout(Duration::from_secs(20), worker.run(receiver, report_to))
            .await
            .unwrap();
        let mut events = Vec::new();
        while let Ok(said) = reports.try_recv() {
            match said {
                Said::Event(event) => events.push(event),
                other => panic!("not asked for: {other:?}"),
            }
        }
        events
    }

    #[tokio::test]
    async fn a_worker_finds_what_it_is_given_and_is_told_to_leave() {
        let place = Place::with(
            r#"[ "$1 $3" = "-c web·3" ] && [ "$GIVEN" = yes ] && [ "$PWD" -ef "$(dirname "$0")" ] || exit 10
            grep -q "import sys" <&3 || exit 11
            grep -q '"number":3.*"listener":6,"control":7,"proxy_uid":'$(id -u) <&4 || exit 12
            [ "$(readlink /proc/$$/fd/5)" = /dev/null ] || exit 13
            case "$(readlink /proc/$$/fd/6)" in socket:*) ;; *) exit 14 ;; esac
            case "$(readlink /proc/$$/fd/8)" in */memfd:stack-scoreboard*) ;; *) exit 17 ;; esac
            case "$(readlink /proc/$$/fd/9)" in pipe:*) ;; *) exit 18 ;; esac
            # 10 is where dash has this script.
            [ -e /proc/$$/fd/11 ] && exit 15
            echo '"Ready"' >&7
            read -r order <&7 && [ "$order" = '"Drain"' ] || exit 16"#,
        );
        let template = place.template();
        let worker = Worker::start(&template, 3).unwrap();
        let socket = template.socket(3);
        assert_eq!(
            fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let events = life(worker, &[Order::Drain]).await;
        let exited = Event::Exited {
            number: 3,
            exit: Exit::Code(0),
        };
        assert_eq!(events, [Event::Ready { number: 3 }, exited]);
        assert!(!socket.exists(), "the socket goes with its worker");
    }

    /// What it says right before its end must not be overtaken by the news of its end.
    #[tokio::test]
    async fn last_words_come_before_the_end() {
        let place = Place::with(r#"echo '{"Failed":{"why":"no","traceback":"tb"}}' >&7; exit 1"#);
        for number in 1..20 {
            let worker = Worker::start(&place.template(), number).unwrap();
            let failed = Event::Failed {
                number,
                why: "no".to_owned(),
                traceback: "tb".to_owned(),
            };
            let exited = Event::Exited {
                number,
                exit: Exit::Code(1),
            };
            assert_eq!(life(worker, &[]).await, [failed, exited]);
        }
    }

    #[tokio::test]
    async fn nonsense_is_the_end_of_the_conversation_only() {
        let place = Place::with(r#"echo 'hello?' >&7; echo '"Ready"' >&7; exit 0"#);
        let worker = Worker::start(&place.template(), 1).unwrap();
        let events = life(worker, &[]).await;
        assert_eq!(
            events,
            [Event::Exited {
                number: 1,
                exit: Exit::Code(0)
            }]
        );
    }

    #[tokio::test]
    async fn a_worker_is_killed_with_all_that_it_started() {
        let place = Place::with("sleep 600 & echo $! > child; wait");
        let worker = Worker::start(&place.template(), 1).unwrap();
        let child = place.folder.path().join("child");
        let pid = loop {
            match fs::read_to_string(&child) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        let events = life(worker, &[Order::Kill]).await;
        let exit = Exit::Signal {
            number: 9,
            core: false,
        };
        assert_eq!(events, [Event::Exited { number: 1, exit }]);
        let stat = PathBuf::from(format!("/proc/{pid}/stat"));
        while fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_named_and_leaves_nothing_behind() {
        let place = Place::with("exit 0");
        let mut template = place.template();
        template.interpreter = "/no/such/python".into();
        let error = Worker::start(&template, 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot run /no/such/python: No such file or directory (os error 2); \
             install it, or name another with `venv` or `python` in [app.web]"
        );
        assert!(!template.socket(1).exists());
        template.app.root.value = "/no/such/root".into();
        let error = Worker::start(&template, 1).unwrap_err().to_string();
        assert_eq!(error, "the app's folder /no/such/root is gone");
    }

    #[test]
    fn the_module_is_looked_for_where_cargo_leaves_it_first() {
        let folder = tempfile::tempdir().unwrap();
        let executable = folder.path().join("stack");
        let error = Module::beside(&executable).unwrap_err().to_string();
        assert!(
            error.contains("deps/lib_stack.so") && error.contains("cargo build"),
            "{error}"
        );
        fs::write(folder.path().join("lib_stack.so"), "").unwrap();
        Module::beside(&executable).unwrap();
    }
}
