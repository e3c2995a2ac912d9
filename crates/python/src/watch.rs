//! What the master can see of a slot: each request is written on the scoreboard as it begins and ends, and when a worker has
//! served `max_requests` it says so, and goes on serving until it is replaced.

use std::sync::atomic::{AtomicU64, Ordering};

use appserver::{
    application::Application, assignment::Report, request::Request, response::Response,
};
use supervisor::scoreboard::Pen;
use telemetry::panics;

use crate::slot::Shared;

/// Requests that all slots together have served, and how many that may be.
#[derive(Debug)]
pub(crate) struct Wear {
    served: AtomicU64,
    most: Option<u64>,
}

impl Wear {
    pub(crate) fn new(most: Option<u64>) -> Self {
        let served = AtomicU64::new(0);
        Self { served, most }
    }

    /// One more. Whether it is enough, which is true once.
    fn is_enough(&self) -> bool {
        // Where nobody asks nobody counts: the scoreboard counts each slot's own without sharing a cache line.
        let Some(most) = self.most else { return false };
        self.served.fetch_add(1, Ordering::Relaxed) + 1 == most
    }
}

/// An application whose requests are watched.
pub(crate) struct Watched<'a, A> {
    pub(crate) application: &'a mut A,
    pub(crate) pen: &'a Pen,
    /// Where it is said which thread it is that runs the request.
    pub(crate) place: &'a AtomicU64,
    pub(crate) thread: u64,
    pub(crate) shared: &'a Shared,
}

impl<A: Application> Application for Watched<'_, A> {
    fn respond(&mut self, request: &Request<'_>, response: &mut Response) {
        let id = request.handoff().request_id.as_bytes();
        self.place.store(self.thread, Ordering::Release);
        self.pen
            .begin(self.thread, request.method(), request.raw_target(), id);
        self.application.respond(request, response);
        self.pen.end();
        self.place.store(0, Ordering::Release);
        if self.shared.wear.is_enough() {
            let mut voice = panics::lock(&self.shared.voice);
            // Nobody listens only when the master is gone, and then we are about to go as well.
            let _ = crate::report::send(&mut voice, &Report::Worn);
        }
    }

    fn wait<T: Send>(&mut self, act: impl FnOnce() -> T + Send) -> T {
        self.application.wait(act)
    }
}
