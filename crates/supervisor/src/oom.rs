//! Whether the kernel has killed for want of memory: `SIGKILL` alone does not say by whom.
//!
//! The counter of our control group (`memory.events`, cgroup v2) counts kills in it, whether the group's limit or the whole
//! machine was short; where there is none, that of the machine (`/proc/vmstat`) must do. Sans policy: who compares decides.

use std::{fs, path::PathBuf};

/// Counts the kernel's kills for want of memory.
#[derive(Debug)]
pub struct Kills {
    source: Option<Source>,
    /// Those that somebody's death was explained with, or that were none of ours.
    accounted: u64,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    key: &'static str,
}

impl Kills {
    /// Counts from now on.
    #[must_use]
    pub fn watch() -> Self {
        let mut kills = Self {
            source: Source::find(),
            accounted: 0,
        };
        kills.forget();
        kills
    }

    /// What happened until now is none of ours.
    pub fn forget(&mut self) {
        self.accounted = self.count();
    }

    /// Whether there was one that nothing has been explained with yet. Explains one death.
    pub fn explain(&mut self) -> bool {
        let is_new = self.count() > self.accounted;
        if is_new {
            self.accounted += 1;
        }
        is_new
    }

    fn count(&self) -> u64 {
        let source = self.source.as_ref();
        source.and_then(Source::read).unwrap_or_default()
    }
}

impl Source {
    fn find() -> Option<Self> {
        let group = crate::group::of_service().map(|group| Self {
            path: group.join("memory.events"),
            key: "oom_kill",
        });
        let machine = Self {
            path: PathBuf::from("/proc/vmstat"),
            key: "oom_kill",
        };
        group
            .into_iter()
            .chain([machine])
            .find(|source| source.read().is_some())
    }

    fn read(&self) -> Option<u64> {
        value(&fs::read_to_string(&self.path).ok()?, self.key)
    }
}

/// The number behind a key, one to a line.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_explains_one_death() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.events");
        let write = |kills: u32| {
            let text = format!("low 0\nhigh 3\nmax 7\noom 4\noom_kill {kills}\noom_group_kill 9\n");
            fs::write(&path, text).unwrap();
        };
        write(2);
        let mut kills = Kills {
            source: Some(Source {
                path: path.clone(),
                key: "oom_kill",
            }),
            accounted: 0,
        };
        kills.forget();
        assert!(!kills.explain());
        write(4);
        assert!(kills.explain() && kills.explain());
        assert!(!kills.explain());
        write(5);
        kills.forget();
        assert!(!kills.explain(), "somebody else's");
    }

    #[test]
    fn without_a_counter_nothing_is_explained() {
        let mut kills = Kills {
            source: None,
            accounted: 0,
        };
        assert!(!kills.explain());
    }
}
