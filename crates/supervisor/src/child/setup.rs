//! Between `fork` and `exec`: how a child becomes what its [`Command`] says.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::Mode,
    process::{Pid, Signal},
    thread::{CapabilitySet, CapabilitySets},
};

use super::{Bond, Capabilities, Command, NewPrivileges, SIGNAL_MAX, Wake};
use crate::{limits::Limits, tmp::View, user::User};

/// Occupies those of the numbers that are free, so that what the standard library opens for the fork itself (the pipe on
/// which a failed `exec` is reported) gets none of the numbers that the child will overwrite.
pub(super) fn reserve(numbers: impl Iterator<Item = RawFd>) -> io::Result<Vec<OwnedFd>> {
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
pub(super) struct Setup {
    parent: Pid,
    umask: Option<Mode>,
    user: Option<User>,
    directory: Option<CString>,
    capabilities: Capabilities,
    new_privileges: NewPrivileges,
    bond: Bond,
    wake: Wake,
    limits: Limits,
    view: Option<View>,
    /// The number it has, a number out of everybody's way, the number it gets.
    moves: Vec<[RawFd; 3]>,
    /// The first number above all that are given.
    above: RawFd,
}

impl Setup {
    pub(super) fn new(command: &Command) -> io::Result<Self> {
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
            wake: command.wake,
            limits: command.limits,
            view: command.view.clone(),
            moves: descriptors
                .iter()
                .map(|(from, to)| [from.as_raw_fd(), -1, *to])
                .collect(),
            above,
        })
    }

    pub(super) fn apply(&mut self) -> io::Result<()> {
        // These need rights that the user may not have.
        self.limits.raise()?;
        if let Some(view) = &self.view {
            view.enter()?;
        }
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
        if self.wake == Wake::Waits {
            wake_politely();
        }
        // What our binary does without for itself; kernels before 3.15 know nothing of it.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
        close_everything_on_exec()?;
        self.renumber()?;
        self.limits.apply()
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

/// A kernel or a sandbox that does not know the policy leaves us the ordinary one, with which everything works as well.
fn wake_politely() {
    // All that the kernel's `struct sched_param` has, and this policy has none.
    let priority: libc::c_int = 0;
    // SAFETY: asks for the policy of this thread, the only one after a fork; then sets it, which reads the one value that it is
    // given. Called by number because musl's functions do nothing.
    unsafe {
        if libc::syscall(libc::SYS_sched_getscheduler, 0) == libc::c_long::from(libc::SCHED_OTHER) {
            libc::syscall(
                libc::SYS_sched_setscheduler,
                0,
                libc::SCHED_BATCH,
                &raw const priority,
            );
        }
    }
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
