//! A way out for lines: a bounded buffer in memory, and a thread of its own that writes it out.
//!
//! Whoever has something to say appends a line and goes on; only the thread ever waits for the disk, the pipe or the
//! terminal. When the reader stalls until the buffer is full, further lines are dropped and counted, and the log says
//! how many as soon as the reader takes again. It refuses to block, to grow, and to lose a line silently.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::panics;

/// What lines are waiting for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// For people: `access log`.
    pub(crate) name: &'static str,
    /// How long the writer waits for more lines after the first: a write is dearer than a line.
    pub(crate) linger: Duration,
    /// Most bytes of several lines in one write. Who shares a pipe with others writes no more than the kernel takes in one
    /// piece (`PIPE_BUF`), or their lines would mix.
    pub(crate) piece: usize,
}

/// How much room a line finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The buffer.
    Usual,
    /// A reserve besides: for what explains a failure, which must not drown in what came before it.
    Last,
}

/// Lines on their way to a reader. Dropping it writes out what is left.
#[derive(Debug)]
pub(crate) struct Outlet {
    name: &'static str,
    shared: Arc<Shared>,
    /// Taken by `Drop`.
    writer: Option<JoinHandle<()>>,
}

impl Outlet {
    /// Writes to `to`, from a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn new(to: impl Into<OwnedFd>, settings: Settings) -> io::Result<Self> {
        let Settings {
            name,
            linger,
            piece,
        } = settings;
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            to: File::from(to.into()),
            name,
            linger,
            piece,
            shared: Arc::clone(&shared),
            torn: false,
            failing: false,
            lost: 0,
        };
        let writer = thread::Builder::new()
            .name(name.replace(' ', "-"))
            .spawn(move || writer.run())?;
        Ok(Self {
            name,
            shared,
            writer: Some(writer),
        })
    }

    /// Takes one line, with its end, and says whether there was room for it. Never waits for the reader.
    pub(crate) fn append(&self, line: &[u8], rank: Rank) -> bool {
        self.shared.append(line, rank)
    }

    /// Goes on in another file, after what was appended before this call. What the writer is writing it writes to the end.
    pub(crate) fn reopen(&self, to: File) {
        self.shared.succeed(to);
        // The writer may be waiting for lines, and whoever moved the old file away may be waiting for it to be let go.
        self.shared.filled.notify_one();
    }

    /// How many lines were lost so far because the reader stalled or failed.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lock().dropped_ever
    }

    /// Writes out what was appended before this call. Gives up after [`PATIENCE`] and says so with `false`.
    pub(crate) fn flush(&self) -> bool {
        self.shared.flush(|state| state.hurry = true)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let all_written = self.shared.flush(|state| state.closed = true);
        let Some(writer) = self.writer.take() else {
            return;
        };
        let name = self.name;
        if !all_written {
            // The thread sits in a write that may never return; it ends with the process.
            tracing::warn!("the {name}'s reader does not take the last lines; they are lost");
        } else if writer.join().is_err() {
            tracing::error!("the {name}'s writer panicked");
        }
    }
}

/// What those who append and the writer share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The writer waits here for lines.
    filled: Condvar,
    /// Flushers wait here for the writer.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines dropped since the writer last looked.
    dropped: u64,
    dropped_ever: u64,
    /// Bytes ever appended, and bytes that the writer is done with.
    appended: u64,
    done: u64,
    /// Somebody waits for the writer.
    hurry: bool,
    /// No line will follow.
    closed: bool,
    /// The file to go on in.
    successor: Option<Successor>,
}

/// How long a flush waits for a reader that does not read.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

impl Shared {
    /// Some thousand lines; with the batch that is being written, twice this is held.
    const CAPACITY: usize = 1 << 20;
    /// What [`Rank::Last`] has besides: the two full pipes of a worker that has died, and as much for the lines about it.
    const RESERVE: usize = 256 << 10;
    /// Waiting for more lines stops here: a batch this large is worth its write.
    const PLENTY: usize = 128 << 10;

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the state half-changed.
        panics::lock(&self.state)
    }

    fn succeed(&self, to: File) {
        let mut state = self.lock();
        let behind = state.waiting.len();
        state.successor = Some(Successor { to, behind });
    }

    fn append(&self, line: &[u8], rank: Rank) -> bool {
        let most = match rank {
            Rank::Usual => Self::CAPACITY,
            Rank::Last => Self::CAPACITY + Self::RESERVE,
        };
        let mut state = self.lock();
        let before = state.waiting.len();
        let after = before + line.len();
        if after > most {
            state.dropped += 1;
            state.dropped_ever += 1;
            return false;
        }
        state.waiting.extend_from_slice(line);
        state.appended += line.len() as u64;
        drop(state);
        // One wake for a batch: at its first line, and when it need not wait for more.
        if before == 0 || (before < Self::PLENTY && after >= Self::PLENTY) {
            self.filled.notify_one();
        }
        true
    }

    fn flush(&self, ask: impl FnOnce(&mut State)) -> bool {
        let mut state = self.lock();
        ask(&mut state);
        let goal = state.appended;
        self.filled.notify_one();
        let waited = self
            .written
            .wait_timeout_while(state, PATIENCE, |state| state.done < goal);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.done >= goal
    }

    /// Waits for lines and swaps them with the empty `batch`, or for another file; `None` when all is written and none will
    /// follow.
    fn take(&self, batch: &mut Vec<u8>, linger: Duration) -> Option<Taken> {
        let empty = |state: &mut State| {
            state.waiting.is_empty() && !state.closed && state.successor.is_none()
        };
        let state = self
            .filled
            .wait_while(self.lock(), empty)
            .unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| {
            !state.hurry
                && !state.closed
                && state.successor.is_none()
                && state.waiting.len() < Self::PLENTY
        };
        let (mut state, _) = self
            .filled
            .wait_timeout_while(state, linger, few)
            .unwrap_or_else(PoisonError::into_inner);
        let successor = state.successor.take();
        if state.waiting.is_empty() && successor.is_none() {
            return None;
        }
        std::mem::swap(&mut state.waiting, batch);
        if let Some(Successor { behind, .. }) = &successor {
            state.waiting = batch.split_off(*behind);
        }
        state.hurry &= !state.waiting.is_empty();
        Some(Taken {
            dropped: std::mem::take(&mut state.dropped),
            successor: successor.map(|successor| successor.to),
        })
    }

    fn done(&self, bytes: usize, lost: u64) {
        let mut state = self.lock();
        state.done += bytes as u64;
        state.dropped_ever += lost;
        drop(state);
        self.written.notify_all();
    }
}

/// Another file, for what comes later.
#[derive(Debug)]
struct Successor {
    to: File,
    /// How many of the bytes that wait still go to the file before.
    behind: usize,
}

/// What the writer finds besides lines.
struct Taken {
    /// How many lines were dropped behind them.
    dropped: u64,
    /// Where to go on after them.
    successor: Option<File>,
}

/// The thread that waits for the reader, so that nobody else has to.
struct Writer {
    to: File,
    name: &'static str,
    linger: Duration,
    piece: usize,
    shared: Arc<Shared>,
    /// A failed write ended within a line, which must not swallow the next one.
    torn: bool,
    /// The last write failed, and that has been said.
    failing: bool,
    /// Lines lost and not yet spoken of.
    lost: u64,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(taken) = self.shared.take(&mut batch, self.linger) {
            self.lost += taken.dropped;
            let lost = self.write(&batch);
            if let Some(successor) = taken.successor {
                self.to = successor;
                self.torn = false;
            }
            self.shared.done(batch.len(), lost);
            batch.clear();
            // What a stalled reader made grow is given back; the two buffers of ordinary days are kept.
            batch.shrink_to(4 * Shared::PLENTY);
        }
    }

    /// Writes the batch and speaks of trouble once; returns how many lines of the batch were lost.
    fn write(&mut self, batch: &[u8]) -> u64 {
        match self.attempt(batch) {
            Ok(()) => {
                self.failing = false;
                self.say_lost();
                0
            }
            Err(Broken { rest, error }) => {
                let lines = rest.iter().filter(|&&byte| byte == b'\n').count() as u64;
                self.lost += lines;
                // Before it is said: where it is said may be the same place.
                if !std::mem::replace(&mut self.failing, true) {
                    let name = self.name;
                    tracing::warn!("the {name} cannot be written, its lines are dropped: {error}");
                }
                lines
            }
        }
    }

    fn say_lost(&mut self) {
        let (name, lost) = (self.name, std::mem::take(&mut self.lost));
        let lines = if lost == 1 { "line" } else { "lines" };
        if lost > 0 {
            tracing::warn!("{name}: {lost} {lines} dropped while its reader did not take more");
        }
    }

    fn attempt<'b>(&mut self, batch: &'b [u8]) -> Result<(), Broken<'b>> {
        if self.torn {
            self.push(b"\n").map_err(|broken| Broken {
                rest: batch,
                ..broken
            })?;
            self.torn = false;
        }
        self.push(batch).inspect_err(|broken| {
            let taken = &batch[..batch.len() - broken.rest.len()];
            self.torn = taken.last().is_some_and(|&byte| byte != b'\n');
        })
    }

    /// One write for as much as may be in one, as long as the kernel takes all.
    fn push<'b>(&self, mut rest: &'b [u8]) -> Result<(), Broken<'b>> {
        while !rest.is_empty() {
            match (&self.to).write(&rest[..first_piece(rest, self.piece)]) {
                Ok(0) => {
                    return Err(Broken {
                        rest,
                        error: io::ErrorKind::WriteZero.into(),
                    });
                }
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait().map_err(|error| Broken { rest, error })?;
                }
                Err(error) => return Err(Broken { rest, error }),
            }
        }
        Ok(())
    }

    /// A terminal that another program made non-blocking.
    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.to, PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The length of the whole lines at the beginning that are no more than `most` bytes, or of the first one that is longer.
fn first_piece(bytes: &[u8], most: usize) -> usize {
    if bytes.len() <= most {
        return bytes.len();
    }
    let end = |part: &[u8]| part.iter().rposition(|&byte| byte == b'\n');
    let first = || bytes.iter().position(|&byte| byte == b'\n');
    end(&bytes[..most])
        .or_else(first)
        .map_or(bytes.len(), |at| at + 1)
}

/// A write that failed, and what it left.
struct Broken<'b> {
    rest: &'b [u8],
    error: io::Error,
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn pipe() -> (File, OwnedFd) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (File::from(read), write)
    }

    fn lines(read: File) -> Vec<String> {
        BufReader::new(read).lines().map(Result::unwrap).collect()
    }

    fn outlet(to: OwnedFd) -> Outlet {
        let settings = Settings {
            name: "log",
            linger: Duration::ZERO,
            piece: 16,
        };
        Outlet::new(to, settings).unwrap()
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let (read, write) = pipe();
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            to: File::from(write),
            name: "log",
            linger: Duration::ZERO,
            piece: usize::MAX,
            shared,
            torn: true,
            failing: true,
            lost: 0,
        };
        assert_eq!(writer.write(b"next\n"), 0);
        assert!(!writer.torn && !writer.failing);
        drop(writer);
        assert_eq!(lines(read), ["", "next"]);
    }

    #[test]
    fn a_piece_is_whole_lines() {
        let cases: [(&str, usize, usize); 6] = [
            ("one\ntwo\n", 100, 8),
            ("one\ntwo\n", 8, 8),
            ("one\ntwo\n", 7, 4),
            ("one\ntwo\n", 2, 4),
            ("no end", 3, 6),
            ("", 3, 0),
        ];
        for (text, most, expected) in cases {
            assert_eq!(
                first_piece(text.as_bytes(), most),
                expected,
                "{text:?} {most}"
            );
        }
    }

    /// A line that says that the log goes on elsewhere is looked for there.
    #[test]
    fn what_comes_after_a_file_is_opened_anew_stands_in_that() {
        let shared = Arc::new(Shared::default());
        let (_read, write) = pipe();
        assert!(shared.append(b"before\n", Rank::Usual));
        shared.succeed(File::from(write));
        assert!(shared.append(b"after\n", Rank::Usual));
        let mut batch = Vec::new();
        let mut next = || {
            batch.clear();
            let taken = shared.take(&mut batch, Duration::ZERO).expect("lines");
            (batch.clone(), taken.successor.is_some())
        };
        assert_eq!(next(), (b"before\n".to_vec(), true));
        assert_eq!(next(), (b"after\n".to_vec(), false));
    }

    /// What a worker printed before it died, and why it died, comes after whatever filled the buffer.
    #[test]
    fn last_words_have_room_of_their_own() {
        let (read, write) = pipe();
        let outlet = outlet(write);
        while outlet.lost() == 0 {
            outlet.append(b"usual\n", Rank::Usual);
        }
        outlet.append(b"last\n", Rank::Last);
        assert_eq!(outlet.lost(), 1);
        let mut filled = Shared::RESERVE - 100;
        while filled > 0 {
            outlet.append(b"last\n", Rank::Last);
            filled = filled.saturating_sub(5);
        }
        assert_eq!(outlet.lost(), 1, "and that is bounded too");
        while outlet.lost() == 1 {
            outlet.append(b"last\n", Rank::Last);
        }
        let reader = thread::spawn(|| lines(read));
        assert!(outlet.flush());
        drop(outlet);
        let read = reader.join().unwrap();
        assert_eq!(read.last().map(String::as_str), Some("last"));
    }
}
