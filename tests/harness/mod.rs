//! The whole harness: the real binary, a real Python, a temporary folder, and a client that says what it got.
//!
//! A test writes its site in the words of the configuration file and its app in Python. Everything listens on port 0; the
//! stack tells its ports, and that it is ready, on a notification socket of the test's own (`sd_notify`), so nothing ever
//! waits by the clock. When a test panics, the stack's output is printed.

pub mod client;
pub mod disk;
pub mod frames;
pub mod h2;
pub mod load;
pub mod nginx;
pub mod origin;
pub mod pebble;
pub mod tls;
pub mod venv;

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

pub use client::{Answer, Client};

/// Nothing that a test waits for takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Reads what there is, through signals: a read with a time limit is never restarted by the kernel (signal(7)).
pub fn read_some(stream: &mut (impl Read + ?Sized), piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            end => return end,
        }
    }
}

/// The program under test: what was built with this, or what the environment names (`fuzz/sanitize` has one whose module is
/// built otherwise).
fn stack() -> OsString {
    std::env::var_os("STACK_UNDER_TEST").unwrap_or_else(|| env!("CARGO_BIN_EXE_stack").into())
}

/// The command under test.
pub fn stack_command() -> Command {
    stack_command_through(&[])
}

fn stack_command_through(launcher: &[String]) -> Command {
    let stack = stack();
    let mut command = match launcher.split_first() {
        None => Command::new(stack),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(stack);
            command
        }
    };
    for name in [
        "NOTIFY_SOCKET",
        "RUNTIME_DIRECTORY",
        "XDG_RUNTIME_DIR",
        "STACK_LOG",
        "STACK_CONFIG",
        "PORT",
        "WEB_CONCURRENCY",
        "JOURNAL_STREAM",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

/// The repository.
pub fn repository() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates
        .ancestors()
        .nth(2)
        .expect("crates/stack is two folders deep")
        .to_owned()
}

/// A stack that is about to be started. A clone is the same folder, for another run of it.
#[derive(Clone)]
pub struct Site {
    folder: Arc<tempfile::TempDir>,
    config: PathBuf,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
}

impl Site {
    /// A folder with this `site.toml` in it.
    pub fn new(toml: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let config = folder.path().join("site.toml");
        fs::write(&config, toml).expect("the folder is ours");
        let command = vec![
            "up".to_owned(),
            "--config".to_owned(),
            config.display().to_string(),
        ];
        Self {
            folder,
            config,
            command,
            environment: Vec::new(),
            launcher: Vec::new(),
        }
    }

    /// A folder without a configuration, for a command that needs none.
    pub fn without_file(command: &[&str]) -> Self {
        let mut site = Self::new("");
        fs::remove_file(&site.config).expect("the folder is ours");
        site.command = command.iter().map(|word| (*word).to_owned()).collect();
        site
    }

    /// The plainest site with an app: plain HTTP, one worker, two slots; `app.py` is the given text.
    pub fn with_app(python: &str) -> Self {
        let site = r#"
            [server]
            http = ["127.0.0.1:0"]
            [app.web]
            wsgi = "app:app"
            root = "."
            python = "PYTHON"
            workers = 1
            threads = 2
            [[site]]
            hosts = ["*"]
            routes = [{ path = "/", app = "web" }]
            "#;
        let interpreter = venv::python().display().to_string();
        Self::new(&site.replace("PYTHON", &interpreter)).file("app.py", python)
    }

    /// A configuration file of the repository, with its listeners moved to free ports of 127.0.0.1.
    pub fn of_repository(config: &str) -> Self {
        let original = repository().join(config);
        let text = fs::read_to_string(&original).expect("the repository has it");
        let moved = text
            .replace("\":8080\"", "\"127.0.0.1:0\"")
            .replace("\":8443\"", "\"127.0.0.1:0\"");
        assert_ne!(
            text, moved,
            "{config} no longer listens where its test expects"
        );
        let parent = original
            .parent()
            .expect("a file is in a folder")
            .parent()
            .expect("and that in another");
        // Paths in it are relative to its folder.
        let moved = moved.replace("\"../", &format!("\"{}/", parent.display()));
        Self::new(&moved)
    }

    /// Runs its app with this venv.
    pub fn with_venv(self, venv: &Path) -> Self {
        self.edit("\nroot = ", &format!("\nvenv = {venv:?}\nroot = "))
    }

    /// Replaces a part of the configuration, which must be there.
    pub fn edit(self, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(&self.config).expect("the folder is ours");
        assert!(
            text.contains(from),
            "{from:?} is not in the configuration:\n{text}"
        );
        fs::write(&self.config, text.replace(from, to)).expect("the folder is ours");
        self
    }

    /// Adds a file.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))
            .expect("the folder is ours");
        fs::write(path, content).expect("the folder is ours");
        self
    }

    /// Adds a script that can be run.
    pub fn program(self, name: &str, script: &str) -> Self {
        let site = self.file(name, script);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(site.path().join(name), executable).expect("the folder is ours");
        site
    }

    /// Adds to the command line that starts it.
    pub fn option(mut self, option: &str) -> Self {
        self.command.push(option.to_owned());
        self
    }

    /// Adds to the environment of the stack.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets this command start the stack, whose command line it gets as further arguments.
    pub fn through(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(self) -> Stack {
        let stack = self.start_unready();
        stack.wait_ready();
        stack
    }

    /// Starts it.
    pub fn start_unready(self) -> Stack {
        let notify_path = self.folder.path().join("notify.sock");
        // There only if this folder has been run before.
        let _ = fs::remove_file(&notify_path);
        let notify = UnixDatagram::bind(&notify_path).expect("the folder is ours");
        notify
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a valid time");
        rustix::net::sockopt::set_socket_passcred(&notify, true).expect("every Linux can");
        let mut command = stack_command_through(&self.launcher);
        command
            .args(&self.command)
            .current_dir(self.folder.path())
            .env("NOTIFY_SOCKET", &notify_path)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built");
        let output = Output::default();
        output.collect(child.stdout.take().expect("piped"));
        output.collect(child.stderr.take().expect("piped"));
        Stack {
            site: self,
            child: Mutex::new(child),
            output,
            notify,
            told: Mutex::default(),
        }
    }

    /// Runs a command of the stack on this site to its end: exit code and all it said.
    pub fn run(&self, command: &str) -> (Option<i32>, String) {
        self.run_with(command, &[])
    }

    /// The same with more arguments.
    pub fn run_with(&self, command: &str, more: &[&str]) -> (Option<i32>, String) {
        let output = stack_command()
            .args([command, "--config"])
            .arg(&self.config)
            .args(more)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the binary was built");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    }
}

/// A running stack. Dropping it kills it and all that it started.
pub struct Stack {
    site: Site,
    child: Mutex<Child>,
    output: Output,
    notify: UnixDatagram,
    told: Mutex<Vec<(u32, String)>>,
}

impl Stack {
    /// Its site, to be started once more.
    pub fn site(&self) -> Site {
        self.site.clone()
    }

    /// The folder of its site.
    pub fn path(&self) -> &Path {
        self.site.path()
    }

    /// The master's process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("no test panics with it").id()
    }

    /// Waits for `READY=1`.
    pub fn wait_ready(&self) {
        self.until("READY=1", || self.told("READY=").is_some());
    }

    /// What it told about itself: the rest of the notification's line that begins so.
    pub fn told(&self, start: &str) -> Option<String> {
        let told = self.notices();
        let found = told
            .iter()
            .rev()
            .find_map(|(_, line)| line.strip_prefix(start));
        found.map(str::to_owned)
    }

    /// How often it has told this line.
    pub fn told_times(&self, line: &str) -> usize {
        self.told_by(line).len()
    }

    /// The processes that have told this line.
    pub fn told_by(&self, line: &str) -> Vec<u32> {
        let told = self.notices();
        let same = told.iter().filter(|(_, told)| told == line);
        same.map(|(pid, _)| *pid).collect()
    }

    /// All that was told, whatever has arrived meanwhile taken in: the sender, and a line.
    fn notices(&self) -> MutexGuard<'_, Vec<(u32, String)>> {
        let mut told = self.told.lock().expect("no test panics with it");
        while let Some((pid, text)) = receive(&self.notify) {
            told.extend(text.lines().map(|line| (pid, line.to_owned())));
        }
        told
    }

    fn address(&self, what: &str) -> SocketAddr {
        let told = self
            .told(what)
            .unwrap_or_else(|| panic!("{what} was not told"));
        let first = told.split(',').next().expect("split gives one at least");
        first
            .parse()
            .unwrap_or_else(|_| panic!("{told:?} is not an address"))
    }

    /// Where it serves plain HTTP.
    pub fn http(&self) -> SocketAddr {
        self.address("X_STACK_HTTP=")
    }

    /// Where it serves TLS.
    pub fn https(&self) -> SocketAddr {
        self.address("X_STACK_HTTPS=")
    }

    /// A new connection, plain.
    pub fn client(&self) -> Client {
        Client::plain(self.http())
    }

    /// A new connection over TLS.
    pub fn tls_client(&self, name: &str) -> Client {
        Client::tls(self.https(), name)
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    /// The answer to a request of this host with these field lines, on a connection of its own.
    pub fn ask(&self, host: &str, target: &str, fields: &str) -> Answer {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
        self.client().send(request).answer(false)
    }

    /// Waits until the condition holds; panics with the stack's output when it never does.
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if let Some(status) = self.ended() {
                panic!("the stack ended ({status}) before: {what}");
            }
            assert!(Instant::now() < deadline, "it never came: {what}");
            self.output.wait(Duration::from_millis(20));
        }
    }

    /// Lets it work for a moment, for who must do something again and again.
    pub fn pause(&self) {
        self.output.wait(Duration::from_millis(10));
    }

    /// The same when the process that was started may have ended: another one has taken over.
    pub fn until_output(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "it never came: {what}");
            self.output.wait(Duration::from_millis(20));
        }
    }

    /// Waits until the process that was started has ended, and well.
    pub fn until_ended(&self) {
        self.until_output("its end", || self.ended().is_some());
        assert_eq!(self.ended().and_then(|status| status.code()), Some(0));
    }

    /// Waits until its output contains the text; returns all output.
    pub fn until_logged(&self, text: &str) -> String {
        self.until(&format!("{text:?} in the log"), || {
            self.output.text().contains(text)
        });
        self.output.text()
    }

    /// Waits until its output contains the text, be it after its end; returns all output.
    pub fn until_said(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.output.text().contains(text) {
            assert!(Instant::now() < deadline, "it never said {text:?}");
            self.output.wait(Duration::from_millis(20));
        }
        self.output.text()
    }

    /// All it has said so far.
    pub fn logged(&self) -> String {
        self.output.text()
    }

    /// The children of the master with such a command line.
    pub fn children(&self, is: impl Fn(&str) -> bool) -> Vec<u32> {
        children(self.pid())
            .into_iter()
            .filter(|pid| is(&command_line(*pid)))
            .collect()
    }

    /// The worker processes, before they have given themselves a title and after.
    pub fn workers(&self) -> Vec<u32> {
        self.children(|line| line.contains("stack-bootstrap") || line.starts_with("stack: worker "))
    }

    /// The proxy process.
    pub fn proxy(&self) -> Option<u32> {
        let proxies = self.children(|line| line.starts_with("stack: proxy"));
        proxies.first().copied()
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: rustix::process::Signal) {
        kill(self.pid(), signal);
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .expect("no test panics with it")
            .try_wait()
            .expect("our child")
    }

    /// Waits for its end.
    pub fn wait(&self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the stack does not end");
            self.output.wait(Duration::from_millis(20));
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if let Ok(mut child) = self.child.lock() {
            // One that has ended already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
        if failed {
            println!("--- the stack's output\n{}---", self.output.text());
        }
    }
}

/// The next notification, and the process that has sent it, as the kernel says (unix(7), SCM_CREDENTIALS).
fn receive(notify: &UnixDatagram) -> Option<(u32, String)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut datagram = [0; 8192];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut pieces = [io::IoSliceMut::new(&mut datagram)];
        match recvmsg(notify, &mut pieces, &mut beside, RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received.ok()?,
        }
    };
    let sender = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
        _ => None,
    });
    let pid = sender
        .expect("the kernel was asked to say it")
        .as_raw_nonzero();
    let text = String::from_utf8_lossy(&datagram[..received.bytes]).into_owned();
    Some((pid.get().unsigned_abs(), text))
}

/// Sends a signal.
pub fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process id");
    rustix::process::kill_process(pid, signal).expect("it runs, and is ours");
}

/// The memory of a process, in KiB.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs, and is ours");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("every process has memory");
    let figure = line.trim().trim_end_matches(" kB");
    figure.parse().expect("a number")
}

/// The CPU time that a process has used.
pub fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs, and is ours");
    let nanoseconds = tasks.flatten().map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next().map(str::parse::<u64>);
        first.and_then(Result::ok).unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Whether a process is there: one whose first thread is a zombie still holds its sockets while others of its threads end.
pub fn is_alive(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if threads > 1 {
        return true;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The open descriptors of a process and what they are: `(3, "socket:[4711]")`.
pub fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs, and is ours");
    let mut open: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect();
    open.sort();
    open
}

/// A process's command line.
pub fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// What the stack says, as it says it.
#[derive(Clone, Default)]
struct Output(Arc<(Mutex<String>, Condvar)>);

impl Output {
    fn collect(&self, from: impl Read + Send + 'static) {
        let Self(shared) = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                shared
                    .0
                    .lock()
                    .expect("no writer panics")
                    .push_str(&String::from_utf8_lossy(&line));
                shared.1.notify_all();
                line.clear();
            }
        });
    }

    fn text(&self) -> String {
        self.0.0.lock().expect("no writer panics").clone()
    }

    /// Waits for more, a little while: other conditions than output may have changed.
    fn wait(&self, time: Duration) {
        let text = self.0.0.lock().expect("no writer panics");
        drop(self.0.1.wait_timeout(text, time).expect("no writer panics"));
    }
}
