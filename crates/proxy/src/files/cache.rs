//! What was found lately: descriptor, validators, prepared fields and, for a small file, its content.
//!
//! An entry is believed for [`FRESH`], then one request looks again while the others still get what is there; so a changed
//! file is served after a second at the latest, and a file that everybody wants costs one look a second. Bounded in entries
//! and in bytes: when the younger half is full it becomes the older one, and what nobody asked for meanwhile is forgotten.

use std::{
    collections::HashMap,
    fs::File,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use crate::response::FieldLines;

/// How long an entry is believed without a look.
const FRESH: Duration = Duration::from_secs(1);

/// Most entries of each half. An entry of a larger file holds a descriptor.
const ENTRIES: usize = 8 * 1024;
/// Most descriptors of each half; the process may have tens of thousands, which connections need more.
const FILES: usize = 512;
/// Most bytes of content of each half.
const BYTES: usize = 16 * 1024 * 1024;

/// A file that can be served.
#[derive(Debug)]
pub(super) struct Entry {
    /// What it holds.
    pub(super) content: Held,
    /// Its length in bytes.
    pub(super) length: u64,
    /// Its entity tag, with quotes.
    pub(super) etag: Box<str>,
    /// When it was last changed.
    pub(super) modified: Option<SystemTime>,
    /// Its media type.
    pub(super) content_type: Box<str>,
    /// The fields of a whole response.
    pub(super) fields: FieldLines,
    /// Which file this is: another inode, length or time is another content.
    pub(super) identity: Identity,
    checked: AtomicU64,
}

/// A file's content, or the way to it.
#[derive(Debug)]
pub(super) enum Held {
    /// All of it.
    Small(Bytes),
    /// Open.
    Open(Arc<File>),
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) length: u64,
    pub(super) modified: Option<SystemTime>,
}

impl Entry {
    /// An entry that was looked at now.
    pub(super) fn new(
        content: Held,
        identity: Identity,
        etag: String,
        content_type: String,
        fields: FieldLines,
    ) -> Self {
        Self {
            content,
            length: identity.length,
            modified: identity.modified,
            etag: etag.into(),
            content_type: content_type.into(),
            fields,
            identity,
            checked: AtomicU64::new(now()),
        }
    }

    /// Believes it for another while.
    pub(super) fn confirm(&self) {
        self.checked.store(now(), Ordering::Relaxed);
    }

    /// Whether it may be served without a look. Of those who come too late only the first is told no.
    fn is_fresh(&self) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        let now = now();
        let late = now.saturating_sub(checked) >= FRESH.as_millis() as u64;
        !late
            || self
                .checked
                .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
    }
}

/// Milliseconds on a clock of our own, which begins late enough that 0 is stale.
fn now() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from((BEGUN.elapsed() + FRESH).as_millis()).unwrap_or(u64::MAX)
}

/// What is known of a path.
#[derive(Debug)]
pub(super) enum Known {
    /// Serve it.
    Fresh(Arc<Entry>),
    /// Look whether it is still so.
    Stale(Arc<Entry>),
    /// Nothing.
    Unknown,
}

/// The entries of one root, by path.
#[derive(Debug, Default)]
pub(super) struct Cache {
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    young: Half,
    old: Half,
}

#[derive(Debug, Default)]
struct Half {
    entries: HashMap<Box<[u8]>, Arc<Entry>>,
    files: usize,
    bytes: usize,
}

impl Half {
    fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES || self.files >= FILES || self.bytes >= BYTES
    }

    fn insert(&mut self, path: Box<[u8]>, entry: Arc<Entry>) {
        self.weigh(&entry, usize::checked_add);
        if let Some(replaced) = self.entries.insert(path, entry) {
            self.weigh(&replaced, usize::checked_sub);
        }
    }

    fn remove(&mut self, path: &[u8]) -> Option<(Box<[u8]>, Arc<Entry>)> {
        let removed = self.entries.remove_entry(path)?;
        self.weigh(&removed.1, usize::checked_sub);
        Some(removed)
    }

    fn weigh(&mut self, entry: &Entry, count: impl Fn(usize, usize) -> Option<usize>) {
        let (sum, weight) = match &entry.content {
            Held::Small(content) => (&mut self.bytes, content.len()),
            Held::Open(_) => (&mut self.files, 1),
        };
        *sum = count(*sum, weight).expect("what is taken out was put in, and both are bounded");
    }
}

impl Cache {
    /// What is known of the path.
    pub(super) fn get(&self, path: &[u8]) -> Known {
        let mut halves = self.lock();
        let entry = match halves.young.entries.get(path) {
            Some(entry) => Arc::clone(entry),
            None => match halves.old.remove(path) {
                None => return Known::Unknown,
                Some((path, entry)) => {
                    halves.put(path, Arc::clone(&entry));
                    entry
                }
            },
        };
        drop(halves);
        if entry.is_fresh() {
            Known::Fresh(entry)
        } else {
            Known::Stale(entry)
        }
    }

    /// Remembers.
    pub(super) fn put(&self, path: &[u8], entry: Arc<Entry>) {
        let mut halves = self.lock();
        halves.old.remove(path);
        halves.put(path.into(), entry);
    }

    /// Forgets: the file is gone.
    pub(super) fn forget(&self, path: &[u8]) {
        let mut halves = self.lock();
        halves.young.remove(path);
        halves.old.remove(path);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Halves> {
        self.halves.lock().expect("no holder of this lock panics")
    }
}

impl Halves {
    fn put(&mut self, path: Box<[u8]>, entry: Arc<Entry>) {
        if self.young.is_full() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(path, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: usize) -> Arc<Entry> {
        let identity = Identity {
            inode: 1,
            length: size as u64,
            modified: None,
        };
        let content = Held::Small(vec![0; size].into());
        Arc::new(Entry::new(
            content,
            identity,
            "\"x\"".into(),
            "text/plain".into(),
            FieldLines::default(),
        ))
    }

    fn weight(cache: &Cache) -> (usize, usize) {
        let halves = cache.lock();
        let sum = |of: fn(&Half) -> usize| of(&halves.young) + of(&halves.old);
        (sum(|half| half.entries.len()), sum(|half| half.bytes))
    }

    #[test]
    fn it_is_bounded_in_entries_and_bytes() {
        let cache = Cache::default();
        for number in 0..100_000_u32 {
            cache.put(&number.to_be_bytes(), entry(10));
        }
        assert!(weight(&cache).0 <= 2 * ENTRIES);
        for number in 0..2_000_u32 {
            cache.put(&number.to_be_bytes(), entry(64 * 1024));
        }
        assert!(weight(&cache).1 <= 2 * (BYTES + 64 * 1024));
    }

    #[test]
    fn what_is_asked_for_stays() {
        let cache = Cache::default();
        cache.put(b"wanted", entry(1));
        for number in 0..5 * u32::try_from(ENTRIES).expect("small") {
            cache.put(&number.to_be_bytes(), entry(1));
            assert!(!matches!(cache.get(b"wanted"), Known::Unknown));
        }
        cache.forget(b"wanted");
        assert!(matches!(cache.get(b"wanted"), Known::Unknown));
    }

    #[test]
    fn one_of_many_looks_again() {
        let cache = Cache::default();
        let late = entry(1);
        cache.put(b"a", Arc::clone(&late));
        assert!(matches!(cache.get(b"a"), Known::Fresh(_)));
        late.checked.store(0, Ordering::Relaxed);
        assert!(matches!(cache.get(b"a"), Known::Stale(_)));
        assert!(matches!(cache.get(b"a"), Known::Fresh(_)));
    }

    #[test]
    fn weights_are_given_back() {
        let cache = Cache::default();
        for _ in 0..3 {
            cache.put(b"a", entry(100));
        }
        assert_eq!(weight(&cache), (1, 100));
        cache.forget(b"a");
        assert_eq!(weight(&cache), (0, 0));
    }
}
