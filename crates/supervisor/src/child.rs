//! A child process: how it is started, that it never outlives us, and how its death is learnt.
//!
//! Children are `fork`+`exec` with the descriptors they were given and standard streams, nothing else; signals are reset;
//! `PR_SET_PDEATHSIG` kills them when we die. One that is to be another user's gets that user's groups and no capability
//! before it runs anything. A death is learnt by pidfd, never by the end of a stream, which a forked
//! grandchild may hold open. This module does not decide whether a child is started again.

mod exit;
mod known;
mod setup;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use tokio::io::{Interest, unix::AsyncFd};

pub use self::exit::Exit;
pub(crate) use self::known::known;
use self::{
    known::Entry,
    setup::{Setup, reserve},
};
use crate::{
    limits::Limits,
    tmp::{PrivateTmp, View},
    user::{PERSONAL, User},
};

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
    wake: Wake,
    limits: Limits,
    view: Option<View>,
}

/// What happens when something comes that a child has waited for, and no processor is idle (sched(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    /// It may interrupt who runs.
    Interrupts,
    /// Who runs goes on until it waits itself, or its share is used up.
    Waits,
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
            wake: Wake::Interrupts,
            limits: Limits::default(),
            view: None,
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

    /// It and what it starts interrupt nobody when they wake (`SCHED_BATCH`, sched(7)); their share of the processors stays the
    /// same. Where we have been given another scheduling policy than the ordinary one, it keeps that.
    #[must_use]
    pub fn wakes_politely(mut self) -> Self {
        self.wake = Wake::Waits;
        self
    }

    /// Which permissions its new files lack.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Gives it so many descriptors at most (`RLIMIT_NOFILE`); see [`crate::limits::open_files`].
    #[must_use]
    pub fn open_files(mut self, most: u64) -> Self {
        self.limits.open_files = Some(most);
        self
    }

    /// Gives it so many bytes of memory of its own at most (`RLIMIT_DATA`): what it asks for beyond that it does not get.
    #[must_use]
    pub fn data(mut self, most: u64) -> Self {
        self.limits.data = Some(most);
        self
    }

    /// Gives it a place of its own for temporary files.
    #[must_use]
    pub fn private_tmp(mut self, tmp: &PrivateTmp) -> Self {
        self.view = tmp.view();
        self.env("TMPDIR", tmp.directory())
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
