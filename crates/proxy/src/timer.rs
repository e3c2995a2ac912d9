//! A deadline that costs nothing while it is not near.
//!
//! A connection waits several times for each request, and nearly every wait ends long before its deadline. Arming and
//! disarming a timer each time would cost two visits to the runtime's timer wheel; a [`Timer`] stays armed at the earliest
//! deadline it has seen and looks at the clock only when it fires.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer of one connection, used for one wait after the other.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
}

/// The deadline passed before the work was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Timer {
    /// Armed for `first`; later waits may be shorter or longer.
    pub(crate) fn new(first: Duration) -> Self {
        Self {
            sleep: Box::pin(sleep_until(Instant::now() + first)),
        }
    }

    /// Ready once `deadline` has passed; otherwise the task is woken when it has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.sleep.deadline() > deadline {
            self.sleep.as_mut().reset(deadline);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// `work`, or [`Elapsed`] at `deadline`. The work is polled first, so what is ready is never late.
    pub(crate) async fn bound<T>(
        &mut self,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll(cx, deadline).map(|()| Err(Elapsed))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shorter_and_longer_waits_share_a_timer() {
        let mut timer = Timer::new(Duration::from_secs(75));
        for seconds in [10, 75, 1, 60] {
            let start = Instant::now();
            let end = start + Duration::from_secs(seconds);
            assert_eq!(timer.bound(end, pending::<()>()).await, Err(Elapsed));
            let waited = start.elapsed();
            assert!(waited >= Duration::from_secs(seconds), "{waited:?}");
            assert!(waited < Duration::from_secs(seconds) + Duration::from_millis(10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_work_is_never_late() {
        let mut timer = Timer::new(Duration::ZERO);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(timer.bound(Instant::now(), async { 7 }).await, Ok(7));
    }
}
