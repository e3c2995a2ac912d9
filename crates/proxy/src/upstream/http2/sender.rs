//! The content of a request on its way to a member: as much at once as its windows allow.

use std::future::poll_fn;

use bytes::Bytes;
use h2::SendStream;

use crate::origin::{
    relay::{Rest, SendError},
    spool::Spooled,
};

/// What of a request has not been sent.
pub(super) struct Sender {
    stream: SendStream<Bytes>,
    piece: Bytes,
    rest: Option<Rest>,
    /// Whether the rest is its client's to send, in the client's time.
    is_coming: bool,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// There is more.
    Part,
    All,
}

impl Sender {
    /// `None` where there is no content, which the head has told.
    pub(super) fn new(stream: SendStream<Bytes>, body: Spooled) -> Option<Self> {
        let is_coming = body.is_coming();
        let (piece, rest) = match body {
            Spooled::None => return None,
            Spooled::Memory(bytes) => (bytes, None),
            other => (Bytes::new(), Rest::of(other)),
        };
        Some(Self {
            stream,
            piece,
            rest,
            is_coming,
        })
    }

    /// Whether what is missing is still on its way from the client.
    pub(super) fn is_coming(&self) -> bool {
        self.is_coming
    }

    /// Sends a part. Cancel-safe: whatever a dropped future has not sent is still here.
    pub(super) async fn send(&mut self) -> Result<Sent, SendError> {
        if self.piece.is_empty()
            && let Some(rest) = &mut self.rest
        {
            let piece = tokio::select! {
                piece = rest.next() => piece?,
                // It takes no more, and says so while there is nothing to be sent.
                _ = poll_fn(|cx| self.stream.poll_reset(cx)) => return Err(SendError::Origin),
            };
            self.piece = piece;
            if self.piece.is_empty() {
                self.rest = None;
            }
        }
        if self.piece.is_empty() {
            let end = self.stream.send_data(Bytes::new(), true);
            return end.map(|()| Sent::All).map_err(|_| SendError::Origin);
        }
        self.stream.reserve_capacity(self.piece.len());
        let room = poll_fn(|cx| match self.stream.capacity() {
            0 => self.stream.poll_capacity(cx),
            room => Some(Ok(room)).into(),
        });
        let Some(Ok(room)) = room.await else {
            return Err(SendError::Origin);
        };
        let part = self.piece.split_to(room.min(self.piece.len()));
        let sent = self.stream.send_data(part, false);
        sent.map(|()| Sent::Part).map_err(|_| SendError::Origin)
    }
}
