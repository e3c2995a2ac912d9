//! Responses on their way out: heads, content as room and windows allow, and how a stream ends.

use bytes::{Buf, Bytes};
use message::{
    frame::{self, Code, Head, Kind, flag},
    framing::Body,
};

use super::{Gone, OUT_ROOM, Session, Side, Stream, signed};

/// Streams that we ended while their client may still be sending: for so many of the last such frames are no errors.
const FORGIVEN: usize = 128;

impl Session {
    /// Sends the head of a response, or an interim one. `end`: nothing follows.
    pub(in crate::connection::h2) fn send_head<'f>(
        &mut self,
        place: usize,
        status: u16,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        end: bool,
    ) -> Result<(), Gone> {
        self.send_block(place, Some(status), fields, end)
    }

    /// Sends what stands behind the content, and ends with it.
    pub(in crate::connection::h2) fn send_trailers<'f>(
        &mut self,
        place: usize,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
    ) -> Result<(), Gone> {
        self.send_block(place, None, fields, true)
    }

    fn send_block<'f>(
        &mut self,
        place: usize,
        status: Option<u16>,
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
        self.encoder.begin(&mut self.out);
        if let Some(status) = status {
            self.encoder.status(status, &mut self.out);
        }
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
    pub(in crate::connection::h2) fn send_content(
        &mut self,
        place: usize,
        content: &mut Bytes,
        last: bool,
    ) -> Result<(), Gone> {
        let sent = self.send(place, content, last)?;
        content.advance(sent);
        Ok(())
    }

    /// The same of a slice; returns how much was sent.
    pub(in crate::connection::h2) fn send(
        &mut self,
        place: usize,
        content: &[u8],
        last: bool,
    ) -> Result<usize, Gone> {
        let number = self.numbers[place];
        let mut sent = 0;
        loop {
            let stream = &mut self.streams[place];
            if stream.gone {
                return Err(Gone);
            }
            let rest = &content[sent..];
            let window = stream.window_out.min(self.window_out);
            let room = OUT_ROOM.saturating_sub(self.out.len()).min(frame::LARGEST);
            let size = rest
                .len()
                .min(room)
                .min(usize::try_from(window).unwrap_or(0));
            if size == 0 && !rest.is_empty() {
                stream.waits = true;
                return Ok(sent);
            }
            stream.window_out -= signed(size);
            self.window_out -= signed(size);
            self.budget.sent(size, size == rest.len());
            let ends = last && size == rest.len();
            if ends {
                stream.us = Side::Ended;
            }
            if size > 0 || ends {
                let flags = if ends { flag::END_STREAM } else { 0 };
                self.write(Kind::Data, flags, number, &rest[..size]);
            }
            sent += size;
            self.turn = place + 1;
            if sent == content.len() {
                return Ok(sent);
            }
        }
    }

    /// Ends a stream before its end.
    pub(in crate::connection::h2) fn send_reset(&mut self, place: usize, code: Code) {
        if !self.streams[place].gone {
            self.streams[place].gone = true;
            let number = self.numbers[place];
            self.write_reset(number, code);
        }
    }

    /// Whether a stream has not come to its end on both sides.
    pub(in crate::connection::h2) fn is_open(&self, place: usize) -> bool {
        let stream = &self.streams[place];
        !stream.gone && (stream.us, stream.client) != (Side::Ended, Side::Ended)
    }

    /// Nobody works for the stream any more.
    pub(in crate::connection::h2) fn finish(&mut self, place: usize) {
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

    pub(super) fn release(&mut self, place: usize) {
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
    pub(in crate::connection::h2) fn written(&mut self) {
        debug_assert!(self.is_sound(), "{self:?}");
        self.out.clear();
        self.wake_waiting();
    }

    pub(super) fn wake_waiting(&mut self) {
        let places = self.streams.len();
        // The last one in the list goes on first.
        for place in (0..places).rev().map(|place| (place + self.turn) % places) {
            if std::mem::take(&mut self.streams[place].waits) {
                self.woken.push(place);
            }
        }
    }

    pub(super) fn write(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head {
            length: payload.len(),
            kind,
            flags,
            stream,
        };
        head.encode(&mut self.out);
        self.out.extend_from_slice(payload);
    }

    pub(super) fn write_window(&mut self, stream: u32, more: u32) {
        self.write(Kind::WindowUpdate, 0, stream, &more.to_be_bytes());
    }

    pub(super) fn write_reset(&mut self, stream: u32, code: Code) {
        self.write(Kind::ResetStream, 0, stream, &(code as u32).to_be_bytes());
        if self.forgiven.len() == FORGIVEN {
            self.forgiven.pop_front();
        }
        self.forgiven.push_back(stream);
    }

    pub(super) fn write_goaway(&mut self, last: u32, code: Code, why: &str) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(&(code as u32).to_be_bytes());
        payload.extend_from_slice(why.as_bytes());
        self.write(Kind::GoAway, 0, 0, &payload);
    }
}
