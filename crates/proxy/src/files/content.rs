//! A file, or parts of one, on its way to a client.
//!
//! It goes on from the inode that was opened, whatever happens to the name. No reactor thread waits for a disk: what the page
//! cache has is read or sent at once, and only what it lacks is fetched first, on a thread that may block.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    ops::Range,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr};

use super::{blocking, source::Source};

/// How much of a file is read at once, where it must be read: what TLS takes at once, so that a slow reader never holds a rest.
const PIECE: usize = 64 * 1024;

/// How far apart the page cache is asked: what Linux reads ahead at once, unless it is told otherwise.
const AHEAD: usize = 128 * 1024;

/// What of a file is sent, and what stands between its parts.
#[derive(Debug)]
pub(crate) struct FileContent {
    source: Arc<Source>,
    length: u64,
    segments: VecDeque<Segment>,
}

/// A part of the content.
#[derive(Clone, Debug)]
pub(crate) enum Segment {
    /// Text of ours, as between the parts of `multipart/byteranges`.
    Text(Bytes),
    /// This range of the file.
    File(Range<u64>),
}

impl Segment {
    /// The same of a file that begins later.
    pub(super) fn shifted(self, offset: u64) -> Self {
        match self {
            Self::Text(text) => Self::Text(text),
            Self::File(range) => Self::File(range.start + offset..range.end + offset),
        }
    }

    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

impl FileContent {
    /// These segments, one after the other.
    pub(super) fn new(source: Arc<Source>, segments: impl IntoIterator<Item = Segment>) -> Self {
        let segments: VecDeque<Segment> = segments.into_iter().collect();
        Self {
            source,
            length: segments.iter().map(Segment::length).sum(),
            segments,
        }
    }

    /// How many bytes are promised.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The next segment, for who can send a file without reading it ([`Self::fetch`] first).
    pub(crate) fn segment(&mut self) -> Option<Segment> {
        self.segments.pop_front()
    }

    /// The file that the segments are of.
    pub(crate) fn file(&self) -> &File {
        &self.source.file
    }

    /// Makes sure that the page cache has a range, so that sending it does not wait for a disk. One byte of each piece that is
    /// read ahead is asked for; what is evicted between them, or meanwhile, is a wait that no call can rule out.
    pub(crate) async fn fetch(&self, range: Range<u64>) -> io::Result<()> {
        if self.source.was_warm(&range) {
            return Ok(());
        }
        let last = range.end.saturating_sub(1);
        let mut places = range.clone().step_by(AHEAD).chain([last]);
        if places.all(|place| is_cached(self.file(), place)) {
            self.source.is_warm(&range);
            return Ok(());
        }
        let source = Arc::clone(&self.source);
        blocking(move || {
            let mut piece = vec![0; AHEAD];
            let mut at = range.start;
            while at < range.end {
                let size = usize::try_from(range.end - at).unwrap_or(AHEAD).min(AHEAD);
                match source.file.read_at(&mut piece[..size], at)? {
                    0 => return Ok(()),
                    read => at += read as u64,
                }
            }
            Ok(())
        })
        .await
    }

    /// The next piece, read; `None` at the end. A file that was truncated meanwhile is an error, since the promised length can
    /// no longer be kept.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let range = match self.segments.pop_front() {
            None => return Ok(None),
            Some(Segment::Text(text)) => return Ok(Some(text)),
            Some(Segment::File(range)) => range,
        };
        let size = usize::try_from(range.end - range.start)
            .unwrap_or(PIECE)
            .min(PIECE);
        let piece = piece(&self.source, range.start, size).await?;
        let next = range.start + piece.len() as u64;
        if next < range.end {
            self.segments.push_front(Segment::File(next..range.end));
        }
        Ok(Some(piece))
    }
}

/// Some of what a file has at a place, `size` at most; an error at its end.
pub(crate) async fn piece(
    file: &Arc<impl AsFd + Send + Sync + 'static>,
    at: u64,
    size: usize,
) -> io::Result<Bytes> {
    match read_cached(&**file, at, size)? {
        Some(piece) => Ok(piece),
        None => {
            let file = Arc::clone(file);
            blocking(move || read(&*file, at, size)).await
        }
    }
}

/// Whether the page cache has the byte; asked of the kernel, which does not wait for the disk.
fn is_cached(file: &File, at: u64) -> bool {
    let mut byte = [0];
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    !matches!(
        preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT),
        Err(Errno::AGAIN)
    )
}

/// What the page cache has of the piece; `None` if nothing, or if the file system cannot tell.
fn read_cached(file: &impl AsFd, at: u64, size: usize) -> io::Result<Option<Bytes>> {
    let mut piece = BytesMut::zeroed(size);
    let mut slices = [io::IoSliceMut::new(&mut piece)];
    match preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(truncated()),
        Ok(read) => {
            piece.truncate(read);
            Ok(Some(piece.freeze()))
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(file: &impl AsFd, at: u64, size: usize) -> io::Result<Bytes> {
    let mut piece = BytesMut::zeroed(size);
    match retry_on_intr(|| pread(file, &mut piece[..], at))? {
        0 => Err(truncated()),
        read => {
            piece.truncate(read);
            Ok(piece.freeze())
        }
    }
}

/// The file ends before what was promised.
pub(crate) fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file became shorter while it was sent",
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use rustix::fs::{Advice, fadvise};

    use super::*;

    const LENGTH: usize = 4 * PIECE;

    /// A file that is on the disk, and not in memory where the file system can have it so.
    fn cold() -> Arc<File> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&[b'x'; LENGTH]).expect("written");
        // Only what is written back can be let go of.
        file.sync_all().expect("written back");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
        Arc::new(file)
    }

    /// Whether there is such a thing here; not on tmpfs. A question begins to read ahead, so who was asked is no longer cold.
    fn is_there_cold() -> bool {
        let there = !is_cached(&cold(), 0);
        if !there {
            eprintln!("!!! NOT TESTED: this file system keeps files in memory");
        }
        there
    }

    /// Runs the work; how many threads it took beside this one, which is the reactor's.
    fn threads_for(work: impl Future<Output = ()>) -> usize {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&started);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.on_thread_start(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        builder.build().expect("a runtime").block_on(work);
        started.load(Ordering::SeqCst)
    }

    /// A disk that is faster than this thread may have the piece there by the time that it is looked for: one of several tries
    /// must see what it is about.
    const TRIES: usize = 50;

    #[test]
    fn what_the_page_cache_lacks_is_fetched_on_a_thread_that_may_wait() {
        if !is_there_cold() {
            return;
        }
        let fetched = || {
            let file = cold();
            let threads = threads_for(async {
                let all = 0..LENGTH as u64;
                let source = Source::new(file.try_clone().expect("a descriptor"), all.end);
                let content = FileContent::new(source.into(), [Segment::File(all.clone())]);
                content.fetch(all).await.expect("fetched");
            });
            let mut places = (0..LENGTH as u64).step_by(4096);
            assert!(
                threads == 0 || places.all(|place| is_cached(&file, place)),
                "all of it"
            );
            threads == 1
        };
        assert!((0..TRIES).any(|_| fetched()));
        let read = || {
            let file = cold();
            let threads = threads_for(async {
                let piece = piece(&file, 0, PIECE).await.expect("readable");
                assert!(!piece.is_empty() && piece.iter().all(|byte| *byte == b'x'));
            });
            threads == 1
        };
        assert!((0..TRIES).any(|_| read()));
    }

    #[test]
    fn what_it_has_takes_no_other_thread() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&[b'x'; LENGTH]).expect("written");
        let threads = threads_for(async {
            let all = 0..LENGTH as u64;
            let source = Source::new(file, all.end);
            let mut content = FileContent::new(source.into(), [Segment::File(all.clone())]);
            content.fetch(all).await.expect("fetched");
            let mut read = 0;
            while let Some(piece) = content.next().await.expect("readable") {
                read += piece.len();
            }
            assert_eq!(read, LENGTH);
        });
        assert_eq!(threads, 0);
    }
}
