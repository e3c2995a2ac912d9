//! Control groups (cgroups(7), version 2): where a service manager has left the tree below us to us (`Delegate=`), each child can
//! have a group of its own, with a limit that only itself can run into.
//!
//! A group that has members cannot hand controllers down to groups below it, so whoever divides a group leaves it first, for one
//! named `stack-master`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The group that we are in ourselves, below the one that we divide.
const OWN: &str = "stack-master";

/// The controllers that children's groups are to have.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// How systemd marks what it leaves to others (systemd.resource-control(5)): the first for everybody to read.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// A group that is ours to divide.
#[derive(Debug)]
pub struct Delegation {
    base: PathBuf,
    has_memory: bool,
}

impl Delegation {
    /// Takes the group that we are in, if it was left to us; `None` when it was not, or there is no such tree.
    ///
    /// # Errors
    /// When it was left to us and cannot be used all the same.
    pub fn take() -> io::Result<Option<Self>> {
        let Some(here) = current() else {
            return Ok(None);
        };
        let base = base_of(&here);
        if !is_delegated(base) {
            return Ok(None);
        }
        Self::divide(base).map(Some)
    }

    fn divide(base: &Path) -> io::Result<Self> {
        let own = base.join(OWN);
        make(&own)?;
        let us = std::process::id().to_string();
        fs::write(own.join("cgroup.procs"), us)?;
        let there = fs::read_to_string(base.join("cgroup.controllers"))?;
        for controller in CONTROLLERS {
            if has(&there, controller) {
                fs::write(
                    base.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )?;
            }
        }
        let handed = fs::read_to_string(base.join("cgroup.subtree_control"))?;
        Ok(Self {
            base: base.to_owned(),
            has_memory: has(&handed, "memory"),
        })
    }

    /// Whether groups can have a limit of memory.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.has_memory
    }

    /// Makes a group for one child. It is removed, with whatever is left in it, when it is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn group(&self, name: &str, memory_max: Option<u64>) -> io::Result<Group> {
        let path = self.base.join(name);
        make(&path)?;
        let group = Group { path };
        if let Some(most) = memory_max.filter(|_| self.has_memory) {
            group.set("memory.max", &most.to_string())?;
            // Swapped out a runaway would not end, but slow everybody down. Absent where there is no swap.
            let _ = group.set("memory.swap.max", "0");
            // All of its processes or none: half a worker is no worker.
            group.set("memory.oom.group", "1")?;
        }
        Ok(group)
    }
}

/// A group of one child.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Puts a process into it.
    ///
    /// # Errors
    /// When it has ended, or the kernel refuses.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes that the child has started and that have left its process group. Kernels before 5.14 cannot.
        let _ = self.set("cgroup.kill", "1");
        // They may take a moment to be gone. What is left is removed with the service, by who has left the tree to us.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The group that counts for us and all below us.
pub(crate) fn of_service() -> Option<PathBuf> {
    current().map(|here| base_of(&here).to_owned())
}

/// The group that we are in, as a folder.
fn current() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    locate(&groups, &mounts)
}

/// `0::/system.slice/stack.service` (cgroups(7)) below where that tree is mounted (proc_pid_mountinfo(5)).
fn locate(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = match root {
            "/" => group,
            root => group.strip_prefix(root)?,
        };
        Some(Path::new(point).join(below.trim_start_matches('/')))
    })
}

fn base_of(here: &Path) -> &Path {
    match here.parent() {
        Some(parent) if here.file_name().is_some_and(|name| name == OWN) => parent,
        _ => here,
    }
}

fn is_delegated(group: &Path) -> bool {
    MARKS.iter().any(|mark| {
        let mut value = [0; 8];
        let read = rustix::fs::getxattr(group, *mark, &mut value);
        read.is_ok_and(|length| &value[..length] == b"1")
    })
}

fn has(list: &str, controller: &str) -> bool {
    list.split_whitespace().any(|it| it == controller)
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 30 0:22 / /proc rw - proc proc rw\n\
                          35 30 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw\n";

    #[test]
    fn our_group_is_found_where_the_tree_is_mounted() {
        let groups = "4:memory:/x\n0::/system.slice/stack.service\n";
        let found = locate(groups, MOUNTS).expect("a group");
        assert_eq!(
            found,
            Path::new("/sys/fs/cgroup/system.slice/stack.service")
        );
        let part = MOUNTS.replace("0:30 / ", "0:30 /system.slice ");
        let found = locate(groups, &part).expect("a group");
        assert_eq!(found, Path::new("/sys/fs/cgroup/stack.service"));
        assert_eq!(locate("4:memory:/x\n", MOUNTS), None);
        assert_eq!(locate(groups, ""), None);
    }

    #[test]
    fn an_heir_divides_what_its_elder_has_divided() {
        let here = Path::new("/sys/fs/cgroup/stack.service/stack-master");
        assert_eq!(base_of(here), here.parent().unwrap());
        assert_eq!(base_of(here.parent().unwrap()), here.parent().unwrap());
    }

    /// With files in place of the kernel's.
    #[test]
    fn a_child_gets_a_group_with_its_limit() {
        let base = tempfile::tempdir().unwrap();
        let file = |name: &str| base.path().join(name);
        fs::create_dir(file(OWN)).unwrap();
        fs::write(file("cgroup.controllers"), "cpu memory\n").unwrap();
        let delegation = Delegation::divide(base.path()).unwrap();
        let us = std::process::id().to_string();
        assert_eq!(
            fs::read_to_string(file(OWN).join("cgroup.procs")).unwrap(),
            us
        );
        assert_eq!(
            fs::read_to_string(file("cgroup.subtree_control")).unwrap(),
            "+memory"
        );
        let delegation = Delegation {
            has_memory: true,
            ..delegation
        };
        let group = delegation.group("web.1", Some(1 << 20)).unwrap();
        let limit = fs::read_to_string(file("web.1/memory.max")).unwrap();
        assert_eq!(limit, "1048576");
        drop(group);
        let killed = fs::read_to_string(file("web.1/cgroup.kill")).unwrap();
        assert_eq!(killed, "1");
    }
}
