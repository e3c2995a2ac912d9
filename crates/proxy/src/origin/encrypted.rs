//! TLS to an origin. A request is written while its response is read, by two parts of one task that share the socket; a session of
//! TLS is one for both directions, so each poll has it for itself.

use std::{
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use telemetry::panics;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connection on which the handshake is done.
#[derive(Debug)]
pub(crate) struct Encrypted(Mutex<TlsStream<TcpStream>>);

/// What is read at once: what one record holds.
const READ: usize = 16 * 1024;

impl Encrypted {
    /// Over this one.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(Mutex::new(stream))
    }

    fn lock(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        panics::lock(&self.0)
    }

    /// Whether the other end still holds the connection, and has nothing to say.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stream = self.lock();
        // What was written and has not left: the answer may wait for it. Where nobody takes it, the read says so.
        let _ = Pin::new(&mut *stream).poll_flush(cx);
        Pin::new(&mut *stream).poll_read(cx, buffer)
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.lock();
        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
        let written = ready!(Pin::new(&mut *stream).poll_write(cx, bytes));
        // As far as it goes now; the rest leaves with the next poll.
        let _ = Pin::new(&mut *stream).poll_flush(cx);
        Poll::Ready(written)
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }

    /// Reads a part behind what is in the buffer; 0 is the end.
    pub(super) fn poll_read_behind(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let start = buffer.len();
        buffer.resize(start + READ, 0);
        let mut piece = ReadBuf::new(&mut buffer[start..]);
        let read = self.poll_read(cx, &mut piece);
        let length = piece.filled().len();
        buffer.truncate(start + length);
        read.map(|read| read.map(|()| length))
    }

    /// The same without waiting.
    pub(super) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        now(self.poll_read_behind(&mut cx, buffer))
    }

    /// Writes what is taken at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        now(self.poll_write(&mut cx, bytes))
    }
}

fn now(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
    match poll {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
