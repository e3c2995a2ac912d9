//! HTTP/2 (RFC 9113): many requests at once, each through the same exchange as HTTP/1.1's.
//!
//! The protocol is [`session`], which knows no socket; what each stream does is [`stream`]; [`tasks`] runs the streams. Here the
//! three meet a socket and a clock. A turn reads what is there, lets every stream that it concerns go on, and writes what they
//! had to say at once, so that a burst of requests costs one read and one write.

mod budget;
mod duct;
mod session;
mod stream;
mod tasks;

use std::{
    fmt,
    future::poll_fn,
    io, panic,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use config::site::Limits;
use telemetry::panics;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout},
};

pub(crate) use budget::attacks;

use self::{
    budget::Budget,
    session::{Fatal, Leaving, Session},
    stream::Handle,
    tasks::Tasks,
};
use super::{INPUT, Stream};
use crate::{
    boxed::boxed,
    request::Peer,
    server::{Server, Stopping},
    timer::Timer,
};

/// How long a client may take to say that it has seen our farewell, and for everything else about an end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How much a client that was refused is listened to, so that it reads why: a close with unread input is a reset, which can
/// overtake what was sent (RFC 9112 §9.6).
const LINGER: usize = 256 * 1024;

/// Serves a connection to its end. `begun` has been read of it.
pub(super) async fn serve(stream: impl Stream, peer: Peer, server: Arc<Server>, begun: Vec<u8>) {
    let mut connection = Connection::new(stream, peer, server);
    connection.input = begun;
    let end = poll_fn(|cx| connection.poll(cx)).await;
    connection.end(end).await;
}

/// A connection and all that runs on it.
struct Connection<S> {
    stream: S,
    session: Arc<Mutex<Session>>,
    tasks: Tasks,
    peer: Arc<Peer>,
    server: Arc<Server>,
    /// The beginning of a frame; what was read with it has been used.
    input: Vec<u8>,
    /// How much of `Session::out` has been written.
    written: usize,
    /// Whether what was written may still be held by TLS.
    unflushed: bool,
    served: u64,
    clock: Clock,
    stop: Stopping,
    stopped: bool,
}

/// What the connection waits for, and since when.
struct Clock {
    timer: Timer,
    limits: Limits,
    born: Instant,
    /// No stream is open.
    idle: Option<Instant>,
    /// A preface or a field block is not complete.
    expecting: Option<Instant>,
    /// The client takes nothing.
    stalled: Option<Instant>,
    /// The client was told that we leave.
    leaving: Option<Instant>,
}

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The client is gone, or does not read.
    Lost,
    /// All is said.
    Clean,
    /// It cannot go on.
    Fatal(Fatal),
}

impl<S: Stream> Connection<S> {
    fn new(stream: S, peer: Peer, server: Arc<Server>) -> Self {
        let plan = server.plan();
        let limits = plan.limits.clone();
        let streams = usize::try_from(limits.h2_streams).unwrap_or(usize::MAX);
        let now = Instant::now();
        let budget = Budget::new(&limits);
        let session = Session::new(streams, plan.head_limits, budget, plan.has_tunnels);
        Self {
            stream,
            session: Arc::new(Mutex::new(session)),
            tasks: Tasks::default(),
            peer: Arc::new(peer),
            input: Vec::new(),
            written: 0,
            unflushed: false,
            served: 0,
            clock: Clock {
                timer: Timer::new(limits.head_timeout),
                limits,
                born: now,
                idle: Some(now),
                expecting: Some(now),
                stalled: None,
                leaving: None,
            },
            stop: server.stopping(),
            stopped: false,
            server,
        }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        panics::lock(&self.session)
    }

    /// Turn after turn, as long as there is something to do.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.tasks.watch(cx.waker());
        loop {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => match self.wait(cx) {
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(end)) => return Poll::Ready(end),
                    Poll::Pending => return Poll::Pending,
                },
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// Reads, works, writes. Returns whether anything came of it.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let read = self.read(cx)?;
        let worked = self.work();
        let wrote = self.write(cx)?;
        if self.tasks.running() == 0 && !read && !self.unflushed {
            let session = self.session();
            let is_last = session.leaving == Leaving::Last || session.client_leaves;
            if is_last && session.out.is_empty() && session.opened.is_empty() {
                return Err(End::Clean);
            }
        }
        Ok(read || worked || wrote)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.session().is_full() {
            return Ok(false);
        }
        INPUT.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(&mut buffer[..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                // Frames may be left that nothing was written for.
                Poll::Pending => return self.take_rest(),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Err(End::Lost),
            }
            let mut session = panics::lock(&self.session);
            if self.input.is_empty() {
                let used = session.receive(buffer.filled()).map_err(End::Fatal)?;
                self.input.extend_from_slice(&buffer.filled()[used..]);
            } else {
                self.input.extend_from_slice(buffer.filled());
                let used = session.receive(&self.input).map_err(End::Fatal)?;
                self.input.drain(..used);
            }
            Ok(true)
        })
    }

    fn take_rest(&mut self) -> Result<bool, End> {
        if self.input.is_empty() {
            // A connection at rest keeps nothing.
            self.input = Vec::new();
            return Ok(false);
        }
        let used = self.session().receive(&self.input).map_err(End::Fatal)?;
        self.input.drain(..used);
        Ok(used > 0)
    }

    /// Lets every stream go on that something has happened to. Returns whether there was one.
    fn work(&mut self) -> bool {
        let mut worked = false;
        loop {
            let (opened, woken) = {
                let mut session = self.session();
                (session.opened.pop_front(), session.woken.pop())
            };
            if let Some(opened) = opened {
                self.begin(opened);
            }
            let place = woken.or_else(|| self.tasks.next_woken());
            if let Some(place) = place {
                let polled = self.tasks.poll(place);
                self.note(place, polled);
            }
            if place.is_none() && self.session().opened.is_empty() {
                return worked;
            }
            worked = true;
        }
    }

    fn begin(&mut self, opened: session::Opened) {
        let place = opened.place;
        let handle = Handle {
            session: Arc::clone(&self.session),
            place,
        };
        let plan = self.server.plan();
        let peer = Arc::clone(&self.peer);
        let work = boxed(|| stream::answer(opened, handle, plan, peer));
        self.served += 1;
        if self.served >= self.clock.limits.keepalive_requests {
            self.session().warn();
        }
        self.clock.idle = None;
        let polled = self.tasks.start(place, work);
        self.note(place, polled);
    }

    /// What came of letting a stream go on. A fault of ours costs its stream, which is reset (`INTERNAL_ERROR`), and no other;
    /// but the connection, where it was in the midst of what all of them share.
    fn note(&mut self, place: usize, polled: thread::Result<bool>) {
        match polled {
            Ok(false) => {}
            Ok(true) => self.finish(place),
            Err(panic) if self.session.is_poisoned() => panic::resume_unwind(panic),
            Err(_) => self.finish(place),
        }
    }

    fn finish(&mut self, place: usize) {
        self.session().finish(place);
        if self.tasks.running() == 0 {
            self.clock.idle = Some(Instant::now());
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut session = panics::lock(&self.session);
        let mut progress = false;
        while self.written < session.out.len() {
            let rest = &session.out[self.written..];
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(length @ 1..)) => self.written += length,
                Poll::Ready(_) => return Err(End::Lost),
                Poll::Pending => {
                    self.clock.stall(progress);
                    return Ok(progress);
                }
            }
            self.unflushed = true;
            progress = true;
        }
        if progress {
            self.written = 0;
            session.written();
            if self.tasks.running() == 0 {
                session.out = Vec::new();
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(End::Lost),
                Poll::Pending => {
                    self.clock.stall(progress);
                    return Ok(progress);
                }
            }
        }
        self.clock.stalled = None;
        Ok(progress)
    }

    /// Nothing is to be done: waits, and says what to do when something has lasted too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        if !self.stopped && Pin::new(&mut self.stop).poll(cx).is_ready() {
            self.stopped = true;
            self.session().warn();
            return Poll::Ready(None);
        }
        let (expecting, leaving) = {
            let session = self.session();
            (session.is_expecting(), session.leaving)
        };
        self.clock.note(expecting, leaving);
        let (deadline, late) = self.clock.next(leaving);
        if self.clock.timer.poll(cx, deadline).is_pending() {
            return Poll::Pending;
        }
        match late {
            Late::Lost => Poll::Ready(Some(End::Lost)),
            Late::Leave => {
                self.session().warn();
                Poll::Ready(None)
            }
            Late::Last => {
                self.session().farewell();
                Poll::Ready(None)
            }
        }
    }

    /// What is left to do once nothing more is read.
    async fn end(mut self, end: End) {
        if let End::Fatal(fatal) = &end {
            match fatal {
                Fatal::Attack(attack) => {
                    budget::report(*attack, &self.clock.limits, &Address(&self.peer));
                }
                Fatal::Broken(code, why) => {
                    tracing::debug!(
                        "HTTP/2 connection of {}: {code:?}, {why}",
                        Address(&self.peer)
                    );
                }
            }
            self.session().give_up(fatal);
        }
        self.session().lose_all();
        // What still runs is for nobody, and ends as soon as it notices.
        let work = poll_fn(|cx| {
            self.tasks.watch(cx.waker());
            self.work();
            match self.tasks.running() {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        let _ = timeout(FAREWELL, work).await;
        if !matches!(end, End::Lost) {
            // Whoever does not take the last words does not need them.
            let _ = timeout(FAREWELL, self.close()).await;
        } else if self.clock.stalled.is_some() {
            self.stream.reset();
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.session().out);
        let rest = out.get(self.written..).unwrap_or_default();
        self.stream.write_all(rest).await?;
        self.stream.shutdown().await?;
        let mut input = vec![0; 4096];
        let mut left = LINGER;
        while left > 0 {
            match self.stream.read(&mut input).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        Ok(())
    }
}

/// What to do when a wait was too long.
#[derive(Clone, Copy)]
enum Late {
    /// Drop the connection.
    Lost,
    /// Begin to leave.
    Leave,
    /// Name the last stream, though the client has not answered.
    Last,
}

impl Clock {
    /// Something is to be written and is not taken.
    fn stall(&mut self, progress: bool) {
        if progress || self.stalled.is_none() {
            self.stalled = Some(Instant::now());
        }
    }

    fn note(&mut self, expecting: bool, leaving: Leaving) {
        match (expecting, self.expecting) {
            (true, None) => self.expecting = Some(Instant::now()),
            (false, Some(_)) => self.expecting = None,
            _ => {}
        }
        if leaving == Leaving::No {
            self.leaving = None;
        } else if self.leaving.is_none() {
            self.leaving = Some(Instant::now());
        }
    }

    /// The next thing that will have lasted too long.
    fn next(&self, leaving: Leaving) -> (Instant, Late) {
        let limits = &self.limits;
        let lost =
            |since: Option<Instant>, most: Duration| since.map(|since| (since + most, Late::Lost));
        let leave =
            |since: Option<Instant>, most: Duration| since.map(|since| (since + most, Late::Leave));
        let (idle, old, farewell) = match leaving {
            Leaving::No => (
                leave(self.idle, limits.keepalive_timeout),
                leave(Some(self.born), limits.keepalive_age),
                None,
            ),
            Leaving::Warned => {
                let last = self.leaving.map(|since| (since + FAREWELL, Late::Last));
                (None, None, last)
            }
            Leaving::Last => {
                // None of its requests is left, and it does not close.
                let since = self.leaving.max(self.idle).filter(|_| self.idle.is_some());
                (None, None, lost(since, FAREWELL + FAREWELL))
            }
        };
        let never = (Instant::now() + limits.keepalive_age, Late::Leave);
        [
            lost(self.expecting, limits.head_timeout),
            lost(self.stalled, limits.send_timeout),
            idle,
            old,
            farewell,
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(deadline, _)| *deadline)
        .unwrap_or(never)
    }
}

/// The peer, for the log.
struct Address<'p>(&'p Peer);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.address {
            Some(address) => write!(f, "{}", address.ip().to_canonical()),
            None => f.write_str("unix"),
        }
    }
}
