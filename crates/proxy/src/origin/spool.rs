//! Request content is read whole before a slot is asked for: in memory first, then in a file that has no name.
//!
//! The time a client takes is ours, never a worker's. It must not stop for longer than `limits.body_timeout`, nor, once that
//! long has passed, come slower than `limits.body_rate`. There is no deadline for the whole: a large upload over a slow line
//! is honest work (Caddy's absolute deadline broke such uploads).

use std::{fs::File, io, path::PathBuf, sync::OnceLock, time::Duration};

use bytes::{Bytes, BytesMut};
use config::site::Limits;
use message::framing::Body;
use tokio::{
    io::{AsyncSeekExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use crate::{failure::Failure, request::Upload};

/// How content is read.
#[derive(Clone, Debug)]
pub(crate) struct Spooling {
    limit: u64,
    memory: usize,
    silence: Duration,
    rate: u64,
}

/// The whole content of a request.
#[derive(Debug)]
pub(crate) enum Spooled {
    /// There was none.
    None,
    /// It fitted into memory.
    Memory(Bytes),
    /// It went into an unlinked file; the position is at its start.
    File {
        /// The file.
        file: tokio::fs::File,
        /// Its length.
        length: u64,
    },
}

impl Spooling {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limit: limits.body,
            memory: usize::try_from(limits.body_memory).unwrap_or(usize::MAX),
            silence: limits.body_timeout,
            rate: limits.body_rate,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            limit: 100,
            memory: 10,
            silence: Duration::from_secs(30),
            rate: 2,
        }
    }
}

impl Spooled {
    /// How many bytes there are.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// Reads all of it.
pub(crate) async fn read(upload: &mut impl Upload, how: &Spooling) -> Result<Spooled, Failure> {
    let expected = match upload.framing() {
        Body::None => return Ok(Spooled::None),
        // Refused before the upload (RFC 9110 §10.1.1: a client that waits for 100 need not send it).
        Body::Length(length) if length > how.limit => {
            return Err(Failure::BodyTooLarge { limit: how.limit });
        }
        Body::Length(length) => Some(length),
        Body::Chunked | Body::UntilClose => None,
    };
    let pace = Pace::new(how);
    let mut memory = BytesMut::new();
    let mut file: Option<tokio::fs::File> = None;
    let mut length = 0;
    while let Some(piece) = pace.next(upload, length).await? {
        length += piece.len() as u64;
        if length > how.limit {
            return Err(Failure::BodyTooLarge { limit: how.limit });
        }
        if memory.is_empty() && expected == Some(piece.len() as u64) && length <= how.memory as u64
        {
            return Ok(Spooled::Memory(piece));
        }
        if file.is_none() && length <= how.memory as u64 {
            memory.extend_from_slice(&piece);
            continue;
        }
        let file = match &mut file {
            Some(file) => file,
            None => file.insert(begin_file(&memory).await.map_err(Failure::Spool)?),
        };
        file.write_all(&piece).await.map_err(Failure::Spool)?;
    }
    match file {
        None => Ok(Spooled::Memory(memory.freeze())),
        Some(mut file) => {
            // `tokio::fs` writes behind: only `flush` tells whether the disk took the last piece.
            file.flush().await.map_err(Failure::Spool)?;
            file.rewind().await.map_err(Failure::Spool)?;
            Ok(Spooled::File { file, length })
        }
    }
}

async fn begin_file(memory: &[u8]) -> io::Result<tokio::fs::File> {
    let file = tokio::task::spawn_blocking(unnamed_file)
        .await
        .map_err(io::Error::other)??;
    let mut file = tokio::fs::File::from_std(file);
    file.write_all(memory).await?;
    Ok(file)
}

/// A file that never has a name (`O_TMPFILE`), so that none is left behind however we end.
fn unnamed_file() -> io::Result<File> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        // /tmp may be memory; /var/tmp is a disk (Filesystem Hierarchy Standard §5.15).
        let disk = PathBuf::from("/var/tmp");
        if tempfile::tempfile_in(&disk).is_ok() {
            disk
        } else {
            std::env::temp_dir()
        }
    });
    tempfile::tempfile_in(folder)
}

/// How fast the content comes.
struct Pace<'how> {
    how: &'how Spooling,
    begun: Instant,
}

impl<'how> Pace<'how> {
    fn new(how: &'how Spooling) -> Self {
        Self {
            how,
            begun: Instant::now(),
        }
    }

    async fn next(&self, upload: &mut impl Upload, so_far: u64) -> Result<Option<Bytes>, Failure> {
        let deadline = self.deadline(so_far, Instant::now());
        timeout_at(deadline, upload.next())
            .await
            .unwrap_or(Err(Failure::BodyTimeout))
    }

    /// When silence is too long, or the average too slow, whichever comes first.
    fn deadline(&self, so_far: u64, now: Instant) -> Instant {
        let silence = now + self.how.silence;
        let Some(seconds) = so_far.checked_div(self.how.rate) else {
            return silence;
        };
        let slow = self.begun + self.how.silence + Duration::from_secs(seconds);
        silence.min(slow)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::pending};

    use super::*;

    struct Pieces {
        framing: Body,
        pieces: VecDeque<(Duration, &'static [u8])>,
        stalls: bool,
    }

    impl Upload for Pieces {
        fn framing(&self) -> Body {
            self.framing
        }

        async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
            match self.pieces.pop_front() {
                Some((after, piece)) => {
                    tokio::time::sleep(after).await;
                    Ok(Some(Bytes::from_static(piece)))
                }
                None if self.stalls => pending().await,
                None => Ok(None),
            }
        }

        async fn left(&mut self) {
            pending().await
        }
    }

    fn pieces(framing: Body, every: u64, count: usize, piece: &'static [u8]) -> Pieces {
        let pieces = (0..count)
            .map(|_| (Duration::from_secs(every), piece))
            .collect();
        Pieces {
            framing,
            pieces,
            stalls: false,
        }
    }

    async fn outcome(mut upload: Pieces) -> String {
        match read(&mut upload, &Spooling::for_tests()).await {
            Ok(Spooled::None) => "none".to_owned(),
            Ok(Spooled::Memory(bytes)) => format!("memory {}", bytes.len()),
            Ok(Spooled::File { mut file, length }) => {
                use tokio::io::AsyncReadExt;
                let mut content = Vec::new();
                file.read_to_end(&mut content).await.expect("readable");
                assert_eq!(content.len() as u64, length);
                format!("file {length}")
            }
            Err(failure) => failure.cause().to_owned(),
        }
    }

    #[tokio::test]
    async fn small_content_stays_in_memory_and_large_goes_to_a_file() {
        for (upload, expected) in [
            (pieces(Body::None, 0, 0, b""), "none"),
            (pieces(Body::Length(5), 0, 1, b"12345"), "memory 5"),
            (pieces(Body::Length(10), 0, 2, b"12345"), "memory 10"),
            (pieces(Body::Length(15), 0, 3, b"12345"), "file 15"),
            (pieces(Body::Chunked, 0, 2, b"12345"), "memory 10"),
            (pieces(Body::Chunked, 0, 4, b"12345"), "file 20"),
            (pieces(Body::Chunked, 0, 21, b"12345"), "body-too-large"),
            (pieces(Body::Length(101), 0, 0, b""), "body-too-large"),
        ] {
            assert_eq!(outcome(upload).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_slowness_end_an_upload_but_length_of_time_does_not() {
        let mut silent = pieces(Body::Length(50), 1, 1, b"12345");
        silent.stalls = true;
        assert_eq!(outcome(silent).await, "body-timeout");
        // A byte every 20 s is never silent for 30 s, but slower than 2 B/s.
        assert_eq!(
            outcome(pieces(Body::Length(50), 20, 50, b"1")).await,
            "body-timeout"
        );
        // 5 bytes every 2 s are fast enough for ever.
        assert_eq!(
            outcome(pieces(Body::Length(95), 2, 19, b"12345")).await,
            "file 95"
        );
    }
}
