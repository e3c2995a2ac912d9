//! What the proxy counts: requests by place, failures by cause, connections, handshakes.
//!
//! A place is a route of a site; which one a request belongs to is known from the plan, so counting looks nothing up. What
//! is counted outlives a plan: the same place in a new configuration goes on with its counts. Figures that somebody else
//! keeps anyway (queues, slots, buffers) are looked at when somebody asks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use telemetry::{
    causes,
    metrics::{self, Counter, Histogram, Sharded, Snapshot, Value},
    panics::lock,
};

use crate::connection::http2_attacks;

/// All counts of this process.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    places: Mutex<BTreeMap<(String, String), Arc<Place>>>,
    apps: Mutex<BTreeMap<String, Arc<AppFigures>>>,
    listeners: Mutex<BTreeMap<String, Arc<Counter>>>,
    causes: Sharded<Causes>,
    /// Connections that were closed because their client had too many.
    pub(crate) refused: Counter,
    /// Requests whose spans have been sent, and those whose have not.
    pub(crate) spans_sent: Counter,
    pub(crate) spans_lost: Counter,
    handshakes: [Counter; HANDSHAKES.len()],
    closed: Counter,
}

/// A connection that is open, until this is dropped.
pub(crate) struct Open<'a>(&'a Figures);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.closed.add(1);
    }
}

/// How a TLS handshake ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// With this version.
    Tls12,
    Tls13,
    /// The two did not agree, or the client left.
    Failed,
    /// It took longer than `limits.handshake_timeout`.
    Late,
}

/// What each is called; in the order of [`Handshake`].
const HANDSHAKES: [&str; 4] = ["TLSv1.2", "TLSv1.3", "failed", "late"];

/// A route of a site, or a site where no route fits.
#[derive(Debug)]
pub(crate) struct Place {
    site: String,
    route: String,
    /// The app that answers there.
    app: Option<Arc<AppFigures>>,
    cells: Sharded<Cells>,
}

/// What is counted at a place.
#[derive(Debug, Default)]
struct Cells {
    statuses: Statuses,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    durations: Histogram,
}

/// What is counted of an app, wherever it answers.
#[derive(Debug, Default)]
pub(crate) struct AppFigures {
    durations: Sharded<Histogram>,
    waits: Sharded<Histogram>,
}

#[derive(Debug)]
struct Statuses([AtomicU64; COUNTS]);

impl Default for Statuses {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNTS])
    }
}

#[derive(Debug)]
struct Causes(Vec<AtomicU64>);

impl Default for Causes {
    fn default() -> Self {
        Self(causes::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

/// What there is to count of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration: Duration,
    /// Until the app's response began.
    pub(crate) app: Option<Duration>,
    /// In the queue.
    pub(crate) wait: Option<Duration>,
    /// Why it failed.
    pub(crate) cause: Option<&'static str>,
}

impl Figures {
    /// The place of this site and path.
    pub(crate) fn place(&self, site: &str, route: &str, app: Option<&str>) -> Arc<Place> {
        let key = (site.to_owned(), route.to_owned());
        let app = app.map(|app| self.app(app));
        let mut places = lock(&self.places);
        match places.get(&key) {
            Some(place) if same(place.app.as_ref(), app.as_ref()) => Arc::clone(place),
            // Another app answers there now; what was counted of the place goes on in the sum of both.
            _ => {
                let place = Arc::new(Place {
                    site: key.0.clone(),
                    route: key.1.clone(),
                    app,
                    cells: Sharded::default(),
                });
                if let Some(before) = places.insert(key, Arc::clone(&place)) {
                    place.cells.mine().take_over(&before);
                }
                place
            }
        }
    }

    /// The figures of this app.
    fn app(&self, app: &str) -> Arc<AppFigures> {
        Arc::clone(lock(&self.apps).entry(app.to_owned()).or_default())
    }

    /// The count of what is accepted on this listener.
    pub(crate) fn listener(&self, name: &str) -> Arc<Counter> {
        Arc::clone(lock(&self.listeners).entry(name.to_owned()).or_default())
    }

    /// A connection that was counted by its listener is being served.
    pub(crate) fn open(&self) -> Open<'_> {
        Open(self)
    }

    /// Counts a handshake.
    pub(crate) fn handshake(&self, end: Handshake) {
        self.handshakes[end as usize].add(1);
    }

    /// Counts a request. `place` is where it was answered, if that came to be known.
    pub(crate) fn count(&self, place: &Place, exchange: &Exchange) {
        place.count(exchange);
        if let Some(at) = exchange.cause.and_then(causes::index) {
            self.causes.mine().0[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All that was counted.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for place in lock(&self.places).values() {
            place.tell(&mut snapshot);
        }
        for (app, figures) in &*lock(&self.apps) {
            figures.tell(app, &mut snapshot);
        }
        // Before what was accepted: a connection that comes and goes meanwhile must not make it negative.
        let closed = self.closed.get();
        let mut accepted = 0;
        for (listener, count) in &*lock(&self.listeners) {
            let count = count.get();
            accepted += count;
            snapshot.count(&metrics::ACCEPTED, [listener.as_str()], count);
        }
        let open = accepted.saturating_sub(closed);
        snapshot.count(&metrics::CONNECTIONS, [], open);
        for (at, cause) in causes::ALL.iter().enumerate() {
            let counted = self
                .causes
                .all()
                .map(|copy| copy.0[at].load(Ordering::Relaxed));
            // Nearly all of them never happen; a series for each would only be in the way.
            let counted: u64 = counted.sum();
            if counted > 0 {
                snapshot.count(&metrics::FAILURES, [cause.name], counted);
            }
        }
        snapshot.count(&metrics::REFUSED, [], self.refused.get());
        let (sent, lost) = (self.spans_sent.get(), self.spans_lost.get());
        // Only who sends any wants to know.
        if sent + lost > 0 {
            snapshot.count(&metrics::TRACED, ["sent"], sent);
            snapshot.count(&metrics::TRACED, ["lost"], lost);
        }
        for (name, count) in HANDSHAKES.into_iter().zip(&self.handshakes) {
            snapshot.count(&metrics::HANDSHAKES, [name], count.get());
        }
        for (name, count) in http2_attacks().filter(|(_, count)| *count > 0) {
            snapshot.count(&metrics::ATTACKS, [name], count);
        }
        snapshot
    }
}

fn same(one: Option<&Arc<AppFigures>>, two: Option<&Arc<AppFigures>>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => Arc::ptr_eq(one, two),
        (None, None) => true,
        _ => false,
    }
}

impl Place {
    fn count(&self, exchange: &Exchange) {
        let cells = self.cells.mine();
        cells.statuses.0[index(exchange.status)].fetch_add(1, Ordering::Relaxed);
        cells.durations.observe(exchange.duration);
        // Most requests have no content, and many responses none.
        if exchange.bytes_in > 0 {
            cells
                .bytes_in
                .fetch_add(exchange.bytes_in, Ordering::Relaxed);
        }
        if exchange.bytes_out > 0 {
            cells
                .bytes_out
                .fetch_add(exchange.bytes_out, Ordering::Relaxed);
        }
        let Some(app) = &self.app else { return };
        if let Some(time) = exchange.app {
            app.durations.mine().observe(time);
        }
        if let Some(time) = exchange.wait {
            app.waits.mine().observe(time);
        }
    }

    fn tell(&self, snapshot: &mut Snapshot) {
        let place = [self.site.as_str(), self.route.as_str()];
        let mut all = 0;
        for at in 0..COUNTS {
            let counted = self
                .cells
                .all()
                .map(|cells| cells.statuses.0[at].load(Ordering::Relaxed));
            let counted: u64 = counted.sum();
            all += counted;
            if counted > 0 {
                snapshot.count(&metrics::REQUESTS, [place[0], place[1], &code(at)], counted);
            }
        }
        if all == 0 {
            return;
        }
        for cells in self.cells.all() {
            snapshot.count(
                &metrics::BYTES_IN,
                place,
                cells.bytes_in.load(Ordering::Relaxed),
            );
            snapshot.count(
                &metrics::BYTES_OUT,
                place,
                cells.bytes_out.load(Ordering::Relaxed),
            );
            snapshot.add(
                &metrics::DURATION,
                place,
                Value::Observed(cells.durations.observed()),
            );
        }
    }
}

impl Cells {
    /// Adds what another place has counted. Requests of the old plan that still run are counted there, and lost.
    fn take_over(&self, before: &Place) {
        for cells in before.cells.all() {
            for (ours, theirs) in self.statuses.0.iter().zip(&cells.statuses.0) {
                ours.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            self.bytes_in
                .fetch_add(cells.bytes_in.load(Ordering::Relaxed), Ordering::Relaxed);
            self.bytes_out
                .fetch_add(cells.bytes_out.load(Ordering::Relaxed), Ordering::Relaxed);
            self.durations.add(&cells.durations.observed());
        }
    }
}

impl AppFigures {
    fn tell(&self, app: &str, snapshot: &mut Snapshot) {
        for (family, sharded) in [
            (&metrics::APP_DURATION, &self.durations),
            (&metrics::QUEUE_WAIT, &self.waits),
        ] {
            for histogram in sharded.all() {
                snapshot.add(family, [app], Value::Observed(histogram.observed()));
            }
        }
    }
}

/// The statuses that have a count of their own.
const CODES: [u16; 44] = [
    101, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402,
    403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 429, 431,
    451, 499, 500, 502, 503, 504,
];

/// And those that all others of their class share, behind them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const COUNTS: usize = CODES.len() + CLASSES.len();

/// Where each status is counted; made when this is compiled, so that it costs one look.
static INDEX: [u8; 600] = indices();

fn index(status: u16) -> usize {
    let last = INDEX.len() - 1;
    usize::from(INDEX[usize::from(status).min(last)])
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are fewer than 256, and `as` is what a constant has"
)]
const fn indices() -> [u8; 600] {
    let mut indices = [0; 600];
    let mut status = 0;
    while status < 600 {
        let class = if status < 100 { 0 } else { status / 100 - 1 };
        indices[status] = (CODES.len() + class) as u8;
        status += 1;
    }
    let mut at = 0;
    while at < CODES.len() {
        indices[CODES[at] as usize] = at as u8;
        at += 1;
    }
    indices
}

/// What a count is called.
fn code(at: usize) -> String {
    match CODES.get(at) {
        Some(code) => code.to_string(),
        None => CLASSES[at - CODES.len()].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(status: u16, cause: Option<&'static str>) -> Exchange {
        Exchange {
            status,
            bytes_in: 1,
            bytes_out: 10,
            duration: Duration::from_millis(2),
            app: Some(Duration::from_millis(1)),
            wait: None,
            cause,
        }
    }

    #[test]
    fn every_status_has_a_count() {
        for (status, expected) in [
            (101, "101"),
            (200, "200"),
            (299, "2xx"),
            (404, "404"),
            (407, "4xx"),
            (501, "5xx"),
            (599, "5xx"),
            (0, "1xx"),
            (700, "5xx"),
        ] {
            assert_eq!(code(index(status)), expected, "{status}");
        }
    }

    #[test]
    fn requests_are_counted_where_they_were_answered() {
        let figures = Figures::default();
        let place = figures.place("example.org", "/", Some("web"));
        figures.count(&place, &exchange(200, None));
        figures.count(&place, &exchange(200, None));
        figures.count(&place, &exchange(502, Some("worker-died")));
        let snapshot = figures.snapshot();
        let requests = |code: &str| snapshot.total(&metrics::REQUESTS, |labels| labels[2] == code);
        assert_eq!((requests("200"), requests("502")), (2, 1));
        assert_eq!(
            snapshot.total(&metrics::FAILURES, |labels| labels[0] == "worker-died"),
            1
        );
        assert_eq!(snapshot.total(&metrics::BYTES_OUT, |_| true), 30);
        assert_eq!(snapshot.observed(&metrics::DURATION, |_| true).count(), 3);
        assert_eq!(
            snapshot.observed(&metrics::APP_DURATION, |_| true).count(),
            3
        );
        assert_eq!(snapshot.observed(&metrics::QUEUE_WAIT, |_| true).count(), 0);
    }

    #[test]
    fn a_place_goes_on_in_a_new_plan_whoever_answers_there() {
        let figures = Figures::default();
        figures.count(&figures.place("a", "/", Some("web")), &exchange(200, None));
        let again = figures.place("a", "/", Some("web"));
        figures.count(&again, &exchange(200, None));
        let other = figures.place("a", "/", None);
        figures.count(&other, &exchange(200, None));
        let snapshot = figures.snapshot();
        assert_eq!(snapshot.total(&metrics::REQUESTS, |_| true), 3);
        assert_eq!(snapshot.observed(&metrics::DURATION, |_| true).count(), 3);
    }
}
