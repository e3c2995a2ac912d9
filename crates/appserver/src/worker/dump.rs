//! Where all threads of a worker are, whatever they do: what faulthandler writes.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::{net::unix::pipe, time::Instant};

/// The pipe that [`crate::assignment::DUMP_SIGNAL`] writes to. A dump has no end that could be seen, so it ends when nothing more has come for
/// a moment; the writer is a signal handler that waits for nothing.
#[derive(Debug)]
pub(super) struct Dump {
    pipe: pipe::Receiver,
    text: Vec<u8>,
    /// When the dump is taken as whole, if one has begun.
    whole: Option<Instant>,
}

/// Nothing more has come for so long: a handler writes line after line without a wait.
const QUIET: Duration = Duration::from_millis(200);

/// Most bytes of a dump that are kept; the stacks of some hundred threads.
const DUMP_MAX: usize = 256 * 1024;

impl Dump {
    /// Our end and the worker's. Where a dump is larger than the pipe and we are slow, its rest is lost: a handler that waits
    /// would stop the very thread that it is to describe.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        let dump = Self {
            pipe: pipe::Receiver::from_owned_fd(read)?,
            text: Vec::new(),
            whole: None,
        };
        Ok((dump, write))
    }

    /// The next whole dump. Cancel-safe; never ends when the pipe has.
    pub(super) async fn next(&mut self) -> Vec<u8> {
        loop {
            let Some(whole) = self.whole else {
                if self.pipe.readable().await.is_err() || !self.take() {
                    std::future::pending::<()>().await;
                }
                continue;
            };
            tokio::select! {
                biased;
                ready = self.pipe.readable() => if ready.is_ok() && self.take() {
                    continue;
                },
                () = tokio::time::sleep_until(whole) => {}
            }
            self.whole = None;
            return std::mem::take(&mut self.text);
        }
    }

    /// Reads what there is; false at the end.
    fn take(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.pipe.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => {
                let room = DUMP_MAX - self.text.len().min(DUMP_MAX);
                self.text.extend_from_slice(&buffer[..read.min(room)]);
                self.whole = Some(Instant::now() + QUIET);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }

    /// What is there of a worker that has ended.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 16 * 1024];
        while self.text.len() < DUMP_MAX
            && let Ok(read @ 1..) = rustix::io::read(&self.pipe, &mut buffer)
        {
            self.text.extend_from_slice(&buffer[..read]);
        }
        (!self.text.is_empty()).then(|| std::mem::take(&mut self.text))
    }
}
