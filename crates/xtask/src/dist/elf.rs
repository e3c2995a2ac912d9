//! Which C library a binary needs: the newest version among the symbols that it takes from it.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::output;

/// A version of glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glibc {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// What releases promise to run on: Debian 12, Ubuntu 22.04, RHEL 10 and later. Built on an older system a release needs less.
pub(super) const BASELINE: Glibc = Glibc {
    major: 2,
    minor: 34,
};

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Asks binutils, which every linker brings along.
pub(super) fn glibc(binary: &Path) -> Result<Glibc> {
    let symbols = output(Command::new("objdump").arg("-T").arg(binary))?;
    newest(&symbols).context("the binary takes nothing from glibc")
}

fn newest(symbols: &str) -> Option<Glibc> {
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit());
        let (major, rest) = rest[..end.unwrap_or(rest.len())].split_once('.')?;
        // `2.2.5` is older than any other 2.x that matters.
        let minor = rest.split('.').next()?;
        Some(Glibc {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.2.5) read\n0000 DF *UND* 0000 (GLIBC_2.34) dlsym\n\
                       0000 DF *UND* 0000 (GLIBC_2.9) pipe2\n0000 DF *UND* 0000 (GLIBC_PRIVATE) x\n";
        assert_eq!(
            newest(symbols),
            Some(Glibc {
                major: 2,
                minor: 34
            })
        );
        assert_eq!(newest("no symbols"), None);
    }
}
