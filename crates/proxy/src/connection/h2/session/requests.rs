//! Requests as they come: heads, content within its windows, trailers, and streams that end before their time.

use bytes::BytesMut;
use message::{
    frame::{Code, Head, flag},
    framing::{self, Body},
    head::RequestHead,
    pseudo::Collector,
    refusal::Refusal,
};

use super::{
    super::budget::CONTINUATIONS, Attack, Block, CONNECTION_WINDOW, Fatal, Found, Leaving, Opened,
    STREAM_WINDOW, Session, Side, Stream, Taken, broken, signed, unsigned,
};

/// DATA below this, and not the last of its stream, is an expensive way to send content.
const TINY: usize = 64;
/// How many tiny DATA frames cost as much as one empty one: some protocols of small messages are honest.
const TINY_FOR_EMPTY: u32 = 32;
/// The same where small messages are what the stream is for; each is written to an origin, which is the dearer part.
const MESSAGES_FOR_EMPTY: u32 = 1024;
/// A field block is at most this much longer than the longest head that is accepted, so that one which is too long for us can
/// still be read to its end and answered with 431.
const BLOCK_SLACK: usize = 48 * 1024;

impl Session {
    pub(super) fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 {
            return broken("DATA on no stream");
        }
        let Some(content) = head.unpadded(payload) else {
            return broken("padding is longer than its frame");
        };
        let end = head.has(flag::END_STREAM);
        self.window_in -= signed(payload.len());
        if self.window_in < 0 {
            return Err(Fatal::Broken(Code::FlowControl, "the connection's window"));
        }
        if content.len() < TINY && !end {
            self.tiny = self.tiny.wrapping_add(1);
            let worth = match self.find(head.stream) {
                Found::Here(place) if self.streams[place].chatty => MESSAGES_FOR_EMPTY,
                _ => TINY_FOR_EMPTY,
            };
            if content.is_empty() || self.tiny.is_multiple_of(worth) {
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
        stream.window_in -= signed(length);
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
        stream.owed += unsigned(length - kept);
        self.owe(length - kept);
        self.woken.push(place);
        Ok(())
    }

    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
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

    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
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
        let mut collector = Collector::new(self.limits).with_tunnels(self.tunnels);
        self.decoder
            .decode(block, |name, value| collector.field(name, value))?;
        self.highest = number;
        if self.leaving == Leaving::Last {
            // It may not have been told yet (RFC 9113 §6.8), and hears that it can ask somebody else (§8.7). What follows on this
            // stream is no reason to cut those that are still answered.
            return self.stream_error(number, Code::RefusedStream, None);
        }
        self.last = number;
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
        let mut stream = Stream::new(self.initial_window, framing, end);
        stream.chatty = !end && parsed.as_ref().is_ok_and(|(_, head)| is_chatty(head));
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

    pub(super) fn reset_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
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

    /// Takes what has come of a request's content, at most so many bytes of it.
    pub(in crate::connection::h2) fn take(&mut self, place: usize, most: usize) -> Taken {
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
                let size = stream.content.len().min(most);
                let content = stream.content.split_to(size).freeze();
                stream.owed += unsigned(content.len());
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
    pub(in crate::connection::h2) fn is_gone(&self, place: usize) -> bool {
        self.streams[place].gone
    }

    /// A frame on a stream that has ended. Where we ended it, its client could not know.
    pub(super) fn late_frame(&mut self, number: u32) -> Result<(), Fatal> {
        if self.forgiven.contains(&number) {
            return Ok(());
        }
        self.stream_error(number, Code::StreamClosed, None)
    }

    /// Ends a stream because of its client's error, which is an attack where there are many (CVE-2025-8671).
    pub(super) fn stream_error(
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
    pub(super) fn lose(&mut self, place: usize) {
        let stream = &mut self.streams[place];
        stream.gone = true;
        let unread = stream.content.len();
        stream.content = BytesMut::new();
        self.owe(unread);
        self.woken.push(place);
    }

    /// All streams are over: so is the connection.
    pub(in crate::connection::h2) fn lose_all(&mut self) {
        for place in 0..self.numbers.len() {
            if self.numbers[place] != 0 {
                self.lose(place);
            }
        }
    }

    /// Content that was taken or thrown away gives the client its window back, not for each frame but in halves.
    pub(super) fn owe(&mut self, bytes: usize) {
        self.owed += unsigned(bytes);
        if self.owed >= CONNECTION_WINDOW / 2 {
            let owed = std::mem::take(&mut self.owed);
            self.window_in += i64::from(owed);
            self.write_window(0, owed);
        }
    }
}

/// Whether a stream may be of many small messages.
fn is_chatty(head: &RequestHead) -> bool {
    let is_grpc = |value: &[u8]| value.starts_with(b"application/grpc");
    head.tunnel().is_some() || head.fields.get("content-type").is_some_and(is_grpc)
}

/// How the length of a request's content is known. Content-Length must agree with what follows (RFC 9113 §8.1.1).
fn body(head: &RequestHead, end: bool) -> Result<Body, Refusal> {
    match framing::of_request(head)? {
        Body::Length(1..) if end => Err(Refusal::ContentLengthMismatch),
        _ if end => Ok(Body::None),
        // What follows is the tunnel's, and no content (RFC 9113 §8.5).
        Body::None if head.tunnel().is_some() => Ok(Body::None),
        _ if head.tunnel().is_some() => Err(Refusal::ContentLengthMismatch),
        Body::Length(length) => Ok(Body::Length(length)),
        // Until the stream ends: what chunks are in HTTP/1.1.
        _ => Ok(Body::Chunked),
    }
}
