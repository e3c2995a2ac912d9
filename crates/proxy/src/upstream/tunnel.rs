//! A tunnel: bytes of a protocol that is not ours, passed both ways until both sides have ended or nothing passes.
//!
//! A tunnel at rest has no buffer of its own: what arrives is read into memory of the thread and mostly leaves at once; only
//! what the other side does not take is kept, and nothing more is read until it has left.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::member::Lease;
use crate::{origin::Origin, timer::Timer};

/// The origin's side of a tunnel that it has agreed to.
#[derive(Debug)]
pub(crate) struct Tunnel {
    lease: Lease,
    protocol: Box<[u8]>,
}

/// What has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Bytes of the client's.
    pub(crate) up: u64,
    /// Bytes of the origin's.
    pub(crate) down: u64,
}

impl Tunnel {
    pub(super) fn new(lease: Lease, protocol: &[u8]) -> Self {
        Self {
            lease,
            protocol: protocol.into(),
        }
    }

    /// The protocol that was agreed upon.
    pub(crate) fn protocol(&self) -> &[u8] {
        &self.protocol
    }

    /// Passes bytes until both sides have ended, one breaks, or nothing has passed for `idle`. `early` is what the client has
    /// sent already.
    pub(crate) async fn run(
        mut self,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        early: BytesMut,
        idle: Duration,
    ) -> Passed {
        let wire = &mut self.lease.connection().wire;
        let mut up = Direction::new(early);
        let mut down = Direction::new(std::mem::take(&mut wire.buffer));
        let mut timer = Timer::new(idle);
        let mut deadline = Instant::now() + idle;
        poll_fn(|cx| {
            let before = (up.passed, down.passed);
            let sent = up.poll(cx, client, &mut wire.socket);
            let received = down.poll(cx, &mut wire.socket, client);
            match (sent, received) {
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
                _ => {}
            }
            if before != (up.passed, down.passed) {
                deadline = Instant::now() + idle;
            }
            timer.poll(cx, deadline)
        })
        .await;
        Passed {
            up: up.passed,
            down: down.passed,
        }
    }
}

/// One way through a tunnel.
struct Direction {
    /// What was read and not yet taken.
    held: BytesMut,
    state: State,
    passed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Something was written that may not have left.
    Unflushed,
    /// The source has ended; its end is to be passed on.
    Ended,
    Done,
}

/// What is read at once.
const PIECE: usize = 64 * 1024;

thread_local! {
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

impl Direction {
    fn new(held: BytesMut) -> Self {
        Self {
            held,
            state: State::Open,
            passed: 0,
        }
    }

    /// Passes what there is; ready once the source's end has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_held(cx, to))?;
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ended => {
                    ready!(Pin::new(to).poll_shutdown(cx))?;
                    self.state = State::Done;
                    return Poll::Ready(Ok(()));
                }
                State::Open | State::Unflushed => {}
            }
            if self.poll_piece(cx, from, to)?.is_pending() {
                if self.state == State::Unflushed {
                    ready!(Pin::new(to).poll_flush(cx))?;
                    self.state = State::Open;
                }
                return Poll::Pending;
            }
        }
    }

    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
            self.wrote(written)?;
            self.held.advance(written);
            if self.held.is_empty() {
                self.held = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.passed += written as u64;
        if self.state == State::Open {
            self.state = State::Unflushed;
        }
        Ok(())
    }

    /// Reads a piece and writes what is taken of it.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Poll<()>> {
        SPACE.with_borrow_mut(|space| {
            let mut piece = ReadBuf::new(space);
            let Poll::Ready(read) = Pin::new(from).poll_read(cx, &mut piece) else {
                return Ok(Poll::Pending);
            };
            read?;
            let piece = piece.filled();
            if piece.is_empty() {
                self.state = State::Ended;
                return Ok(Poll::Ready(()));
            }
            let written = match Pin::new(to).poll_write(cx, piece) {
                Poll::Ready(written) => {
                    let written = written?;
                    self.wrote(written)?;
                    written
                }
                Poll::Pending => 0,
            };
            self.held.extend_from_slice(&piece[written..]);
            Ok(Poll::Ready(()))
        })
    }
}
