//! Request content is read whole before its origin is asked, unless the route says otherwise: in memory first, then in a file
//! that has no name, within what all requests and responses together may hold ([`crate::buffer`]).
//!
//! The time a client takes is ours, never a worker's. It must not stop for longer than `limits.body_timeout`, nor, once that
//! long has passed, come slower than `limits.body_rate`. There is no deadline for the whole: a large upload over a slow line
//! is honest work (Caddy's absolute deadline broke such uploads).

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use config::site::Limits;
use message::framing::Body;
use tokio::time::{Instant, sleep, timeout_at};

use super::interim::{Interims, attend};
use crate::{
    buffer::{
        Holding, Store,
        budget::Share,
        pipe::{self, Gone, pipe},
        scratch::{BLOCK, Scratch, ScratchError},
    },
    failure::Failure,
    request::{RequestId, Upload},
};

/// How content is read.
#[derive(Clone, Debug)]
pub(crate) struct Spooling {
    pub(super) store: Arc<Store>,
    pub(super) limit: u64,
    pub(super) memory: usize,
    silence: Duration,
    rate: u64,
    /// Whether it is read whole.
    whole: bool,
}

/// The content of a request.
#[derive(Debug)]
pub(crate) enum Spooled {
    /// There was none.
    None,
    /// It fitted into memory.
    Memory(Bytes),
    /// It went into a file.
    File(Scratch),
    /// It is still coming.
    Coming {
        /// All of it, where the client has said so.
        length: Option<u64>,
        /// What comes, and goes to the origin as it comes.
        rest: pipe::Reader,
    },
}

impl Spooling {
    /// As the table has it; `whole`, or as it comes.
    pub(crate) fn new(store: &Arc<Store>, limits: &Limits, whole: bool) -> Self {
        Self {
            store: Arc::clone(store),
            limit: limits.body,
            memory: usize::try_from(limits.body_memory).unwrap_or(usize::MAX),
            silence: limits.body_timeout,
            rate: limits.body_rate,
            whole,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            store: Store::for_tests(1000, 1000),
            limit: 100,
            memory: 10,
            silence: Duration::from_secs(30),
            rate: 2,
            whole: true,
        }
    }
}

impl Spooled {
    /// How many bytes there are.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.length(),
            Self::Coming { length, .. } => length.unwrap_or_default(),
        }
    }

    /// How many bytes that is, where there is any and the origin can be told.
    pub(crate) fn stated(&self) -> Option<u64> {
        match self {
            Self::None | Self::Coming { length: None, .. } => None,
            known => Some(known.length()),
        }
    }

    /// The same once more, where that costs nothing.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::None => Some(Self::None),
            Self::Memory(bytes) => Some(Self::Memory(bytes.clone())),
            Self::File(_) | Self::Coming { .. } => None,
        }
    }

    /// Whether it is not all here.
    pub(crate) fn is_coming(&self) -> bool {
        matches!(self, Self::Coming { .. })
    }
}

/// Reads content until the request can go to its origin: all of it, or, where it is not to be buffered, its beginning. A client that
/// never begins holds nobody up.
pub(crate) async fn receive<'how>(
    upload: &mut impl Upload,
    how: &'how Spooling,
    id: RequestId,
) -> Result<(Spooled, Option<Feed<'how>>), Failure> {
    let length = match upload.framing() {
        Body::Length(length) if !how.whole && (1..=how.limit).contains(&length) => length,
        _ => return Ok((read(upload, how).await?, None)),
    };
    let pace = Pace::new(how);
    let first = pace.next(upload, 0).await?.unwrap_or_default();
    let received = first.len() as u64;
    if received == length {
        return Ok((Spooled::Memory(first), None));
    }
    let holding = Holding {
        store: Arc::clone(&how.store),
        memory: how.memory,
        disk: 0,
    };
    let (mut writer, rest) = pipe(holding, id);
    // There is a reader, and an empty pipe takes any piece.
    let _ = writer.write(first, None).await;
    let feed = Feed {
        pace,
        writer,
        received: Arc::new(AtomicU64::new(received)),
        length,
    };
    let length = Some(length);
    Ok((Spooled::Coming { length, rest }, Some(feed)))
}

/// The rest of content that is still coming, on its way to the origin.
#[derive(Debug)]
pub(crate) struct Feed<'how> {
    pace: Pace<'how>,
    writer: pipe::Writer,
    received: Arc<AtomicU64>,
    length: u64,
}

impl Feed<'_> {
    /// Brings the rest while the request runs; also says how much came. An answer that comes before the end of the content waits
    /// for that, since clients do not read before they have sent, unless nobody takes any more of it.
    pub(crate) async fn beside<T>(
        mut self,
        upload: &mut impl Upload,
        interims: &Interims,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> (Result<T, Failure>, u64) {
        let received = Arc::clone(&self.received);
        let silence = self.pace.how.silence;
        let mut work = std::pin::pin!(work);
        let early = {
            let mut bring = std::pin::pin!(self.bring(upload));
            tokio::select! {
                biased;
                done = &mut work => match done {
                    Err(failure) => Err(failure),
                    Ok(done) => tokio::select! {
                        fed = bring => fed.map(|()| Some(done)),
                        () = rests(&received, silence) => Ok(Some(done)),
                    },
                },
                fed = &mut bring => fed.map(|()| None),
            }
        };
        let done = match early {
            Ok(Some(done)) => Ok(done),
            Err(failure) => Err(failure),
            Ok(None) => attend(upload, interims, work).await,
        };
        (done, received.load(Ordering::Relaxed))
    }

    /// Brings what comes, until that is all, or nobody takes it.
    async fn bring(&mut self, upload: &mut impl Upload) -> Result<(), Failure> {
        let mut received = self.received.load(Ordering::Relaxed);
        while received < self.length {
            let next = tokio::select! {
                biased;
                next = self.pace.next(upload, received) => next?,
                () = self.writer.gone() => return Ok(()),
            };
            let Some(piece) = next else {
                return Err(Failure::ClientLeft);
            };
            received += piece.len() as u64;
            self.received.store(received, Ordering::Relaxed);
            if self.writer.write(piece, None).await == Err(Gone) {
                return Ok(());
            }
        }
        self.writer.finish();
        Ok(())
    }
}

/// Resolves when a counter has not moved for that long.
async fn rests(counter: &AtomicU64, time: Duration) {
    let mut before = None;
    loop {
        let now = Some(counter.load(Ordering::Relaxed));
        if now == before {
            return;
        }
        before = now;
        sleep(time).await;
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
    let mut taken = Taken::new(how, expected)?;
    let pace = Pace::new(how);
    let mut length = 0;
    while let Some(piece) = pace.next(upload, length).await? {
        length += piece.len() as u64;
        if length > how.limit {
            return Err(Failure::BodyTooLarge { limit: how.limit });
        }
        // Nothing is copied of what came with its head; its memory is the connection's.
        if expected == Some(piece.len() as u64) && piece.len() <= how.memory {
            return Ok(Spooled::Memory(piece));
        }
        taken.add(&piece).await?;
    }
    taken.finish().await
}

/// What has come so far: in memory, until that is too much for one or for all, then in a file with a block before it.
struct Taken<'how> {
    how: &'how Spooling,
    expected: Option<u64>,
    block: BytesMut,
    /// What the block costs.
    memory: Share,
    file: Option<Scratch>,
}

impl<'how> Taken<'how> {
    /// Nothing. What is sure to find no room is refused before it comes.
    fn new(how: &'how Spooling, expected: Option<u64>) -> Result<Self, Failure> {
        let budget = &how.store.budget;
        if expected
            .is_some_and(|length| length > how.memory as u64 && !budget.disk.has_room(length))
        {
            return Err(Failure::SpoolFull);
        }
        Ok(Self {
            how,
            expected,
            block: BytesMut::new(),
            memory: budget.memory.share(),
            file: None,
        })
    }

    async fn add(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let counted = self.memory.grow(piece.len());
        self.block.extend_from_slice(piece);
        let most = if self.file.is_none() {
            self.how.memory
        } else {
            BLOCK
        };
        if !counted || self.block.len() > most {
            self.write().await?;
        }
        Ok(())
    }

    /// Moves the block to the file.
    async fn write(&mut self) -> Result<(), Failure> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let disk = &self.how.store.budget.disk;
                let wanted = self.expected.unwrap_or(self.block.len() as u64);
                if !disk.has_room(wanted) {
                    return Err(Failure::SpoolFull);
                }
                let file = Scratch::new(&self.how.store).await;
                self.file.insert(file.map_err(Failure::Spool)?)
            }
        };
        let written = file.append(self.block.split().freeze()).await;
        self.memory.clear();
        written.map_err(|error| match error {
            ScratchError::Budget => Failure::SpoolFull,
            ScratchError::Io(error) => Failure::Spool(error),
        })
    }

    async fn finish(mut self) -> Result<Spooled, Failure> {
        if self.file.is_some() && !self.block.is_empty() {
            self.write().await?;
        }
        Ok(match self.file {
            Some(file) => Spooled::File(file),
            None => Spooled::Memory(self.memory.hold(self.block)),
        })
    }
}

/// How fast the content comes.
#[derive(Debug)]
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
    use crate::origin::interim::Interim;

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
                    sleep(after).await;
                    Ok(Some(Bytes::from_static(piece)))
                }
                None if self.stalls => pending().await,
                None => Ok(None),
            }
        }

        async fn left(&mut self) {
            pending().await
        }

        async fn inform(&mut self, _: Vec<Interim>) -> Result<(), Failure> {
            Ok(())
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

    async fn outcome(upload: Pieces) -> String {
        outcome_with(upload, &Spooling::for_tests()).await
    }

    async fn outcome_with(mut upload: Pieces, how: &Spooling) -> String {
        match read(&mut upload, how).await {
            Ok(Spooled::None) => "none".to_owned(),
            Ok(Spooled::Memory(bytes)) => format!("memory {}", bytes.len()),
            Ok(Spooled::File(file)) => {
                let whole = file.reader().read(0..file.length()).await;
                assert_eq!(whole.expect("readable").len() as u64, file.length());
                format!("file {}", file.length())
            }
            Ok(Spooled::Coming { .. }) => "coming".to_owned(),
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

    #[tokio::test]
    async fn without_memory_files_are_made_sooner_and_without_a_disk_small_requests_go_on() {
        let with = |memory, disk| Spooling {
            store: Store::for_tests(memory, disk),
            ..Spooling::for_tests()
        };
        let two = || pieces(Body::Length(10), 0, 2, b"12345");
        assert_eq!(outcome_with(two(), &with(10, 0)).await, "memory 10");
        assert_eq!(outcome_with(two(), &with(9, 100)).await, "file 10");
        assert_eq!(outcome_with(two(), &with(9, 10)).await, "file 10");
        assert_eq!(outcome_with(two(), &with(9, 9)).await, "spool-full");
        let how = with(0, 0);
        let one = pieces(Body::Length(5), 0, 1, b"12345");
        assert_eq!(
            outcome_with(one, &how).await,
            "memory 5",
            "it came with its head"
        );
        // Refused before it is sent.
        let mut large = pieces(Body::Length(50), 0, 0, b"");
        large.stalls = true;
        assert_eq!(outcome_with(large, &how).await, "spool-full");
        // One that does not say how large it is goes as far as there is room, and gives it back.
        let how = with(10, 50);
        let chunked = pieces(Body::Chunked, 0, 20, b"12345");
        assert_eq!(outcome_with(chunked, &how).await, "spool-full");
        let budget = &how.store.budget;
        assert_eq!((budget.memory.used(), budget.disk.used()), (0, 0));
    }

    /// What an origin sees of an upload that is not buffered, and how the exchange ends when it answers after so many bytes.
    async fn streamed(mut upload: Pieces, answers_after: usize) -> String {
        let how = Spooling {
            whole: false,
            ..Spooling::for_tests()
        };
        let (body, feed) = match receive(&mut upload, &how, RequestId::new()).await {
            Ok(received) => received,
            Err(failure) => return failure.cause().to_owned(),
        };
        let (Spooled::Coming { mut rest, .. }, Some(feed)) = (body, feed) else {
            return "whole".to_owned();
        };
        let work = async move {
            let mut seen = 0;
            while seen < answers_after
                && let Some(piece) = rest.next().await
            {
                seen += piece?.len();
            }
            // An origin that is not done takes what comes after its answer, one that is takes nothing.
            Ok((seen, (answers_after > 1).then_some(rest)))
        };
        let (done, received) = feed.beside(&mut upload, &Interims::default(), work).await;
        match done {
            Ok((seen, _)) => format!("{seen} seen, {received} came"),
            Err(failure) => format!("{} after {received}", failure.cause()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_buffered_is_passed_on_as_it_comes() {
        let five = |count| pieces(Body::Length(50), 2, count, b"12345");
        assert_eq!(streamed(five(10), 50).await, "50 seen, 50 came");
        // It is done, and says so in the same turn: the client's next piece is not waited for.
        assert_eq!(streamed(five(10), 1).await, "5 seen, 5 came");
        // An answer in the middle waits for the end, up to what the pipe holds, and no longer than for a client that rests.
        assert_eq!(streamed(five(10), 45).await, "45 seen, 50 came");
        assert_eq!(streamed(five(10), 20).await, "20 seen, 35 came");
        let mut silent = five(4);
        silent.stalls = true;
        assert_eq!(streamed(silent, 50).await, "body-timeout after 20");
        assert_eq!(streamed(five(4), 50).await, "client-left after 20");
        assert_eq!(
            streamed(pieces(Body::Length(5), 0, 1, b"12345"), 5).await,
            "whole"
        );
        assert_eq!(
            streamed(pieces(Body::Chunked, 0, 4, b"12345"), 5).await,
            "whole"
        );
        assert_eq!(
            streamed(pieces(Body::Length(101), 0, 0, b""), 5).await,
            "body-too-large"
        );
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
