//! What a worker and its master say to each other: lines of JSON.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::net::UnixStream;

use crate::assignment;

/// Our end of the conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    stream: UnixStream,
    heard: Vec<u8>,
    state: Hearing,
}

/// Whether the worker may still say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    Open,
    Over,
}

/// Longest report: a traceback of thousands of frames. What a worker says is input; it must not fill our memory.
const REPORT_MAX: usize = 4 << 20;

impl Conversation {
    pub(super) fn new(ours: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&ours, true)?;
        let stream = UnixStream::from_std(ours.into())?;
        Ok(Self {
            stream,
            heard: Vec::new(),
            state: Hearing::Open,
        })
    }

    pub(super) async fn readable(&self) {
        match self.state {
            // An error shows again at the read that follows.
            Hearing::Open => drop(self.stream.readable().await),
            Hearing::Over => std::future::pending().await,
        }
    }

    /// Reads what is there now.
    pub(super) fn read(&mut self, read: impl Fn(&UnixStream, &mut [u8]) -> io::Result<usize>) {
        let mut buffer = [0; 8 * 1024];
        while self.state == Hearing::Open {
            match read(&self.stream, &mut buffer) {
                Ok(0) => self.end(),
                Ok(read) if self.heard.len() + read > REPORT_MAX => self.end(),
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.end(),
            }
        }
    }

    /// The whole lines that were heard.
    pub(super) fn lines(&mut self) -> Vec<Vec<u8>> {
        let Some(end) = memchr::memrchr(b'\n', &self.heard) else {
            return Vec::new();
        };
        let rest = self.heard.split_off(end + 1);
        let whole = std::mem::replace(&mut self.heard, rest);
        whole
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }

    pub(super) fn end(&mut self) {
        self.state = Hearing::Over;
    }

    /// A line that short always fits, unless the worker has not listened for thousands of them.
    pub(super) fn say(&self, order: assignment::Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        rustix::net::send(self.stream.as_fd(), &line, flags)?;
        Ok(())
    }
}
