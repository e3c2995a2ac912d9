//! Changes that the kernel tells of (inotify(7)), of whole trees, on a thread that may wait.
//!
//! The `notify` crate does the same, but watches everything below a folder before anybody can say no: the packages of a venv or
//! of `node_modules` alone are more folders than the kernel lets a user watch on many machines. So folders are chosen before they
//! are watched, and there is a most of them ([`Targets::most`]); what is beyond it is said, once for each set of targets.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch},
    io::{Errno, read, write},
};
use telemetry::panics::lock;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::rules::{Change, Debounce, Targets};
use crate::up::reload::Scope;

/// What is told: a file was written to its end, or something else is at its name. Not each write: half a file is of no use.
const TOLD: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// How much is read at once of what there is to tell.
const READ: usize = 16 * 1024;

/// Watches until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    /// What is to be looked after from now on; `Some(None)` is the end.
    wish: Arc<Mutex<Option<Option<Targets>>>>,
    /// Wakes the thread.
    bell: Arc<OwnedFd>,
}

impl Watch {
    /// Begins: what changes after this is told to `tell`.
    ///
    /// # Errors
    /// When the kernel has no inotify for us, or there is no thread.
    pub(super) fn start(targets: Targets, tell: mpsc::Sender<Change>) -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let wish = Arc::default();
        let mut listener = Listener {
            inotify: init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            bell: Arc::clone(&bell),
            wish: Arc::clone(&wish),
            targets: Targets::default(),
            folders: HashMap::new(),
            full: false,
            debounce: Debounce::default(),
            tell,
        };
        // Before anything is imported: no change falls between.
        listener.follow(targets);
        thread::Builder::new()
            .name("dev-watch".to_owned())
            .spawn(move || listener.run())?;
        Ok(Self { wish, bell })
    }

    /// Looks after others from now on.
    pub(super) fn follow(&self, targets: Targets) {
        self.wish(Some(targets));
    }

    fn wish(&self, wish: Option<Targets>) {
        *lock(&self.wish) = Some(wish);
        // It fails when it has been rung often enough.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.wish(None);
    }
}

struct Listener {
    inotify: OwnedFd,
    bell: Arc<OwnedFd>,
    wish: Arc<Mutex<Option<Option<Targets>>>>,
    targets: Targets,
    /// What is watched, by what the kernel calls it.
    folders: HashMap<i32, PathBuf>,
    /// Whether it was said that there are too many.
    full: bool,
    debounce: Debounce,
    tell: mpsc::Sender<Change>,
}

impl Listener {
    fn run(mut self) {
        loop {
            let wait = self
                .debounce
                .due()
                .map(|due| due.saturating_duration_since(Instant::now()));
            // Rounded up, so that it is time when we wake.
            let wait = wait.map(|wait| Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            });
            let mut ends = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&self.bell, PollFlags::IN),
            ];
            match poll(&mut ends, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return warn!("changes are no longer seen: {error}"),
            }
            // That it was rung is all that it says.
            let _ = read(&self.bell, &mut [0; 8]);
            let wish = lock(&self.wish).take();
            match wish {
                Some(Some(targets)) => self.follow(targets),
                Some(None) => return,
                None => {}
            }
            self.hear();
            if let Some(change) = self.debounce.take(Instant::now())
                && self.tell.blocking_send(change).is_err()
            {
                return;
            }
        }
    }

    /// Watches what these targets need, and nothing else.
    fn follow(&mut self, targets: Targets) {
        self.targets = targets;
        self.full = false;
        let before = std::mem::take(&mut self.folders);
        let parents: BTreeSet<PathBuf> = self.targets.parents().map(Path::to_owned).collect();
        for folder in parents {
            self.watch(&folder);
        }
        let trees: BTreeSet<PathBuf> = self.targets.trees().map(Path::to_owned).collect();
        for tree in trees {
            self.watch_below(tree);
        }
        for watch in before
            .keys()
            .filter(|watch| !self.folders.contains_key(watch))
        {
            // It may have ended by itself, with its folder.
            let _ = remove_watch(&self.inotify, *watch);
        }
    }

    /// Watches a folder and those below it; the files that it finds there.
    fn watch_below(&mut self, tree: PathBuf) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut left = vec![tree];
        while let Some(folder) = left.pop() {
            if !self.watch(&folder) {
                continue;
            }
            // One that is gone by now was told of.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        // PEP 405.
                        if self.targets.enters(&path) && !path.join("pyvenv.cfg").exists() {
                            left.push(path);
                        }
                    }
                    Ok(_) => files.push(path),
                    Err(_) => {}
                }
            }
        }
        files
    }

    /// Whether it is watched now.
    fn watch(&mut self, folder: &Path) -> bool {
        if self.folders.len() >= self.targets.most {
            self.say_full(&format!(
                "{} folders are watched, and no more (`file_watches` in [limits])",
                self.folders.len()
            ));
            return false;
        }
        match add_watch(&self.inotify, folder, TOLD) {
            Ok(watch) => {
                self.folders.insert(watch, folder.to_owned());
                true
            }
            Err(Errno::NOSPC) => {
                self.say_full(
                    "the kernel lets this user watch no more folders: sysctl fs.inotify.max_user_watches=524288",
                );
                false
            }
            Err(error) => {
                debug!("{} is not watched: {error}", folder.display());
                false
            }
        }
    }

    fn say_full(&mut self, why: &str) {
        if !std::mem::replace(&mut self.full, true) {
            warn!("changes in some folders are not seen: {why}");
        }
    }

    /// Reads all that there is to tell.
    fn hear(&mut self) {
        for (watch, events, name) in self.read() {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                let folder = self.targets.trees().next().map(Path::to_owned);
                let folder = folder.unwrap_or_default();
                self.follow(self.targets.clone());
                self.debounce
                    .add(Instant::now(), Scope::Everything, &folder);
                continue;
            }
            if events.contains(ReadFlags::IGNORED) {
                self.folders.remove(&watch);
                continue;
            }
            let (Some(folder), Some(name)) = (self.folders.get(&watch), name) else {
                continue;
            };
            let path = folder.join(name);
            match events.contains(ReadFlags::ISDIR) {
                true => self.folder_changed(path, events),
                false => self.changed(&path, events),
            }
        }
    }

    fn read(&self) -> Vec<(i32, ReadFlags, Option<PathBuf>)> {
        use std::os::unix::ffi::OsStrExt;
        let mut space = [MaybeUninit::uninit(); READ];
        let mut reader = Reader::new(&self.inotify, &mut space);
        let mut all = Vec::new();
        // An error says that there is nothing more.
        while let Ok(event) = reader.next() {
            let name = event.file_name();
            let name = name.map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())));
            all.push((event.wd(), event.events(), name));
        }
        all
    }

    fn changed(&mut self, path: &Path, events: ReadFlags) {
        // A file that was only made is told of again once it is written; a link is not.
        let only_made = events.contains(ReadFlags::CREATE) && !path.is_symlink();
        if only_made {
            return;
        }
        if let Some(scope) = self.targets.concerned(path) {
            self.debounce.add(Instant::now(), scope, path);
        }
    }

    /// A folder has come, or gone.
    fn folder_changed(&mut self, path: PathBuf, events: ReadFlags) {
        let below = |tree: &Path| path.starts_with(tree);
        if !self.targets.trees().any(below) || !self.targets.enters(&path) {
            return;
        }
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            if path.join("pyvenv.cfg").exists() {
                return;
            }
            // What was written into it before it was watched nobody tells of.
            for file in self.watch_below(path) {
                self.changed(&file, ReadFlags::MOVED_TO);
            }
            return;
        }
        let gone = self
            .folders
            .iter()
            .filter(|(_, folder)| folder.starts_with(&path));
        let gone: Vec<i32> = gone.map(|(watch, _)| *watch).collect();
        for watch in gone {
            // Where it was moved to it is another's.
            let _ = remove_watch(&self.inotify, watch);
            self.folders.remove(&watch);
        }
        // Modules may have been in it: any name of one says whose.
        self.changed(&path.join("__init__.py"), ReadFlags::DELETE);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        changes: mpsc::Receiver<Change>,
        watch: Watch,
    }

    fn targets(folder: &Path, limits: &str) -> Targets {
        let text = format!(
            "{limits}[app.web]\nwsgi = \"app:app\"\nroot = {folder:?}\n\
             [[site]]\nroutes = [{{ path = \"/\", app = \"web\" }}]\n"
        );
        let loaded = config::parse(&folder.join("site.toml"), text, false).unwrap();
        Targets::of(&loaded.site, None, &[])
    }

    impl Scene {
        fn new(limits: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["blog/views", ".venv/lib", "env", "node_modules/x", "sub"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            fs::write(folder.path().join("env/pyvenv.cfg"), "").unwrap();
            let (tell, changes) = mpsc::channel(1);
            let watch = Watch::start(targets(folder.path(), limits), tell).unwrap();
            Self {
                folder,
                changes,
                watch,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str) {
            fs::write(self.path(name), name).unwrap();
        }

        /// The next change that is told.
        fn told(&mut self) -> String {
            self.changes
                .blocking_recv()
                .unwrap()
                .show(&self.folder.path().canonicalize().unwrap())
        }
    }

    #[test]
    fn what_editors_do_is_told_and_what_tools_do_is_not() {
        let mut scene = Scene::new("");
        scene.write("app.py");
        assert_eq!(scene.told(), "app.py has changed");
        scene.write("blog/views/new.tmp.123");
        fs::rename(
            scene.path("blog/views/new.tmp.123"),
            scene.path("blog/views/list.py"),
        )
        .unwrap();
        assert_eq!(scene.told(), "blog/views/list.py has changed");
        for noise in [
            ".venv/lib/x.py",
            "env/x.py",
            "node_modules/x/x.py",
            "db.sqlite3",
            "x.log",
        ] {
            scene.write(noise);
        }
        fs::create_dir(scene.path("__pycache__")).unwrap();
        scene.write("__pycache__/x.py");
        fs::remove_file(scene.path("app.py")).unwrap();
        assert_eq!(scene.told(), "app.py has changed");
        symlink("list.py", scene.path("blog/views/link.py")).unwrap();
        assert_eq!(scene.told(), "blog/views/link.py has changed");
    }

    #[test]
    fn folders_come_and_go() {
        let mut scene = Scene::new("");
        // Made elsewhere, and moved in whole.
        let other = tempfile::tempdir_in(scene.folder.path().parent().unwrap()).unwrap();
        fs::create_dir_all(other.path().join("shop/deep")).unwrap();
        fs::write(other.path().join("shop/deep/cart.py"), "").unwrap();
        fs::rename(other.path().join("shop"), scene.path("shop")).unwrap();
        assert_eq!(scene.told(), "shop/deep/cart.py has changed");
        scene.write("shop/deep/cart.py");
        assert_eq!(scene.told(), "shop/deep/cart.py has changed");
        fs::rename(scene.path("shop"), other.path().join("shop")).unwrap();
        assert_eq!(scene.told(), "shop/__init__.py has changed");
        fs::write(other.path().join("shop/deep/cart.py"), "").unwrap();
        scene.write("app.py");
        assert_eq!(scene.told(), "app.py has changed");
    }

    #[test]
    fn there_are_never_more_watches_than_allowed() {
        let mut scene = Scene::new("[limits]\nfile_watches = 1\n");
        scene.write("sub/a.py");
        scene.write("app.py");
        assert_eq!(scene.told(), "app.py has changed", "the root is the one");
        // More are allowed from now on.
        scene.watch.follow(targets(scene.folder.path(), ""));
        let deadline = Instant::now() + Duration::from_secs(60);
        let told = loop {
            scene.write("sub/a.py");
            if let Ok(change) = scene.changes.try_recv() {
                break change.show(&scene.folder.path().canonicalize().unwrap());
            }
            assert!(Instant::now() < deadline, "it is never told");
            thread::yield_now();
        };
        assert_eq!(told, "sub/a.py has changed");
    }
}
