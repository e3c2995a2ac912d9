//! A stream as the client's side of a tunnel (RFC 8441 §5): bytes are DATA, and an end is END_STREAM.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    session::{Gone, Taken},
    stream::Handle,
};

/// Bytes in and out of a stream. Like all that works for a stream it keeps no waker: the connection polls the stream whenever
/// something has come, or a window has opened.
#[derive(Debug)]
pub(super) struct Duct<'s>(pub(super) &'s Handle);

impl From<Gone> for io::Error {
    fn from(_: Gone) -> Self {
        io::ErrorKind::ConnectionReset.into()
    }
}

impl AsyncRead for Duct<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.session().take(self.0.place, buffer.remaining()) {
            Taken::Content(content) => {
                buffer.put_slice(&content);
                Poll::Ready(Ok(()))
            }
            Taken::End => Poll::Ready(Ok(())),
            Taken::Nothing => Poll::Pending,
            Taken::Refused(refusal) => Poll::Ready(Err(io::Error::other(refusal))),
            Taken::Gone => Poll::Ready(Err(Gone.into())),
        }
    }
}

impl AsyncWrite for Duct<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.0.session().send(self.0.place, bytes, false)? {
            0 => Poll::Pending,
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// The connection writes what it has at the end of each turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.session().send(self.0.place, b"", true)?;
        Poll::Ready(Ok(()))
    }
}
