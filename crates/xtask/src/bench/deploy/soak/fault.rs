//! What goes wrong.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::{
    super::server::Trial,
    ground::{Ground, Jump},
};
use crate::bench::process;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillWorker,
    KillProxy,
    CutUpload,
    FreezeWorker,
    FreezeProxy,
    FreezeMaster,
    NewCode,
    BrokenCode,
    HangUp,
    Upgrade,
    Raise,
    Segfault,
    Deadlock,
    NeverReturns,
    HoldsPython,
    EatsMemory,
    OutOfMemory,
    Garbage,
    FewDescriptors,
    FewForMaster,
    FullSpool,
    FullLogs,
    FullRun,
    ClockHourAhead,
    ClockHourBack,
    ClockDayAhead,
    Clock1970,
    NewCertificate,
    BrokenCertificate,
    MismatchedKey,
    MoreWorkers,
    FewerWorkers,
    RotateLogs,
}

/// For how long somebody is stopped, or has no descriptors.
const PAUSE: Duration = Duration::from_millis(800);

/// How long what a fault has begun may go on: a request that is stuck is noticed, its worker replaced and ended, and whoever waited
/// behind it has waited.
const AFTERMATH: Duration = Duration::from_secs(25);

/// Who is connected to what a fault has taken away learns it when it next looks, be it on a machine that has other work.
const NOTICE: Duration = Duration::from_secs(2);

/// How long a line of the access log waits for others, to be written with them, on a machine that has other work.
const LINGER: Duration = Duration::from_secs(1);

/// What may come of a fault for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Nothing.
    None,
    /// Connections to the proxy break.
    Connections,
    /// Requests in an app fail.
    Apps,
    /// Requests in an app fail, by its own words too: no memory is an exception in whoever asks for some.
    Memory,
    /// What is too large for memory fails.
    Bodies,
}

impl Fault {
    pub(super) const ALL: &[Self] = &[
        Self::KillWorker,
        Self::KillProxy,
        Self::CutUpload,
        Self::FreezeWorker,
        Self::FreezeProxy,
        Self::FreezeMaster,
        Self::NewCode,
        Self::NewCode,
        Self::BrokenCode,
        Self::HangUp,
        Self::Upgrade,
        Self::Raise,
        Self::Segfault,
        Self::Deadlock,
        Self::NeverReturns,
        Self::HoldsPython,
        Self::EatsMemory,
        Self::OutOfMemory,
        Self::Garbage,
        Self::FewDescriptors,
        Self::FewForMaster,
        Self::FullSpool,
        Self::FullLogs,
        Self::FullRun,
        Self::ClockHourAhead,
        Self::ClockHourBack,
        Self::ClockDayAhead,
        Self::Clock1970,
        Self::NewCertificate,
        Self::NewCertificate,
        Self::BrokenCertificate,
        Self::MismatchedKey,
        Self::MoreWorkers,
        Self::FewerWorkers,
        Self::RotateLogs,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "kill -9 of a worker",
            Self::KillProxy => "kill -9 of the proxy",
            Self::CutUpload => "kill -9 of the proxy in the middle of an upload",
            Self::FreezeWorker => "a worker stopped for a while",
            Self::FreezeProxy => "the proxy stopped for a while",
            Self::FreezeMaster => "the master stopped for a while",
            Self::NewCode => "new code",
            Self::BrokenCode => "broken code",
            Self::HangUp => "HUP",
            Self::Upgrade => "upgrade",
            Self::Raise => "an exception",
            Self::Segfault => "a segmentation fault",
            Self::Deadlock => "a deadlock",
            Self::NeverReturns => "a slot that never returns",
            Self::HoldsPython => "C code that keeps the GIL",
            Self::EatsMemory => "an app that eats memory_max",
            Self::OutOfMemory => "out of memory",
            Self::Garbage => "garbage",
            Self::FewDescriptors => "no descriptors for the proxy",
            Self::FewForMaster => "no descriptors for the master",
            Self::FullSpool => "no room for bodies",
            Self::FullLogs => "no room for logs",
            Self::FullRun => "no room for sockets",
            Self::ClockHourAhead => "the clock an hour ahead",
            Self::ClockHourBack => "the clock an hour back",
            Self::ClockDayAhead => "the clock a day ahead",
            Self::Clock1970 => "the clock at 1970",
            Self::NewCertificate => "a new certificate",
            Self::BrokenCertificate => "half a certificate",
            Self::MismatchedKey => "the key of another certificate",
            Self::MoreWorkers => "TTIN",
            Self::FewerWorkers => "TTOU",
            Self::RotateLogs => "USR1",
        }
    }

    fn harm(self) -> Harm {
        match self {
            Self::KillProxy | Self::CutUpload | Self::FewDescriptors => Harm::Connections,
            Self::KillWorker
            | Self::Segfault
            | Self::Deadlock
            | Self::NeverReturns
            | Self::HoldsPython
            | Self::FewForMaster
            | Self::FullRun => Harm::Apps,
            Self::EatsMemory | Self::OutOfMemory => Harm::Memory,
            Self::FullSpool => Harm::Bodies,
            _ => Harm::None,
        }
    }

    /// The file system that it leaves without room, until somebody makes some.
    pub(super) fn fills(self) -> Option<&'static str> {
        match self {
            Self::FullSpool => Some("spool"),
            Self::FullLogs => Some("logs"),
            Self::FullRun => Some("run"),
            _ => None,
        }
    }

    /// Has it happen. `which` decides to whom, `number` is what new code says.
    pub(super) fn happen(
        self,
        trial: &mut Trial<'_>,
        ground: &mut Ground,
        which: u64,
        number: usize,
    ) -> Result<()> {
        let address = trial.address();
        let get = |path: &str| {
            send(
                address,
                &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            );
        };
        match self {
            Self::KillWorker => each(one_of(trial.workers(), which), Signal::KILL),
            Self::KillProxy => each(trial.fronts(), Signal::KILL),
            Self::CutUpload => cut_upload(trial, number),
            Self::FreezeWorker => freeze(one_of(trial.workers(), which)),
            Self::FreezeProxy => freeze(trial.fronts()),
            Self::FreezeMaster => freeze(vec![trial.master()]),
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
            Self::Raise => get("/raise"),
            Self::Segfault => get("/segfault"),
            Self::Deadlock => get("/deadlock"),
            Self::NeverReturns => get("/never"),
            Self::HoldsPython => get("/gil"),
            Self::EatsMemory => get("/eat"),
            Self::OutOfMemory => {
                if ground.squeeze(trial.workers())? {
                    get("/eat");
                }
            }
            Self::Garbage => send(address, "\u{0}\u{1}GET GET\nHost:: \r\r\n\r\n"),
            Self::FewDescriptors => starve(trial.fronts()),
            Self::FewForMaster => starve(vec![trial.master()]),
            Self::FullSpool | Self::FullLogs | Self::FullRun => {
                self.fills().map_or(Ok(()), |disk| ground.fill(disk))?;
            }
            Self::ClockHourAhead => ground.jump(Jump::HourAhead)?,
            Self::ClockHourBack => ground.jump(Jump::HourBack)?,
            Self::ClockDayAhead => ground.jump(Jump::DayAhead)?,
            Self::Clock1970 => ground.jump(Jump::To1970)?,
            Self::NewCertificate => ground.renew()?,
            Self::BrokenCertificate => ground.break_certificate()?,
            Self::MismatchedKey => ground.mismatch_certificate()?,
            Self::MoreWorkers => each(vec![trial.master()], Signal::TTIN),
            Self::FewerWorkers => each(vec![trial.master()], Signal::TTOU),
            Self::RotateLogs => each(vec![trial.master()], Signal::USR1),
        }
        Ok(())
    }
}

/// One that has happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) fault: Fault,
    pub(super) from: Instant,
    /// When it was over itself; what it has begun may go on.
    pub(super) until: Instant,
}

impl Event {
    /// Whether a connection may break that was used then.
    pub(super) fn breaks(&self, since: Instant, at: Instant) -> bool {
        self.is_near(since, at, &[Harm::Connections], NOTICE)
    }

    /// Whether a connection of HTTP/2 may be told to make no more requests (GOAWAY): `h2load` makes no other then, and counts those
    /// that it has not made. It is told when the next master serves, which takes as long as its apps do.
    pub(super) fn says_goodbye(&self, since: Instant, at: Instant) -> bool {
        self.fault == Fault::Upgrade && self.is_about(since, at, AFTERMATH)
    }

    /// Whether an app's answer may end in its middle.
    pub(super) fn cuts(&self, since: Instant, at: Instant) -> bool {
        self.is_near(since, at, &[Harm::Apps, Harm::Memory], AFTERMATH)
    }

    /// Whether a request may be answered by this status, of those that went to an app, or were large.
    pub(super) fn fails(&self, status: u16, since: Instant, at: Instant) -> bool {
        let harms: &[Harm] = match status {
            500 => &[Harm::Memory],
            502..=504 => &[Harm::Apps, Harm::Memory, Harm::Connections],
            _ => &[],
        };
        self.is_near(since, at, harms, AFTERMATH)
    }

    /// Whether an upload may be sent away.
    pub(super) fn is_full(&self, since: Instant, at: Instant) -> bool {
        self.is_near(since, at, &[Harm::Bodies], NOTICE)
    }

    /// Whether the access log may have no line of a request that was answered at that moment: its disk was full, or the proxy was
    /// killed that was about to write it.
    pub(super) fn forgets(&self, at: Instant) -> bool {
        match self.fault {
            Fault::FullLogs => self.is_about(at, at, NOTICE),
            Fault::KillProxy | Fault::CutUpload => self.is_about(at, at + LINGER, Duration::ZERO),
            _ => false,
        }
    }

    fn is_near(&self, since: Instant, at: Instant, harms: &[Harm], after: Duration) -> bool {
        harms.contains(&self.fault.harm()) && self.is_about(since, at, after)
    }

    /// Whether it, or so long after it, and that time have a moment in common.
    fn is_about(&self, since: Instant, at: Instant, after: Duration) -> bool {
        self.from <= at && self.until + after >= since
    }
}

/// How an upload is called that never comes to its end, and so may never run.
pub(super) const CUT: &str = "cut-";

/// Half an upload, more than is kept in memory; then the proxy is gone.
fn cut_upload(trial: &Trial<'_>, number: usize) {
    let head = format!(
        "POST /upload?{CUT}{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n"
    );
    let upload = TcpStream::connect_timeout(&trial.address(), Duration::from_secs(2));
    let Ok(mut upload) = upload else {
        return each(trial.fronts(), Signal::KILL);
    };
    // Whoever listens may be gone already.
    let _ = upload.set_write_timeout(Some(PAUSE));
    let _ = upload.write_all(head.as_bytes());
    let _ = upload.write_all(&vec![b'x'; 512 * 1024]);
    each(trial.fronts(), Signal::KILL);
    let _ = upload.write_all(&vec![b'x'; 512 * 1024]);
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
