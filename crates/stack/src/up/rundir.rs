//! The run directory: where the workers' sockets are, and which only we and the proxy can enter.
//!
//! It is `$RUNTIME_DIRECTORY` (systemd), else a folder of this configuration in `$XDG_RUNTIME_DIR` (in `/run` where the
//! proxy is another user's), else a fresh one in
//! the place for temporary files. A lock in it keeps a second run out and ends with the process that holds it, however it
//! ends, so what a dead run left behind is known as such. A note beside it names the configuration and its admin socket:
//! that is how commands find their master. Anybody who may enter may read the note, and learns whom to ask; the lock nobody but
//! us may open, since whoever can open a file can lock it, and would keep us from starting again.
//!
//! For a proxy of another user the sockets lie one folder deeper, which is the proxy's group's to enter. The run directory itself
//! stays as it was given: at each reload systemd sets its owner and mode anew, and those of all that is in it with them.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{fs::FlockOperation, io::Errno};
use supervisor::user::User;
use tracing::warn;

use crate::failure::Failure;

/// Nobody but us.
const PRIVATE: u32 = 0o700;

/// The proxy's group may go through, to sockets that it knows the names of.
const ADMITTING: u32 = 0o710;

/// Anybody may go through, to folders that decide for themselves; `RuntimeDirectoryMode=` in `stack-users.service` says the same.
const PASSAGE: u32 = 0o711;

/// Where the workers' sockets are, when the proxy is another user.
const SOCKETS: &str = "workers";

/// How fresh folders are called.
const FRESH: &str = "stack-";

/// The lock, which also says who holds it.
const LOCK: &str = "lock";

/// Nobody but us opens it: a lock of flock(2) is anybody's who can read the file.
const LOCK_MODE: u32 = 0o600;

/// What is served, and where its master is asked: for whoever may enter.
const NOTE: &str = "served";

/// A run directory that is ours; emptied when dropped, and removed where we made it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    origin: Origin,
    /// Held as long as we live.
    lock: File,
    holder: Holder,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Ours, so we clean it.
    We,
    /// Another master's: one whom we are to follow and have not yet, or one that has followed us.
    Another,
}

/// Who made the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// systemd, which also removes it.
    Given,
    /// We.
    Made,
}

impl RunDirectory {
    /// Takes the run directory for this configuration, for a proxy of this user.
    pub(crate) fn open(config: &Path, proxy: Option<&User>) -> Result<Self, Failure> {
        let (path, origin) = place(config, proxy)?;
        let taken = Self::take(path, origin)?;
        if let Some(proxy) = proxy {
            taken.admit(proxy).with_context(|| {
                format!("cannot open {} to `{}`", taken.path.display(), proxy.name)
            })?;
        }
        Ok(taken)
    }

    /// Goes on in the one that another master has left us.
    pub(crate) fn adopt(path: PathBuf, made: bool, lock: File) -> Self {
        let origin = if made { Origin::Made } else { Origin::Given };
        Self {
            path,
            origin,
            lock,
            holder: Holder::Another,
        }
    }

    /// It is ours from here on.
    pub(crate) fn claim(&mut self) {
        self.holder = Holder::We;
    }

    /// It is another master's from here on.
    pub(crate) fn let_go(&mut self) {
        self.holder = Holder::Another;
    }

    /// Whether we made it, and therefore remove it.
    pub(crate) fn is_made(&self) -> bool {
        self.origin == Origin::Made
    }

    /// What keeps others out, and goes on doing so in whoever has it.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Lets the proxy through to the sockets.
    fn admit(&self, proxy: &User) -> io::Result<()> {
        let folder = self.path.join(SOCKETS);
        fs::DirBuilder::new().mode(PRIVATE).create(&folder)?;
        std::os::unix::fs::chown(&folder, None, Some(proxy.gid()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(ADMITTING))?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(PASSAGE))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where workers listen.
    pub(crate) fn sockets(&self) -> PathBuf {
        sockets_in(&self.path)
    }

    /// Writes down whose it is, for [`admin_sockets`].
    pub(crate) fn sign(&mut self, config: &Path, admin: &Path) -> io::Result<()> {
        let mut text = format!("{}\n", std::process::id()).into_bytes();
        for path in [config, admin] {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        self.lock.rewind()?;
        self.lock.write_all(&text)?;
        self.lock.set_len(text.len() as u64)?;
        // Found whole or not at all.
        let fresh = self.path.join(format!("{NOTE}.new"));
        fs::write(&fresh, &text)?;
        fs::rename(fresh, self.path.join(NOTE))
    }

    fn take(path: PathBuf, origin: Origin) -> Result<Self, Failure> {
        let lock = lock(&path)?;
        remove_sockets(&path).with_context(|| format!("cannot clean {}", path.display()))?;
        Ok(Self {
            path,
            origin,
            lock,
            holder: Holder::We,
        })
    }
}

/// Where workers listen whose master has this run directory.
pub(crate) fn sockets_in(folder: &Path) -> PathBuf {
    let deeper = folder.join(SOCKETS);
    if deeper.is_dir() {
        deeper
    } else {
        folder.to_owned()
    }
}

/// The admin sockets of whoever may be serving this configuration; those of dead runs among them refuse connections.
pub(crate) fn admin_sockets(config: &Path) -> Vec<PathBuf> {
    let ours = all_admin_sockets().into_iter();
    let ours = ours.filter(|(served, _)| is_same(served, config));
    ours.map(|(_, socket)| socket).collect()
}

/// What may be served here, and the admin sockets of whoever does.
pub(crate) fn all_admin_sockets() -> Vec<(PathBuf, PathBuf)> {
    let mut folders = Vec::new();
    if let Some(given) = variable("RUNTIME_DIRECTORY") {
        folders.push(first_of(&given));
    }
    if let Some(runtime) = variable("XDG_RUNTIME_DIR") {
        folders.extend(ours_in(Path::new(&runtime)));
    }
    // Of a service: its `RuntimeDirectory=`. Only root makes folders there.
    folders.extend(named_in(Path::new("/run")));
    folders.extend(ours_in(&env::temp_dir()));
    let mut sockets = Vec::new();
    for folder in folders {
        let socket = admin_socket(&folder);
        sockets.extend(socket.filter(|socket| !sockets.contains(socket)));
    }
    sockets
}

/// The configuration and the admin socket that the note of this folder names.
fn admin_socket(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    // Older versions have it in the lock alone.
    let text = fs::read(folder.join(NOTE)).or_else(|_| fs::read(folder.join(LOCK)));
    let text = text.ok()?;
    let mut lines = text.split(|byte| *byte == b'\n').skip(1);
    let mut path = || Some(PathBuf::from(OsStr::from_bytes(lines.next()?)));
    let (served, socket) = (path()?, path()?);
    socket.is_absolute().then_some((served, socket))
}

/// Whether two names mean the same file, be it by links.
fn is_same(one: &Path, two: &Path) -> bool {
    let absolute = std::path::absolute(two);
    let real = |path: &Path| path.canonicalize().ok();
    absolute.is_ok_and(|absolute| absolute == one)
        || (real(one).is_some() && real(one) == real(two))
}

fn named_in(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_bytes() == b"stack" || name.as_bytes().starts_with(FRESH.as_bytes())
    });
    named.map(|entry| entry.path()).collect()
}

/// Others may make folders with such names as well.
fn ours_in(parent: &Path) -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let is_ours = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == user)
    };
    named_in(parent).into_iter().filter(is_ours).collect()
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if self.holder == Holder::Another {
            return;
        }
        let emptied = remove_sockets(&self.path).and_then(|()| remove_words(&self.path));
        let removed = match self.origin {
            Origin::Given => emptied,
            Origin::Made => emptied.and_then(|()| fs::remove_dir(&self.path)),
        };
        if let Err(error) = removed {
            warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn place(config: &Path, proxy: Option<&User>) -> anyhow::Result<(PathBuf, Origin)> {
    if let Some(given) = variable("RUNTIME_DIRECTORY") {
        return Ok((first_of(&given), Origin::Given));
    }
    // Another user's proxy would not get into a folder of ours.
    let runtime = match proxy {
        None => variable("XDG_RUNTIME_DIR"),
        Some(_) => Some("/run".into()).filter(|run| Path::new(run).is_dir()),
    };
    if let Some(runtime) = runtime {
        let path = PathBuf::from(runtime).join(name_for(config));
        make_private(&path).with_context(|| format!("cannot use {}", path.display()))?;
        return Ok((path, Origin::Made));
    }
    sweep(&env::temp_dir());
    let fresh = tempfile::Builder::new()
        .prefix(FRESH)
        .permissions(fs::Permissions::from_mode(PRIVATE))
        .tempdir()
        .context("cannot make a folder for sockets")?;
    Ok((fresh.keep(), Origin::Made))
}

/// Several are separated by colons (systemd.exec(5)); the first is as good as any.
fn first_of(given: &OsStr) -> PathBuf {
    let first = given.as_bytes().split(|byte| *byte == b':').next();
    PathBuf::from(OsStr::from_bytes(first.unwrap_or_default()))
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Removes what runs that were killed left behind: nobody else will, as the next run has a folder of its own.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(FRESH.as_bytes()));
        if ours && is_dead(&path) {
            // Whatever is in the way stays in the way; it is only litter.
            let _ = remove_sockets(&path)
                .and_then(|()| remove_words(&path))
                .and_then(|()| fs::remove_dir(&path));
        }
    }
}

/// Whether a run of ours signed this lock and holds it no more. One that is just starting has not signed yet.
fn is_dead(folder: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let is_ours = |path: &Path| {
        fs::symlink_metadata(path)
            .is_ok_and(|metadata| metadata.uid() == user && !metadata.is_symlink())
    };
    let path = folder.join(LOCK);
    if !is_ours(folder) || !is_ours(&path) {
        return false;
    }
    let Ok(lock) = File::open(path) else {
        return false;
    };
    lock.metadata().is_ok_and(|metadata| metadata.len() > 0)
        && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// The same for each run of the same file, so that the lock means "this configuration runs already".
fn name_for(config: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    config.hash(&mut hasher);
    format!("stack-{:016x}", hasher.finish())
}

fn make_private(path: &Path) -> anyhow::Result<()> {
    match fs::DirBuilder::new().mode(PRIVATE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return Ok(result?),
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        bail!("it is not a folder of ours; remove it");
    }
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(PRIVATE),
    )?)
}

fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(LOCK_MODE)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // One that an older version has left is anybody's to read.
    file.set_permissions(fs::Permissions::from_mode(LOCK_MODE))
        .with_context(|| format!("cannot keep {} to us", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            sign(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Who it is helps, but is not needed to refuse.
            let _ = file.read_to_string(&mut holder);
            let message = format!(
                "this configuration is being served already, by process {}: stop that first (its run directory is {})",
                holder.lines().next().unwrap_or_default(),
                folder.display()
            );
            Err(Failure::User(message))
        }
        Err(error) => Err(anyhow::Error::from(error)
            .context(format!("cannot lock {}", path.display()))
            .into()),
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The note, where there is one, and the lock, which goes last: as long as it is there the folder is somebody's.
fn remove_words(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(NOTE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_file(folder.join(LOCK))
}

/// Those of workers and of the master, and the folder that was made for them.
fn remove_sockets(folder: &Path) -> io::Result<()> {
    let deeper = folder.join(SOCKETS);
    // Never through a link: the folder may lie where others can write.
    if fs::symlink_metadata(&deeper).is_ok_and(|found| found.is_dir()) {
        remove_sockets_of(&deeper)?;
        fs::remove_dir(&deeper)?;
    }
    remove_sockets_of(folder)
}

fn remove_sockets_of(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("sock")) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(parent: &Path) -> PathBuf {
        let path = parent.join(name_for(Path::new("/etc/stack/site.toml")));
        make_private(&path).unwrap();
        path
    }

    #[test]
    fn a_second_run_is_refused_by_name_and_the_next_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let first = RunDirectory::take(made(parent.path()), Origin::Made).unwrap();
        let second = RunDirectory::take(made(parent.path()), Origin::Made).unwrap_err();
        let Failure::User(message) = second else {
            panic!("not the user's: {second:?}")
        };
        assert!(
            message.contains(&format!("by process {}:", std::process::id())),
            "{message}"
        );
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists(), "what we made we remove");
        RunDirectory::take(made(parent.path()), Origin::Made).unwrap();
    }

    #[test]
    fn leftovers_of_a_dead_run_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = made(parent.path());
        fs::write(path.join("web.1.sock"), "").unwrap();
        fs::write(path.join(LOCK), "4711\n").unwrap();
        let ours = RunDirectory::take(path.clone(), Origin::Made).unwrap();
        assert!(!path.join("web.1.sock").exists());
        let holder = fs::read_to_string(path.join(LOCK)).unwrap();
        assert_eq!(holder, format!("{}\n", std::process::id()));
        drop(ours);
    }

    fn asked(run: &RunDirectory, config: &Path) -> Option<PathBuf> {
        let (served, socket) = admin_socket(run.path())?;
        is_same(&served, config).then_some(socket)
    }

    #[test]
    fn a_run_is_found_by_its_configuration_under_any_name() {
        let parent = tempfile::tempdir().unwrap();
        let config = parent.path().join("site.toml");
        let link = parent.path().join("link.toml");
        fs::write(&config, "").unwrap();
        std::os::unix::fs::symlink(&config, &link).unwrap();
        let mut run = RunDirectory::take(made(parent.path()), Origin::Made).unwrap();
        assert_eq!(asked(&run, &config), None, "not signed yet");
        let socket = run.path().join("admin.sock");
        run.sign(&config, &socket).unwrap();
        for name in [&config, &link] {
            assert_eq!(asked(&run, name), Some(socket.clone()));
        }
        let other = parent.path().join("other.toml");
        assert_eq!(asked(&run, &other), None);
        // A run of a version that had no note.
        fs::remove_file(run.path().join(NOTE)).unwrap();
        assert_eq!(asked(&run, &config), Some(socket));
        assert_eq!(ours_in(parent.path()), [run.path()]);
    }

    #[test]
    fn a_given_directory_is_emptied_but_stays() {
        let given = tempfile::tempdir().unwrap();
        let ours = RunDirectory::take(given.path().to_owned(), Origin::Given).unwrap();
        fs::write(given.path().join("web.1.sock"), "").unwrap();
        drop(ours);
        assert_eq!(fs::read_dir(given.path()).unwrap().count(), 0);
    }

    #[test]
    fn dead_runs_are_swept_and_others_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str, lock: Option<&str>| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("web.1.sock"), "").unwrap();
            if let Some(lock) = lock {
                fs::write(path.join(LOCK), lock).unwrap();
            }
            path
        };
        let dead = folder("stack-dead", Some("4711\n"));
        let starting = folder("stack-starting", Some(""));
        let unknown = folder("stack-unknown", None);
        let other = folder("other", Some("4711\n"));
        let living = folder("stack-living", None);
        let run = RunDirectory::take(living.clone(), Origin::Made).unwrap();
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(
            [&starting, &unknown, &other, &living]
                .into_iter()
                .all(|path| path.exists())
        );
        drop(run);
    }

    #[test]
    fn only_we_can_hold_the_lock_and_others_learn_whom_to_ask() {
        let parent = tempfile::tempdir().unwrap();
        let path = made(parent.path());
        fs::write(path.join(LOCK), "4711\n").unwrap();
        fs::set_permissions(path.join(LOCK), fs::Permissions::from_mode(0o644)).unwrap();
        let mut run = RunDirectory::take(path.clone(), Origin::Made).unwrap();
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode(LOCK), LOCK_MODE, "an older version left it open");
        run.sign(Path::new("/site.toml"), Path::new("/admin.sock"))
            .unwrap();
        assert_eq!(mode(LOCK), LOCK_MODE);
        assert_eq!(
            fs::read(path.join(NOTE)).unwrap(),
            fs::read(path.join(LOCK)).unwrap()
        );
        drop(run);
        assert!(!path.exists(), "nothing is left behind");
    }

    #[test]
    fn only_we_can_enter() {
        let parent = tempfile::tempdir().unwrap();
        let path = made(parent.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(make_private(&link).is_err(), "a link may lead anywhere");
    }
}
