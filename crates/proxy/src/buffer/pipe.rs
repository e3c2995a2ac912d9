//! A response between two speeds: what the origin has given and the client has not taken.
//!
//! First in, first out, in three places: memory, then a file, then a block that is on its way to the file. What the client
//! keeps up with never leaves memory and is passed on as it comes, so a response that trickles trickles on. When there is no
//! more room in either, the writer waits for the client, and says so to its [`Stalls`].
//!
//! The writer is the task that reads from the origin, the reader the one that writes to the client. Neither holds the
//! lock while it waits.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use telemetry::panics;
use tokio::time::Instant;

use super::{
    Holding,
    budget::Share,
    scratch::{BLOCK, Reader as FileReader, Scratch, ScratchError},
    stalls::{Stalled, Stalls},
};
use crate::{failure::Failure, request::RequestId, response::FieldLines};

/// Pieces smaller than this are gathered: each would otherwise hold all of the memory that it was read into.
const SMALL: usize = 8 * 1024;

/// What they are gathered in.
const GATHERED: usize = 16 * 1024;

/// Both ends of a pipe.
pub(crate) fn pipe(holding: Holding, id: RequestId) -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        id,
        begun: Instant::now(),
        taken: AtomicU64::new(0),
        state: Mutex::new(State {
            front: VecDeque::new(),
            held: holding.store.budget.memory.share(),
            disk: Disk::default(),
            last: BytesMut::new(),
            end: None,
            trailers: None,
            reader_left: false,
            reader: None,
            writer: None,
        }),
    });
    let reader = Reader {
        shared: Arc::clone(&shared),
        file: None,
    };
    let writer = Writer {
        shared,
        holding,
        file: None,
        stalled: None,
    };
    (writer, reader)
}

/// What both ends know.
#[derive(Debug)]
pub(crate) struct Shared {
    id: RequestId,
    begun: Instant,
    /// How many bytes the client has taken.
    taken: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The oldest, in memory.
    front: VecDeque<Segment>,
    /// What the memory in `front` costs.
    held: Share,
    /// What comes after it.
    disk: Disk,
    /// What comes after that: a block that is not full yet.
    last: BytesMut,
    /// There will be no more: all was written, or it failed.
    end: Option<Result<(), Failure>>,
    /// What stands behind all that was written.
    trailers: Option<FieldLines>,
    reader_left: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The part of the file that is to be read.
#[derive(Debug, Default)]
struct Disk {
    read: u64,
    written: u64,
    /// A block is being written behind it.
    writing: bool,
    reader: Option<FileReader>,
    /// The file, once it is whole: its share of the budget lasts for as long as the reader needs it.
    whole: Option<Scratch>,
}

impl Disk {
    fn is_empty(&self) -> bool {
        self.read == self.written && !self.writing
    }
}

/// A piece in memory.
#[derive(Debug)]
enum Segment {
    /// As it was read.
    Piece(Bytes),
    /// Small ones, with room for more.
    Gathered(BytesMut),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Piece(bytes) => bytes.len(),
            Self::Gathered(bytes) => bytes.len(),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Piece(bytes) => bytes,
            Self::Gathered(bytes) => bytes.freeze(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        panics::lock(&self.state)
    }

    /// Which request it is.
    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    /// What the client has taken, and in how many seconds.
    pub(super) fn progress(&self) -> (u64, f64) {
        let taken = self.taken.load(Ordering::Relaxed);
        (taken, self.begun.elapsed().as_secs_f64())
    }

    /// Puts the piece into memory as soon as there is room.
    fn poll_room(
        &self,
        cx: &mut Context<'_>,
        piece: &mut Option<Bytes>,
        most: usize,
    ) -> Poll<Result<(), Gone>> {
        let mut state = self.lock();
        if state.reader_left {
            return Poll::Ready(Err(Gone));
        }
        if state.is_memory_last()
            && let Some(waiting) = piece.take()
        {
            match state.push(waiting, most) {
                Ok(()) => return Poll::Ready(Ok(())),
                // A client that has nothing left to take gets its piece, however large it is and whatever others hold.
                Err(waiting) if state.front.is_empty() => {
                    state.push_alone(waiting);
                    return Poll::Ready(Ok(()));
                }
                Err(waiting) => *piece = Some(waiting),
            }
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends it for both: the origin is needed for others.
    pub(super) fn cut(&self) {
        let mut state = self.lock();
        state.front.clear();
        state.held.clear();
        state.last.clear();
        state.disk = Disk::default();
        state.end = Some(Err(Failure::SlowReader));
        state.reader_left = true;
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// Whether a piece can go to memory without overtaking another.
    fn is_memory_last(&self) -> bool {
        self.disk.is_empty() && self.last.is_empty()
    }

    /// Puts a piece into memory, within `most` of its own and what all may have together.
    fn push(&mut self, piece: Bytes, most: usize) -> Result<(), Bytes> {
        let held = usize::try_from(self.held.bytes()).unwrap_or(usize::MAX);
        if held.saturating_add(piece.len()) > most || !self.held.grow(piece.len()) {
            return Err(piece);
        }
        self.gather(piece);
        self.wake_reader();
        Ok(())
    }

    /// The same where there is no room, for a client that has nothing else to take.
    fn push_alone(&mut self, piece: Bytes) {
        // Counted if that is possible: what all have together may be used up.
        self.held.grow(piece.len());
        self.gather(piece);
        self.wake_reader();
    }

    fn gather(&mut self, piece: Bytes) {
        if piece.len() >= SMALL {
            self.front.push_back(Segment::Piece(piece));
            return;
        }
        match self.front.back_mut() {
            Some(Segment::Gathered(bytes)) if bytes.len() + piece.len() <= GATHERED => {
                bytes.extend_from_slice(&piece);
            }
            // Alone it is gone in a moment.
            None => self.front.push_back(Segment::Piece(piece)),
            Some(_) => {
                let mut bytes = BytesMut::with_capacity(GATHERED);
                bytes.extend_from_slice(&piece);
                self.front.push_back(Segment::Gathered(bytes));
            }
        }
    }

    /// What is in memory and comes next.
    fn pop(&mut self) -> Option<Bytes> {
        let piece = match self.front.pop_front() {
            Some(segment) => {
                self.held.shrink(segment.len());
                segment.into_bytes()
            }
            None if self.disk.is_empty() && !self.last.is_empty() => self.last.split().freeze(),
            None => return None,
        };
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
        Some(piece)
    }
}

/// The reader has left, or was cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The origin's end.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    holding: Holding,
    file: Option<Scratch>,
    /// Since the last piece for which there was room at once.
    stalled: Option<Stalled>,
}

impl Writer {
    /// Takes a piece, as soon as there is room for it. An origin that waits for that is one of these stalls.
    pub(crate) async fn write(
        &mut self,
        piece: Bytes,
        stalls: Option<&Arc<Stalls>>,
    ) -> Result<(), Gone> {
        let left = {
            let mut state = self.shared.lock();
            if state.reader_left {
                return Err(Gone);
            }
            if state.is_memory_last() {
                state.push(piece, self.holding.memory).err()
            } else {
                Some(piece)
            }
        };
        let left = match left {
            Some(piece) if self.holding.disk > 0 => self.spill(piece).await?,
            left => left,
        };
        match left {
            None => self.stalled = None,
            Some(piece) => self.wait(piece, stalls).await?,
        }
        Ok(())
    }

    /// Adds to the last block, and writes it to the file once it is full. What comes back has no room there.
    async fn spill(&mut self, mut piece: Bytes) -> Result<Option<Bytes>, Gone> {
        while !piece.is_empty() {
            let full = {
                let mut state = self.shared.lock();
                if state.reader_left {
                    return Err(Gone);
                }
                let room = BLOCK - state.last.len();
                let part = piece.split_to(room.min(piece.len()));
                state.last.extend_from_slice(&part);
                state.wake_reader();
                (state.last.len() == BLOCK).then(|| {
                    state.disk.writing = true;
                    state.last.split().freeze()
                })
            };
            if let Some(block) = full
                && let Err(error) = self.append(block.clone()).await
            {
                self.shared.lock().disk.writing = false;
                self.no_disk(&error);
                let mut all = BytesMut::from(block);
                all.extend_from_slice(&piece);
                return Ok(Some(all.freeze()));
            }
        }
        Ok(None)
    }

    async fn append(&mut self, block: Bytes) -> Result<(), ScratchError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Scratch::new(&self.holding.store).await?),
        };
        {
            let mut state = self.shared.lock();
            if state.disk.read == state.disk.written {
                // All of it has been taken: its room is there again.
                file.rewind();
                state.disk.read = 0;
                state.disk.written = 0;
            }
        }
        if file.length() + block.len() as u64 > self.holding.disk {
            return Err(ScratchError::Budget);
        }
        file.append(block).await?;
        let mut state = self.shared.lock();
        state.disk.written = file.length();
        state.disk.writing = false;
        state
            .disk
            .reader
            .get_or_insert_with(|| file.reader().clone());
        state.wake_reader();
        Ok(())
    }

    /// The client's speed is the origin's: for a while where it is a matter of the budget, else for good.
    fn no_disk(&mut self, error: &ScratchError) {
        if let ScratchError::Io(error) = error {
            self.holding.disk = 0;
            tracing::warn!(
                "the response to request {} cannot be kept on disk and goes at its client's speed: {error}",
                self.shared.id
            );
        }
    }

    /// Waits until there is room in memory.
    async fn wait(&mut self, piece: Bytes, stalls: Option<&Arc<Stalls>>) -> Result<(), Gone> {
        let mut piece = Some(piece);
        let (shared, most) = (&self.shared, self.holding.memory);
        let mut room = std::pin::pin!(poll_fn(|cx| shared.poll_room(cx, &mut piece, most)));
        let Some(stalls) = stalls else {
            return room.await;
        };
        let stalled = self.stalled.get_or_insert_with(|| stalls.enter(shared));
        tokio::select! {
            biased;
            waited = &mut room => return waited,
            () = stalled.grace() => stalls.relieve(),
        }
        room.await
    }

    /// Resolves when the reader has left, or was cut.
    pub(crate) async fn gone(&self) {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.reader_left {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// There will be no more.
    pub(crate) fn end(self, how: Result<(), Failure>) {
        self.shared.lock().end.get_or_insert(how);
    }

    /// All was written, and this stands behind it.
    pub(crate) fn end_with(self, trailers: FieldLines) {
        self.shared.lock().trailers = Some(trailers);
        self.end(Ok(()));
    }

    /// Resolves when the reader has taken all that was written: the next piece then finds room at once.
    pub(crate) async fn drained(&self) -> Result<(), Gone> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.reader_left {
                return Poll::Ready(Err(Gone));
            }
            if state.front.is_empty() && state.is_memory_last() {
                return Poll::Ready(Ok(()));
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// All was written.
    pub(crate) fn finish(&mut self) {
        let mut state = self.shared.lock();
        state.end.get_or_insert(Ok(()));
        state.wake_reader();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if !state.reader_left {
            state.disk.whole = self.file.take();
        }
        // What is dropped in the middle is not whole, and must not look so.
        state.end.get_or_insert_with(|| {
            let lost = "whoever read the response from its origin is gone";
            Err(Failure::Spool(std::io::Error::other(lost)))
        });
        state.wake_reader();
    }
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    file: Option<FileReader>,
}

/// What a reader finds.
enum Next {
    Piece(Bytes),
    Disk(std::ops::Range<u64>),
    End(Option<Failure>),
}

impl Reader {
    /// The next piece; `None` after the last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        let range = match poll_fn(|cx| self.poll(cx)).await {
            Next::Piece(piece) => return Some(Ok(self.took(piece))),
            Next::End(failure) => return failure.map(Err),
            Next::Disk(range) => range,
        };
        let file = self.file.as_ref().expect("set where a range is found");
        let start = range.start;
        match file.read(range).await {
            Ok(piece) => {
                let mut state = self.shared.lock();
                // It may have been cut meanwhile.
                if state.disk.read == start {
                    state.disk.read += piece.len() as u64;
                }
                if let Some(waker) = state.writer.take() {
                    waker.wake();
                }
                drop(state);
                Some(Ok(self.took(piece)))
            }
            Err(error) => Some(Err(Failure::Spool(error))),
        }
    }

    /// The next piece if it is in memory.
    pub(crate) fn next_now(&mut self) -> Option<Bytes> {
        let piece = self.shared.lock().pop()?;
        Some(self.took(piece))
    }

    /// What stands behind the last piece.
    pub(crate) fn trailers(&mut self) -> Option<FieldLines> {
        self.shared.lock().trailers.take()
    }

    fn took(&self, piece: Bytes) -> Bytes {
        let length = piece.len() as u64;
        self.shared.taken.fetch_add(length, Ordering::Relaxed);
        piece
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.shared.lock();
        if let Some(piece) = state.pop() {
            return Poll::Ready(Next::Piece(piece));
        }
        let Disk { read, written, .. } = state.disk;
        if read < written {
            if self.file.is_none() {
                self.file.clone_from(&state.disk.reader);
            }
            return Poll::Ready(Next::Disk(read..written));
        }
        if !state.disk.writing
            && let Some(end) = &mut state.end
        {
            let end = std::mem::replace(end, Ok(()));
            return Poll::Ready(Next::End(end.err()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_left = true;
        state.front.clear();
        state.held.clear();
        state.disk.whole = None;
        state.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Store, *};

    const KIB: usize = 1024;

    fn holding(memory: usize, disk: usize) -> Holding {
        Holding {
            store: Store::for_tests(10 << 20, 10 << 20),
            memory,
            disk: disk as u64,
        }
    }

    /// Bytes that tell where they belong.
    fn content(length: usize) -> Bytes {
        (0..length).map(|at| (at / 7).to_le_bytes()[0]).collect()
    }

    async fn rest(mut reader: Reader) -> Result<Vec<u8>, &'static str> {
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await {
            all.extend_from_slice(&piece.map_err(|failure| failure.cause())?);
        }
        Ok(all)
    }

    fn used(holding: &Holding) -> (u64, u64) {
        let budget = &holding.store.budget;
        (budget.memory.used(), budget.disk.used())
    }

    #[tokio::test]
    async fn all_of_it_is_taken_before_the_client_takes_any() {
        for piece in [100, 5000, 16 * KIB, 300 * KIB] {
            let holding = holding(64 * KIB, 1 << 20);
            let (mut writer, reader) = pipe(holding.clone(), RequestId::new());
            let all = content(900 * KIB + 3);
            let mut left = all.clone();
            while !left.is_empty() {
                let next = left.split_to(piece.min(left.len()));
                writer.write(next, None).await.expect("there is a reader");
            }
            writer.end(Ok(()));
            let (memory, disk) = used(&holding);
            assert!(memory <= 64 * KIB as u64, "{memory}");
            assert!(
                disk >= 768 * KIB as u64,
                "{disk}, {memory} in memory, pieces of {piece}"
            );
            assert!(rest(reader).await == Ok(all.to_vec()), "pieces of {piece}");
            assert_eq!(used(&holding), (0, 0));
        }
    }

    /// Readers and writers of every relation of speeds, through all three places.
    #[tokio::test]
    async fn nothing_overtakes() {
        let mut random = 7_u64;
        let mut next = move |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below
        };
        for _ in 0..30 {
            let holding = holding(next(100 * KIB) + 1, next(200 * KIB));
            let (mut writer, mut reader) = pipe(holding.clone(), RequestId::new());
            let all = content(next(700 * KIB) + 1);
            let largest = next(40 * KIB) + 1;
            let mut left = all.clone();
            let pieces: Vec<Bytes> = std::iter::from_fn(|| {
                let size = (next(largest) + 1).min(left.len());
                (size > 0).then(|| left.split_to(size))
            })
            .collect();
            let pauses = (next(5), next(5));
            let write = async {
                for (number, piece) in pieces.into_iter().enumerate() {
                    if number % 5 < pauses.0 {
                        tokio::task::yield_now().await;
                    }
                    writer.write(piece, None).await.expect("there is a reader");
                }
                writer.end(Ok(()));
            };
            let read = async {
                let mut taken = Vec::new();
                let mut number = 0;
                while let Some(piece) = reader.next().await {
                    number += 1;
                    if number % 5 < pauses.1 {
                        tokio::task::yield_now().await;
                    }
                    taken.extend_from_slice(&piece.expect("nothing fails"));
                }
                taken
            };
            let ((), taken) = tokio::join!(write, read);
            assert!(taken == all);
            drop(reader);
            assert_eq!(used(&holding), (0, 0));
        }
    }

    #[tokio::test]
    async fn small_pieces_do_not_hold_what_they_were_read_into() {
        let holding = holding(64 * KIB, 0);
        let (mut writer, mut reader) = pipe(holding, RequestId::new());
        for _ in 0..1000 {
            let piece = Bytes::from(vec![1; 10]);
            writer.write(piece, None).await.expect("there is a reader");
        }
        // One that was alone, and the others together.
        assert_eq!(reader.next_now().map(|piece| piece.len()), Some(10));
        assert_eq!(reader.next_now().map(|piece| piece.len()), Some(9990));
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_the_origin_goes_at_the_client_s_speed() {
        let holding = holding(10, 0);
        let (mut writer, mut reader) = pipe(holding.clone(), RequestId::new());
        let mut write = async |text: &'static [u8]| {
            let written = writer.write(Bytes::from_static(text), None);
            tokio::time::timeout(Duration::from_secs(60), written).await
        };
        assert!(write(b"0123456789").await.is_ok());
        assert!(write(b"abcde").await.is_err(), "there is room for ten");
        assert_eq!(
            reader.next().await.map(Result::unwrap),
            Some("0123456789".into())
        );
        assert!(write(b"fghij").await.is_ok());
        drop(reader);
        assert_eq!(write(b"klmno").await, Ok(Err(Gone)));
        assert_eq!(used(&holding).0, 0);
    }

    #[tokio::test]
    async fn what_is_not_whole_does_not_look_so() {
        let (writer, reader) = pipe(holding(10, 0), RequestId::new());
        drop(writer);
        assert_eq!(rest(reader).await, Err("spool-failed"));
        let (writer, reader) = pipe(holding(10, 0), RequestId::new());
        writer.end(Err(Failure::ClientLeft));
        assert_eq!(rest(reader).await, Err("client-left"));
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_that_hold_their_slots_the_slowest_is_cut() {
        let stalls = Stalls::new("app web".into());
        stalls.set_slots(4);
        let origin = |stalls: &Arc<Stalls>| {
            let (mut writer, reader) = pipe(holding(100, 0), RequestId::new());
            let stalls = Arc::clone(stalls);
            let pump = tokio::spawn(async move {
                loop {
                    let piece = Bytes::from(vec![0; 100]);
                    if writer.write(piece, Some(&stalls)).await.is_err() {
                        return;
                    }
                }
            });
            (pump, reader)
        };
        let mut pairs: Vec<_> = (0..2).map(|_| origin(&stalls)).collect();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(
            pairs.iter().all(|(pump, _)| !pump.is_finished()),
            "two of four may"
        );
        for (_, reader) in &mut pairs {
            reader.next().await.expect("there is one").expect("not cut");
        }
        pairs.push(origin(&stalls));
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(
            pairs.iter().all(|(pump, _)| !pump.is_finished()),
            "for a moment"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        let cut: Vec<bool> = pairs.iter().map(|(pump, _)| pump.is_finished()).collect();
        assert_eq!(cut, [false, false, true], "it has taken nothing");
        let (_, reader) = pairs.pop().expect("three");
        assert_eq!(rest(reader).await, Err("slow-reader"));
        // Those who left make room.
        pairs.remove(0);
        tokio::task::yield_now().await;
        pairs.push(origin(&stalls));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(pairs.iter().all(|(pump, _)| !pump.is_finished()));
    }
}
