//! What was found lately, over all folders: descriptor, validators, prepared fields and, for a small file, its content.
//!
//! An entry is believed for [`FRESH`], then one request looks again while the others still get what is there; so a changed
//! file is served after a second at the latest, and a file that everybody wants costs one look a second. Where the kernel tells
//! of a change ([`super::watch`]), the entry is doubted at once. Bounded in entries,
//! in descriptors and in bytes (`limits.file_memory`): when the younger half is full it becomes the older one, and what nobody
//! asked for meanwhile is forgotten.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};
use telemetry::panics::lock;

/// How long an entry is believed without a look.
const FRESH: Duration = Duration::from_secs(1);

/// Most entries of each half.
const ENTRIES: usize = 10 * 1024;

/// Most descriptors of each half, at most this part of those that the process may have: connections need more.
const FILES: usize = 2 * 1024;
const FILES_PART: u64 = 16;

/// Parts with a lock of their own, so that threads seldom wait for each other.
const SHARDS: usize = 8;

/// What was found under a path.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// What it is.
    pub(super) found: T,
    checked: AtomicU64,
}

/// What an entry costs to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Memory, in bytes.
    pub(super) bytes: usize,
    /// Descriptors.
    pub(super) files: usize,
}

impl<T> Entry<T> {
    /// An entry that was looked at now.
    pub(super) fn new(found: T) -> Self {
        Self {
            found,
            checked: AtomicU64::new(now()),
        }
    }

    /// Believes it for another while, unless something has changed during the look.
    pub(super) fn confirm(&self) {
        let believe = |checked| (checked != DOUBTED).then(now);
        // Refused is right: the next request looks again.
        let _ = self
            .checked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, believe);
    }

    /// Believes it no longer.
    pub(super) fn doubt(&self) {
        self.checked.store(DOUBTED, Ordering::Relaxed);
    }

    /// Whether it is believed no longer.
    #[cfg(test)]
    pub(super) fn is_doubted(&self) -> bool {
        self.checked.load(Ordering::Relaxed) == DOUBTED
    }

    /// Whether it may be served without a look. Of those who come too late only the first is told no.
    fn is_fresh(&self) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        let now = now();
        let late = u128::from(now.saturating_sub(checked)) >= FRESH.as_millis();
        !late
            || self
                .checked
                .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
    }
}

/// A time that is always too long ago.
const DOUBTED: u64 = 0;

/// Milliseconds since the first look; [`DOUBTED`] is none of them.
fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = BEGAN.elapsed() + FRESH;
    since.as_secs() * 1000 + u64::from(since.subsec_millis())
}

/// What is known of a path.
#[derive(Debug)]
pub(super) enum Known<T> {
    /// Serve it.
    Fresh(Arc<Entry<T>>),
    /// Look whether it is still so.
    Stale(Arc<Entry<T>>),
    /// Nothing.
    Unknown,
}

/// Which folder, and which path in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    /// The folder's number.
    pub(super) folder: u32,
    /// Decoded, below the folder.
    pub(super) path: &'a [u8],
}

/// The entries of all folders.
#[derive(Debug)]
pub(super) struct Cache<T> {
    shards: [Mutex<Halves<T>>; SHARDS],
    most: Most,
}

/// The most that one half of a shard holds.
#[derive(Clone, Copy, Debug)]
struct Most {
    entries: usize,
    files: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Halves<T> {
    young: Half<T>,
    old: Half<T>,
}

#[derive(Debug)]
struct Half<T> {
    entries: HashMap<Box<[u8]>, Kept<T>, Hashing>,
    weight: Weight,
}

#[derive(Debug)]
struct Kept<T> {
    entry: Arc<Entry<T>>,
    weight: Weight,
}

type Hashing = BuildHasherDefault<Mix>;

/// Eight bytes at a time, and without a secret: only paths of files that are there are kept, so a visitor cannot choose keys
/// that collide.
#[derive(Debug, Default)]
struct Mix(u64);

impl Mix {
    fn add(&mut self, word: u64) {
        // The odd constant of FxHash; the product's upper half is folded into the lower, where a table looks.
        let (lower, upper) = (self.0 ^ word).carrying_mul(0xf135_7aea_2e62_a9c5, 0);
        self.0 = lower ^ upper;
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last) ^ (bytes.len() as u64).rotate_left(32));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<T> Default for Half<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
            weight: Weight::default(),
        }
    }
}

impl<T> Half<T> {
    fn is_full(&self, most: &Most) -> bool {
        self.entries.len() >= most.entries
            || self.weight.files >= most.files
            || self.weight.bytes >= most.bytes
    }

    fn insert(&mut self, key: Box<[u8]>, kept: Kept<T>) {
        self.add(kept.weight);
        if let Some(replaced) = self.entries.insert(key, kept) {
            self.take(replaced.weight);
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<(Box<[u8]>, Kept<T>)> {
        let removed = self.entries.remove_entry(key)?;
        self.take(removed.1.weight);
        Some(removed)
    }

    fn add(&mut self, weight: Weight) {
        self.weight.bytes += weight.bytes;
        self.weight.files += weight.files;
    }

    fn take(&mut self, weight: Weight) {
        self.weight.bytes -= weight.bytes;
        self.weight.files -= weight.files;
    }
}

impl<T> Halves<T> {
    fn put(&mut self, key: Box<[u8]>, kept: Kept<T>, most: &Most) {
        if self.young.is_full(most) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, kept);
    }
}

impl<T> Cache<T> {
    /// An empty one that keeps about so many bytes of content.
    pub(super) fn new(bytes: u64) -> Self {
        let parts = 2 * SHARDS;
        let files = getrlimit(Resource::Nofile)
            .current
            .and_then(|limit| usize::try_from(limit / FILES_PART).ok())
            .map_or(FILES, |part| part.min(FILES));
        Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(Halves {
                    young: Half::default(),
                    old: Half::default(),
                })
            }),
            most: Most {
                entries: ENTRIES / SHARDS,
                files: (files / SHARDS).max(1),
                bytes: usize::try_from(bytes).unwrap_or(usize::MAX) / parts,
            },
        }
    }

    /// What is known of the path.
    pub(super) fn get(&self, key: Key<'_>) -> Known<T> {
        let entry = key.with_bytes(|key| {
            let mut halves = self.shard(key);
            if let Some(kept) = halves.young.entries.get(key) {
                return Some(Arc::clone(&kept.entry));
            }
            let (key, kept) = halves.old.remove(key)?;
            let entry = Arc::clone(&kept.entry);
            halves.put(key, kept, &self.most);
            Some(entry)
        });
        match entry {
            None => Known::Unknown,
            Some(entry) if entry.is_fresh() => Known::Fresh(entry),
            Some(entry) => Known::Stale(entry),
        }
    }

    /// Remembers.
    pub(super) fn put(&self, key: Key<'_>, entry: Arc<Entry<T>>, weight: Weight) {
        key.with_bytes(|key| {
            let mut halves = self.shard(key);
            halves.old.remove(key);
            halves.put(key.into(), Kept { entry, weight }, &self.most);
        });
    }

    /// Forgets: it is gone.
    pub(super) fn forget(&self, key: Key<'_>) {
        key.with_bytes(|key| {
            let mut halves = self.shard(key);
            halves.young.remove(key);
            halves.old.remove(key);
        });
    }

    /// What is known of this key, as [`Key::with_bytes`] has it, is looked at before it is served again.
    pub(super) fn doubt(&self, key: &[u8]) {
        let halves = self.shard(key);
        for half in [&halves.young, &halves.old] {
            if let Some(kept) = half.entries.get(key) {
                kept.entry.doubt();
            }
        }
    }

    /// The same for all keys that begin so.
    pub(super) fn doubt_below(&self, start: &[u8]) {
        for shard in &self.shards {
            let halves = lock(shard);
            let all = halves.young.entries.iter().chain(&halves.old.entries);
            for (_, kept) in all.filter(|(key, _)| key.starts_with(start)) {
                kept.entry.doubt();
            }
        }
    }

    /// The entry has come to hold so many bytes more.
    pub(super) fn grown(&self, key: Key<'_>, entry: &Arc<Entry<T>>, bytes: usize) {
        key.with_bytes(|key| {
            let mut halves = self.shard(key);
            let Halves { young, old } = &mut *halves;
            for half in [young, old] {
                // Another entry may be there by now, or none; what this one holds then goes with its last user.
                if let Some(kept) = half.entries.get_mut(key)
                    && Arc::ptr_eq(&kept.entry, entry)
                {
                    kept.weight.bytes += bytes;
                    half.weight.bytes += bytes;
                }
            }
        });
    }

    /// Lets go of descriptors that nobody has asked for since the last time: an open file keeps its place on the disk, even
    /// when it has been deleted.
    pub(super) fn close_unused(&self) {
        for shard in &self.shards {
            let mut halves = lock(shard);
            let Halves { young, old } = &mut *halves;
            old.drop_files();
            let open: Vec<Box<[u8]>> = young
                .entries
                .iter()
                .filter(|(_, kept)| kept.weight.files > 0)
                .map(|(key, _)| key.clone())
                .collect();
            for key in open {
                if let Some((key, kept)) = young.remove(&key) {
                    old.insert(key, kept);
                }
            }
        }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Halves<T>> {
        // The table takes the lower bits.
        let index = (Hashing::default().hash_one(key) >> 48) as usize % SHARDS;
        lock(&self.shards[index])
    }
}

impl<T> Half<T> {
    fn drop_files(&mut self) {
        let weight = &mut self.weight;
        self.entries.retain(|_, kept| {
            let keeps = kept.weight.files == 0;
            if !keeps {
                weight.bytes -= kept.weight.bytes;
                weight.files -= kept.weight.files;
            }
            keeps
        });
    }
}

impl Key<'_> {
    /// How many bytes of it are the folder's number.
    pub(super) const NUMBER: usize = size_of::<u32>();

    /// The key as the table has it: the folder's number, and the path.
    pub(super) fn with_bytes<R>(self, work: impl FnOnce(&[u8]) -> R) -> R {
        const ON_STACK: usize = 256;
        let number = self.folder.to_ne_bytes();
        let length = number.len() + self.path.len();
        let mut space = [0; ON_STACK];
        if let Some(key) = space.get_mut(..length) {
            key[..number.len()].copy_from_slice(&number);
            key[number.len()..].copy_from_slice(self.path);
            return work(key);
        }
        work(&[&number[..], self.path].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = Cache<()>;

    fn key(path: &[u8]) -> Key<'_> {
        Key { folder: 7, path }
    }

    fn put(cache: &Test, path: &[u8], bytes: usize, files: usize) -> Arc<Entry<()>> {
        let entry = Arc::new(Entry::new(()));
        cache.put(key(path), Arc::clone(&entry), Weight { bytes, files });
        entry
    }

    fn weight(cache: &Test) -> (usize, Weight) {
        let mut sum = (0, Weight::default());
        for shard in &cache.shards {
            let halves = lock(shard);
            for half in [&halves.young, &halves.old] {
                sum.0 += half.entries.len();
                sum.1.bytes += half.weight.bytes;
                sum.1.files += half.weight.files;
            }
        }
        sum
    }

    #[test]
    fn it_is_bounded_in_entries_descriptors_and_bytes() {
        let cache = Test::new(32 << 20);
        for number in 0..100_000_u32 {
            put(&cache, &number.to_be_bytes(), 10, 0);
        }
        assert!(weight(&cache).0 <= 2 * ENTRIES);
        for number in 0..2_000_u32 {
            put(&cache, &number.to_be_bytes(), 64 * 1024, 0);
        }
        assert!(weight(&cache).1.bytes <= (32 << 20) + 2 * SHARDS * 64 * 1024);
        for number in 0..20_000_u32 {
            put(&cache, &number.to_be_bytes(), 0, 1);
        }
        assert!(weight(&cache).1.files <= 2 * FILES);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let cache = Test::new(1 << 20);
        put(&cache, b"wanted", 1, 0);
        for number in 0..5 * u32::try_from(ENTRIES).expect("small") {
            put(&cache, &number.to_be_bytes(), 1, 0);
            assert!(!matches!(cache.get(key(b"wanted")), Known::Unknown));
        }
        let other = Key {
            folder: 8,
            path: b"wanted",
        };
        assert!(matches!(cache.get(other), Known::Unknown));
        cache.forget(key(b"wanted"));
        assert!(matches!(cache.get(key(b"wanted")), Known::Unknown));
    }

    #[test]
    fn one_of_many_looks_again() {
        let cache = Test::new(1 << 20);
        let long = vec![b'a'; 1000];
        let late = put(&cache, &long, 1, 0);
        assert!(matches!(cache.get(key(&long)), Known::Fresh(_)));
        late.doubt();
        assert!(matches!(cache.get(key(&long)), Known::Stale(_)));
        assert!(matches!(cache.get(key(&long)), Known::Fresh(_)));
    }

    #[test]
    fn weights_are_given_back() {
        let cache = Test::new(1 << 20);
        let mut last = None;
        for _ in 0..3 {
            last = Some(put(&cache, b"a", 100, 1));
        }
        let last = last.expect("put");
        cache.grown(key(b"a"), &last, 50);
        cache.grown(key(b"a"), &Arc::new(Entry::new(())), 1000);
        let sum = Weight {
            bytes: 150,
            files: 1,
        };
        assert_eq!(weight(&cache), (1, sum));
        cache.forget(key(b"a"));
        assert_eq!(weight(&cache), (0, Weight::default()));
    }

    #[test]
    fn descriptors_that_nobody_uses_are_closed_at_the_second_look() {
        let cache = Test::new(1 << 20);
        put(&cache, b"open", 10, 1);
        put(&cache, b"used", 10, 1);
        put(&cache, b"small", 10, 0);
        cache.close_unused();
        assert!(!matches!(cache.get(key(b"used")), Known::Unknown));
        cache.close_unused();
        assert!(matches!(cache.get(key(b"open")), Known::Unknown));
        assert!(!matches!(cache.get(key(b"used")), Known::Unknown));
        assert!(!matches!(cache.get(key(b"small")), Known::Unknown));
        assert_eq!(weight(&cache).1.files, 1);
    }
}
