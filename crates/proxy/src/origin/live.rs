//! Content that goes on while its response comes: gRPC's streams, in which each side may wait for what the other says.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    interim::{Interims, attend},
    relay::Relay,
    spool::{Spooled, Spooling},
};
use crate::{
    buffer::{
        Holding,
        pipe::{self, Gone, pipe},
    },
    failure::Failure,
    request::{RequestId, Upload},
};

/// Content on its way from a client to an origin, piece by piece: nothing more is taken of the client than the origin has.
///
/// It has no speed that it must keep: who has nothing to say may wait for an answer. How long nothing may pass in either
/// direction is watched by whoever takes the response.
#[derive(Debug)]
pub(crate) struct Live {
    writer: pipe::Writer,
    received: Arc<AtomicU64>,
    /// Most that may come (`limits.body`).
    limit: u64,
}

/// A response, and the content that goes on beside it.
#[derive(Debug)]
pub(crate) struct Duplex {
    pub(crate) relay: Relay,
    pub(crate) live: Live,
}

impl Spooling {
    /// Content of which nothing has been read.
    pub(crate) fn live(&self, id: RequestId) -> (Spooled, Live) {
        let holding = Holding {
            store: Arc::clone(&self.store),
            memory: self.memory,
            disk: 0,
        };
        let (writer, rest) = pipe(holding, id);
        let live = Live {
            writer,
            received: Arc::default(),
            limit: self.limit,
        };
        (Spooled::Coming { length: None, rest }, live)
    }
}

impl Live {
    /// Brings what comes until the work is done, which need not be the end of what comes.
    pub(crate) async fn beside<T>(
        &mut self,
        upload: &mut impl Upload,
        interims: &Interims,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            brought = self.bring(upload) => brought?,
        }
        attend(upload, interims, work).await
    }

    /// Brings what comes to its end, or until nobody takes it. Cancel-safe.
    pub(crate) async fn bring(&mut self, upload: &mut impl Upload) -> Result<(), Failure> {
        loop {
            if self.writer.drained().await == Err(Gone) {
                return Ok(());
            }
            let next = tokio::select! {
                biased;
                next = upload.next() => next?,
                () = self.writer.gone() => return Ok(()),
            };
            let Some(piece) = next else {
                self.writer.finish();
                return Ok(());
            };
            let length = piece.len() as u64;
            let before = self.received.fetch_add(length, Ordering::Relaxed);
            if before.saturating_add(length) > self.limit {
                return Err(Failure::BodyTooLarge { limit: self.limit });
            }
            // A pipe that is empty takes any piece at once, so there is none in between when this is dropped.
            if self.writer.write(piece, None).await == Err(Gone) {
                return Ok(());
            }
        }
    }

    /// How much has come, also later.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use message::framing::Body;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::origin::interim::Interim;

    /// So many pieces of five bytes, a second apart.
    struct Pieces(usize);

    impl Upload for Pieces {
        fn framing(&self) -> Body {
            Body::Chunked
        }

        async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
            if self.0 == 0 {
                return Ok(None);
            }
            sleep(Duration::from_secs(1)).await;
            self.0 -= 1;
            Ok(Some(Bytes::from_static(b"12345")))
        }

        async fn left(&mut self) {
            std::future::pending().await
        }

        async fn inform(&mut self, _: Vec<Interim>) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn live() -> (pipe::Reader, Live) {
        let (body, live) = Spooling::for_tests().live(RequestId::new());
        match body {
            Spooled::Coming { length: None, rest } => (rest, live),
            other => panic!("{other:?}"),
        }
    }

    async fn all(mut reader: pipe::Reader) -> Result<usize, Failure> {
        let mut length = 0;
        while let Some(piece) = reader.next().await {
            length += piece?.len();
        }
        Ok(length)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_passed_on_and_its_end_too() {
        let (reader, mut live) = live();
        let interims = Interims::default();
        let done = live.beside(&mut Pieces(4), &interims, all(reader)).await;
        assert!(matches!(done, Ok(20)), "{done:?}");
        assert_eq!(live.received().load(Ordering::Relaxed), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_done_first_loses_nothing_of_what_comes_later() {
        let (reader, mut live) = live();
        let mut upload = Pieces(10);
        let read = tokio::spawn(all(reader));
        // In the middle of a piece, again and again.
        while timeout(Duration::from_millis(1500), live.bring(&mut upload))
            .await
            .is_err()
        {}
        let read = read.await.expect("it does not panic");
        assert!(matches!(read, Ok(50)), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_taken_than_the_origin_has_and_no_more_than_allowed() {
        let (mut reader, mut live) = live();
        let mut upload = Pieces(100);
        let bring = live.bring(&mut upload);
        assert!(timeout(Duration::from_secs(60), bring).await.is_err());
        assert_eq!(live.received().load(Ordering::Relaxed), 5);
        assert!(matches!(reader.next().await, Some(Ok(_))));
        let read = tokio::spawn(all(reader));
        let ended = live.bring(&mut upload).await;
        assert!(
            matches!(ended, Err(Failure::BodyTooLarge { limit: 100 })),
            "{ended:?}"
        );
        drop(live);
        assert!(read.await.expect("it does not panic").is_err(), "not whole");
    }
}
