//! Changes that the kernel tells of (inotify(7)): the next request sees them, and not the one a second later.
//!
//! The folders of remembered files are watched, and those above them up to the root, [`Limits::file_watches`] at most. What is
//! told is a name, and what is remembered under it is then looked at before it is served again. What is not told (a change that
//! another machine has made, one behind a link, one in a folder too many) is seen by the look that each second brings; so a watch
//! makes nothing true, it makes it sooner, and all of this may fail.
//!
//! [`Limits::file_watches`]: config::site::Limits::file_watches

use std::{
    collections::{BTreeSet, HashMap},
    io,
    mem::MaybeUninit,
    ops::Bound::{Included, Unbounded},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use message::coding::Coding;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch},
    io::{Errno, read, write},
};
use telemetry::panics::{self, Vital};

use super::{
    cache::{Cache, Key},
    resolve::Root,
};

/// What is told: a file was written to its end, or something else is at its name. Not each write: a file that is half written is
/// of no use to anybody, and a log that grows would be told a thousand times a second.
const TOLD: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Folders that wait to be watched. Whoever finds no room here asks again with the next look.
const WISHES: usize = 64;

/// How much is read at once of what there is to tell: some fifty events.
const READ: usize = 4096;

/// What is watched, on behalf of a cache and as long as this is held.
#[derive(Debug)]
pub(super) struct Watches {
    known: Mutex<Known>,
    most: usize,
    wishes: SyncSender<Wish>,
    /// Wakes the listener: there is a wish, or an end.
    bell: Arc<OwnedFd>,
}

/// A folder to be watched.
#[derive(Debug)]
struct Wish {
    root: Root,
    /// As the cache has its files, without their names.
    folder: Box<[u8]>,
}

/// Folders, called as the cache calls their files, up to the last slash.
#[derive(Debug, Default)]
struct Known {
    /// Those that are watched, or cannot be.
    folders: BTreeSet<Box<[u8]>>,
    /// By what the kernel calls a watch: links may give a folder several names.
    names: HashMap<i32, Vec<Box<[u8]>>>,
}

impl Watches {
    /// Begins. `None` where nothing is to be watched (`most` is 0), or nothing can be, which is said.
    pub(super) fn start<T: Send + Sync + 'static>(
        most: usize,
        cache: &Arc<Cache<T>>,
    ) -> Option<Arc<Self>> {
        if most == 0 {
            return None;
        }
        let started = Self::listen(most, Arc::downgrade(cache));
        let unable = |error: &io::Error| {
            tracing::info!("changes of files are seen within a second, not at once: {error}");
        };
        started.inspect_err(unable).ok()
    }

    fn listen<T: Send + Sync + 'static>(
        most: usize,
        cache: Weak<Cache<T>>,
    ) -> io::Result<Arc<Self>> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (wishes, wished) = sync_channel(WISHES);
        let watches = Arc::new(Self {
            known: Mutex::default(),
            most,
            wishes,
            bell: Arc::clone(&bell),
        });
        let listener = Listener {
            inotify,
            bell,
            wished,
            watches: Arc::downgrade(&watches),
            cache,
        };
        thread::Builder::new()
            .name("file-watch".to_owned())
            .spawn(move || listener.run())?;
        Ok(watches)
    }

    /// Has the folder of a file watched.
    pub(super) fn wish(&self, root: &Root, file: Key<'_>) {
        file.with_bytes(|file| {
            let folder = folders(file).next_back().unwrap_or_default();
            if self.known().folders.contains(folder) {
                return;
            }
            let wish = Wish {
                root: root.clone(),
                folder: folder.into(),
            };
            // Nobody waits for it, and with no room it is for the next look to ask.
            if self.wishes.try_send(wish).is_ok() {
                self.ring();
            }
        });
    }

    fn ring(&self) {
        // It fails when it has been rung often enough.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        panics::lock(&self.known)
    }

    /// Those of a wish that are not watched yet. When there would be too many in all, everything is let go of: what is still
    /// wanted comes back with the next look at it.
    fn missing(&self, wish: &Wish, inotify: &OwnedFd) -> Vec<Box<[u8]>> {
        let mut known = self.known();
        let is_new = |folder: &&[u8]| !known.folders.contains(*folder);
        let all = folders(&wish.folder);
        let new: Vec<Box<[u8]>> = all.filter(is_new).map(Into::into).collect();
        if known.folders.len() + new.len() <= self.most {
            return new;
        }
        known.forget(inotify);
        let nearest = folders(&wish.folder).rev().take(self.most);
        nearest.map(Into::into).collect()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.ring();
    }
}

/// The folders on the way to a file of the cache, the root first.
fn folders(key: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let (number, path) = key.split_at(Key::NUMBER.min(key.len()));
    let slashes = memchr::memchr_iter(b'/', path);
    let below = slashes.map(move |slash| &key[..=number.len() + slash]);
    std::iter::once(number).chain(below)
}

/// Whoever hears what the kernel tells, on a thread that may wait.
struct Listener<T> {
    inotify: OwnedFd,
    bell: Arc<OwnedFd>,
    wished: Receiver<Wish>,
    watches: Weak<Watches>,
    cache: Weak<Cache<T>>,
}

impl<T> Listener<T> {
    fn run(self) {
        // What is watched is believed for longer.
        let _vital = Vital::new("who hears of changed files");
        loop {
            let mut wait = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(&self.bell, PollFlags::IN),
            ];
            match poll(&mut wait, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!("changes of files are no longer seen at once: {error}");
                    return;
                }
            }
            // Whoever holds them is gone.
            let (Some(watches), Some(cache)) = (self.watches.upgrade(), self.cache.upgrade())
            else {
                return;
            };
            // That it was rung is all that it says.
            let _ = read(&self.bell, &mut [0; 8]);
            for wish in self.wished.try_iter() {
                self.watch(&watches, &wish);
            }
            self.hear(&watches, &cache);
        }
    }

    fn watch(&self, watches: &Watches, wish: &Wish) {
        for folder in watches.missing(wish, &self.inotify) {
            let place = wish.root.place(&folder[Key::NUMBER..]);
            // Not under the lock: a disk may be in between.
            let watch = add_watch(&self.inotify, place, TOLD);
            watches.known().add(folder, watch);
        }
    }

    /// Reads once.
    fn hear(&self, watches: &Watches, cache: &Cache<T>) {
        let mut known = watches.known();
        let mut space = [MaybeUninit::uninit(); READ];
        let mut events = Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                    known.ended(event.wd());
                }
                // A change of the folder itself has no name; that of its name is told by the folder above.
                Ok(event) => {
                    if let Some(name) = event.file_name() {
                        known.changed(event.wd(), name.to_bytes(), cache, &self.inotify);
                    }
                }
                // There is nothing to tell.
                Err(_) => return,
            }
            if events.is_buffer_empty() {
                return;
            }
        }
    }
}

impl Known {
    fn add(&mut self, folder: Box<[u8]>, watch: Result<i32, Errno>) {
        match watch {
            Ok(watch) => self.names.entry(watch).or_default().push(folder.clone()),
            // It is not tried again and again.
            Err(error) => tracing::debug!(
                "{} is not watched: {error}",
                String::from_utf8_lossy(&folder[Key::NUMBER..])
            ),
        }
        self.folders.insert(folder);
    }

    /// Something is new under a name in a watched folder.
    fn changed<T>(&mut self, watch: i32, name: &[u8], cache: &Cache<T>, inotify: &OwnedFd) {
        let folders = self.names.get(&watch).cloned().unwrap_or_default();
        for folder in folders {
            let file = [&folder[..], name].concat();
            cache.doubt(&file);
            // It may hold another one in a coding, or answer for its folder.
            for coding in Coding::ALL {
                if let Some(plain) = file.strip_suffix(coding.ending().as_bytes()) {
                    cache.doubt(plain);
                }
            }
            cache.doubt(&folder);
            let below = [&file[..], b"/"].concat();
            if self.leads_elsewhere(&below, inotify) {
                cache.doubt_below(&below);
            }
        }
    }

    /// A name on the way to watched folders is another folder's now, or nobody's: they are watched anew where they are found.
    /// Whether there are any.
    fn leads_elsewhere(&mut self, below: &[u8], inotify: &OwnedFd) -> bool {
        let from_here = self.folders.range::<[u8], _>((Included(below), Unbounded));
        let gone: Vec<_> = from_here
            .take_while(|folder| folder.starts_with(below))
            .cloned()
            .collect();
        for folder in &gone {
            self.folders.remove(folder);
        }
        if !gone.is_empty() {
            self.names.retain(|watch, names| {
                names.retain(|name| !name.starts_with(below));
                if names.is_empty() {
                    // It may have ended by itself, with its folder.
                    let _ = remove_watch(inotify, *watch);
                }
                !names.is_empty()
            });
        }
        !gone.is_empty()
    }

    /// The kernel has ended a watch: its folder is gone.
    fn ended(&mut self, watch: i32) {
        for folder in self.names.remove(&watch).unwrap_or_default() {
            self.folders.remove(&folder);
        }
    }

    fn forget(&mut self, inotify: &OwnedFd) {
        for watch in self.names.keys() {
            // It may have ended by itself, with its folder.
            let _ = remove_watch(inotify, *watch);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::Path,
        time::{Duration, Instant},
    };

    use config::site::Symlinks;

    use super::*;
    use crate::files::cache::{Entry, Weight};

    /// A folder, its cache, and what is watched of it.
    struct Scene {
        folder: tempfile::TempDir,
        root: Root,
        cache: Arc<Cache<()>>,
        watches: Arc<Watches>,
    }

    impl Scene {
        fn new(most: usize) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            for name in ["a/b", "c"] {
                fs::create_dir_all(folder.path().join(name)).expect("made");
            }
            for name in ["top", "a/one", "a/two", "a/b/three", "c/one"] {
                fs::write(folder.path().join(name), name).expect("written");
            }
            symlink("a", folder.path().join("link")).expect("linked");
            let cache = Arc::new(Cache::new(1 << 20));
            Self {
                root: Root::open(folder.path(), Symlinks::Inside).expect("opened"),
                watches: Watches::start(most, &cache).expect("the kernel has inotify"),
                folder,
                cache,
            }
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        /// Remembers a file, and waits until its folder is watched.
        fn remember(&self, path: &str) -> Arc<Entry<()>> {
            let key = Key {
                folder: 1,
                path: path.as_bytes(),
            };
            let entry = Arc::new(Entry::new(()));
            let weight = Weight { bytes: 1, files: 0 };
            self.cache.put(key, Arc::clone(&entry), weight);
            self.watches.wish(&self.root, key);
            let folder = key.with_bytes(|file| folders(file).next_back().map(<[u8]>::to_vec));
            let folder = folder.expect("the root at least");
            until(|| self.watches.known().folders.contains(&folder[..]));
            entry
        }
    }

    /// Waits for what the listener does. Nothing but a watch ever doubts here, so a second that passes proves nothing.
    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "it does not come to be so");
            thread::yield_now();
        }
    }

    #[test]
    fn what_changes_is_doubted_and_its_neighbours_are_not() {
        let scene = Scene::new(100);
        let path = scene.path();
        let (one, two) = (scene.remember("a/one"), scene.remember("a/two"));
        let (index, linked) = (scene.remember("a/"), scene.remember("link/one"));
        fs::write(path.join("a/one"), "new").expect("written");
        until(|| one.is_doubted() && index.is_doubted() && linked.is_doubted());
        assert!(!two.is_doubted());
        fs::write(path.join("a/two.gz"), "in a coding").expect("written");
        until(|| two.is_doubted());
        let two = scene.remember("a/two");
        fs::rename(path.join("c/one"), path.join("a/two")).expect("renamed");
        until(|| two.is_doubted());
        let two = scene.remember("a/two");
        fs::remove_file(path.join("a/two")).expect("removed");
        until(|| two.is_doubted());
    }

    #[test]
    fn a_link_that_leads_elsewhere_takes_all_below_it_along() {
        let scene = Scene::new(100);
        let path = scene.path();
        let (linked, deep) = (scene.remember("link/one"), scene.remember("link/b/three"));
        let (other, top) = (scene.remember("a/one"), scene.remember("top"));
        symlink("c", path.join("next")).expect("linked");
        fs::rename(path.join("next"), path.join("link")).expect("renamed");
        until(|| linked.is_doubted() && deep.is_doubted());
        assert!(!other.is_doubted() && !top.is_doubted());
        // It is watched where it is now.
        let linked = scene.remember("link/one");
        fs::write(path.join("c/one"), "new").expect("written");
        until(|| linked.is_doubted());
        assert!(!other.is_doubted());
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let scene = Scene::new(2);
        scene.remember("a/one");
        assert_eq!(scene.watches.known().folders.len(), 2);
        let one = scene.remember("c/one");
        assert!(scene.watches.known().folders.len() <= 2);
        fs::write(scene.path().join("c/one"), "new").expect("written");
        until(|| one.is_doubted());
        // Deeper than there may be watches: the nearest are the ones.
        let three = scene.remember("a/b/three");
        assert!(scene.watches.known().folders.len() <= 2);
        fs::write(scene.path().join("a/b/three"), "new").expect("written");
        until(|| three.is_doubted());
    }

    #[test]
    fn a_folder_that_is_gone_is_no_longer_known() {
        let scene = Scene::new(100);
        let three = scene.remember("a/b/three");
        fs::remove_dir_all(scene.path().join("a")).expect("removed");
        until(|| three.is_doubted());
        // The root alone.
        until(|| scene.watches.known().folders.len() == 1);
    }
}
