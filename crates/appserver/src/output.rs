//! What workers print: whole lines, each with the name of who printed it.
//!
//! A worker's standard output and error are pipes that the master reads, because lines of several processes that share
//! one descriptor would mix, and because what a process printed before it was killed lies in the pipe and is not lost. A
//! line goes to the log as it comes; nothing is held back beyond the end of its line. When the log's reader stalls, lines
//! are dropped there and counted: neither the master nor a worker that prints ever waits for it.

use std::{collections::VecDeque, io, os::fd::OwnedFd};

use anstyle::Style;
use telemetry::text::visible;
use tokio::net::unix::pipe;

/// A line longer than this is written in parts: a worker that never ends its line must not fill the master's memory.
const LINE_MAX: usize = 64 * 1024;

/// Where lines go: the master's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    tag: Style,
}

/// When a line was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Its worker lives.
    InLife,
    /// Its worker has died, and this may say of what.
    BeforeItsEnd,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let colour = telemetry::log::colour(&io::stderr());
        let tag = if colour {
            Style::new().dimmed()
        } else {
            Style::new()
        };
        Self { tag }
    }

    /// Tabs stay; other controls could act on the terminal, and an app prints what visitors sent.
    fn format(self, name: &str, line: &[u8]) -> Vec<u8> {
        if let Some(object) = telemetry::log::foreign_line(name, line) {
            return object;
        }
        let tag = self.tag;
        let mut text = format!("{tag}{name} |{tag:#} ").into_bytes();
        for (index, piece) in line.split(|byte| *byte == b'\t').enumerate() {
            if index > 0 {
                text.push(b'\t');
            }
            visible(piece, &mut text);
        }
        text.push(b'\n');
        text
    }
}

/// What is said in a worker's name.
#[derive(Debug)]
struct Voice {
    name: String,
    terminal: Terminal,
    /// The last lines that found no room: when their worker dies they are said after all.
    unsaid: VecDeque<Vec<u8>>,
    unsaid_bytes: usize,
}

/// Most bytes of them; a long traceback.
const UNSAID_MAX: usize = 16 * 1024;

impl Voice {
    fn say(&mut self, line: &[u8], when: When) {
        let text = self.terminal.format(&self.name, line);
        match when {
            When::BeforeItsEnd => telemetry::log::pass_on_last(&text),
            When::InLife if telemetry::log::pass_on(&text) => self.forget(),
            When::InLife => self.remember(text),
        }
    }

    fn remember(&mut self, text: Vec<u8>) {
        self.unsaid_bytes += text.len();
        self.unsaid.push_back(text);
        while self.unsaid_bytes > UNSAID_MAX
            && let Some(first) = self.unsaid.pop_front()
        {
            self.unsaid_bytes -= first.len();
        }
    }

    /// There is room again, so who reads is past them.
    fn forget(&mut self) {
        self.unsaid.clear();
        self.unsaid_bytes = 0;
    }

    fn say_unsaid(&mut self) {
        for text in std::mem::take(&mut self.unsaid) {
            telemetry::log::pass_on_last(&text);
        }
        self.unsaid_bytes = 0;
    }
}

/// The two pipes of one worker.
#[derive(Debug)]
pub(crate) struct Output {
    voice: Voice,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
}

impl Output {
    pub(crate) fn new(
        name: String,
        terminal: Terminal,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> io::Result<Self> {
        Ok(Self {
            voice: Voice {
                name,
                terminal,
                unsaid: VecDeque::new(),
                unsaid_bytes: 0,
            },
            stdout: stdout.map(Stream::new).transpose()?,
            stderr: stderr.map(Stream::new).transpose()?,
        })
    }

    /// Writes lines until both pipes have ended. Cancel-safe.
    pub(crate) async fn copy(&mut self) {
        while self.stdout.is_some() || self.stderr.is_some() {
            let which = tokio::select! {
                () = readable(&self.stdout) => Which::Stdout,
                () = readable(&self.stderr) => Which::Stderr,
            };
            self.take(which, When::InLife, pipe::Receiver::try_read);
        }
    }

    /// Whether both pipes have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Writes what lies in the pipes now: of a process that has ended, everything it ever printed. What somebody else who
    /// holds a pipe may print later is not waited for.
    pub(crate) fn drain(&mut self) {
        let when = When::BeforeItsEnd;
        self.voice.say_unsaid();
        for which in [Which::Stdout, Which::Stderr] {
            self.take(which, when, |pipe, buffer| {
                Ok(rustix::io::read(pipe, buffer)?)
            });
            let voice = &mut self.voice;
            if let Some(stream) = which.of(&mut self.stdout, &mut self.stderr) {
                stream.lines.end(&mut |line| voice.say(line, when));
            }
        }
    }

    fn take(
        &mut self,
        which: Which,
        when: When,
        read: impl Fn(&pipe::Receiver, &mut [u8]) -> io::Result<usize>,
    ) {
        let voice = &mut self.voice;
        let slot = which.of(&mut self.stdout, &mut self.stderr);
        let Some(stream) = slot else { return };
        if !stream.take(read, |line| voice.say(line, when)) {
            *slot = None;
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl Which {
    fn of<T>(self, stdout: T, stderr: T) -> T {
        match self {
            Self::Stdout => stdout,
            Self::Stderr => stderr,
        }
    }
}

async fn readable(stream: &Option<Stream>) {
    match stream {
        // An error shows again at the read that follows.
        Some(stream) => drop(stream.pipe.readable().await),
        None => std::future::pending().await,
    }
}

/// One pipe and the line that has not ended yet.
#[derive(Debug)]
struct Stream {
    pipe: pipe::Receiver,
    lines: Lines,
}

impl Stream {
    fn new(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: pipe::Receiver::from_owned_fd(descriptor)?,
            lines: Lines::default(),
        })
    }

    /// Reads as much as there is, up to a bound, so that one that prints without pause does not take the master's whole
    /// time. Returns whether the pipe is still open.
    fn take(
        &mut self,
        read: impl Fn(&pipe::Receiver, &mut [u8]) -> io::Result<usize>,
        mut write: impl FnMut(&[u8]),
    ) -> bool {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..=PIPE_MAX / buffer.len() {
            match read(&self.pipe, &mut buffer) {
                Ok(0) => {
                    self.lines.end(&mut write);
                    return false;
                }
                Ok(read) => self.lines.push(&buffer[..read], &mut write),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

/// What a dead process left behind in a pipe is never more (pipe(7)).
const PIPE_MAX: usize = 64 * 1024;

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], write: &mut impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.rest.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            write(self.rest.strip_suffix(b"\r").unwrap_or(&self.rest));
            self.rest.clear();
        }
        self.rest.extend_from_slice(bytes);
        while self.rest.len() >= LINE_MAX {
            write(&self.rest[..LINE_MAX]);
            self.rest.drain(..LINE_MAX);
        }
    }

    /// What came after the last line end is a line too.
    fn end(&mut self, write: &mut impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            write(&self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_found_no_room_the_end_is_kept() {
        let mut voice = Voice {
            name: "web·1".to_owned(),
            terminal: Terminal { tag: Style::new() },
            unsaid: VecDeque::new(),
            unsaid_bytes: 0,
        };
        for number in 0..100 {
            voice.remember(format!("{number:01000}").into_bytes());
        }
        assert_eq!(voice.unsaid.len(), UNSAID_MAX / 1000);
        assert_eq!(voice.unsaid_bytes, voice.unsaid.len() * 1000);
        assert!(voice.unsaid.back().unwrap().ends_with(b"99"));
        voice.forget();
        assert_eq!((voice.unsaid.len(), voice.unsaid_bytes), (0, 0));
    }

    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let mut write = |line: &[u8]| seen.push(line.to_vec());
        for piece in pieces {
            lines.push(piece, &mut write);
        }
        lines.end(&mut write);
        seen
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        type Pieces = &'static [&'static [u8]];
        let cases: [(Pieces, Pieces); 6] = [
            (&[b"one\ntwo\n"], &[b"one", b"two"]),
            (&[b"o", b"ne", b"\nt", b"wo"], &[b"one", b"two"]),
            (&[b"windows\r\n"], &[b"windows"]),
            (&[b"\n\n"], &[b"", b""]),
            (&[], &[]),
            (&[b"\xff\n"], &[b"\xff"]),
        ];
        for (pieces, expected) in cases {
            assert_eq!(cut(pieces), expected);
        }
    }

    #[test]
    fn an_endless_line_is_cut_and_nothing_of_it_is_lost() {
        let long = vec![b'x'; 2 * LINE_MAX + 5];
        let lines = cut(&[&long, b"\nnext\n"]);
        let lengths: Vec<usize> = lines.iter().map(Vec::len).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, 5, 4]);
    }

    #[test]
    fn a_line_has_a_name_and_no_power_over_the_terminal() {
        let terminal = Terminal { tag: Style::new() };
        let line = terminal.format("web·1", "a\tb\x1b[2J ü".as_bytes());
        assert_eq!(String::from_utf8(line).unwrap(), "web·1 | a\tb\\x1B[2J ü\n");
    }

    #[tokio::test]
    async fn what_was_printed_before_the_end_is_there_at_once() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut stream = Stream::new(read).unwrap();
        let held_by_a_grandchild = write.try_clone().unwrap();
        rustix::io::write(&write, b"done\nlast words").unwrap();
        drop(write);
        let now = |pipe: &pipe::Receiver, buffer: &mut [u8]| Ok(rustix::io::read(pipe, buffer)?);
        let mut seen = Vec::new();
        assert!(
            stream.take(now, |line| seen.push(line.to_vec())),
            "somebody may still print"
        );
        assert_eq!(seen, [b"done"]);
        drop(held_by_a_grandchild);
        assert!(!stream.take(now, |line| seen.push(line.to_vec())));
        assert_eq!(seen, [&b"done"[..], b"last words"]);
    }
}
