//! `app` routes: from a request to a slot of a Python worker and back.
//!
//! [`pool`] keeps greeted connections and the [`queue`] for them; [`slot`] is one such connection; [`run`] is a request in it,
//! with `origin` to read the request whole first and to take the response at the slot's speed. A client does not hold a slot:
//! it is asked for after the last byte of the request, and freed by the last that the app has made of the response. What does hold
//! one (`request_buffering = false`, live responses, responses that neither memory nor disk has room for) is counted and bounded.

mod outbound;
pub(crate) mod pool;
mod queue;
mod run;
pub(crate) mod slot;

use std::{sync::Arc, time::Duration};

use config::site;

use crate::{
    buffer::{Holding, Store},
    failure::Failure,
    files::{Handed, SendFile},
    journal::Journal,
    network::Network,
    origin::{
        Origin,
        interim::attend,
        relay::{self, Written},
        spool::{self, Spooled, Spooling},
    },
    request::{Peer, Request, Upload},
    response::Response,
};
use pool::Pool;
use queue::{Asker, Bounds, Place};
use slot::Slot;

/// What a route knows of its app.
#[derive(Debug)]
pub(crate) struct AppRoute {
    /// Its slots.
    pub(crate) pool: Arc<Pool>,
    /// Its limits.
    pub(crate) settings: Settings,
    /// How much of the path is the place at which the app is mounted.
    pub(crate) mounted: Option<usize>,
    /// The folders whose files it may answer with.
    pub(crate) sendfile: SendFile,
}

/// What an app has answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This.
    Here(Response),
    /// The content of a file.
    Elsewhere(Handed),
}

/// The limits of an app's route.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Until the response head.
    pub(crate) timeout: Duration,
    /// What bounds the queue.
    pub(crate) queue: Bounds,
    /// Where in it requests of this route wait.
    pub(crate) place: Place,
    /// How a response is held that the client has not taken.
    pub(crate) holding: Holding,
    /// How many live responses there may be at once; `None`: half as many as slots.
    pub(crate) streams: Option<usize>,
    /// How uploads are read.
    pub(crate) spooling: Spooling,
}

impl Settings {
    /// The app's own, and those of the table.
    pub(crate) fn new(
        app: &site::App,
        queue: site::Queue,
        whole: bool,
        limits: &site::Limits,
        store: &Arc<Store>,
    ) -> Self {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            timeout: app.timeout,
            queue: Bounds {
                length: size(limits.queue_length),
                per_client: size(limits.queue_per_client),
                timeout: limits.queue_timeout,
                target: limits.queue_target,
            },
            place: match queue {
                site::Queue::First => Place::First,
                site::Queue::Last => Place::Last,
            },
            holding: Holding::new(store, limits),
            streams: app.streams.map(usize::from),
            spooling: Spooling::new(store, limits, whole),
        }
    }
}

/// Reads the request whole, or its beginning where the route says so; waits for a slot, runs it there.
pub(crate) async fn respond(
    app: &AppRoute,
    request: &Request<'_>,
    peer: &Peer,
    upload: &mut impl Upload,
    journal: &mut Journal,
) -> Result<Answer, Failure> {
    let (body, feed) = spool::receive(upload, &app.settings.spooling, request.id).await?;
    journal.received = body.length();
    let Some(feed) = feed else {
        // A future that is moved stands in two places of the one that awaits it, and that is allocated for each request.
        let run = std::pin::pin!(run(app, request, peer, body, journal));
        return attend(upload, &request.interims, run).await;
    };
    let (answer, received) = {
        let run = Box::pin(run(app, request, peer, body, journal));
        Box::pin(feed.beside(upload, &request.interims, run)).await
    };
    journal.received = received;
    answer
}

/// Waits for a slot and runs the request in it.
async fn run(
    app: &AppRoute,
    request: &Request<'_>,
    peer: &Peer,
    body: Spooled,
    journal: &mut Journal,
) -> Result<Answer, Failure> {
    // A slot that waits for a client is one that others do not get.
    let stream = if body.is_coming() {
        let stream = app.pool.stream(app.settings.streams);
        let full = || Failure::StreamsFull {
            app: Arc::clone(&app.pool.app),
        };
        Some(stream.ok_or_else(full)?)
    } else {
        None
    };
    let (mut slot, written) = begin(app, request, peer, &body, journal).await?;
    slot.set_stream(stream);
    journal.slot = Some(slot.place());
    run::run(slot, app, request, body, written, journal).await
}

/// Writes the request to a slot. A worker that died a moment ago may still seem to be there; as long as not a byte has been
/// written to it, the request is not in it, and the next slot is taken.
async fn begin(
    app: &AppRoute,
    request: &Request<'_>,
    peer: &Peer,
    body: &Spooled,
    journal: &mut Journal,
) -> Result<(Slot, Written), Failure> {
    let asker = Asker {
        client: request.client.address.map(Network::from),
        place: app.settings.place,
    };
    loop {
        let mut slot = app.pool.take(&app.settings, asker, journal).await?;
        let connection = slot.connection();
        outbound::write_head(&mut connection.out, request, peer, app.mounted, body);
        if let Some(written) = relay::begin(connection, body) {
            return Ok((slot, written));
        }
    }
}
