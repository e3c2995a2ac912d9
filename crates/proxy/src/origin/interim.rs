//! Interim responses (RFC 9110 §15.2), such as 103 (Early Hints, RFC 8297): what an origin says before it answers is passed to the
//! client at once.
//!
//! 100 (Continue) is not: whether content is wanted, this proxy has decided and said. 101 is no interim response here. Clients of
//! HTTP/1.0 know none, nor do many of HTTP/1.1, which `connection/h1` tells from the others.

use std::{
    future::{Future, poll_fn},
    sync::{Mutex, MutexGuard},
    task::Poll,
};

use message::head::ResponseHead;
use telemetry::panics;

use super::head::passed_back;
use crate::{failure::Failure, request::Upload, response::FieldLines};

/// So many of one request are passed on. One is what servers send; the rest is for those that report how far they are.
const MOST: usize = 16;

/// One.
#[derive(Debug)]
pub(crate) struct Interim {
    /// 102 to 199.
    pub(crate) status: u16,
    /// The field section.
    pub(crate) fields: FieldLines,
}

/// Those of one request that have come and have not been passed on.
///
/// Who reads from the origin and who writes to the client are parts of one task, polled one after the other: what the first
/// leaves here the second finds in the same turn, so nobody needs to be woken.
#[derive(Debug, Default)]
pub(crate) struct Interims(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    list: Vec<Interim>,
    /// How many have come.
    count: usize,
}

impl Interims {
    /// One has come.
    pub(crate) fn push(&self, head: &ResponseHead) {
        let mut waiting = self.lock();
        waiting.count += 1;
        if head.status != 100 && waiting.count <= MOST {
            waiting.list.push(Interim {
                status: head.status,
                fields: passed_back(&head.fields),
            });
        }
    }

    fn take(&self) -> Vec<Interim> {
        std::mem::take(&mut self.lock().list)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        panics::lock(&self.0)
    }

    /// Resolves when there are some.
    async fn come(&self) -> Vec<Interim> {
        poll_fn(|_| match self.take() {
            none if none.is_empty() => Poll::Pending,
            some => Poll::Ready(some),
        })
        .await
    }
}

/// What comes of the work, unless the client leaves before. What its origin says meanwhile is passed on.
pub(crate) async fn attend<T>(
    upload: &mut impl Upload,
    interims: &Interims,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    loop {
        let some = tokio::select! {
            biased;
            done = &mut work => {
                let last = interims.take();
                if !last.is_empty() && done.is_ok() {
                    // They came together. What comes later than it could is of less use, and still of some.
                    Box::pin(upload.inform(last)).await?;
                }
                return done;
            }
            some = interims.come() => some,
            () = upload.left() => return Err(Failure::ClientLeft),
        };
        // Seldom: what each request has room for is without it.
        let telling = Box::pin(beside(upload.inform(some), work.as_mut()));
        if let Some(done) = telling.await? {
            return done;
        }
    }
}

/// Tells the client, while the work goes on; also what came of that, if it is done by then. What was begun of an interim
/// response is ended before anything follows it.
async fn beside<T>(
    telling: impl Future<Output = Result<(), Failure>>,
    mut work: impl Future<Output = Result<T, Failure>> + Unpin,
) -> Result<Option<Result<T, Failure>>, Failure> {
    let mut telling = std::pin::pin!(telling);
    let mut done = None;
    loop {
        tokio::select! {
            biased;
            told = &mut telling => return told.map(|()| done),
            finished = &mut work, if done.is_none() => done = Some(finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use message::{framing::Body, head::Limits};
    use tokio::time::sleep;

    use super::*;

    const LIMITS: Limits = Limits {
        line: 100,
        head: 100,
        fields: 5,
    };

    /// A client that takes its time over all it is told.
    #[derive(Default)]
    struct Slow(Vec<u16>);

    impl Upload for Slow {
        fn framing(&self) -> Body {
            Body::None
        }

        async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
            Ok(None)
        }

        async fn left(&mut self) {
            std::future::pending().await
        }

        async fn inform(&mut self, interims: Vec<Interim>) -> Result<(), Failure> {
            for interim in interims {
                sleep(Duration::from_secs(1)).await;
                self.0.push(interim.status);
            }
            Ok(())
        }
    }

    fn come(interims: &Interims, status: u16) {
        let text = format!("HTTP/1.1 {status} x\r\nA: b\r\n\r\n");
        interims.push(&ResponseHead::parse(text.into(), &LIMITS).expect("a head"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_ended_though_the_answer_is_there() {
        let interims = Interims::default();
        let mut client = Slow::default();
        let work = async {
            for status in [100, 103, 102, 150] {
                come(&interims, status);
            }
            sleep(Duration::from_millis(1500)).await;
            come(&interims, 103);
            Ok(7)
        };
        let done = attend(&mut client, &interims, work).await;
        assert!(matches!(done, Ok(7)));
        assert_eq!(client.0, [103, 102, 150], "and none behind the answer");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_are_passed_on() {
        let interims = Interims::default();
        let mut client = Slow::default();
        let work = async {
            for _ in 0..100 {
                come(&interims, 103);
            }
            sleep(Duration::from_secs(100)).await;
            Ok(())
        };
        let done = attend(&mut client, &interims, work).await;
        assert!(done.is_ok());
        assert_eq!(client.0.len(), MOST);
    }
}
