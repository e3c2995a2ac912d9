//! The master's part of the figures, and what it makes of everybody's.
//!
//! The proxy counts what visitors do; the master asks it, adds what it knows itself (workers, deaths, memory and CPU of every
//! process), and keeps what the dead have counted, so that no count shrinks when a process is replaced.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use telemetry::{
    metrics::{self, Family, Snapshot, Value},
    panics,
};

use crate::version;

/// What is counted here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The master's own counts.
    own: Snapshot,
    /// What proxies that are gone have counted.
    gone: Snapshot,
    /// What the living ones said last, by their process id.
    last: BTreeMap<i32, Snapshot>,
    cpu: BTreeMap<String, Cpu>,
}

/// CPU time of the processes of one name.
#[derive(Debug, Default)]
struct Cpu {
    /// Of those that are gone.
    gone: Duration,
    /// Of those that live, by their process id.
    living: BTreeMap<i32, Duration>,
}

/// A process: what it is counted as, and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// `master`, `proxy`, or the app's name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) pid: i32,
}

impl Figures {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Counts are whole whatever happens to who counts.
        panics::lock(&self.0)
    }

    /// One more.
    pub(crate) fn add<'l>(&self, family: &Family, labels: impl IntoIterator<Item = &'l str>) {
        self.lock().own.count(family, labels, 1);
    }

    /// What a proxy has counted.
    pub(crate) fn told(&self, pid: i32, snapshot: Snapshot) {
        self.lock().last.insert(pid, snapshot);
    }

    /// A proxy is gone.
    pub(crate) fn buried(&self, pid: i32) {
        let mut kept = self.lock();
        if let Some(last) = kept.last.remove(&pid) {
            kept.gone.merge(&last.remains());
        }
    }

    /// All of it, of all.
    pub(crate) fn all(&self, started: SystemTime, processes: &[Process]) -> Snapshot {
        let mut kept = self.lock();
        let mut all = kept.own.clone();
        all.merge(&kept.gone);
        for last in kept.last.values() {
            all.merge(last);
        }
        all.count(&metrics::BUILD, [version::SHORT], 1);
        all.count(
            &metrics::STDERR_DROPPED,
            ["master"],
            telemetry::log::dropped(),
        );
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        all.add(
            &metrics::STARTED,
            [] as [&str; 0],
            Value::Number(started.as_secs_f64()),
        );
        kept.measure(processes, &mut all);
        all
    }
}

impl Kept {
    fn measure(&mut self, processes: &[Process], all: &mut Snapshot) {
        for process in processes {
            let Some(usage) = Usage::of(process.pid) else {
                continue;
            };
            all.count(&metrics::MEMORY, [process.name.as_str()], usage.memory);
            let cpu = self.cpu.entry(process.name.clone()).or_default();
            cpu.living.insert(process.pid, usage.cpu);
        }
        for (name, cpu) in &mut self.cpu {
            let lives = |pid: &i32| processes.iter().any(|process| process.pid == *pid);
            for (_, time) in cpu.living.extract_if(.., |pid, _| !lives(pid)) {
                cpu.gone += time;
            }
            let time = cpu.gone + cpu.living.values().sum::<Duration>();
            all.add(
                &metrics::CPU,
                [name.as_str()],
                Value::Number(time.as_secs_f64()),
            );
        }
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Its resident set, in bytes.
    memory: u64,
    cpu: Duration,
}

impl Usage {
    /// From proc(5); `None` of one that is gone.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Its name, in parentheses, may have anything in it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // Counted from the state, the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Some(Self {
            memory: field(24)? * page,
            cpu: Duration::from_millis(ticks * 1000 / per_second),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> Process {
        Process {
            name: "master".to_owned(),
            pid: i32::try_from(std::process::id()).unwrap(),
        }
    }

    #[test]
    fn no_count_shrinks_when_a_proxy_is_replaced() {
        let figures = Figures::default();
        let counted = |count| {
            let mut snapshot = Snapshot::default();
            snapshot.count(&metrics::REQUESTS, ["a", "/", "200"], count);
            snapshot.count(&metrics::CONNECTIONS, [], count);
            snapshot
        };
        let all = || figures.all(SystemTime::now(), &[]);
        figures.told(1, counted(5));
        figures.told(1, counted(7));
        assert_eq!(all().total(&metrics::REQUESTS, |_| true), 7);
        figures.buried(1);
        figures.told(2, counted(1));
        assert_eq!(all().total(&metrics::REQUESTS, |_| true), 8);
        assert_eq!(all().total(&metrics::CONNECTIONS, |_| true), 1);
    }

    #[test]
    fn processes_are_measured_and_the_dead_leave_their_time() {
        let figures = Figures::default();
        let all = figures.all(SystemTime::now(), &[us()]);
        assert!(all.total(&metrics::MEMORY, |labels| labels[0] == "master") > 1 << 20);
        figures
            .lock()
            .cpu
            .get_mut("master")
            .unwrap()
            .living
            .insert(-1, Duration::from_secs(5));
        let all = figures.all(SystemTime::now(), &[us()]);
        let cpu = all.samples(&metrics::CPU).next().unwrap().1.clone();
        assert!(
            matches!(cpu, Value::Number(seconds) if seconds >= 5.0),
            "{cpu:?}"
        );
    }
}
