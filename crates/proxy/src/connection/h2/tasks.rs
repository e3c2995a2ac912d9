//! The streams' work, all in the task of their connection: what is sent together is written together, and nothing is handed
//! from thread to thread for the sake of one request.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use telemetry::panics::lock;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Futures, by number, of which only those are polled that were woken.
#[derive(Default)]
pub(super) struct Tasks {
    places: Vec<Place>,
    running: usize,
    woken: Arc<Woken>,
    /// Taken off `woken`, and looked at in order.
    ready: Vec<usize>,
}

struct Place {
    work: Option<Work>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Who has been woken, and whom to wake for that.
#[derive(Default)]
struct Woken {
    list: Mutex<Vec<usize>>,
    connection: Mutex<Option<Waker>>,
}

struct Bell {
    number: usize,
    /// Whether it is in the list already.
    rung: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        lock(&self.woken.list).push(self.number);
        let connection = lock(&self.woken.connection).clone();
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

impl Tasks {
    /// How many are not done.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Who is to be woken when one of them is.
    pub(super) fn watch(&self, connection: &Waker) {
        let mut known = lock(&self.woken.connection);
        if !known
            .as_ref()
            .is_some_and(|known| known.will_wake(connection))
        {
            *known = Some(connection.clone());
        }
    }

    /// Adds work under a number that is free, and polls it for the first time. Returns whether it is done already.
    ///
    /// # Errors
    /// What it panicked with.
    pub(super) fn start(&mut self, number: usize, work: Work) -> thread::Result<bool> {
        while self.places.len() <= number {
            let bell = Arc::new(Bell {
                number: self.places.len(),
                rung: AtomicBool::new(false),
                woken: Arc::clone(&self.woken),
            });
            self.places.push(Place {
                work: None,
                waker: Waker::from(Arc::clone(&bell)),
                bell,
            });
        }
        self.places[number].work = Some(work);
        self.running += 1;
        self.poll(number)
    }

    /// Polls one; returns whether it is done now.
    ///
    /// # Errors
    /// What it panicked with. It is done then: nothing is left of it, and the others go on.
    pub(super) fn poll(&mut self, number: usize) -> thread::Result<bool> {
        let Some(place) = self.places.get_mut(number) else {
            return Ok(false);
        };
        place.bell.rung.store(false, Ordering::Release);
        let Some(work) = &mut place.work else {
            return Ok(false);
        };
        let mut cx = Context::from_waker(&place.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
        let done = match polled {
            Ok(Poll::Pending) => return Ok(false),
            Ok(Poll::Ready(())) => Ok(true),
            Err(panic) => Err(panic),
        };
        place.work = None;
        self.running -= 1;
        done
    }

    /// One that was woken by something of its own.
    pub(super) fn next_woken(&mut self) -> Option<usize> {
        if self.ready.is_empty() {
            std::mem::swap(&mut *lock(&self.woken.list), &mut self.ready);
            self.ready.reverse();
        }
        self.ready.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn done(polled: thread::Result<bool>) -> Option<bool> {
        polled.ok()
    }

    #[test]
    fn a_panic_is_the_end_of_who_panics_alone() {
        let mut tasks = Tasks::default();
        assert_eq!(
            done(tasks.start(0, Box::pin(std::future::pending()))),
            Some(false)
        );
        let broken = poll_fn(|_| -> Poll<()> { panic!("meant") });
        assert_eq!(done(tasks.start(1, Box::pin(broken))), None);
        assert_eq!(tasks.running(), 1);
        assert_eq!(done(tasks.poll(1)), Some(false), "nothing is left of it");
        let next = Box::pin(std::future::ready(()));
        assert_eq!(done(tasks.start(1, next)), Some(true), "its place is free");
        assert_eq!(done(tasks.poll(0)), Some(false));
    }

    #[test]
    fn only_who_was_woken_is_polled() {
        let shared = Arc::new(Mutex::new((Vec::new(), Vec::<Waker>::new())));
        let mut tasks = Tasks::default();
        for number in [0, 2] {
            let shared = Arc::clone(&shared);
            let mut polls = 0;
            let work = poll_fn(move |cx| {
                let mut shared = lock(&shared);
                shared.0.push(number);
                shared.1.push(cx.waker().clone());
                polls += 1;
                if polls == 3 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            assert_eq!(done(tasks.start(number, Box::pin(work))), Some(false));
        }
        assert_eq!(tasks.next_woken(), None);
        let wakers = lock(&shared).1.clone();
        wakers[1].wake_by_ref();
        wakers[1].wake_by_ref();
        assert_eq!(tasks.next_woken(), Some(2));
        assert_eq!(tasks.next_woken(), None);
        assert_eq!(done(tasks.poll(2)), Some(false));
        assert_eq!(done(tasks.poll(2)), Some(true));
        assert_eq!(done(tasks.poll(2)), Some(false), "done is done");
        assert_eq!(tasks.running(), 1);
        assert_eq!(lock(&shared).0, [0, 2, 2, 2]);
    }
}
