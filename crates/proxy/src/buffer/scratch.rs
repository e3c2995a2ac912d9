//! Files that have no name: nobody else can open them, and none is left behind however we end.
//!
//! `O_TMPFILE` with `O_EXCL` makes an inode that no name leads to, nor ever can (open(2)). A file system without that gets a
//! file that is unlinked at once. The folder is opened once, so that what is made later needs no right but to write there.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, fstatfs, openat, unlinkat},
    io::Errno,
};

use super::{
    Store,
    budget::{Account, Share},
};
use crate::files::{self, blocking};

/// What is written and read at once: large enough that the hand-over to another thread does not matter.
pub(crate) const BLOCK: usize = 64 * 1024;

/// What is read at once where even a block is too much.
const SMALL_BLOCK: usize = 16 * 1024;

/// A folder for files without names.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// The one that was asked for.
    #[error("cannot make files in the folder {path} (server.spool): {source}")]
    Named {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of those that every machine should have.
    #[error(
        "there is no folder to keep large requests and responses in: neither /var/tmp nor /tmp can be written to; \
         name one as server.spool"
    )]
    None,
}

impl Folder {
    /// This one.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = Self::try_open(path);
        folder.map_err(|source| FolderError::Named {
            path: path.display().to_string(),
            source,
        })
    }

    /// One that is on a disk: a file in memory would save none. /var/tmp should be (Filesystem Hierarchy Standard §5.15),
    /// /tmp often is not.
    pub(super) fn find() -> Result<Self, FolderError> {
        let candidates = [PathBuf::from("/var/tmp"), std::env::temp_dir()];
        let mut in_memory = None;
        for path in candidates {
            match Self::try_open(&path) {
                Ok(folder) if !folder.is_memory() => return Ok(folder),
                Ok(folder) => in_memory = in_memory.or(Some((path, folder))),
                Err(error) => tracing::debug!("no files in {}: {error}", path.display()),
            }
        }
        let (path, folder) = in_memory.ok_or(FolderError::None)?;
        tracing::warn!(
            "large requests and responses are kept in {}, which is memory and not a disk; name a folder on a disk as \
             server.spool",
            path.display()
        );
        Ok(folder)
    }

    fn try_open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = Self(openat(CWD, path, flags, Mode::empty())?);
        folder.file()?;
        Ok(folder)
    }

    fn is_memory(&self) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        const RAMFS: u64 = 0x8584_58f6;
        fstatfs(&self.0).is_ok_and(|stat| matches!(u64::try_from(stat.f_type), Ok(TMPFS | RAMFS)))
    }

    fn file(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR;
        match openat(&self.0, ".", flags | OFlags::TMPFILE, mode) {
            // What kernels and file systems say that do not know it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            made => return Ok(made?.into()),
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".stack-{}-{number}", std::process::id());
        let file = openat(&self.0, name.as_str(), flags | OFlags::CREATE, mode)?;
        unlinkat(self.0.as_fd(), name.as_str(), AtFlags::empty())?;
        Ok(file.into())
    }
}

/// A file without a name, written at its end. Its bytes are within the budget.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: Reader,
    length: u64,
    share: Share,
}

/// Why bytes could not be put on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScratchError {
    /// All requests and responses together have as much there as they may.
    #[error("the budget of limits.buffers_disk is used up")]
    Budget,
    /// The disk is full, or worse.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Scratch {
    /// An empty one.
    pub(crate) async fn new(store: &Arc<Store>) -> io::Result<Self> {
        let share = store.budget.disk.share();
        let memory = Arc::clone(&store.budget.memory);
        let store = Arc::clone(store);
        let file = blocking(move || store.folder.file()).await?;
        let file = Reader {
            file: Arc::new(file),
            memory,
        };
        Ok(Self {
            file,
            length: 0,
            share,
        })
    }

    /// How much was written.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Begins again at the start, with the room that it has.
    pub(crate) fn rewind(&mut self) {
        self.length = 0;
    }

    /// Writes all of it at the end, or nothing that counts.
    pub(crate) async fn append(&mut self, bytes: Bytes) -> Result<(), ScratchError> {
        let end = self.length + bytes.len() as u64;
        let more = usize::try_from(end.saturating_sub(self.share.bytes())).unwrap_or(usize::MAX);
        if more > 0 && !self.share.grow(more) {
            return Err(ScratchError::Budget);
        }
        let (file, at) = (Arc::clone(&self.file.file), self.length);
        blocking(move || file.write_all_at(&bytes, at)).await?;
        self.length = end;
        Ok(())
    }

    /// To read from it.
    pub(crate) fn reader(&self) -> &Reader {
        &self.file
    }
}

/// Reads a file without a name.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    file: Arc<File>,
    /// What the blocks are within.
    memory: Arc<Account>,
}

impl Reader {
    /// Some of what lies in a range that was written: a block where there is memory for one, else less. Cancel-safe.
    pub(crate) async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let all = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut share = self.memory.share();
        if all > SMALL_BLOCK && share.grow(all.min(BLOCK)) {
            let block = files::piece(&self.file, range.start, all.min(BLOCK)).await?;
            return Ok(share.hold(block));
        }
        files::piece(&self.file, range.start, all.min(SMALL_BLOCK)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_is_read_within_the_budget() {
        let store = Store::for_tests(BLOCK as u64, 3 * BLOCK as u64);
        let mut scratch = Scratch::new(&store).await.expect("a file");
        let block = |byte: u8| Bytes::from(vec![byte; BLOCK]);
        for byte in 0..3 {
            scratch.append(block(byte)).await.expect("room");
        }
        let full = scratch.append(block(3)).await;
        assert!(matches!(full, Err(ScratchError::Budget)));
        let reader = scratch.reader().clone();
        let memory = &store.budget.memory;
        let end = scratch.length();
        let first = reader.read(0..end).await.expect("written");
        assert_eq!(first, block(0));
        let second = reader.read(BLOCK as u64..end).await.expect("written");
        assert_eq!(second.len(), SMALL_BLOCK, "the first has all the memory");
        drop(first);
        assert_eq!(memory.used(), 0);
        scratch.rewind();
        scratch.append(block(7)).await.expect("room again");
        drop(scratch);
        assert_eq!(store.budget.disk.used(), 0);
    }

    #[tokio::test]
    async fn nobody_else_finds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let budget = Arc::default();
        let store = Arc::new(Store::open(Some(folder.path()), budget).expect("usable"));
        store.budget.set(0, 100);
        let mut scratch = Scratch::new(&store).await.expect("a file");
        scratch
            .append(Bytes::from_static(b"secret"))
            .await
            .expect("room");
        let names = std::fs::read_dir(folder.path()).expect("ours").count();
        assert_eq!(names, 0);
        let metadata = scratch.file.file.metadata().expect("open");
        use std::os::unix::fs::MetadataExt;
        assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let error = Folder::open(Path::new("/proc")).expect_err("no place for files");
        assert!(
            error.to_string().contains("/proc (server.spool)"),
            "{error}"
        );
    }
}
