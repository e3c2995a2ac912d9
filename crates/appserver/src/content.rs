//! The content of one request, read from the connection as the application asks for it.
//!
//! A body of any size costs one small buffer. The end is the Content-Length, never the end of the stream: nothing past it is
//! touched, and a stream that ends before it is an error and not a short body. The handle may outlive its request (an app
//! can keep `wsgi.input`): it is cut off then, and reads nothing of the next one.

use std::{
    io,
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, TryLockError},
};

use memchr::memchr;
use rustix::{
    io::retry_on_intr,
    net::{RecvFlags, recv},
};
use telemetry::panics;

/// How much is read ahead for lines: what a pipe or a Unix socket holds is of this order.
const AHEAD: usize = 16 * 1024;

/// A shared handle on the content of one request.
#[derive(Clone, Debug)]
pub struct Content {
    body: Arc<Mutex<Body>>,
}

#[derive(Debug)]
struct Body {
    /// `None` once the request is over.
    stream: Option<Arc<UnixStream>>,
    /// Read from the connection, not yet by the application.
    ahead: Vec<u8>,
    /// How much of `ahead` the application has.
    taken: usize,
    /// Not yet read from the connection.
    left: u64,
}

impl Content {
    /// `early` came together with the head; `left` is still to come.
    pub(crate) fn new(stream: Arc<UnixStream>, early: &[u8], left: u64) -> Self {
        let body = Body {
            stream: Some(stream),
            ahead: early.to_vec(),
            taken: 0,
            left,
        };
        Self {
            body: Arc::new(Mutex::new(body)),
        }
    }

    /// How many bytes the application has not read. `None` if another thread is reading this very moment.
    pub fn remaining(&self) -> Option<u64> {
        let body = match self.body.try_lock() {
            Ok(body) => body,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(body.left + body.buffered().len() as u64)
    }

    /// Fills `space` as far as the content goes; how much that was. Waits for the connection.
    pub fn read(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let (filled, end) = self.lock().fill(space, RecvFlags::empty());
        end.map(|()| filled)
    }

    /// As [`Content::read`], but only what the connection has already: that costs no wait.
    pub fn read_what_is_here(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let Ok(mut body) = self.body.try_lock() else {
            return Ok(0);
        };
        match body.fill(space, RecvFlags::DONTWAIT) {
            (filled, Ok(())) => Ok(filled),
            (filled, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(filled),
            (_, Err(error)) => Err(error),
        }
    }

    /// The next line with its `\n`, or what there is if the content ends or `limit` bytes come first. A line that is already
    /// here costs no wait.
    pub fn read_line(&self, limit: usize, line: &mut Vec<u8>) -> io::Result<()> {
        self.lock().read_line(limit, line)
    }

    /// Whether [`Content::read_line`] would return without a wait.
    pub fn line_is_here(&self, limit: usize) -> bool {
        let Ok(body) = self.body.try_lock() else {
            return false;
        };
        let here = body.buffered();
        here.len() >= limit || memchr(b'\n', here).is_some()
    }

    /// Ends the request if nothing of the content is left on the connection, and cuts this handle off. `false`: something is;
    /// [`Content::drain`] is for that.
    pub(crate) fn cut_off(&self) -> bool {
        match self.body.try_lock() {
            Ok(mut body) if body.left == 0 => {
                body.cut_off();
                true
            }
            _ => false,
        }
    }

    /// Ends the request: reads what the application left, so that the next head is the next thing on the connection, and
    /// cuts this handle off.
    pub(crate) fn drain(&self) -> io::Result<()> {
        let mut body = self.lock();
        body.taken = body.ahead.len();
        let drained = body.skip_left();
        body.cut_off();
        drained
    }

    fn lock(&self) -> MutexGuard<'_, Body> {
        // Every method leaves the figures true at each step, so a panic in between spoils nothing.
        panics::lock(&self.body)
    }
}

impl Body {
    fn buffered(&self) -> &[u8] {
        &self.ahead[self.taken..]
    }

    /// Moves buffered bytes into `space`; how many.
    fn take(&mut self, space: &mut [MaybeUninit<u8>]) -> usize {
        let count = self.buffered().len().min(space.len());
        space[..count].write_copy_of_slice(&self.ahead[self.taken..self.taken + count]);
        self.taken += count;
        count
    }

    /// Fills `space` as far as the content, or what `flags` let it wait for, goes. What was filled counts also when it fails.
    fn fill(&mut self, space: &mut [MaybeUninit<u8>], flags: RecvFlags) -> (usize, io::Result<()>) {
        let mut filled = 0;
        loop {
            filled += self.take(&mut space[filled..]);
            if filled == space.len() || self.left == 0 {
                return (filled, self.stream().map(drop));
            }
            let rest = space.len() - filled;
            let more = if rest >= AHEAD || rest as u64 >= self.left {
                // Straight into the application's memory.
                let want = rest.min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.receive(&mut space[filled..filled + want], flags)
            } else {
                self.read_ahead(flags).map(|()| 0)
            };
            match more {
                Ok(count) => filled += count,
                Err(error) => return (filled, Err(error)),
            }
        }
    }

    fn receive(&mut self, space: &mut [MaybeUninit<u8>], flags: RecvFlags) -> io::Result<usize> {
        let stream = self.stream()?;
        let count = retry_on_intr(|| recv(stream, &mut *space, flags).map(|(_, count)| count))?;
        let count = something(count)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn read_line(&mut self, limit: usize, line: &mut Vec<u8>) -> io::Result<()> {
        self.stream()?;
        loop {
            let here = self.buffered();
            let here = &here[..here.len().min(limit - line.len())];
            let (count, ended) = match memchr(b'\n', here) {
                Some(feed) => (feed + 1, true),
                None => (here.len(), false),
            };
            line.extend_from_slice(&here[..count]);
            self.taken += count;
            if ended || line.len() == limit || self.left == 0 {
                return Ok(());
            }
            self.read_ahead(RecvFlags::empty())?;
        }
    }

    /// Refills the empty buffer.
    fn read_ahead(&mut self, flags: RecvFlags) -> io::Result<()> {
        debug_assert!(self.buffered().is_empty(), "bytes would be lost");
        let want = AHEAD.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.ahead.resize(want, 0);
        // Nothing counts as here until it is: an error below must not leave zeroes behind.
        self.taken = want;
        let stream = self.stream.as_ref().ok_or_else(over)?;
        let space = &mut self.ahead[..];
        let count = retry_on_intr(|| recv(stream, &mut *space, flags).map(|(_, count)| count))?;
        let count = something(count)?;
        self.ahead.truncate(count);
        self.taken = 0;
        self.left -= count as u64;
        Ok(())
    }

    fn cut_off(&mut self) {
        self.stream = None;
        self.left = 0;
        self.ahead = Vec::new();
        self.taken = 0;
    }

    fn skip_left(&mut self) -> io::Result<()> {
        while self.left > 0 {
            self.read_ahead(RecvFlags::empty())?;
            self.taken = self.ahead.len();
        }
        Ok(())
    }

    fn stream(&self) -> io::Result<&UnixStream> {
        self.stream.as_deref().ok_or_else(over)
    }
}

/// A read that brings nothing has met the end of the stream, before the end of the content.
fn something(count: usize) -> io::Result<usize> {
    if count == 0 {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the connection ended before the content",
        ));
    }
    Ok(count)
}

fn over() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the request that this content belongs to is over",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(early: &str, rest: &str, length: usize) -> (Content, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        io::Write::write_all(&mut &theirs, rest.as_bytes()).unwrap();
        (
            Content::new(
                Arc::new(ours),
                early.as_bytes(),
                (length - early.len()) as u64,
            ),
            theirs,
        )
    }

    /// Through lines: without `unsafe` there is no way to look into what `read` has filled.
    fn line(content: &Content, limit: usize) -> io::Result<String> {
        let mut line = Vec::new();
        content.read_line(limit, &mut line)?;
        Ok(String::from_utf8(line).unwrap())
    }

    fn skip(content: &Content, size: usize) -> io::Result<usize> {
        content.read(&mut vec![MaybeUninit::uninit(); size])
    }

    #[test]
    fn it_ends_at_its_length() {
        let (content, _proxy) = content("ab\nc", "d\nefNEXT", 8);
        assert_eq!(content.remaining(), Some(8));
        assert!(content.line_is_here(10));
        assert_eq!(line(&content, 10).unwrap(), "ab\n");
        assert!(!content.line_is_here(10));
        assert_eq!(skip(&content, 2).unwrap(), 2);
        assert_eq!(line(&content, 10).unwrap(), "\n");
        assert_eq!(content.remaining(), Some(2));
        assert_eq!(line(&content, 1).unwrap(), "e");
        assert_eq!(skip(&content, 100).unwrap(), 1);
        assert_eq!(
            (
                skip(&content, 100).unwrap(),
                line(&content, 100).unwrap().as_str()
            ),
            (0, "")
        );
        assert_eq!(content.remaining(), Some(0));
    }

    #[test]
    fn what_is_here_is_read_without_a_wait() {
        let (content, proxy) = content("abc", "def", 9);
        let mut space = [MaybeUninit::uninit(); 9];
        assert_eq!(content.read_what_is_here(&mut space[..2]).unwrap(), 2);
        assert_eq!(content.read_what_is_here(&mut space).unwrap(), 4);
        assert_eq!(content.read_what_is_here(&mut space).unwrap(), 0);
        assert_eq!(content.remaining(), Some(3));
        drop(proxy);
        assert!(content.read_what_is_here(&mut space).is_err());
    }

    #[test]
    fn draining_leaves_the_next_request_alone() {
        let (content, proxy) = content("abc", "defNEXT", 6);
        let stream = Arc::clone(content.lock().stream.as_ref().unwrap());
        let kept = content.clone();
        content.drain().unwrap();
        assert_eq!(
            skip(&kept, 1).unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
        assert_eq!(
            line(&kept, 1).unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
        assert!(kept.read_what_is_here(&mut []).is_err());
        assert_eq!(kept.remaining(), Some(0));
        drop(proxy);
        assert_eq!(io::read_to_string(&*stream).unwrap(), "NEXT");
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error_and_not_an_end() {
        for act in [
            |content: &Content| skip(content, 9).err(),
            |content: &Content| line(content, 9).err(),
            |content: &Content| content.drain().err(),
        ] {
            let (content, proxy) = content("abc", "def", 9);
            drop(proxy);
            let error = act(&content).expect("an error");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}
