//! What goes wrong.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::super::server::Trial;
use crate::bench::process;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillWorker,
    KillProxy,
    FreezeWorker,
    FreezeProxy,
    NewCode,
    BrokenCode,
    HangUp,
    Upgrade,
    Raise,
    Segfault,
    Hang,
    Garbage,
    FewDescriptors,
    MoreWorkers,
    FewerWorkers,
    RotateLogs,
}

/// For how long somebody is stopped, or has no descriptors.
const PAUSE: Duration = Duration::from_millis(800);

impl Fault {
    pub(super) const ALL: &[Self] = &[
        Self::KillWorker,
        Self::KillProxy,
        Self::FreezeWorker,
        Self::FreezeProxy,
        Self::NewCode,
        Self::NewCode,
        Self::BrokenCode,
        Self::HangUp,
        Self::Upgrade,
        Self::Raise,
        Self::Segfault,
        Self::Hang,
        Self::Garbage,
        Self::FewDescriptors,
        Self::MoreWorkers,
        Self::FewerWorkers,
        Self::RotateLogs,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "kill -9 of a worker",
            Self::KillProxy => "kill -9 of the proxy",
            Self::FreezeWorker => "a worker stopped for a while",
            Self::FreezeProxy => "the proxy stopped for a while",
            Self::NewCode => "new code",
            Self::BrokenCode => "broken code",
            Self::HangUp => "HUP",
            Self::Upgrade => "upgrade",
            Self::Raise => "an exception",
            Self::Segfault => "a segmentation fault",
            Self::Hang => "a deadlock",
            Self::Garbage => "garbage",
            Self::FewDescriptors => "no descriptors",
            Self::MoreWorkers => "TTIN",
            Self::FewerWorkers => "TTOU",
            Self::RotateLogs => "USR1",
        }
    }

    /// Whether a client may find its connection broken: whoever had it is gone, or cannot open what it needs.
    pub(super) fn breaks_connections(self) -> bool {
        matches!(self, Self::KillProxy | Self::FewDescriptors)
    }

    /// Has it happen. `which` decides to whom, `number` is what new code says.
    pub(super) fn happen(self, trial: &mut Trial<'_>, which: u64, number: usize) -> Result<()> {
        let address = trial.address();
        match self {
            Self::KillWorker => each(one_of(trial.workers(), which), Signal::KILL),
            Self::KillProxy => each(trial.fronts(), Signal::KILL),
            Self::FreezeWorker => freeze(one_of(trial.workers(), which)),
            Self::FreezeProxy => freeze(trial.fronts()),
            Self::NewCode => {
                trial
                    .code()
                    .write(u32::try_from(number).unwrap_or(u32::MAX))?;
                // It may be refused: somebody was killed a moment ago. The last one of the run may not.
                let _ = trial.reload();
            }
            Self::BrokenCode => {
                trial.code().break_it()?;
                anyhow::ensure!(trial.reload().is_err(), "broken code was taken");
                trial.code().write(1)?;
            }
            Self::HangUp => trial.hang_up()?,
            Self::Upgrade => {
                // As with new code.
                let _ = trial.upgrade();
            }
            Self::Raise => send(address, "GET /raise HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Self::Segfault => send(address, "GET /segfault HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Self::Hang => send(address, "GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Self::Garbage => send(address, "\u{0}\u{1}GET GET\nHost:: \r\r\n\r\n"),
            Self::FewDescriptors => starve(trial.fronts()),
            Self::MoreWorkers => each(vec![trial.master()], Signal::TTIN),
            Self::FewerWorkers => each(vec![trial.master()], Signal::TTOU),
            Self::RotateLogs => each(vec![trial.master()], Signal::USR1),
        }
        Ok(())
    }
}

fn one_of(processes: Vec<u32>, which: u64) -> Vec<u32> {
    let count = processes.len().max(1) as u64;
    let at = usize::try_from(which % count).unwrap_or(0);
    processes.into_iter().skip(at).take(1).collect()
}

/// Who is gone already need not be told.
fn each(processes: Vec<u32>, signal: Signal) {
    for process in processes {
        process::kill(process, signal);
    }
}

fn freeze(processes: Vec<u32>) {
    each(processes.clone(), Signal::STOP);
    thread::sleep(PAUSE);
    each(processes, Signal::CONT);
}

/// Takes away the right to open anything more, for a while.
fn starve(processes: Vec<u32>) {
    for process in processes {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        let few = Rlimit {
            current: Some(process::descriptors(process) as u64),
            maximum: Some(1 << 16),
        };
        let Ok(before) = prlimit(pid, Resource::Nofile, few) else {
            // It has just died.
            continue;
        };
        thread::sleep(PAUSE);
        let _ = prlimit(pid, Resource::Nofile, before);
    }
}

/// Says something and hangs up; nobody waits for the answer.
fn send(address: SocketAddr, text: &str) {
    if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
        // Whoever listens may be gone by now, and that is the point.
        let _ = stream.write_all(text.as_bytes());
        thread::sleep(Duration::from_millis(100));
    }
}
