//! The sink of access records: each becomes a line of an [`Outlet`], so that whoever served an exchange waits for nobody.

use std::{
    borrow::Cow,
    cell::RefCell,
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::OwnedFd,
    time::Duration,
};

use super::{Fields, Format, Record, Redaction};
use crate::outlet::{Outlet, Rank, Settings};

/// Where access records go. Share it by reference or in an `Arc`; the last one dropped writes out what is left.
#[derive(Debug)]
pub struct Log {
    /// `None`: records are not wanted.
    sink: Option<Sink>,
    redaction: Redaction,
}

#[derive(Debug)]
struct Sink {
    format: Format,
    terminal: bool,
    outlet: Outlet,
}

thread_local! {
    /// A line is formatted here, so that the lock is held for a copy only.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Log {
    /// Writes to `to`, from a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn new(to: impl Into<OwnedFd>, format: Format) -> io::Result<Self> {
        let to = File::from(to.into());
        let terminal = to.is_terminal();
        let settings = Settings {
            name: "access log",
            linger: linger(terminal),
            piece: usize::MAX,
        };
        Ok(Self {
            sink: Some(Sink {
                format,
                terminal,
                outlet: Outlet::new(to, settings)?,
            }),
            redaction: Redaction::default(),
        })
    }

    /// Records are not wanted.
    #[must_use]
    pub fn off() -> Self {
        Self {
            sink: None,
            redaction: Redaction::default(),
        }
    }

    /// The same, with these values hidden.
    #[must_use]
    pub fn redacted(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }

    /// A target as it may be shown, here and elsewhere.
    #[must_use]
    pub fn shown<'a>(&self, target: &'a [u8]) -> Cow<'a, [u8]> {
        self.redaction.target(target)
    }

    /// Goes on in another file, after what was recorded before this call. What the writer is writing it writes to the end.
    pub fn reopen(&self, to: impl Into<OwnedFd>) {
        if let Some(sink) = &self.sink {
            sink.outlet.reopen(File::from(to.into()));
        }
    }

    /// Whether records are written at all: a caller may save itself the work of building one.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether a person reads the records as they come.
    #[must_use]
    pub fn is_on_terminal(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.terminal)
    }

    /// Takes one record. Never waits for the reader.
    pub fn record(&self, record: &Record<'_>) {
        let Some(sink) = &self.sink else { return };
        let target = self.redaction.target(record.target);
        let referer = record.referer.map(|referer| self.redaction.target(referer));
        let fields = record.fields.map(|fields| Shown {
            fields,
            redaction: &self.redaction,
        });
        let record = Record {
            target: &target,
            referer: referer.as_deref(),
            fields: fields.as_ref().map(|fields| fields as &(dyn Fields + Sync)),
            ..*record
        };
        LINE.with_borrow_mut(|line| {
            line.clear();
            sink.format.write(&record, line);
            sink.outlet.append(line, Rank::Usual);
        });
    }

    /// How many lines were lost so far because the reader stalled or failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.outlet.lost())
    }

    /// Writes out what was recorded before this call. Gives up after two seconds and says so with `false`.
    pub fn flush(&self) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.outlet.flush())
    }
}

/// Fields, as far as they may be shown.
struct Shown<'a> {
    fields: &'a (dyn Fields + Sync),
    redaction: &'a Redaction,
}

impl Fields for Shown<'_> {
    fn field(&self, name: &str) -> Option<&[u8]> {
        let value = self.fields.field(name)?;
        Some(if self.redaction.hides(name.as_bytes()) {
            b"***"
        } else {
            value
        })
    }
}

/// How long the writer waits for more lines after the first: a person at a terminal wants them now, a file does not.
fn linger(terminal: bool) -> Duration {
    Duration::from_millis(if terminal { 20 } else { 100 })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        sync::{Arc, Mutex, MutexGuard, OnceLock},
        thread,
        time::Instant,
    };

    use rustix::pipe::{PipeFlags, pipe_with};
    use tracing_subscriber::fmt::MakeWriter;

    use super::{
        super::tests::{example, written},
        *,
    };
    use crate::outlet::PATIENCE;

    /// What the log said, by anyone in this process: the writer's thread has no subscriber of its own.
    fn heard() -> String {
        String::from_utf8(Ear.heard().clone()).unwrap()
    }

    #[derive(Clone, Copy)]
    struct Ear;

    impl Ear {
        fn heard(self) -> MutexGuard<'static, Vec<u8>> {
            static HEARD: Mutex<Vec<u8>> = Mutex::new(Vec::new());
            HEARD.lock().unwrap()
        }

        fn listen() {
            static LISTENING: OnceLock<()> = OnceLock::new();
            LISTENING.get_or_init(|| tracing_subscriber::fmt().with_writer(Self).init());
        }
    }

    impl io::Write for Ear {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Ear {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            *self
        }
    }

    fn pipe(flags: PipeFlags) -> (File, OwnedFd) {
        let (read, write) = pipe_with(flags | PipeFlags::CLOEXEC).unwrap();
        (File::from(read), write)
    }

    fn lines(read: File) -> Vec<String> {
        BufReader::new(read).lines().map(Result::unwrap).collect()
    }

    #[test]
    fn lines_arrive_in_order_and_flush_waits_for_them() {
        let (read, write) = pipe(PipeFlags::empty());
        let log = Log::new(write, Format::Combined).unwrap();
        for status in 200..230 {
            log.record(&Record {
                status,
                ..example()
            });
        }
        assert!(log.flush());
        let mut first = vec![0; 30 * (written(Format::Combined, &example()).len() + 1)];
        (&read).read_exact(&mut first).unwrap();
        log.record(&Record {
            status: 230,
            ..example()
        });
        drop(log);
        let first = String::from_utf8(first).unwrap();
        let all: Vec<String> = first
            .lines()
            .map(str::to_owned)
            .chain(lines(read))
            .collect();
        let expected: Vec<String> = (200..=230)
            .map(|status| {
                written(
                    Format::Combined,
                    &Record {
                        status,
                        ..example()
                    },
                )
            })
            .collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn without_a_flush_the_writer_takes_a_line_by_itself() {
        let (read, write) = pipe(PipeFlags::empty());
        let log = Log::new(write, Format::Combined).unwrap();
        for _ in 0..3 {
            log.record(&example());
            let mut line = String::new();
            BufReader::new(&read).read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), written(Format::Combined, &example()));
        }
    }

    #[test]
    fn a_stalled_reader_blocks_nobody_and_its_lost_lines_are_counted_and_said() {
        Ear::listen();
        let (read, write) = pipe(PipeFlags::empty());
        let log = Log::new(write, Format::Combined).unwrap();
        let mut slowest = Duration::ZERO;
        let mut recorded: u64 = 0;
        // More than the pipe, a batch in flight and the buffer hold, and an odd number that no other test drops.
        while log.dropped() < 1234 {
            let start = Instant::now();
            log.record(&example());
            slowest = slowest.max(start.elapsed());
            recorded += 1;
        }
        assert!(
            slowest < Duration::from_secs(1),
            "record() took {slowest:?}"
        );
        let reader = thread::spawn(|| lines(read));
        assert!(log.flush());
        let dropped = log.dropped();
        assert_eq!(dropped, 1234);
        drop(log);
        let read = reader.join().unwrap();
        assert_eq!(read.len() as u64 + dropped, recorded);
        assert!(
            read.iter()
                .all(|line| *line == written(Format::Combined, &example()))
        );
        assert!(heard().contains("1234 lines dropped"), "{}", heard());
    }

    #[test]
    fn dropping_the_log_does_not_wait_for_ever() {
        let (read, write) = pipe(PipeFlags::empty());
        let log = Log::new(write, Format::Combined).unwrap();
        while log.dropped() == 0 {
            log.record(&example());
        }
        let start = Instant::now();
        assert!(!log.flush());
        drop(log);
        assert!(start.elapsed() < PATIENCE * 3);
        drop(read);
    }

    #[test]
    fn a_full_disk_is_said_once_and_its_lines_are_counted() {
        Ear::listen();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let log = Log::new(full, Format::Combined).unwrap();
        for _ in 0..3 {
            log.record(&example());
            assert!(log.flush());
        }
        assert_eq!(log.dropped(), 3);
        let said = heard();
        assert_eq!(said.matches("No space left on device").count(), 1, "{said}");
    }

    #[test]
    fn a_nonblocking_stream_is_waited_for() {
        let (read, write) = pipe(PipeFlags::NONBLOCK);
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::empty()).unwrap();
        let log = Log::new(write, Format::Combined).unwrap();
        // More than a pipe holds.
        for _ in 0..3000 {
            log.record(&example());
        }
        let reader = thread::spawn(|| lines(read));
        drop(log);
        assert_eq!(reader.join().unwrap().len(), 3000);
    }

    #[test]
    fn threads_do_not_mix_their_lines() {
        let (read, write) = pipe(PipeFlags::empty());
        let log = Log::new(write, Format::Json).unwrap();
        let reader = thread::spawn(|| lines(read));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| log.record(&example())));
            }
        });
        drop(log);
        let expected = written(Format::Json, &example());
        let read = reader.join().unwrap();
        assert_eq!(read.len(), 800);
        assert!(read.iter().all(|line| *line == expected));
    }

    #[test]
    fn lines_go_on_in_another_file_and_none_is_lost() {
        let folder = std::env::temp_dir().join(format!("stack-sink-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (old, new) = (folder.join("access.log.1"), folder.join("access.log"));
        let open = |path: &std::path::Path| {
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .unwrap()
        };
        let log = Log::new(open(&old), Format::Combined).unwrap();
        for _ in 0..3 {
            log.record(&example());
        }
        log.reopen(open(&new));
        for _ in 0..4 {
            log.record(&example());
        }
        assert!(log.flush());
        // Even when no line follows, the old file is let go: its disk space depends on that.
        log.reopen(open(&new));
        drop(log);
        let count = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(count(&old) + count(&new), 7);
        assert!(count(&old) >= 3);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn secrets_are_hidden_in_every_format() {
        struct Secret;
        impl Fields for Secret {
            fn field(&self, _: &str) -> Option<&[u8]> {
                Some(b"hunter2")
            }
        }
        let own = super::super::Pattern::parse("$request $referer $http_x_token").unwrap();
        for format in [
            Format::Combined,
            Format::Json,
            Format::Pretty { colour: false },
            Format::Own(Arc::new(own)),
        ] {
            let (read, write) = pipe(PipeFlags::empty());
            let log = Log::new(write, format).unwrap();
            let log = log.redacted(Redaction::new(["token"]));
            log.record(&Record {
                target: b"/a?token=hunter2",
                referer: Some(b"https://h/?token=hunter2"),
                fields: Some(&Secret),
                ..example()
            });
            drop(log);
            let line = lines(read).join("");
            assert!(
                line.contains("/a?token=***") && !line.contains("hunter2"),
                "{line}"
            );
        }
    }

    #[test]
    fn off_takes_nothing() {
        let log = Log::off();
        log.record(&example());
        assert!(!log.is_on() && log.flush() && log.dropped() == 0);
    }
}
