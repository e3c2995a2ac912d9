//! An HTTP/2 connection without its socket: frames in, requests and frames out (RFC 9113).
//!
//! Everything that a client can make us keep is bounded here: streams, heads, content by its windows, and what is to be
//! written by [`OUT_ROOM`], past which nothing more is read either. What a client can make us do for nothing is bounded by
//! the [`Budget`].

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use message::{
    frame::{self, Code, Head, Kind, PREFACE, Setting, flag},
    framing::{self, Body},
    head::{Limits, RequestHead},
    hpack::{Broken, Decoder, Encoder},
    pseudo::Collector,
    refusal::Refusal,
};

use super::budget::{Attack, Budget, CONTINUATIONS};

/// What a client may send of one request's content before we have read it; larger costs memory, smaller costs round trips.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same over all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of all responses is ready to be written; the rest waits where it comes from.
const OUT_ROOM: usize = 64 * 1024;
/// Past this a client that asks but does not read is not read any more: answers to PING and SETTINGS would pile up.
const OUT_FULL: usize = OUT_ROOM + 32 * 1024;
/// DATA below this, and not the last of its stream, is an expensive way to send content.
const TINY: usize = 64;
/// How many tiny DATA frames cost as much as one empty one: some protocols of small messages are honest.
const TINY_FOR_EMPTY: u32 = 32;
/// A field block is at most this much longer than the longest head that is accepted, so that one which is too long for us can
/// still be read to its end and answered with 431.
const BLOCK_SLACK: usize = 48 * 1024;
/// Streams that we ended while their client may still be sending: for so many of the last such frames are no errors.
const FORGIVEN: usize = 128;
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
    /// A connection on which nothing was read or written. `streams` at once are served.
    pub(super) fn new(streams: usize, limits: Limits, budget: Budget) -> Self {
        let mut session = Self {
            most_streams: streams,
            limits,
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
        let mut settings = Vec::with_capacity(18);
        Setting::MaxConcurrentStreams.encode(number(self.most_streams), &mut settings);
        Setting::InitialWindowSize.encode(STREAM_WINDOW, &mut settings);
        Setting::MaxHeaderListSize.encode(number(self.limits.head), &mut settings);
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
        Ok(at)
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

    fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 {
            return broken("DATA on no stream");
        }
        let Some(content) = head.unpadded(payload) else {
            return broken("padding is longer than its frame");
        };
        let end = head.has(flag::END_STREAM);
        self.window_in -= payload.len() as i64;
        if self.window_in < 0 {
            return Err(Fatal::Broken(Code::FlowControl, "the connection's window"));
        }
        if content.len() < TINY && !end {
            self.tiny = self.tiny.wrapping_add(1);
            if content.is_empty() || self.tiny.is_multiple_of(TINY_FOR_EMPTY) {
                self.budget.spend(Attack::EmptyData)?;
            }
        }
        match self.find(head.stream) {
            Found::Here(place) => self.content(place, payload.len(), content, end),
            Found::Idle => broken("DATA on an idle stream"),
            Found::Closed => {
                self.owe(payload.len());
                self.late_frame(head.stream)
            }
        }
    }

    fn content(
        &mut self,
        place: usize,
        length: usize,
        content: &[u8],
        end: bool,
    ) -> Result<(), Fatal> {
        let number = self.numbers[place];
        let stream = &mut self.streams[place];
        if stream.client == Side::Ended {
            self.owe(length);
            return self.stream_error(number, Code::StreamClosed, None);
        }
        stream.window_in -= length as i64;
        if stream.window_in < 0 {
            self.owe(length);
            return self.stream_error(number, Code::FlowControl, None);
        }
        let mut kept = content.len();
        if let Some(missing) = &mut stream.missing {
            match missing.checked_sub(content.len() as u64) {
                Some(left) if left == 0 || !end => *missing = left,
                _ => {
                    self.owe(length);
                    let refusal = Some(Refusal::ContentLengthMismatch);
                    return self.stream_error(number, Code::Protocol, refusal);
                }
            }
        }
        if stream.gone {
            kept = 0;
        } else {
            stream.content.extend_from_slice(content);
        }
        if end {
            stream.client = Side::Ended;
        }
        // Padding, and what nobody will take, is given back at once.
        stream.owed += (length - kept) as u32;
        self.owe(length - kept);
        self.woken.push(place);
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream.is_multiple_of(2) {
            return broken("HEADERS on a stream that is not a client's");
        }
        let Some(mut fragment) = head.unpadded(payload) else {
            return broken("padding is longer than its frame");
        };
        if head.has(flag::PRIORITY) {
            fragment = match fragment.split_at_checked(5) {
                Some((_, rest)) => rest,
                None => {
                    return Err(Fatal::Broken(
                        Code::FrameSize,
                        "HEADERS without its priority",
                    ));
                }
            };
        }
        let end_stream = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, end_stream, fragment);
        }
        self.block = Some(Block {
            stream: head.stream,
            end_stream,
            bytes: fragment.to_vec(),
            frames: 1,
        });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let most = self.limits.head + BLOCK_SLACK;
        let Some(block) = &mut self.block else {
            return broken("CONTINUATION of nothing");
        };
        block.frames += 1;
        if block.frames > CONTINUATIONS || block.bytes.len() + payload.len() > most {
            return Err(Attack::ContinuationFlood.into());
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let block = self.block.take().expect("it was there");
        self.block(block.stream, block.end_stream, &block.bytes)
    }

    /// A whole field block. Whatever becomes of it, it must be decoded: the next one builds upon it.
    fn block(&mut self, number: u32, end: bool, block: &[u8]) -> Result<(), Fatal> {
        match self.find(number) {
            Found::Idle => self.open(number, end, block),
            Found::Here(place) => self.trailers(place, end, block),
            Found::Closed => {
                self.decoder.decode(block, |_, _| {})?;
                self.late_frame(number)
            }
        }
    }

    fn open(&mut self, number: u32, end: bool, block: &[u8]) -> Result<(), Fatal> {
        let mut collector = Collector::new(self.limits);
        self.decoder
            .decode(block, |name, value| collector.field(name, value))?;
        if self.leaving == Leaving::Last {
            // RFC 9113 §6.8: it was told, and asks somebody else.
            return Ok(());
        }
        self.highest = number;
        let free = self.numbers.iter().position(|&number| number == 0);
        if free.is_none() && self.numbers.len() >= self.most_streams {
            return self.stream_error(number, Code::RefusedStream, None);
        }
        let parsed = collector
            .finish()
            .and_then(|head| Ok((body(&head, end)?, head)));
        if parsed.is_err() {
            self.budget.spend(Attack::MadeYouReset)?;
        }
        let framing = parsed.as_ref().map_or(Body::None, |(framing, _)| *framing);
        let stream = Stream::new(self.initial_window, framing, end);
        let place = free.unwrap_or(self.numbers.len());
        if free.is_some() {
            self.numbers[place] = number;
            self.streams[place] = stream;
        } else {
            self.numbers.push(number);
            self.streams.push(stream);
        }
        self.opened.push_back(Opened {
            place,
            head: parsed.map(|(_, head)| head),
            framing,
        });
        Ok(())
    }

    /// Fields behind the content (RFC 9113 §8.1). None of them is passed on: nobody behind us could tell them from fields of
    /// the head, and an attacker would (RFC 9110 §6.5.1).
    fn trailers(&mut self, place: usize, end: bool, block: &[u8]) -> Result<(), Fatal> {
        let number = self.numbers[place];
        let mut good = end;
        self.decoder.decode(block, |name, _| {
            good &= !name.starts_with(b":") && !name.iter().any(u8::is_ascii_uppercase);
        })?;
        let stream = &mut self.streams[place];
        if stream.client == Side::Ended {
            return self.stream_error(number, Code::StreamClosed, None);
        }
        if !good || stream.missing.is_some_and(|missing| missing > 0) {
            let refusal = if good {
                Refusal::ContentLengthMismatch
            } else {
                Refusal::PseudoField
            };
            return self.stream_error(number, Code::Protocol, Some(refusal));
        }
        stream.client = Side::Ended;
        self.woken.push(place);
        Ok(())
    }

    fn reset_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if payload.len() != 4 {
            return Err(Fatal::Broken(
                Code::FrameSize,
                "RST_STREAM of another length",
            ));
        }
        self.budget.spend(Attack::RapidReset)?;
        match self.find(head.stream) {
            Found::Here(place) => {
                match self.opened.iter().position(|opened| opened.place == place) {
                    // Nobody has begun with it, and nobody needs to.
                    Some(index) => {
                        self.opened.remove(index);
                        self.release(place);
                    }
                    None => self.lose(place),
                }
                Ok(())
            }
            Found::Closed => Ok(()),
            Found::Idle => broken("RST_STREAM of an idle stream"),
        }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return broken("SETTINGS on a stream");
        }
        self.budget.spend(Attack::SettingsFlood)?;
        let wrong = Fatal::Broken(Code::FrameSize, "SETTINGS of another length");
        if head.has(flag::ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(wrong)
            };
        }
        for (number, value) in frame::settings(payload).ok_or(wrong)? {
            if let Some(setting) = Setting::of(number) {
                self.setting(setting, value)?;
            }
        }
        self.write(Kind::Settings, flag::ACK, 0, b"");
        Ok(())
    }

    fn setting(&mut self, setting: Setting, value: u32) -> Result<(), Fatal> {
        match setting {
            Setting::HeaderTableSize => self.encoder.resize(value as usize),
            Setting::EnablePush | Setting::EnableConnectProtocol if value > 1 => {
                return broken("a setting that is yes or no is neither");
            }
            Setting::MaxFrameSize if !(frame::LARGEST as u32..1 << 24).contains(&value) => {
                return broken("SETTINGS_MAX_FRAME_SIZE is out of range");
            }
            Setting::InitialWindowSize if value > frame::MOST => {
                return Err(Fatal::Broken(
                    Code::FlowControl,
                    "SETTINGS_INITIAL_WINDOW_SIZE",
                ));
            }
            Setting::InitialWindowSize => {
                let change = i64::from(value) - self.initial_window;
                self.initial_window = i64::from(value);
                // Windows may become negative (RFC 9113 §6.9.2), but not too large.
                for stream in &mut self.streams {
                    stream.window_out += change;
                    if stream.window_out > i64::from(frame::MOST) {
                        return Err(Fatal::Broken(Code::FlowControl, "a window is too large"));
                    }
                }
                self.wake_waiting();
            }
            // We push nothing, send no frame that is longer than everybody takes, and no head that is long.
            _ => {}
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return broken("PING on a stream");
        }
        if payload.len() != 8 {
            return Err(Fatal::Broken(Code::FrameSize, "PING of another length"));
        }
        self.budget.spend(Attack::PingFlood)?;
        if !head.has(flag::ACK) {
            self.write(Kind::Ping, flag::ACK, 0, payload);
        } else if payload == LAST_PING {
            self.farewell();
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let Some(more) = frame::number(payload) else {
            return Err(Fatal::Broken(
                Code::FrameSize,
                "WINDOW_UPDATE of another length",
            ));
        };
        self.budget.spend(Attack::WindowFlood)?;
        if head.stream == 0 {
            self.window_out += i64::from(more);
            if more == 0 || self.window_out > i64::from(frame::MOST) {
                let code = if more == 0 {
                    Code::Protocol
                } else {
                    Code::FlowControl
                };
                return Err(Fatal::Broken(code, "WINDOW_UPDATE by nothing, or too much"));
            }
            self.wake_waiting();
            return Ok(());
        }
        match self.find(head.stream) {
            Found::Idle => broken("WINDOW_UPDATE of an idle stream"),
            Found::Closed => Ok(()),
            Found::Here(_) if more == 0 => self.stream_error(head.stream, Code::Protocol, None),
            Found::Here(place) => {
                let stream = &mut self.streams[place];
                stream.window_out += i64::from(more);
                if stream.window_out > i64::from(frame::MOST) {
                    return self.stream_error(head.stream, Code::FlowControl, None);
                }
                if std::mem::take(&mut stream.waits) {
                    self.woken.push(place);
                }
                Ok(())
            }
        }
    }

    /// A frame on a stream that has ended. Where we ended it, its client could not know.
    fn late_frame(&mut self, number: u32) -> Result<(), Fatal> {
        if self.forgiven.contains(&number) {
            return Ok(());
        }
        self.stream_error(number, Code::StreamClosed, None)
    }

    /// Ends a stream because of its client's error, which is an attack where there are many (CVE-2025-8671).
    fn stream_error(
        &mut self,
        number: u32,
        code: Code,
        refusal: Option<Refusal>,
    ) -> Result<(), Fatal> {
        self.budget.spend(Attack::MadeYouReset)?;
        self.write_reset(number, code);
        if let Found::Here(place) = self.find(number) {
            self.streams[place].refusal = refusal;
            self.lose(place);
        }
        Ok(())
    }

    /// The stream is over for its client; who works for it learns so.
    fn lose(&mut self, place: usize) {
        let stream = &mut self.streams[place];
        stream.gone = true;
        let unread = stream.content.len();
        stream.content = BytesMut::new();
        self.owe(unread);
        self.woken.push(place);
    }

    /// All streams are over: so is the connection.
    pub(super) fn lose_all(&mut self) {
        for place in 0..self.numbers.len() {
            if self.numbers[place] != 0 {
                self.lose(place);
            }
        }
    }

    /// Content that was taken or thrown away gives the client its window back, not for each frame but in halves.
    fn owe(&mut self, bytes: usize) {
        self.owed += bytes as u32;
        if self.owed >= CONNECTION_WINDOW / 2 {
            let owed = std::mem::take(&mut self.owed);
            self.window_in += i64::from(owed);
            self.write_window(0, owed);
        }
    }

    /// Takes what has come of a request's content.
    pub(super) fn take(&mut self, place: usize) -> Taken {
        let stream = &mut self.streams[place];
        match stream {
            Stream {
                refusal: Some(refusal),
                ..
            } => Taken::Refused(*refusal),
            Stream { gone: true, .. } => Taken::Gone,
            Stream {
                content, client, ..
            } if content.is_empty() => match client {
                Side::Ended => Taken::End,
                Side::Open => Taken::Nothing,
            },
            stream => {
                let content = stream.content.split().freeze();
                stream.owed += content.len() as u32;
                if stream.client == Side::Open && stream.owed >= STREAM_WINDOW / 2 {
                    let owed = std::mem::take(&mut stream.owed);
                    stream.window_in += i64::from(owed);
                    let number = self.numbers[place];
                    self.write_window(number, owed);
                }
                self.owe(content.len());
                Taken::Content(content)
            }
        }
    }

    /// Whether the client has left the stream.
    pub(super) fn is_gone(&self, place: usize) -> bool {
        self.streams[place].gone
    }

    /// Sends the head of a response, or an interim one. `end`: nothing follows.
    pub(super) fn send_head<'f>(
        &mut self,
        place: usize,
        status: u16,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        end: bool,
    ) -> Result<(), Gone> {
        if self.streams[place].gone {
            return Err(Gone);
        }
        let start = self.out.len();
        let mut head = Head {
            length: 0,
            kind: Kind::Headers,
            flags: if end { flag::END_STREAM } else { 0 },
            stream: self.numbers[place],
        };
        head.encode(&mut self.out);
        self.encoder.status(status, &mut self.out);
        for (name, value) in fields {
            self.encoder.field(name, value, &mut self.out);
        }
        head.length = self.out.len() - start - frame::HEAD;
        if head.length <= frame::LARGEST {
            head.flags |= flag::END_HEADERS;
            let mut bytes = Vec::with_capacity(frame::HEAD);
            head.encode(&mut bytes);
            self.out[start..start + frame::HEAD].copy_from_slice(&bytes);
        } else {
            let block = self.out.split_off(start + frame::HEAD);
            self.out.truncate(start);
            self.write_long_block(head, &block);
        }
        if end {
            self.streams[place].us = Side::Ended;
        }
        Ok(())
    }

    fn write_long_block(&mut self, head: Head, block: &[u8]) {
        let (mut kind, mut flags) = (Kind::Headers, head.flags);
        let mut pieces = block.chunks(frame::LARGEST).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            self.write(kind, flags, head.stream, piece);
            (kind, flags) = (Kind::Continuation, 0);
        }
    }

    /// Sends as much as there is room and window for; what is left stays in `content`, and the stream is woken when there is
    /// more. `last`: nothing follows.
    pub(super) fn send_content(
        &mut self,
        place: usize,
        content: &mut Bytes,
        last: bool,
    ) -> Result<(), Gone> {
        let number = self.numbers[place];
        loop {
            let stream = &mut self.streams[place];
            if stream.gone {
                return Err(Gone);
            }
            let window = stream.window_out.min(self.window_out);
            let room = OUT_ROOM.saturating_sub(self.out.len()).min(frame::LARGEST);
            let size = content
                .len()
                .min(room)
                .min(usize::try_from(window).unwrap_or(0));
            if size == 0 && !content.is_empty() {
                stream.waits = true;
                return Ok(());
            }
            stream.window_out -= size as i64;
            self.window_out -= size as i64;
            self.budget.sent(size);
            let ends = last && size == content.len();
            if ends {
                stream.us = Side::Ended;
            }
            if size > 0 || ends {
                let flags = if ends { flag::END_STREAM } else { 0 };
                self.write(Kind::Data, flags, number, &content[..size]);
            }
            content.advance(size);
            self.turn = place + 1;
            if content.is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends a stream before its end.
    pub(super) fn send_reset(&mut self, place: usize, code: Code) {
        if !self.streams[place].gone {
            self.streams[place].gone = true;
            let number = self.numbers[place];
            self.write_reset(number, code);
        }
    }

    /// Nobody works for the stream any more.
    pub(super) fn finish(&mut self, place: usize) {
        let stream = &self.streams[place];
        if !stream.gone {
            match (stream.us, stream.client) {
                (Side::Ended, Side::Ended) => {}
                // The response is whole; the rest of the request is not needed for it (RFC 9113 §8.1).
                (Side::Ended, Side::Open) => self.send_reset(place, Code::NoError),
                (Side::Open, _) => self.send_reset(place, Code::Internal),
            }
        }
        self.release(place);
    }

    fn release(&mut self, place: usize) {
        let unread = self.streams[place].content.len();
        self.owe(unread);
        self.numbers[place] = 0;
        self.streams[place] = Stream::new(0, Body::None, true);
        if self.numbers.iter().all(|&number| number == 0) {
            // A connection at rest keeps nothing.
            self.numbers = Vec::new();
            self.streams = Vec::new();
        }
    }

    /// All of `out` has been written: there is room again.
    pub(super) fn written(&mut self) {
        self.out.clear();
        self.wake_waiting();
    }

    fn wake_waiting(&mut self) {
        let places = self.streams.len();
        // The last one in the list goes on first.
        for place in (0..places).rev().map(|place| (place + self.turn) % places) {
            if std::mem::take(&mut self.streams[place].waits) {
                self.woken.push(place);
            }
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
            self.write_goaway(self.highest, Code::NoError, "");
        }
    }

    /// Says why the connection ends now.
    pub(super) fn give_up(&mut self, fatal: &Fatal) {
        let (code, why) = match fatal {
            Fatal::Broken(code, why) => (*code, *why),
            Fatal::Attack(attack) => (Code::EnhanceYourCalm, attack.name()),
        };
        self.leaving = Leaving::Last;
        self.write_goaway(self.highest, code, why);
    }

    fn write(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head {
            length: payload.len(),
            kind,
            flags,
            stream,
        };
        head.encode(&mut self.out);
        self.out.extend_from_slice(payload);
    }

    fn write_window(&mut self, stream: u32, more: u32) {
        self.write(Kind::WindowUpdate, 0, stream, &more.to_be_bytes());
    }

    fn write_reset(&mut self, stream: u32, code: Code) {
        self.write(Kind::ResetStream, 0, stream, &(code as u32).to_be_bytes());
        if self.forgiven.len() == FORGIVEN {
            self.forgiven.pop_front();
        }
        self.forgiven.push_back(stream);
    }

    fn write_goaway(&mut self, last: u32, code: Code, why: &str) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(&(code as u32).to_be_bytes());
        payload.extend_from_slice(why.as_bytes());
        self.write(Kind::GoAway, 0, 0, &payload);
    }
}

impl Stream {
    fn new(window_out: i64, framing: Body, ended: bool) -> Self {
        Self {
            window_out,
            window_in: i64::from(STREAM_WINDOW),
            owed: 0,
            content: BytesMut::new(),
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

/// How the length of a request's content is known. Content-Length must agree with what follows (RFC 9113 §8.1.1).
fn body(head: &RequestHead, end: bool) -> Result<Body, Refusal> {
    match framing::of_request(head)? {
        Body::Length(1..) if end => Err(Refusal::ContentLengthMismatch),
        _ if end => Ok(Body::None),
        Body::Length(length) => Ok(Body::Length(length)),
        // Until the stream ends: what chunks are in HTTP/1.1.
        _ => Ok(Body::Chunked),
    }
}
