//! What the server of a soak stands on, and how it gives way: disks that are full, a clock that jumps, a certificate that is
//! swapped, a control group without memory.
//!
//! The clock of the machine is left alone, and so are its disks: the server's clock is a library before its own (`clock.c`), and
//! its folders are file systems in memory, in a mount namespace that ends with the run.

use std::{
    env,
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{io::Errno, mount::MountFlags};

use crate::{
    bench::{eprintln_line, place::Place},
    repository,
};

/// Says that this process is the one that [`enter`] has started.
const INSIDE: &str = "STACK_SOAK_INSIDE";

/// File systems of their own, below the folder of a run: how large, and for how many files.
const DISKS: [(&str, &str); 3] = [
    ("spool", "size=64m"),
    ("logs", "size=384m"),
    ("run", "size=8m,nr_inodes=64"),
];

/// For how long something stays as bad as it is, while other things go wrong as well.
const SPELL: Duration = Duration::from_secs(4);

/// Where the kernel divides memory (control groups, version 1).
const GROUPS: &str = "/sys/fs/cgroup/memory";

/// Beyond what it has a worker in a group of its own gets this much.
const GROUP_MEMORY: u64 = 96 << 20;

/// It.
pub(super) struct Ground {
    folder: PathBuf,
    /// Whether the folders are file systems that can be filled.
    has_disks: bool,
    has_clock: bool,
    has_groups: bool,
    /// What gets well again, and when.
    spells: Vec<(Instant, Spell)>,
    /// Which certificate is the good one.
    certificate: Certificate,
    groups: Vec<PathBuf>,
    /// When full disks had room again.
    freed: Vec<Instant>,
}

/// What is bad for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spell {
    Disks,
    Clock,
    Certificate,
}

/// One of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    First,
    Second,
}

impl Certificate {
    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What the clock on the wall does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    HourAhead,
    HourBack,
    DayAhead,
    To1970,
}

/// Starts this program again where it can be the only one that sees its file systems; returns in that process alone.
pub(super) fn enter() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = env::current_exe()?;
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // Commands find the server by it as well.
    let run = Place::soak_below(&repository()?.join("target")).join("run");
    let command = command.args(env::args_os().skip(1)).env(INSIDE, "1");
    let error = command.env("XDG_RUNTIME_DIR", run).exec();
    Err(error).context("cannot start anew; `unshare` is in the package util-linux")
}

impl Ground {
    /// Makes it, and says what cannot be had here.
    pub(super) fn prepare(place: &Place) -> Result<Self> {
        let folder = place.soak();
        // Only there if there was a run before.
        let _ = fs::remove_dir_all(&folder);
        for name in ["spool", "logs", "run", "tls"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let is_root = rustix::process::geteuid().is_root();
        let has_disks = is_root && mount_all(&folder)?;
        if !has_disks {
            left_out("full disks: only root can mount what is to be full");
        }
        let has_clock = make_clock(&folder)?;
        if !has_clock {
            left_out("clock jumps: there is no cc");
        }
        let has_groups = is_root && Path::new(GROUPS).join("cgroup.procs").exists();
        if !has_groups {
            left_out(
                "the kernel's killer of those without memory: no control group of version 1 that is ours",
            );
        }
        for certificate in [Certificate::First, Certificate::Second] {
            make_certificate(&folder, certificate)?;
        }
        let mut ground = Self {
            folder,
            has_disks,
            has_clock,
            has_groups,
            spells: Vec::new(),
            certificate: Certificate::First,
            groups: Vec::new(),
            freed: Vec::new(),
        };
        ground.show(Certificate::First, Certificate::First)?;
        Ok(ground)
    }

    /// A path below its folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// All that stands in the access log.
    pub(super) fn access_log(&self) -> Result<String> {
        let text = fs::read(self.folder.join("logs/access.log"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What the server may show: the two leaves, as DER.
    pub(super) fn certificates(&self) -> Result<Vec<Vec<u8>>> {
        let both = [Certificate::First, Certificate::Second];
        let read = both.map(|one| {
            let pem = self.folder.join(format!("tls/{}.pem", one.name()));
            let mut command = Command::new("openssl");
            let command = command.args(["x509", "-outform", "der", "-in"]).arg(pem);
            let output = command.output().context("cannot run openssl")?;
            ensure!(
                output.status.success(),
                "openssl ended with {}",
                output.status
            );
            Ok(output.stdout)
        });
        read.into_iter().collect()
    }

    /// Where among [`Self::certificates`] the one is that is to be shown.
    pub(super) fn newest_certificate(&self) -> usize {
        usize::from(self.certificate == Certificate::Second)
    }

    /// Makes well what was bad for long enough.
    pub(super) fn recover(&mut self, now: Instant) -> Result<()> {
        let over: Vec<Spell> = self
            .spells
            .iter()
            .filter(|(until, _)| *until <= now)
            .map(|(_, spell)| *spell)
            .collect();
        for spell in over {
            self.end(spell)?;
        }
        // One that still has somebody in it stays.
        self.groups.retain(|group| fs::remove_dir(group).is_err());
        Ok(())
    }

    /// Makes everything well.
    pub(super) fn recover_all(&mut self) -> Result<()> {
        for (_, spell) in self.spells.clone() {
            self.end(spell)?;
        }
        Ok(())
    }

    fn begin(&mut self, spell: Spell) {
        self.spells.retain(|(_, other)| *other != spell);
        self.spells.push((Instant::now() + SPELL, spell));
    }

    fn end(&mut self, spell: Spell) -> Result<()> {
        self.spells.retain(|(_, other)| *other != spell);
        match spell {
            Spell::Disks => self.free(),
            Spell::Clock => self.set_clock(0),
            Spell::Certificate => self.show(self.certificate, self.certificate),
        }
    }

    /// Takes all the room of this file system, for a while: it becomes as small as what is in it. To fill it would take memory, and
    /// on a machine with other work seconds.
    pub(super) fn fill(&mut self, disk: &str) -> Result<()> {
        if !self.has_disks {
            return Ok(());
        }
        self.begin(Spell::Disks);
        let folder = self.folder.join(disk);
        for _ in 0..100 {
            let used = rustix::fs::statvfs(&folder)?;
            let pages = (used.f_blocks - used.f_bfree).max(1);
            let room = match disk {
                // Sockets are names without content.
                "run" => format!("nr_inodes={}", used.f_files - used.f_ffree),
                _ => format!("size={}", pages * used.f_bsize),
            };
            match remount(&folder, &room) {
                // More was written meanwhile.
                Err(Errno::INVAL) => {}
                done => return done.context("cannot take the room of a disk"),
            }
        }
        bail!("{disk} cannot be made as small as what is in it")
    }

    fn free(&mut self) -> Result<()> {
        if !self.has_disks {
            return Ok(());
        }
        for (name, options) in DISKS {
            remount(&self.folder.join(name), options)?;
        }
        self.freed.push(Instant::now());
        Ok(())
    }

    /// When there was room again, of what was filled then.
    pub(super) fn freed_after(&self, filled: Instant) -> Option<Instant> {
        self.freed.iter().copied().find(|freed| *freed >= filled)
    }

    /// Moves the server's clock, for a while.
    pub(super) fn jump(&mut self, jump: Jump) -> Result<()> {
        if !self.has_clock {
            return Ok(());
        }
        self.begin(Spell::Clock);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.set_clock(match jump {
            Jump::HourAhead => 3600,
            Jump::HourBack => -3600,
            Jump::DayAhead => 86_400,
            Jump::To1970 => -i64::try_from(now.as_secs())?,
        })
    }

    fn set_clock(&self, ahead: i64) -> Result<()> {
        // In place, and all of it in one write: it is mapped by the processes.
        Ok(rustix::io::pwrite(
            File::options()
                .write(true)
                .open(self.folder.join("clock"))?,
            &ahead.to_ne_bytes(),
            0,
        )
        .map(drop)?)
    }

    /// Whether the server's clock can be moved.
    pub(super) fn has_clock(&self) -> bool {
        self.has_clock
    }

    /// The other certificate, from now on.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.certificate = self.certificate.other();
        self.show(self.certificate, self.certificate)
    }

    /// Half a certificate, for a while.
    pub(super) fn break_certificate(&mut self) -> Result<()> {
        self.begin(Spell::Certificate);
        let half = fs::read(self.path(&format!("tls/{}.pem", self.certificate.name())))?;
        put(&self.path("tls/cert.pem"), &half[..half.len() / 2])
    }

    /// The certificate of one with the key of the other, for a while.
    pub(super) fn mismatch_certificate(&mut self) -> Result<()> {
        self.begin(Spell::Certificate);
        self.show(self.certificate, self.certificate.other())
    }

    fn show(&mut self, certificate: Certificate, key: Certificate) -> Result<()> {
        for (from, to) in [
            (format!("tls/{}.pem", certificate.name()), "tls/cert.pem"),
            (format!("tls/{}.key", key.name()), "tls/key.pem"),
        ] {
            put(&self.path(to), &fs::read(self.path(&from))?)?;
        }
        Ok(())
    }

    /// Has the kernel end whoever of these asks for more memory than is usual; whether it can.
    pub(super) fn squeeze(&mut self, processes: Vec<u32>) -> Result<bool> {
        if !self.has_groups {
            return Ok(false);
        }
        for process in processes {
            let group = Path::new(GROUPS).join(format!("stack-soak-{process}"));
            if fs::create_dir(&group).is_err() {
                // It is in one already.
                continue;
            }
            fs::write(
                group.join("memory.limit_in_bytes"),
                GROUP_MEMORY.to_string(),
            )?;
            // It may have died meanwhile.
            let _ = fs::write(group.join("cgroup.procs"), process.to_string());
            self.groups.push(group);
        }
        Ok(true)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for group in &self.groups {
            // Whoever is in it is about to be gone; an empty group takes nothing.
            let _ = fs::remove_dir(group);
        }
    }
}

fn left_out(what: &str) {
    eprintln_line(&format!("!!! LEFT OUT: {what}"));
}

fn mount_all(folder: &Path) -> Result<bool> {
    for (name, options) in DISKS {
        let mut command = Command::new("mount");
        let command = command.args(["-t", "tmpfs", "-o", options, "stack-soak"]);
        let output = command.arg(folder.join(name)).output();
        let output = output.context("cannot run mount")?;
        if !output.status.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn remount(folder: &Path, options: &str) -> rustix::io::Result<()> {
    rustix::mount::mount_remount(folder, MountFlags::empty(), options)
}

fn make_clock(folder: &Path) -> Result<bool> {
    fs::write(folder.join("clock"), 0_i64.to_ne_bytes())?;
    let source = folder.join("clock.c");
    fs::write(&source, include_str!("clock.c"))?;
    let mut command = Command::new("cc");
    let command = command.args(["-shared", "-fPIC", "-O2", "-o"]);
    let command = command.arg(folder.join("clock.so")).arg(source).arg("-ldl");
    Ok(command
        .stderr(Stdio::inherit())
        .status()
        .is_ok_and(|status| status.success()))
}

fn make_certificate(folder: &Path, certificate: Certificate) -> Result<()> {
    let file = |ending| folder.join(format!("tls/{}.{ending}", certificate.name()));
    let mut command = Command::new("openssl");
    let command = command.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"]);
    let command = command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    let command = command.args([
        "-subj",
        &format!("/CN={}", certificate.name()),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]);
    let command = command.arg("-keyout").arg(file("key"));
    let output = command.arg("-out").arg(file("pem")).output();
    let output = output.context("cannot run openssl; it is in the package of that name")?;
    ensure!(
        output.status.success(),
        "openssl ended with {}",
        output.status
    );
    Ok(())
}

/// In one step: whoever reads has the one or the other.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, content)?;
    // A key that everybody may read would be named in the log.
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600))?;
    Ok(fs::rename(next, path)?)
}
