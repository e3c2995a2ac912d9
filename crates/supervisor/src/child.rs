//! A child process: how it is started, that it never outlives us, and how its death is learnt.
//!
//! Children are `fork`+`exec` with the descriptors they were given and standard streams, nothing else; signals are reset;
//! `PR_SET_PDEATHSIG` kills them when we die. One that is to be another user's gets that user's groups and no capability
//! before it runs anything. A death is learnt by pidfd, never by the end of a stream, which a forked
//! grandchild may hold open. This module does not decide whether a child is started again.

use std::{
    collections::BTreeSet,
    ffi::{CString, OsStr},
    fmt, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::PathBuf,
    process,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::Mode,
    process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus},
    thread::{CapabilitySet, CapabilitySets},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::user::{PERSONAL, User};

pub use rustix::process::Signal;

/// Largest signal number of Linux.
const SIGNAL_MAX: i32 = 64;

/// The first that is nobody's: below are the named ones, and those that C libraries keep for themselves.
const REAL_TIME_MIN: i32 = 35;

/// A real-time signal by its number.
///
/// # Panics
/// When the number is none of a real-time signal that programs may use.
#[must_use]
pub fn real_time(number: i32) -> Signal {
    assert!(
        (REAL_TIME_MIN..=SIGNAL_MAX).contains(&number),
        "a real-time signal"
    );
    // SAFETY: a valid number by the line above, and none that the C library reserves.
    unsafe { Signal::from_raw_unchecked(number) }
}

/// A child to be.
#[derive(Debug)]
pub struct Command {
    command: process::Command,
    descriptors: Vec<(OwnedFd, RawFd)>,
    group: Group,
    umask: Option<u32>,
    user: Option<User>,
    directory: Option<PathBuf>,
    capabilities: Capabilities,
    new_privileges: NewPrivileges,
    bond: Bond,
}

/// Whether a child ends with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    /// It is killed when we die.
    DiesWithUs,
    /// It may live on.
    OutlivesUs,
}

/// What a child that is not root's may do although it is not root's (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capabilities {
    /// Nothing.
    None,
    /// What we may, as far as it is passed on at all.
    Inherited,
}

/// Whether programs that the child runs may have more rights than the child (setuid bits, file capabilities).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NewPrivileges {
    /// As it is with us.
    Inherited,
    /// Never, nor for anything that it starts (`PR_SET_NO_NEW_PRIVS`).
    Never,
}

/// Which process group a child lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Ours: the terminal's Ctrl-C reaches it.
    Inherited,
    /// One of its own, which ends with it.
    Own,
}

/// One of the three standard streams of a child.
#[derive(Debug)]
pub enum Stdio {
    /// The same as ours.
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe; our end is in [`Child`].
    Pipe,
    /// This descriptor.
    To(OwnedFd),
}

impl From<Stdio> for process::Stdio {
    fn from(stdio: Stdio) -> Self {
        match stdio {
            Stdio::Inherit => Self::inherit(),
            Stdio::Null => Self::null(),
            Stdio::Pipe => Self::piped(),
            Stdio::To(descriptor) => Self::from(descriptor),
        }
    }
}

/// A child could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {}: {source}", program.display())]
pub struct SpawnError {
    /// What was to be run.
    pub program: PathBuf,
    /// Why it could not.
    #[source]
    pub source: io::Error,
}

impl Command {
    /// This program, with our environment and working directory, our standard streams and no other descriptor.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: process::Command::new(program),
            descriptors: Vec::new(),
            group: Group::Inherited,
            umask: None,
            user: None,
            directory: None,
            capabilities: Capabilities::None,
            new_privileges: NewPrivileges::Inherited,
            bond: Bond::DiesWithUs,
        }
    }

    /// What the child sees as its own name, instead of the program's path.
    #[must_use]
    pub fn name(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Leaves a variable of ours out.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Its working directory, entered as its user.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Runs it as this user: with their groups, without any capability, and with `HOME`, `USER` and `LOGNAME` saying so.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.command.envs(user.environment());
        for name in PERSONAL {
            self.command.env_remove(name);
        }
        self.user = Some(user);
        self
    }

    /// Leaves it the capabilities that we pass on, such as the right to take ports below 1024: for another master. Every
    /// other child has none, unless it is root's.
    #[must_use]
    pub fn keep_capabilities(mut self) -> Self {
        self.capabilities = Capabilities::Inherited;
        self
    }

    /// Neither it nor what it starts ever gains rights by running a program.
    #[must_use]
    pub fn no_new_privileges(mut self) -> Self {
        self.new_privileges = NewPrivileges::Never;
        self
    }

    /// Gives it this descriptor as this number, 3 or above. Of two with the same number the later one counts.
    #[must_use]
    pub fn descriptor(mut self, descriptor: OwnedFd, number: RawFd) -> Self {
        assert!(
            number > libc::STDERR_FILENO,
            "standard streams have their own methods"
        );
        self.descriptors.retain(|(_, taken)| *taken != number);
        self.descriptors.push((descriptor, number));
        self
    }

    /// Its standard input.
    #[must_use]
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.command.stdin(stdio);
        self
    }

    /// Its standard output.
    #[must_use]
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.command.stdout(stdio);
        self
    }

    /// Its standard error.
    #[must_use]
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.command.stderr(stdio);
        self
    }

    /// Puts it into a process group of its own: Ctrl-C does not reach it, and the group is killed when it has ended.
    #[must_use]
    pub fn own_group(mut self) -> Self {
        self.command.process_group(0);
        self.group = Group::Own;
        self
    }

    /// Lets it live on when we die; see [`Child::let_go`].
    #[must_use]
    pub fn outlives_us(mut self) -> Self {
        self.bond = Bond::OutlivesUs;
        self
    }

    /// Which permissions its new files lack.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Starts it. Must be called inside a tokio runtime, on a thread that lives as long as the child should: its death
    /// signal comes when the *thread* that forked ends (prctl(2)).
    ///
    /// # Errors
    /// When the program cannot be executed, the directory is missing, or processes or descriptors are short.
    pub fn spawn(mut self) -> Result<Child, SpawnError> {
        let program = PathBuf::from(self.command.get_program());
        self.start()
            .map_err(|source| SpawnError { program, source })
    }

    fn start(&mut self) -> io::Result<Child> {
        let reserved = reserve(self.descriptors.iter().map(|(_, number)| *number))?;
        let mut setup = Setup::new(self)?;
        // SAFETY: `Setup::apply` makes system calls only, and writes to memory that was allocated before the fork.
        unsafe { self.command.pre_exec(move || setup.apply()) };
        let mut child = self.command.spawn()?;
        drop(reserved);
        let pid = Pid::from_child(&child);
        let watch = || -> io::Result<AsyncFd<OwnedFd>> {
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
            // SAFETY: the descriptor is owned by the `AsyncFd` from here on, and open until that is dropped.
            Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? })
        };
        let pidfd = watch().inspect_err(|_| {
            // Descriptors are short. A child whose end nobody would learn is not left behind; it is ours until waited for.
            let _ = child.kill().and_then(|()| child.wait());
        })?;
        let entry = Entry::of(pid);
        Ok(Child {
            pid,
            _entry: entry,
            pidfd,
            group: self.group,
            exit: None,
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
        })
    }
}

/// Occupies those of the numbers that are free, so that what the standard library opens for the fork itself (the pipe on
/// which a failed `exec` is reported) gets none of the numbers that the child will overwrite.
fn reserve(numbers: impl Iterator<Item = RawFd>) -> io::Result<Vec<OwnedFd>> {
    let null = std::fs::File::open("/dev/null")?;
    let mut reserved = vec![OwnedFd::from(null)];
    for number in numbers {
        let placeholder = rustix::io::fcntl_dupfd_cloexec(&reserved[0], number)?;
        // Any other number means that this one is in use, which serves as well.
        if placeholder.as_raw_fd() == number {
            reserved.push(placeholder);
        }
    }
    Ok(reserved)
}

/// What the child does between `fork` and `exec`, when only async-signal-safe calls are allowed and memory must not be
/// allocated: everything is prepared before.
struct Setup {
    parent: Pid,
    umask: Option<Mode>,
    user: Option<User>,
    directory: Option<CString>,
    capabilities: Capabilities,
    new_privileges: NewPrivileges,
    bond: Bond,
    /// The number it has, a number out of everybody's way, the number it gets.
    moves: Vec<[RawFd; 3]>,
    /// The first number above all that are given.
    above: RawFd,
}

impl Setup {
    fn new(command: &Command) -> io::Result<Self> {
        let descriptors = &command.descriptors;
        let above = descriptors
            .iter()
            .map(|(_, number)| number + 1)
            .max()
            .unwrap_or(0);
        let directory = command.directory.as_ref();
        let directory = directory.map(|path| CString::new(path.as_os_str().as_bytes()));
        Ok(Self {
            parent: rustix::process::getpid(),
            umask: command.umask.map(Mode::from_raw_mode),
            user: command.user.clone(),
            directory: directory.transpose()?,
            capabilities: command.capabilities,
            new_privileges: command.new_privileges,
            bond: command.bond,
            moves: descriptors
                .iter()
                .map(|(from, to)| [from.as_raw_fd(), -1, *to])
                .collect(),
            above,
        })
    }

    fn apply(&mut self) -> io::Result<()> {
        self.become_user()?;
        // Entered with the user's rights, not with ours: their folder may be closed to us, and one that is closed to them is
        // no place for them.
        if let Some(directory) = &self.directory {
            rustix::process::chdir(directory.as_c_str())?;
        }
        // The change of user clears it (prctl(2)), so it comes after that.
        self.die_with_parent()?;
        reset_signals();
        if let Some(mask) = self.umask {
            rustix::process::umask(mask);
        }
        // What the parent does without for itself; kernels before 3.15 know nothing of it.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
        close_everything_on_exec()?;
        self.renumber()
    }

    fn become_user(&self) -> io::Result<()> {
        if let Some(user) = &self.user {
            user.assume()?;
        }
        // Root without capabilities is not what anybody calls root. Every other user's would have those that systemd has given
        // us (`AmbientCapabilities=`).
        if self.capabilities == Capabilities::None && !rustix::process::geteuid().is_root() {
            drop_capabilities()?;
        }
        match self.new_privileges {
            NewPrivileges::Inherited => Ok(()),
            NewPrivileges::Never => Ok(rustix::thread::set_no_new_privs(true)?),
        }
    }

    fn die_with_parent(&self) -> io::Result<()> {
        if self.bond == Bond::OutlivesUs {
            return Ok(());
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before that call.
        if rustix::process::getppid() == Some(self.parent) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }

    /// A number to give may be one that another descriptor has now, so all of them step out of the way first.
    fn renumber(&mut self) -> io::Result<()> {
        for [from, aside, _] in &mut self.moves {
            // SAFETY: duplicates a number that `Command` keeps open; the result is checked.
            *aside = check(unsafe { libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, self.above) })?;
        }
        for [_, aside, to] in &self.moves {
            // SAFETY: the number is ours to overwrite: the child is about to exec, and whatever had it would be closed.
            // `dup2` clears close-on-exec on `to`.
            check(unsafe { libc::dup2(*aside, *to) })?;
        }
        Ok(())
    }
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    // The ambient set shrinks with the permitted one.
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

/// Ignored signals would stay ignored across `exec`. The mask is emptied by the standard library.
fn reset_signals() {
    for number in 1..=SIGNAL_MAX {
        // SAFETY: sets the default action, no handler. It fails for SIGKILL, SIGSTOP and what libc keeps for itself, which
        // have no other action anyway.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Whatever we hold, even what we have inherited unknowingly, is not the child's.
fn close_everything_on_exec() -> io::Result<()> {
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: marks descriptors, closes none; nothing in this child uses them after exec. Called by number because musl has
    // no function for it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A child that was started. When it is dropped before its end it is killed.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    _entry: Entry,
    pidfd: AsyncFd<OwnedFd>,
    group: Group,
    exit: Option<Exit>,
    /// Our end, when it was to be a pipe.
    pub stdin: Option<OwnedFd>,
    /// Our end, when it was to be a pipe.
    pub stdout: Option<OwnedFd>,
    /// Our end, when it was to be a pipe.
    pub stderr: Option<OwnedFd>,
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it a signal; nothing happens when it has ended.
    ///
    /// # Errors
    /// When it has become another user's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// It is its own from here on: nobody kills it, and nobody waits for it.
    pub fn let_go(mut self) {
        self.exit = Some(Exit::Unknown);
    }

    /// Waits for its end, and ends what is left of its group if it has one of its own. Cancel-safe; once it has ended, the
    /// answer is always the same.
    ///
    /// # Errors
    /// When the kernel refuses to watch or to signal it.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        loop {
            let mut ready = self.pidfd.readable().await?;
            // Before it is reaped, because until then nobody else can have got its number.
            if self.group == Group::Own {
                kill_group(self.pid)?;
            }
            if let Some(exit) = reap(self.pidfd.get_ref())? {
                self.exit = Some(exit);
                return Ok(exit);
            }
            ready.clear_ready();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // It can only fail when the child has ended.
            let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
            if self.group == Group::Own {
                let _ = kill_group(self.pid);
            }
            // Nothing survives that signal, so this wait is short; without it a zombie would stay.
            let _ = rustix::process::waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
        }
    }
}

/// Those whose end somebody waits for: see [`crate::orphans`].
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The process ids of all children that were started here, and not dropped.
pub(crate) fn known() -> BTreeSet<i32> {
    lock_known().clone()
}

fn lock_known() -> MutexGuard<'static, BTreeSet<i32>> {
    // A set of numbers is whole whatever happens to its holder.
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of a child among [`KNOWN`].
#[derive(Debug)]
struct Entry(i32);

impl Entry {
    fn of(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero().get();
        lock_known().insert(pid);
        Self(pid)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock_known().remove(&self.0);
    }
}

fn kill_group(leader: Pid) -> io::Result<()> {
    match rustix::process::kill_process_group(leader, Signal::KILL) {
        // PERM: what is left has become another user's, which is beyond us.
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn reap(pidfd: &OwnedFd) -> io::Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(status) => Ok(status.map(|status| Exit::from(&status))),
        // A pidfd that does not block says so in this way (waitid(2)).
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(rustix::io::Errno::CHILD) => Ok(Some(Exit::Unknown)),
        Err(error) => Err(error.into()),
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It left by itself.
    Code(i32),
    /// It was killed.
    Signal {
        /// By which signal.
        number: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
    /// It is gone, and the kernel does not say how: somebody else has reaped it.
    Unknown,
}

impl From<&WaitIdStatus> for Exit {
    fn from(status: &WaitIdStatus) -> Self {
        match status.terminating_signal() {
            Some(number) => Self::Signal {
                number,
                core: status.dumped(),
            },
            // Only EXITED is waited for, so what was not killed has a code.
            None => Self::Code(status.exit_status().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Unknown => f.write_str("nobody knows how"),
            Self::Signal { number, core } => {
                match signal_name(*number) {
                    Some(name) => write!(f, "killed by {name}")?,
                    None => write!(f, "killed by signal {number}")?,
                }
                f.write_str(if *core { " (core dumped)" } else { "" })
            }
        }
    }
}

/// The names of the signals that end processes, signal(7).
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        time::Duration,
    };

    use tokio::{
        io::{AsyncBufReadExt, BufReader, Lines},
        net::unix::pipe,
    };

    use super::*;
    use crate::fds;

    fn shell(script: &str) -> Command {
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe)
    }

    async fn output(command: Command) -> (String, Exit) {
        let mut child = command.spawn().unwrap();
        let exit = child.wait().await.unwrap();
        let mut text = String::new();
        File::from(child.stdout.take().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        (text, exit)
    }

    fn lines(child: &mut Child) -> Lines<BufReader<pipe::Receiver>> {
        let stdout = child.stdout.take().unwrap();
        BufReader::new(pipe::Receiver::from_owned_fd(stdout).unwrap()).lines()
    }

    async fn number(lines: &mut Lines<BufReader<pipe::Receiver>>) -> Pid {
        let line = lines.next_line().await.unwrap().expect("a process id");
        Pid::from_raw(line.trim().parse().unwrap()).unwrap()
    }

    /// Waits until a process that is not our child has ended; a zombie has.
    async fn ended(pid: Pid) {
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let gone = async {
            while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("it lives on");
    }

    #[tokio::test]
    async fn ends_are_told_as_they_were() {
        let cases = [
            ("exit 0", Exit::Code(0), "exit code 0"),
            ("exit 3", Exit::Code(3), "exit code 3"),
            (
                "ulimit -c 0; kill -SEGV $$",
                Exit::Signal {
                    number: 11,
                    core: false,
                },
                "killed by SIGSEGV",
            ),
            (
                "kill -KILL $$",
                Exit::Signal {
                    number: 9,
                    core: false,
                },
                "killed by SIGKILL",
            ),
            (
                "kill -40 $$",
                Exit::Signal {
                    number: 40,
                    core: false,
                },
                "killed by signal 40",
            ),
        ];
        for (script, expected, words) in cases {
            let (_, exit) = output(shell(script)).await;
            assert_eq!(exit, expected, "{script}");
            assert_eq!(exit.to_string(), words);
        }
        let core = Exit::Signal {
            number: libc::SIGABRT,
            core: true,
        };
        assert_eq!(core.to_string(), "killed by SIGABRT (core dumped)");
    }

    #[tokio::test]
    async fn the_end_can_be_asked_again_and_signals_after_it_are_nothing() {
        let mut child = shell("exit 5").spawn().unwrap();
        assert_eq!(child.wait().await.unwrap(), Exit::Code(5));
        assert_eq!(child.wait().await.unwrap(), Exit::Code(5));
        child.signal(Signal::TERM).unwrap();
    }

    #[tokio::test]
    async fn a_missing_program_or_folder_is_an_error_with_its_name() {
        let missing = Command::new("/no/such/python").spawn().unwrap_err();
        assert_eq!(
            missing.to_string(),
            "cannot run /no/such/python: No such file or directory (os error 2)"
        );
        let folder = shell("true")
            .directory("/no/such/folder")
            .spawn()
            .unwrap_err();
        assert_eq!(folder.source.kind(), io::ErrorKind::NotFound);
    }

    fn memory(text: &str) -> OwnedFd {
        fds::sealed_memory("test", text.as_bytes()).unwrap()
    }

    /// Descriptors that lie on each other's targets, next to one that leaks into every child.
    #[tokio::test]
    async fn descriptors_have_their_numbers_and_nothing_else_is_open() {
        let leaking = memory("leak");
        rustix::io::fcntl_setfd(&leaking, rustix::io::FdFlags::empty()).unwrap();
        let mut given: Vec<OwnedFd> = ["a", "b", "c", "d", "e"].map(memory).into();
        given.sort_by_key(AsRawFd::as_raw_fd);
        // Each gets the number that its neighbour has now; the last one gets 3.
        let mut targets: Vec<RawFd> = given.iter().skip(1).map(AsRawFd::as_raw_fd).collect();
        targets.push(3);
        let mut expected: Vec<(RawFd, String)> = Vec::new();
        let script = "import os\n\
                      for n in sorted(int(n) for n in os.listdir('/proc/self/fd')):\n\
                      \x20   try: print(n, os.pread(n, 9, 0).decode() if n > 2 else '-')\n\
                      \x20   except OSError: pass\n";
        let mut command = Command::new("python3")
            .arg("-c")
            .arg(script)
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe);
        for (descriptor, number) in given.into_iter().zip(targets) {
            let mut text = String::new();
            File::from(descriptor.try_clone().unwrap())
                .read_to_string(&mut text)
                .unwrap();
            expected.push((number, text));
            command = command.descriptor(descriptor, number);
        }
        let (text, exit) = output(command).await;
        assert_eq!(exit, Exit::Code(0));
        expected.sort();
        let expected: Vec<String> = expected
            .iter()
            .map(|(n, text)| format!("{n} {text}"))
            .collect();
        let seen: Vec<&str> = text.lines().filter(|line| !line.ends_with('-')).collect();
        assert_eq!(seen, expected);
    }

    /// The pipe on which a failed exec is reported must survive whatever numbers are given.
    #[tokio::test]
    async fn a_failed_exec_is_reported_even_when_every_low_number_is_given() {
        let mut command = Command::new("/no/such/program");
        for number in 3..40 {
            command = command.descriptor(memory("x"), number);
        }
        assert_eq!(
            command.spawn().unwrap_err().source.kind(),
            io::ErrorKind::NotFound
        );
    }

    #[tokio::test]
    async fn signals_environment_folder_umask_and_group_are_set() {
        let script = "import os, signal\n\
                      print(signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL, signal.pthread_sigmask(0, []))\n\
                      print(os.getcwd(), os.environ.get('GIVEN'), os.environ.get('CARGO_PKG_NAME'))\n\
                      print(oct(os.umask(0)), os.getpgid(0) == os.getpid())\n";
        let command = Command::new("python3")
            .arg("-c")
            .arg(script)
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe)
            .env("GIVEN", "yes")
            .env_remove("CARGO_PKG_NAME")
            .directory("/proc")
            .umask(0o027)
            .own_group();
        // SAFETY: no handler is set; the children of this test must see the default again.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let (text, exit) = output(command).await;
        assert_eq!(exit, Exit::Code(0));
        assert_eq!(text, "True set()\n/proc yes None\n0o27 True\n");
    }

    /// `None` where this test may not become another user.
    fn nobody() -> Option<User> {
        if !crate::user::may_switch() {
            let _ = writeln!(
                io::stderr(),
                "NOT TESTED: only root can become another user"
            );
            return None;
        }
        Some(
            User::find("nobody")
                .unwrap()
                .expect("every Linux has this user"),
        )
    }

    #[tokio::test]
    async fn another_user_has_nothing_of_ours() {
        let Some(nobody) = nobody() else { return };
        let (uid, gid) = (nobody.uid(), nobody.gid());
        let theirs = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(theirs.path(), Some(uid), None).unwrap();
        let script = "import os\n\
                      print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER'], os.environ['HOME'])\n\
                      status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n\
                      print([int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')])\n\
                      print(status['NoNewPrivs'].strip(), os.stat('.').st_uid)\n\
                      print(open('/etc/shadow').read())\n";
        let home = nobody.home.display().to_string();
        let command = Command::new("python3")
            .arg("-c")
            .arg(script)
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe)
            .stderr(Stdio::Null)
            .user(nobody)
            .no_new_privileges()
            .directory(theirs.path());
        let (text, exit) = output(command).await;
        assert_eq!(exit, Exit::Code(1), "it read /etc/shadow:\n{text}");
        let expected = format!(
            "({uid}, {uid}, {uid}) ({gid}, {gid}, {gid}) [{gid}] nobody {home}\n[0, 0, 0, 0]\n1 {uid}\n"
        );
        assert_eq!(text, expected);
    }

    /// The master is root; a folder that only root may enter is no place for an app.
    #[tokio::test]
    async fn a_folder_is_entered_with_the_rights_of_the_child() {
        use std::os::unix::fs::PermissionsExt as _;

        let Some(nobody) = nobody() else { return };
        let private = std::fs::Permissions::from_mode(0o700);
        let ours = tempfile::Builder::new()
            .permissions(private)
            .tempdir()
            .unwrap();
        let refused = shell("true").user(nobody).directory(ours.path()).spawn();
        assert_eq!(
            refused.unwrap_err().source.kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[tokio::test]
    async fn a_group_ends_with_its_leader() {
        let mut child = shell("sleep 600 & echo $!; exec sleep 600")
            .own_group()
            .spawn()
            .unwrap();
        let mut lines = lines(&mut child);
        let grandchild = number(&mut lines).await;
        child.signal(Signal::TERM).unwrap();
        assert_eq!(
            child.wait().await.unwrap(),
            Exit::Signal {
                number: libc::SIGTERM,
                core: false
            }
        );
        ended(grandchild).await;
    }

    #[tokio::test]
    async fn a_dropped_child_is_killed() {
        let mut child = shell("echo $$; exec sleep 600").spawn().unwrap();
        let mut lines = lines(&mut child);
        let pid = number(&mut lines).await;
        drop(child);
        ended(pid).await;
    }

    /// The end of a stream is not the end of a child, and an open stream is not life.
    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipe_does_not_delay_the_news() {
        let mut child = shell("sleep 600 & echo $!; exit 4").spawn().unwrap();
        let mut lines = lines(&mut child);
        let grandchild = number(&mut lines).await;
        let exit = tokio::time::timeout(Duration::from_secs(10), child.wait())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(exit, Exit::Code(4));
        rustix::process::kill_process(grandchild, Signal::KILL).unwrap();
    }

    /// Plays the master in a process of its own when the variable is set: starts a child and is killed.
    const ROLE: &str = "STACK_TEST_MASTER";

    #[test]
    fn master_that_is_killed() {
        if std::env::var_os(ROLE).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let sleep = Command::new("sleep");
            // The change of user would clear the death signal.
            let sleep = nobody().into_iter().fold(sleep, Command::user);
            let child = sleep.arg("600").own_group().spawn().unwrap();
            let mut stderr = io::stderr();
            writeln!(stderr, "{}", child.pid()).unwrap();
            std::future::pending::<()>().await;
        });
    }

    #[tokio::test]
    async fn children_do_not_outlive_a_master_that_is_killed() {
        let mut master = Command::new(std::env::current_exe().unwrap())
            .arg("--exact")
            .arg("--nocapture")
            .arg("child::tests::master_that_is_killed")
            .env(ROLE, "1")
            .stdout(Stdio::Null)
            .stderr(Stdio::Pipe)
            .spawn()
            .unwrap();
        master.stdout = master.stderr.take();
        let mut lines = lines(&mut master);
        let grandchild = number(&mut lines).await;
        master.signal(Signal::KILL).unwrap();
        master.wait().await.unwrap();
        ended(grandchild).await;
    }
}
