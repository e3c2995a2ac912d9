//! A scoreboard: what each slot of a worker is doing, in memory that the worker writes and the master reads.
//!
//! It is a memfd whose size is sealed, so that no writer can pull it away from under a reader. Each slot has a place of its
//! own and is its only writer; a sequence lock lets a reader tell a whole entry from one that is being written, and a reader
//! tries a bounded number of times. Nobody waits for anybody, and writing costs neither a lock nor a system call. It outlives
//! the process that wrote it: that is how it is known what a worker died of.
//!
//! What a worker wrote is input, not truth: lengths are cut to what there is, and text is bytes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    mm::{MapFlags, ProtFlags},
    time::ClockId,
};

/// A slot's entry in words of eight bytes: 512 bytes.
const WORDS: usize = 64;

// What is where, in words.
const SEQUENCE: usize = 0;
const STATE: usize = 1;
const STARTED: usize = 2;
const COUNT: usize = 3;
const THREAD: usize = 4;
const LENGTHS: usize = 5;
const METHOD: usize = 6;
const ID: usize = 8;
const TARGET: usize = 12;

/// Most bytes of a method, an id and a target that are kept.
const METHOD_MAX: usize = (ID - METHOD) * 8;
const ID_MAX: usize = (TARGET - ID) * 8;
const TARGET_MAX: usize = (WORDS - TARGET) * 8;

const IDLE: u64 = 0;
const BUSY: u64 = 1;

/// How often a reader tries. A writer is in an entry for some nanoseconds; one that died or was stopped there stays for ever.
const TRIES: usize = 64;

/// Memory for the scoreboard of so many slots.
///
/// # Errors
/// When memory or descriptors are short.
pub fn create(slots: u16) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("stack-scoreboard", flags)?;
    rustix::fs::ftruncate(&memory, size(slots) as u64)?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

fn size(slots: u16) -> usize {
    usize::from(slots.max(1)) * WORDS * 8
}

/// Now, in nanoseconds of the clock that entries use. Coarse (some milliseconds) and cheap: it is read for each request.
#[must_use]
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The mapped memory of a board.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    size: usize,
}

// SAFETY: the memory is shared between processes anyway; it is only ever accessed through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(memory: impl AsFd, slots: u16, access: ProtFlags) -> io::Result<Self> {
        let size = size(slots);
        let stat = rustix::fs::fstat(&memory)?;
        if u64::try_from(stat.st_size).unwrap_or(0) < size as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: a new mapping at an address that the kernel chooses, of a file that is long enough and, being sealed, stays
        // so; it is unmapped by `Drop` alone.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size,
                access,
                MapFlags::SHARED,
                memory,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, size })
    }

    fn entry(&self, slot: u16) -> &[AtomicU64; WORDS] {
        let offset = usize::from(slot) * WORDS;
        assert!((offset + WORDS) * 8 <= self.size, "a slot of this board");
        // SAFETY: inside the mapping by the line above, which lives as long as `self`; page-aligned, so aligned; all zeroes
        // or whatever anybody wrote are valid atomics.
        unsafe { &*self.start.as_ptr().add(offset).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; nothing borrowed from it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// The worker's end: gives each slot its pen.
///
/// # Errors
/// When the memory is not that of a board of so many slots.
pub fn pens(memory: impl AsFd, slots: u16) -> io::Result<Vec<Pen>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let mapping = Arc::new(Mapping::new(memory, slots, access)?);
    let pen = |slot| Pen {
        mapping: Arc::clone(&mapping),
        slot,
    };
    Ok((0..slots).map(pen).collect())
}

/// What one slot writes with. There must be one for each slot.
#[derive(Debug)]
pub struct Pen {
    mapping: Arc<Mapping>,
    slot: u16,
}

impl Pen {
    /// A request begins, in this thread (`threading.get_ident`).
    pub fn begin(&self, thread: u64, method: &[u8], target: &[u8], id: &[u8]) {
        let method = &method[..method.len().min(METHOD_MAX)];
        let target = &target[..target.len().min(TARGET_MAX)];
        let id = &id[..id.len().min(ID_MAX)];
        let lengths = method.len() as u64 | (id.len() as u64) << 16 | (target.len() as u64) << 32;
        self.write(|entry| {
            entry[STATE].store(BUSY, Ordering::Relaxed);
            entry[STARTED].store(now(), Ordering::Relaxed);
            entry[THREAD].store(thread, Ordering::Relaxed);
            entry[LENGTHS].store(lengths, Ordering::Relaxed);
            store(&entry[METHOD..], method);
            store(&entry[ID..], id);
            store(&entry[TARGET..], target);
        });
    }

    /// It has ended. Returns how many have, in this slot.
    pub fn end(&self) -> u64 {
        let count = self.mapping.entry(self.slot)[COUNT].load(Ordering::Relaxed) + 1;
        self.write(|entry| {
            entry[STATE].store(IDLE, Ordering::Relaxed);
            entry[COUNT].store(count, Ordering::Relaxed);
        });
        count
    }

    fn write(&self, change: impl FnOnce(&[AtomicU64; WORDS])) {
        let entry = self.mapping.entry(self.slot);
        let sequence = entry[SEQUENCE].load(Ordering::Relaxed);
        // Odd: being written. The fence keeps what follows from being seen before that.
        entry[SEQUENCE].store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change(entry);
        entry[SEQUENCE].store(sequence.wrapping_add(2), Ordering::Release);
    }
}

fn store(words: &[AtomicU64], text: &[u8]) {
    for (word, bytes) in words.iter().zip(text.chunks(8)) {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
    }
}

/// The master's end.
#[derive(Debug)]
pub struct Board {
    mapping: Mapping,
    slots: u16,
}

/// What a slot is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot's number, from 1.
    pub slot: u16,
    /// How many requests have ended in it.
    pub count: u64,
    /// Its thread (`threading.get_ident`); 0 before it runs.
    pub thread: u64,
    /// The request inside it.
    pub request: Option<Running>,
}

/// A request that is inside a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// `GET`.
    pub method: Vec<u8>,
    /// As the client sent it; long ones are cut.
    pub target: Vec<u8>,
    /// Its id in every log.
    pub id: Vec<u8>,
    /// For how long.
    pub since: Duration,
}

impl Board {
    /// Maps a board, to be read only.
    ///
    /// # Errors
    /// When the memory is not that of a board of so many slots.
    pub fn new(memory: impl AsFd, slots: u16) -> io::Result<Self> {
        let mapping = Mapping::new(memory, slots, ProtFlags::READ)?;
        Ok(Self { mapping, slots })
    }

    /// All entries; one that could not be read whole is missing.
    #[must_use]
    pub fn read(&self) -> Vec<Entry> {
        let now = now();
        (0..self.slots)
            .filter_map(|slot| self.entry(slot, now))
            .collect()
    }

    fn entry(&self, slot: u16, now: u64) -> Option<Entry> {
        let entry = self.mapping.entry(slot);
        for _ in 0..TRIES {
            let before = entry[SEQUENCE].load(Ordering::Acquire);
            let words: [u64; WORDS] = std::array::from_fn(|at| entry[at].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let after = entry[SEQUENCE].load(Ordering::Relaxed);
            if before == after && before.is_multiple_of(2) {
                return Some(understand(slot + 1, &words, now));
            }
            std::hint::spin_loop();
        }
        None
    }
}

fn understand(slot: u16, words: &[u64; WORDS], now: u64) -> Entry {
    let length = |shift: u32| ((words[LENGTHS] >> shift) % (1 << 16)) as usize;
    let text = |from: usize, length: usize, most: usize| {
        let bytes = words[from..].iter().flat_map(|word| word.to_le_bytes());
        bytes.take(length.min(most)).collect()
    };
    let running = || Running {
        method: text(METHOD, length(0), METHOD_MAX),
        id: text(ID, length(16), ID_MAX),
        target: text(TARGET, length(32), TARGET_MAX),
        since: Duration::from_nanos(now.saturating_sub(words[STARTED])),
    };
    Entry {
        slot,
        count: words[COUNT],
        thread: words[THREAD],
        request: (words[STATE] == BUSY).then(running),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread};

    use super::*;

    #[test]
    fn what_a_slot_writes_is_read() {
        let memory = create(2).unwrap();
        let board = Board::new(&memory, 2).unwrap();
        let pens = pens(&memory, 2).unwrap();
        pens[1].begin(4711, b"GET", b"/a?b", b"0123456789abcdef");
        let [idle, busy] = &board.read()[..] else {
            panic!("two slots")
        };
        assert_eq!((idle.slot, idle.count, &idle.request), (1, 0, &None));
        let running = busy.request.as_ref().unwrap();
        assert_eq!((busy.slot, busy.thread), (2, 4711));
        assert_eq!(running.method, b"GET");
        assert_eq!(running.target, b"/a?b");
        assert_eq!(running.id, b"0123456789abcdef");
        assert!(running.since < Duration::from_secs(60));
        assert_eq!(pens[1].end(), 1);
        assert_eq!(board.read()[1].request, None);
        assert_eq!(board.read()[1].count, 1);
    }

    #[test]
    fn long_text_is_cut_and_lies_about_lengths_are_harmless() {
        let memory = create(1).unwrap();
        let board = Board::new(&memory, 1).unwrap();
        let pens = pens(&memory, 1).unwrap();
        let long = vec![b'x'; 100_000];
        pens[0].begin(1, &long, &long, &long);
        pens[0].write(|entry| entry[LENGTHS].store(u64::MAX, Ordering::Relaxed));
        let running = board.read().remove(0).request.unwrap();
        assert_eq!(running.method.len(), METHOD_MAX);
        assert_eq!(running.id.len(), ID_MAX);
        assert_eq!(running.target.len(), TARGET_MAX);
    }

    #[test]
    fn its_size_is_for_ever_and_a_smaller_one_is_refused() {
        let memory = create(2).unwrap();
        assert!(rustix::fs::ftruncate(&memory, 0).is_err());
        assert!(Board::new(&memory, 3).is_err());
    }

    #[test]
    fn one_that_died_while_it_wrote_keeps_nobody_waiting() {
        let memory = create(1).unwrap();
        let board = Board::new(&memory, 1).unwrap();
        let pens = pens(&memory, 1).unwrap();
        pens[0].mapping.entry(0)[SEQUENCE].store(1, Ordering::Relaxed);
        assert_eq!(board.read(), []);
    }

    #[test]
    fn an_entry_is_whole_however_fast_it_changes() {
        let memory = create(1).unwrap();
        let board = Board::new(&memory, 1).unwrap();
        let pen = pens(&memory, 1).unwrap().remove(0);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for (pause, round) in (0..4096).cycle().zip((b'a'..=b'z').cycle()) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    pen.begin(1, &[round], &[round; 300], &[round; 16]);
                    // A writer that never pauses leaves a reader beside it no moment for a whole entry.
                    (0..pause).for_each(|_| std::hint::spin_loop());
                }
            });
            let mut seen = 0;
            while seen < 2000 {
                for entry in board.read() {
                    let Some(running) = entry.request else {
                        continue;
                    };
                    seen += 1;
                    let letter = running.method[0];
                    assert!(running.target.iter().all(|byte| *byte == letter));
                    assert_eq!(running.id, [letter; 16]);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
