//! An HTTP/2 connection without its socket: frames in, requests and frames out (RFC 9113).
//!
//! Everything that a client can make us keep is bounded here: streams, heads, content by its windows, and what is to be
//! written by [`OUT_ROOM`], past which nothing more is read either. What a client can make us do for nothing is bounded by
//! the [`Budget`].
//!
//! Here is the order of frames; [`requests`] has what they bring, [`control`] what they say of the connection, and [`responses`]
//! what goes out.

mod control;
mod requests;
mod responses;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use message::{
    frame::{self, Code, Head, Kind, PREFACE, Setting, flag},
    framing::Body,
    head::{Limits, RequestHead},
    hpack::{Broken, Decoder, Encoder},
    refusal::Refusal,
};

use super::budget::{Attack, Budget};

/// What a client may send of one request's content before we have read it; larger costs memory, smaller costs round trips.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of all responses is ready to be written; the rest waits where it comes from.
const OUT_ROOM: usize = 64 * 1024;
/// Past this a client that asks but does not read is not read any more: answers to PING and SETTINGS would pile up.
const OUT_FULL: usize = OUT_ROOM + 32 * 1024;
/// What our PING before a farewell carries.
const LAST_PING: &[u8; 8] = b"farewell";

/// Why the connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fatal {
    /// A rule was broken for the whole connection.
    Broken(Code, &'static str),
    /// The client keeps us busy for nothing.
    Attack(Attack),
}

impl From<Attack> for Fatal {
    fn from(attack: Attack) -> Self {
        Self::Attack(attack)
    }
}

impl From<Broken> for Fatal {
    fn from(_: Broken) -> Self {
        Self::Broken(Code::Compression, "a field block cannot be decompressed")
    }
}

/// How much of a window it is. What is longer than any frame is more than any window has.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// How much of a window is to be given back.
fn unsigned(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// `Err` for the whole connection.
fn broken<T>(why: &'static str) -> Result<T, Fatal> {
    Err(Fatal::Broken(Code::Protocol, why))
}

/// A request that has come.
#[derive(Debug)]
pub(super) struct Opened {
    /// The place of its stream.
    pub(super) place: usize,
    /// What it asks, or why it is none.
    pub(super) head: Result<RequestHead, Refusal>,
    /// How the length of its content is known.
    pub(super) framing: Body,
}

/// What there is of a request's content.
#[derive(Debug)]
pub(super) enum Taken {
    /// So much.
    Content(Bytes),
    /// Nothing now.
    Nothing,
    /// All has been taken.
    End,
    /// The content is not what the head promised.
    Refused(Refusal),
    /// The stream is gone.
    Gone,
}

/// The stream takes nothing any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// How far the farewell has come (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The client has been told that we are going to; what it sent before it heard is still served.
    Warned,
    /// It has been told which stream is the last.
    Last,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Session {
    most_streams: usize,
    limits: Limits,
    /// Whether the client is told that it may ask for tunnels (RFC 8441 §3).
    tunnels: bool,
    decoder: Decoder,
    encoder: Encoder,
    budget: Budget,
    /// What is to be written.
    pub(super) out: Vec<u8>,
    /// Requests that nobody has begun to answer.
    pub(super) opened: VecDeque<Opened>,
    /// Streams that something has happened to.
    pub(super) woken: Vec<usize>,
    pub(super) leaving: Leaving,
    /// The client says that it will open no more streams.
    pub(super) client_leaves: bool,
    greeting: Greeting,
    /// Numbers of the streams at each place; 0 where the place is free.
    numbers: Vec<u32>,
    streams: Vec<Stream>,
    /// The highest stream that the client has opened.
    highest: u32,
    /// The last one of them that is not refused because we leave.
    last: u32,
    /// The place that may send first, next time that there is room.
    turn: usize,
    window_out: i64,
    window_in: i64,
    /// Content that was taken, and that the client has not been told of.
    owed: u32,
    /// What a new stream may be sent.
    initial_window: i64,
    block: Option<Block>,
    forgiven: VecDeque<u32>,
    tiny: u32,
}

/// How far the beginning has come (RFC 9113 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Preface,
    Settings,
    Done,
}

/// A field block that is not complete.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// One request and its response.
#[derive(Debug)]
struct Stream {
    window_out: i64,
    window_in: i64,
    owed: u32,
    content: BytesMut,
    /// Whether small messages are what it is for: a tunnel, or gRPC.
    chatty: bool,
    /// What is missing of the content, where the head told its length.
    missing: Option<u64>,
    client: Side,
    us: Side,
    refusal: Option<Refusal>,
    gone: bool,
    /// Whether it waits for room to send.
    waits: bool,
}

/// Whether a side of a stream will send more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    Ended,
}

/// Where a stream is.
enum Found {
    Here(usize),
    /// It was, or was skipped, which is the same (RFC 9113 §5.1.1).
    Closed,
    Idle,
}

impl Session {
    /// A connection on which nothing was read or written. `streams` at once are served, and with `tunnels` some of them may be
    /// such.
    pub(super) fn new(streams: usize, limits: Limits, budget: Budget, tunnels: bool) -> Self {
        let mut session = Self {
            most_streams: streams,
            limits,
            tunnels,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            budget,
            out: Vec::new(),
            opened: VecDeque::new(),
            woken: Vec::new(),
            leaving: Leaving::No,
            client_leaves: false,
            greeting: Greeting::Preface,
            numbers: Vec::new(),
            streams: Vec::new(),
            highest: 0,
            last: 0,
            turn: 0,
            window_out: i64::from(frame::WINDOW),
            window_in: i64::from(CONNECTION_WINDOW),
            owed: 0,
            initial_window: i64::from(frame::WINDOW),
            block: None,
            forgiven: VecDeque::new(),
            tiny: 0,
        };
        session.greet();
        session
    }

    fn greet(&mut self) {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut settings = Vec::with_capacity(24);
        Setting::MaxConcurrentStreams.encode(number(self.most_streams), &mut settings);
        Setting::InitialWindowSize.encode(STREAM_WINDOW, &mut settings);
        Setting::MaxHeaderListSize.encode(number(self.limits.head), &mut settings);
        if self.tunnels {
            Setting::EnableConnectProtocol.encode(1, &mut settings);
        }
        self.write(Kind::Settings, 0, 0, &settings);
        self.write_window(0, CONNECTION_WINDOW - frame::WINDOW);
    }

    /// Takes what was read; returns how much of it was used. What is left is the beginning of a frame, or waits until `out`
    /// has been written.
    pub(super) fn receive(&mut self, input: &[u8]) -> Result<usize, Fatal> {
        let mut at = 0;
        if self.greeting == Greeting::Preface {
            let there = input.len().min(PREFACE.len());
            if input[..there] != PREFACE[..there] {
                return broken("the preface is not that of HTTP/2");
            }
            if there < PREFACE.len() {
                return Ok(0);
            }
            self.greeting = Greeting::Settings;
            at = there;
        }
        while let Some(bytes) = input[at..].first_chunk() {
            if self.is_full() {
                break;
            }
            let head = Head::parse(bytes);
            // Known before the payload is waited for.
            if head.length > frame::LARGEST {
                return Err(Fatal::Broken(Code::FrameSize, "a frame is too long"));
            }
            let start = at + frame::HEAD;
            let Some(payload) = input.get(start..start + head.length) else {
                break;
            };
            self.frame(head, payload)?;
            at = start + head.length;
        }
        debug_assert!(self.is_sound(), "{self:?}");
        Ok(at)
    }

    /// Whether what is kept is within its bounds, and each byte that the client may send is in one place.
    fn is_sound(&self) -> bool {
        let kept = self.streams.iter().map(|stream| stream.content.len());
        let counted = self.window_in + i64::from(self.owed) + signed(kept.sum());
        let within = |stream: &Stream| {
            stream.window_out <= i64::from(frame::MOST)
                && stream.content.len() <= STREAM_WINDOW as usize
        };
        counted == i64::from(CONNECTION_WINDOW)
            && self.numbers.len() <= self.most_streams
            && self.numbers.len() == self.streams.len()
            && self.opened.len() <= self.numbers.len()
            && (self.streams.iter().zip(&self.numbers))
                .all(|(stream, number)| *number == 0 || within(stream))
    }

    /// Whether so much waits to be written that nothing more is read.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() > OUT_FULL
    }

    /// Whether the client has begun something that it should end soon: its preface, or a field block.
    pub(super) fn is_expecting(&self) -> bool {
        self.greeting != Greeting::Done || self.block.is_some()
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if let Some(block) = &self.block
            && !(head.kind == Kind::Continuation && head.stream == block.stream)
        {
            return broken("a field block was interrupted");
        }
        if self.greeting != Greeting::Done {
            if head.kind != Kind::Settings || head.has(flag::ACK) {
                return broken("the first frame is not SETTINGS");
            }
            self.greeting = Greeting::Done;
        }
        match head.kind {
            Kind::Data => self.data(head, payload),
            Kind::Headers => self.headers(head, payload),
            Kind::Continuation => self.continuation(head, payload),
            Kind::ResetStream => self.reset_stream(head, payload),
            Kind::Settings => self.settings(head, payload),
            Kind::Ping => self.ping(head, payload),
            Kind::GoAway if head.stream != 0 => broken("GOAWAY on a stream"),
            Kind::GoAway => {
                self.client_leaves = true;
                Ok(())
            }
            Kind::WindowUpdate => self.window_update(head, payload),
            Kind::PushPromise => broken("a client pushed"),
            Kind::Priority if head.stream == 0 => broken("PRIORITY on no stream"),
            Kind::Priority if payload.len() != 5 => {
                self.stream_error(head.stream, Code::FrameSize, None)
            }
            Kind::Priority | Kind::Other(_) => Ok(self.budget.spend(Attack::UselessFrames)?),
        }
    }

    fn find(&self, number: u32) -> Found {
        match self.numbers.iter().position(|&known| known == number) {
            Some(place) => Found::Here(place),
            // Even numbers are ours, and we open none.
            None if number % 2 == 1 && number <= self.highest => Found::Closed,
            None => Found::Idle,
        }
    }

    /// Tells the client that we are going to leave. What it has sent by then, it may not know of; so the last stream is named
    /// only when it has answered, or has had the time to.
    pub(super) fn warn(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Warned;
            self.write_goaway(frame::MOST, Code::NoError, "");
            self.write(Kind::Ping, 0, 0, LAST_PING);
        }
    }

    /// Names the last stream that is served.
    pub(super) fn farewell(&mut self) {
        if self.leaving == Leaving::Warned {
            self.leaving = Leaving::Last;
            self.write_goaway(self.last, Code::NoError, "");
        }
    }

    /// Says why the connection ends now.
    pub(super) fn give_up(&mut self, fatal: &Fatal) {
        let (code, why) = match fatal {
            Fatal::Broken(code, why) => (*code, *why),
            Fatal::Attack(attack) => (Code::EnhanceYourCalm, attack.name()),
        };
        self.leaving = Leaving::Last;
        self.write_goaway(self.last, code, why);
    }
}

impl Stream {
    fn new(window_out: i64, framing: Body, ended: bool) -> Self {
        Self {
            window_out,
            window_in: i64::from(STREAM_WINDOW),
            owed: 0,
            content: BytesMut::new(),
            chatty: false,
            missing: match framing {
                Body::Length(length) => Some(length),
                _ => None,
            },
            client: if ended { Side::Ended } else { Side::Open },
            us: Side::Open,
            refusal: None,
            gone: false,
            waits: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use config::site;

    use super::*;

    fn session() -> Session {
        let limits = Limits {
            line: 1024,
            head: 4096,
            fields: 32,
        };
        let budget = Budget::new(&site::Limits::default());
        let mut session = Session::new(4, limits, budget, false);
        let used = session.receive(PREFACE).expect("it is right");
        assert_eq!(used, PREFACE.len());
        receive(&mut session, Kind::Settings, 0, 0, b"");
        session.written();
        session
    }

    fn receive(session: &mut Session, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = Vec::new();
        let head = Head {
            length: payload.len(),
            kind,
            flags,
            stream,
        };
        head.encode(&mut frame);
        frame.extend_from_slice(payload);
        assert_eq!(session.receive(&frame), Ok(frame.len()));
    }

    /// `POST /` of `a`, whose content follows.
    fn open(session: &mut Session, stream: u32) {
        let block = [0x83, 0x84, 0x87, 0x41, 1, b'a'];
        receive(session, Kind::Headers, flag::END_HEADERS, stream, &block);
    }

    fn reset(stream: u32, code: Code) -> Vec<u8> {
        let mut frame = vec![0, 0, 4, 3, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend((code as u32).to_be_bytes());
        frame
    }

    /// Found by the fuzz target: the window of the stream that was reset made the next SETTINGS an error of the connection.
    #[test]
    fn a_window_that_is_too_large_costs_its_stream_alone() {
        let mut session = session();
        open(&mut session, 1);
        let most = frame::MOST.to_be_bytes();
        receive(&mut session, Kind::WindowUpdate, 0, 1, &most);
        assert_eq!(session.out, reset(1, Code::FlowControl));
        assert!(session.is_gone(0));
        let mut settings = Vec::new();
        Setting::InitialWindowSize.encode(frame::WINDOW + 1, &mut settings);
        receive(&mut session, Kind::Settings, 0, 0, &settings);
    }

    /// Whoever worked for it panicked, say.
    #[test]
    fn a_stream_that_nobody_answers_is_reset_and_costs_no_other() {
        let mut session = session();
        open(&mut session, 1);
        open(&mut session, 3);
        session.written();
        session.finish(0);
        assert_eq!(session.out, reset(1, Code::Internal));
        assert!(session.is_open(1));
        receive(&mut session, Kind::Data, flag::END_STREAM, 3, b"content");
        assert!(matches!(session.take(1, 100), Taken::Content(_)));
    }

    /// The farewell may cross what its client sends; requests that are still answered are not cut for that.
    #[test]
    fn a_stream_after_the_farewell_is_refused_and_its_content_forgiven() {
        let mut session = session();
        open(&mut session, 1);
        session.warn();
        session.farewell();
        session.written();
        open(&mut session, 3);
        assert_eq!(session.out, reset(3, Code::RefusedStream));
        session.written();
        receive(&mut session, Kind::Data, 0, 3, b"content");
        receive(&mut session, Kind::WindowUpdate, 0, 3, &[0, 0, 0, 1]);
        receive(&mut session, Kind::Data, flag::END_STREAM, 3, b"");
        assert!(session.out.is_empty());
        receive(&mut session, Kind::Data, flag::END_STREAM, 1, b"content");
        assert!(matches!(session.take(0, 100), Taken::Content(_)));
        assert_eq!(session.opened.len(), 1);
        session.give_up(&Fatal::Broken(Code::NoError, ""));
        assert_eq!(session.out[9..13], [0, 0, 0, 1], "the last that is served");
    }
}
