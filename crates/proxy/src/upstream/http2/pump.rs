//! A response on its way from a member, ahead of its client; and what of its request is still to be sent.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use tokio::time::Instant;

use super::{Call, failure, section, sender::Sender, sent};
use crate::{
    buffer::{
        Holding,
        pipe::{self, pipe},
    },
    failure::Failure,
    origin::{Origin, head::passed_back, relay::Relay},
    request::RequestId,
    response::FieldLines,
    timer::Timer,
};

/// Takes a response off its member.
pub(super) struct Pump {
    pub(super) call: Call,
    pub(super) content: RecvStream,
    pub(super) sender: Option<Sender>,
}

/// What has come.
enum Next {
    Piece(Bytes),
    /// The end, and what stands behind it.
    End(Option<FieldLines>),
    /// The client has left.
    ForNobody,
}

impl Pump {
    /// Begins; the response is what the relay gives.
    pub(super) fn start(self, length: Option<u64>, holding: Holding, id: RequestId) -> Relay {
        let (writer, reader) = pipe(holding, id);
        tokio::spawn(self.run(writer));
        Relay::of(length, reader)
    }

    async fn run(mut self, mut pipe: pipe::Writer) {
        match self.take(&mut pipe).await {
            Ok(Some(trailers)) => pipe.end_with(trailers),
            Ok(None) => pipe.end(Ok(())),
            Err(Some(failure)) => pipe.end(Err(failure)),
            // Dropping the stream tells the member (RST_STREAM).
            Err(None) => {}
        }
    }

    /// Reads to the end. `Err(None)`: nobody wants it any more.
    async fn take(
        &mut self,
        pipe: &mut pipe::Writer,
    ) -> Result<Option<FieldLines>, Option<Failure>> {
        let silence = self.call.lease.silence().unwrap_or_default();
        let mut timer = Timer::new(silence);
        loop {
            match self.next(pipe, &mut timer).await? {
                Next::Piece(piece) => {
                    let length = piece.len();
                    if pipe.write(piece, None).await == Err(pipe::Gone) {
                        return Err(None);
                    }
                    let released = self.content.flow_control().release_capacity(length);
                    released.map_err(|error| self.failed(error))?;
                }
                Next::End(trailers) => return Ok(trailers),
                Next::ForNobody => return Err(None),
            }
        }
    }

    /// What comes next, within the silence that the member is allowed; what it is sent meanwhile is no silence.
    async fn next(
        &mut self,
        pipe: &pipe::Writer,
        timer: &mut Timer,
    ) -> Result<Next, Option<Failure>> {
        let silence = self.call.lease.silence().unwrap_or_default();
        loop {
            let deadline = Instant::now() + silence;
            // In no order: neither side of a conversation may keep the other waiting.
            let next = tokio::select! {
                next = next(&mut self.content) => next,
                sent = sent(&mut self.sender) => match sent {
                    Ok(_) => continue,
                    Err(error) => return Err(Some(Failure::Spool(error))),
                },
                () = pipe.gone() => return Ok(Next::ForNobody),
                () = poll_fn(|cx| timer.poll(cx, deadline)) => {
                    self.call.part.retire();
                    return Err(Some(self.call.lease.late(silence)));
                }
            };
            return next.map_err(|error| self.failed(error));
        }
    }

    fn failed(&self, error: h2::Error) -> Option<Failure> {
        let lease = &self.call.lease;
        lease.failed();
        Some(failure(lease.label(), error))
    }
}

async fn next(content: &mut RecvStream) -> Result<Next, h2::Error> {
    if let Some(piece) = content.data().await {
        return piece.map(Next::Piece);
    }
    let trailers = content.trailers().await?;
    Ok(Next::End(
        trailers.map(|trailers| passed_back(&section(&trailers))),
    ))
}
