//! The files that are logged to: the master opens them, moves them aside, and hands them to whoever writes.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use ::proxy::control::Order;
use config::{
    error::Problem,
    site::{Located, LogTarget, Rotation, Site},
};
use tracing::warn;

/// Access records name visitors; they are for the administrator and their group.
const MODE: u32 = 0o640;

/// How often a file that rotates is looked at. Between two looks it may grow past its size.
const LOOK: Duration = Duration::from_secs(2);

/// The files of one configuration.
#[derive(Debug)]
pub(crate) struct Logs {
    access: Option<Access>,
    /// Where standard error goes.
    log: Option<PathBuf>,
}

/// The access log, where it is a file.
#[derive(Debug)]
struct Access {
    path: PathBuf,
    file: OwnedFd,
    rotation: Option<Rotation>,
    /// When it is rotated by its age.
    due: Option<SystemTime>,
    next_look: Instant,
}

impl Logs {
    /// Opens them, or says which cannot be.
    pub(crate) fn open(site: &Site) -> Result<Self, Problem> {
        let access = match &site.server.access_log.to {
            LogTarget::File(path) => {
                Some(Access::open(path, site.server.access_log.rotation.clone())?)
            }
            LogTarget::Off | LogTarget::Stdout => None,
        };
        let log = &site.server.log.file;
        if let Some(path) = log {
            // Only tried: it is taken over once nothing can be wrong any more.
            append(path)?;
        }
        Ok(Self {
            access,
            log: log.as_ref().map(|path| path.value.clone()),
        })
    }

    /// The access log's file.
    pub(crate) fn access(&self) -> Option<&OwnedFd> {
        self.access.as_ref().map(|access| &access.file)
    }

    /// Makes standard error the file of the log, if there is one. Children that are started from here on inherit it.
    pub(crate) fn take_stderr(&self) -> io::Result<()> {
        match &self.log {
            Some(path) => telemetry::log::redirect(open(path)?),
            None => Ok(()),
        }
    }

    /// Opens all of them anew, because somebody has moved them aside. One that cannot be opened goes on as it was.
    pub(crate) fn reopen(&mut self) {
        let failed = |path: &Path, error: io::Error| {
            warn!(
                "cannot open {} anew: {error}; it goes on as it was",
                path.display()
            );
        };
        if let Some(access) = &mut self.access {
            match open(&access.path) {
                Ok(file) => access.file = file.into(),
                Err(error) => failed(&access.path, error),
            }
        }
        if let (Err(error), Some(path)) = (self.take_stderr(), &self.log) {
            failed(path, error);
        }
    }

    /// The order that gives all of them to a proxy, and the descriptors that go with it.
    pub(crate) fn hand_over(&self) -> io::Result<(Order, Vec<OwnedFd>)> {
        let order = Order::ReopenLogs {
            access_log: self.access.as_ref().map(|access| access.path.clone()),
            log: self.log.is_some(),
        };
        let mut descriptors = Vec::new();
        if let Some(file) = self.access() {
            descriptors.push(file.try_clone()?);
        }
        if self.log.is_some() {
            descriptors.push(rustix::io::dup(io::stderr())?);
        }
        Ok((order, descriptors))
    }

    /// When to call [`Self::look`]; `None` when nothing rotates.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let access = self.access.as_ref()?;
        access.rotation.as_ref().map(|_| access.next_look)
    }

    /// Moves the access log aside if it is time for it; says whether it did, and has another file now.
    pub(crate) fn look(&mut self, now: Instant) -> bool {
        let Some(access) = self.access.as_mut() else {
            return false;
        };
        if access.next_look > now {
            return false;
        }
        access.next_look = now + LOOK;
        access.is_due() && access.rotate()
    }
}

impl Access {
    fn open(path: &Located<PathBuf>, rotation: Option<Rotation>) -> Result<Self, Problem> {
        let file = append(path)?;
        let began = file.metadata().ok().filter(|metadata| metadata.len() > 0);
        // One that an earlier run began is as old as it is. Where the file system does not know, it begins now.
        let began = began.and_then(|metadata| metadata.created().ok());
        let age = rotation.as_ref().and_then(|rotation| rotation.age);
        Ok(Self {
            path: path.value.clone(),
            file: file.into(),
            due: age.and_then(|age| began.unwrap_or_else(SystemTime::now).checked_add(age)),
            rotation,
            next_look: Instant::now() + LOOK,
        })
    }

    fn is_due(&self) -> bool {
        let Some(rotation) = &self.rotation else {
            return false;
        };
        let size = rustix::fs::fstat(&self.file).map_or(0, |stat| stat.st_size.max(0));
        let size = u64::try_from(size).unwrap_or_default();
        let is_large = rotation.size.is_some_and(|limit| size >= limit);
        // An empty file would only push the full ones out.
        let is_old = self.due.is_some_and(|due| due <= SystemTime::now()) && size > 0;
        is_large || is_old
    }

    fn rotate(&mut self) -> bool {
        let Some(rotation) = self.rotation.clone() else {
            return false;
        };
        let age = rotation.age.unwrap_or(Duration::from_secs(3600));
        self.due = rotation
            .age
            .and_then(|age| SystemTime::now().checked_add(age));
        match shift(&self.path, rotation.keep).and_then(|()| open(&self.path)) {
            Ok(file) => {
                self.file = file.into();
                true
            }
            Err(error) => {
                warn!(
                    "cannot rotate {}: {error}; it goes on as it was",
                    self.path.display()
                );
                // What cannot be done now will hardly be possible in two seconds.
                self.next_look = Instant::now() + age.min(Duration::from_secs(60));
                false
            }
        }
    }
}

/// `access.log` becomes `access.log.1`, that `access.log.2`, and what is past `keep` goes.
fn shift(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let there = (1..=keep).take_while(|number| numbered(*number).exists());
    let last = there.last().unwrap_or(0);
    // The oldest is replaced by the one before it.
    for number in (1..=last.min(keep.saturating_sub(1))).rev() {
        fs::rename(numbered(number), numbered(number + 1))?;
    }
    fs::rename(path, numbered(1))
}

fn append(path: &Located<PathBuf>) -> Result<File, Problem> {
    open(&path.value).map_err(|error| {
        let message = format!("cannot write to {}: {error}", path.value.display());
        Problem::new(path.span, message)
    })
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(MODE);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn logs(folder: &Path, access_log: &str) -> Logs {
        let text = format!(
            "[server]\naccess_log = {access_log}\n[app.web]\nwsgi = \"app:app\"\n[[site]]\nroutes = [{{ path = \"/\", app = \"web\" }}]\n"
        );
        let loaded = config::parse(&folder.join("site.toml"), text, false).unwrap();
        Logs::open(&loaded.site).unwrap()
    }

    fn write(logs: &Logs, text: &str) {
        let mut file = File::from(logs.access().unwrap().try_clone().unwrap());
        file.write_all(text.as_bytes()).unwrap();
    }

    fn later(logs: &mut Logs) -> bool {
        logs.look(Instant::now() + LOOK * 2)
    }

    #[test]
    fn a_file_that_is_large_is_moved_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(
            folder.path(),
            "{ file = \"a.log\", rotate = { size = \"1KiB\", keep = 2 } }",
        );
        assert!(!later(&mut logs), "it is empty");
        for round in ["one", "two", "three"] {
            write(&logs, &round.repeat(500));
            // The clock of the looks is the test's.
            logs.access.as_mut().unwrap().next_look = Instant::now();
            assert!(later(&mut logs), "{round}");
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!(read("a.log"), "");
        assert!(read("a.log.1").starts_with("three") && read("a.log.2").starts_with("two"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_old_file_is_moved_aside_unless_it_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(
            folder.path(),
            "{ file = \"a.log\", rotate = { age = \"1s\" } }",
        );
        logs.access.as_mut().unwrap().due = Some(SystemTime::UNIX_EPOCH);
        assert!(!later(&mut logs));
        write(&logs, "line\n");
        logs.access.as_mut().unwrap().next_look = Instant::now();
        assert!(later(&mut logs));
        assert!(logs.access.as_ref().unwrap().due > Some(SystemTime::now()));
    }

    #[test]
    fn a_file_that_was_moved_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(folder.path(), "{ file = \"a.log\" }");
        assert_eq!(logs.next_look(), None);
        write(&logs, "before\n");
        fs::rename(folder.path().join("a.log"), folder.path().join("moved")).unwrap();
        logs.reopen();
        write(&logs, "after\n");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("moved").as_str(), read("a.log").as_str()),
            ("before\n", "after\n")
        );
    }
}
