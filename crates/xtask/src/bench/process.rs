//! What the kernel says of processes: CPU time and memory of a tree, by the part each process plays.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// CPU time, by part.
pub(crate) struct Cpu(BTreeMap<&'static str, Duration>);

impl Cpu {
    /// What the processes of one part have used since, in microseconds.
    pub(crate) fn since(&self, before: &Self, part: &str) -> f64 {
        let of = |cpu: &Self| cpu.0.get(part).copied().unwrap_or_default();
        of(self).saturating_sub(of(before)).as_secs_f64() * 1e6
    }
}

/// A process and the part it plays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Its id.
    pub(crate) pid: u32,
    /// `proxy`, `worker`, `master`.
    pub(crate) part: &'static str,
}

/// All descendants of `root`, itself first.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        all.extend(children(pid));
    }
    all
}

/// Those that it has started, or inherited.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let pids = |list: String| -> Vec<u32> {
        let numbers = list.split_whitespace();
        numbers.filter_map(|pid| pid.parse().ok()).collect()
    };
    lists.flat_map(pids).collect()
}

/// All processes of the group that this one is in.
pub(crate) fn in_group_of(pid: u32) -> Vec<u32> {
    let group = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(2)?.parse::<u32>().ok()
    };
    let Some(wanted) = group(pid) else {
        return Vec::new();
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| group(*pid) == Some(wanted)).collect()
}

/// All processes but this one that were started with this in their environment (`NAME=value`).
pub(crate) fn with_variable(variable: &str) -> Vec<u32> {
    let has_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|one| one == variable.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id() && has_it(pid))
        .collect()
}

/// Sends a signal; says whether there was such a process.
pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) -> bool {
    let pid = i32::try_from(pid).ok();
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// The command line, its arguments joined by spaces.
pub(crate) fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// User and system time of the members, by part (`/proc/PID/schedstat` counts nanoseconds, `stat` only ticks).
pub(crate) fn cpu(members: &[Member]) -> Result<Cpu> {
    let mut sums = BTreeMap::new();
    for member in members {
        let mut nanoseconds = 0;
        for task in
            fs::read_dir(format!("/proc/{}/task", member.pid)).context("a server has ended")?
        {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text
                .split_whitespace()
                .next()
                .context("schedstat is empty")?;
            nanoseconds += first.parse::<u64>()?;
        }
        *sums.entry(member.part).or_default() += Duration::from_nanos(nanoseconds);
    }
    Ok(Cpu(sums))
}

/// Proportional set size of all of them, in MiB (`/proc/PID/smaps_rollup`).
pub(crate) fn memory(members: &[Member]) -> Result<f64> {
    let mut sum = 0;
    for member in members {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", member.pid))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.context("no Pss line")?.trim().trim_end_matches(" kB");
        sum += kib.parse::<u64>()?;
    }
    Ok(sum as f64 / 1024.0)
}

/// Raises the limit of open descriptors as far as it goes, for the load and for the servers, which inherit it.
pub(crate) fn raise_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

/// Starts something that runs on the first so many of our cores, as do all that it starts itself.
pub(crate) fn on_cores<T>(count: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = sched_getaffinity(None)?;
    let mut few = CpuSet::new();
    let ours = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core));
    ours.take(count).for_each(|core| few.set(core));
    sched_setaffinity(None, &few)?;
    let started = start();
    sched_setaffinity(None, &all)?;
    started
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What the figures were taken on.
pub(crate) fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    let cores = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {model}, Linux {}", kernel.trim())
}
