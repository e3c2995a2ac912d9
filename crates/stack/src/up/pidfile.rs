//! `--pid FILE`: who the master is, for scripts that ask a file. systemd needs none.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::failure::Failure;

/// A file with our process id; removed when dropped, if it still is ours.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it, unless it names another process that lives.
    pub(crate) fn write(path: PathBuf) -> Result<Self, Failure> {
        if let Some(other) = read(&path).filter(|pid| *pid != std::process::id() && lives(*pid)) {
            return Err(Failure::User(format!(
                "{} names process {other}, which runs: stop that first, or remove the file",
                path.display()
            )));
        }
        Self::replace(path)
    }

    /// Writes it, whoever it names.
    pub(crate) fn replace(path: PathBuf) -> Result<Self, Failure> {
        // Beside it and renamed, so that nobody reads half of it; and never through a link that lies there: the folder may be
        // one where others can write.
        let fresh = path.with_extension("pid.new");
        let written = match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => write_new(&fresh).and_then(|()| fs::rename(&fresh, &path)),
        };
        match written {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Failure::User(format!(
                "cannot write {}: {error}",
                path.display()
            ))),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if read(&self.0) != Some(std::process::id()) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.0) {
            warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn write_new(path: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    writeln!(file, "{}", std::process::id())
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A file of a run that was killed may name a process that is gone, or one that has got its number since; the latter is
/// told from one of ours by its program.
fn lives(pid: u32) -> bool {
    let program = |pid: &str| fs::read_link(format!("/proc/{pid}/exe"));
    matches!((program(&pid.to_string()), program("self")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_somebody_has_laid_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.pid");
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for name in ["stack.pid", "stack.pid.new"] {
            std::os::unix::fs::symlink(&victim, folder.path().join(name)).unwrap();
        }
        let written = PidFile::write(path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(read(&path), Some(std::process::id()));
        drop(written);
        assert!(!path.exists() && victim.exists());
    }

    #[test]
    fn it_names_us_and_goes_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.pid");
        // Of a run that was killed: no process has this number.
        fs::write(&path, "4194305\n").unwrap();
        let file = PidFile::write(path.clone()).unwrap();
        assert_eq!(read(&path), Some(std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_another_run_wrote_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.pid");
        let file = PidFile::write(path.clone()).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(read(&path), Some(1));
    }

    #[test]
    fn a_folder_that_is_not_there_is_the_users_mistake() {
        let error = PidFile::write("/nowhere/stack.pid".into()).unwrap_err();
        assert!(matches!(error, Failure::User(_)), "{error:?}");
    }
}
