//! What a child may take (setrlimit(2)): how many descriptors, how much memory of its own.

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::CapabilitySet,
};

/// How many descriptors a child can have that is to have so many: no more than our own hard limit, unless we may raise it
/// (`CAP_SYS_RESOURCE`), and then no more than the kernel allows anybody (`fs.nr_open`).
#[must_use]
pub fn open_files(wanted: u64) -> u64 {
    let needed = CapabilitySet::SYS_RESOURCE;
    let may_raise =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    let most = if may_raise {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
        most.and_then(|text| text.trim().parse().ok())
    } else {
        getrlimit(Resource::Nofile).maximum
    };
    most.map_or(wanted, |most: u64| wanted.min(most))
}

/// What a child sets for itself, between `fork` and `exec`: system calls only.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Descriptors.
    pub(crate) open_files: Option<u64>,
    /// Memory that it writes to, in bytes (`RLIMIT_DATA`). What it asks for beyond that it does not get.
    pub(crate) data: Option<u64>,
}

impl Limits {
    /// While it still may: a limit above the one that we have.
    pub(crate) fn raise(self) -> std::io::Result<()> {
        let ours = getrlimit(Resource::Nofile);
        match (self.open_files, ours.maximum) {
            (Some(wanted), Some(most)) if wanted > most => {
                let maximum = Some(wanted);
                Ok(setrlimit(Resource::Nofile, Rlimit { maximum, ..ours })?)
            }
            _ => Ok(()),
        }
    }

    /// At the end, when all descriptors have the numbers that they are to have.
    pub(crate) fn apply(self) -> std::io::Result<()> {
        let both = |most: u64| Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        if let Some(most) = self.open_files {
            setrlimit(Resource::Nofile, both(most))?;
        }
        if let Some(most) = self.data {
            setrlimit(Resource::Data, both(most))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_promised_more_than_there_is() {
        assert_eq!(open_files(64), 64);
        assert!(open_files(u64::MAX) < u64::MAX);
    }
}
