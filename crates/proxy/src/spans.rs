//! `traces`: what a request's time went into, sent as OTLP spans to a collector.
//!
//! By hand and not by the `opentelemetry` crates: of those, the exporter brings an HTTP client of its own, and with TLS a second
//! stack of that, where we have one that speaks to upstreams; and their span costs a lock and some allocations for each request. What
//! is needed is one POST of JSON (OTLP/HTTP 1.x, <https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! A request that is recorded leaves its notes in a queue that has an end; a task sends what has come, and tries again while the
//! collector is away. What does not fit is dropped and counted. Nothing waits for any of it.

mod encode;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use config::site;
use message::trace::Context;
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, sleep_until, timeout},
};

use crate::{
    buffer::Store,
    figures::Figures,
    request::random_ids,
    upstream::{Post, Upstream},
};

/// Requests that wait to be sent: some seconds of a busy site, and a few MiB.
const QUEUE: usize = 4096;

/// Most of them in one message.
const BATCH: usize = 256;

/// How long the first of a message waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// How long the collector may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the process waits for what was not sent yet, and how often it looks.
const FAREWELL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// Pauses before another attempt; after the last one the message is dropped.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
];

/// What is remembered of a request that is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    /// The span of the request itself.
    pub(crate) own: u64,
    /// The one that the client names as its own.
    pub(crate) parent: Option<u64>,
    /// What the origin is told: the span of the time that it takes.
    pub(crate) below: Context,
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) spans: Box<Spans>,
    pub(crate) begun: SystemTime,
    pub(crate) duration: Duration,
    /// Its wait for a slot or a place: when that began after the request did, and how long it was.
    pub(crate) queue: Option<(Duration, Duration)>,
    /// The same of the app or the other server.
    pub(crate) origin: Option<(Duration, Duration)>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) protocol: &'static str,
    pub(crate) https: bool,
    pub(crate) status: u16,
    /// What answered: `app web`.
    pub(crate) route: Arc<str>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) worker: Option<String>,
    pub(crate) request_id: String,
    pub(crate) cause: Option<&'static str>,
}

/// What has been recorded, and neither sent nor lost.
#[derive(Debug, Default)]
struct Waiting {
    count: AtomicUsize,
    /// That no others are to be waited for.
    hurry: Notify,
}

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    settings: site::Traces,
    queue: mpsc::Sender<Recorded>,
    waiting: Arc<Waiting>,
    figures: Arc<Figures>,
}

impl Exporter {
    /// Sends to this upstream as `traces` says; goes on with the one that there is, where that does the same.
    pub(crate) fn new(
        traces: &site::Traces,
        upstream: Arc<Upstream>,
        limits: &site::Limits,
        store: &Arc<Store>,
        figures: &Arc<Figures>,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        if let Some(same) = before.filter(|before| before.settings == *traces) {
            return Arc::clone(same);
        }
        let (queue, recorded) = mpsc::channel(QUEUE);
        let sender = Sender {
            post: Post::new(traces, upstream, limits, store),
            settings: traces.clone(),
            figures: Arc::clone(figures),
            waiting: Arc::default(),
            fails: false,
        };
        let waiting = Arc::clone(&sender.waiting);
        tokio::spawn(sender.run(recorded));
        Arc::new(Self {
            settings: traces.clone(),
            queue,
            waiting,
            figures: Arc::clone(figures),
        })
    }

    /// What is to be remembered of a request whose client says this of its trace; nothing of one that is not recorded. Who has begun
    /// a trace has decided whether it is recorded; of those that begin here it is the share that `sample` says.
    pub(crate) fn begin(&self, came: Option<Context>, context: Context) -> Option<Box<Spans>> {
        let [own, below, dice] = random_ids();
        let sampled = match came {
            Some(came) => came.is_sampled(),
            None => dice % 1_000_000 < u64::from(self.settings.sample),
        };
        sampled.then(|| {
            Box::new(Spans {
                own: own.max(1),
                parent: came.map(Context::parent),
                below: context.below(below, true),
            })
        })
    }

    /// Takes a request that is over, if there is room.
    pub(crate) fn record(&self, recorded: Recorded) {
        self.waiting.count.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(recorded).is_err() {
            self.waiting.count.fetch_sub(1, Ordering::Relaxed);
            self.figures.spans_lost.add(1);
        }
    }

    /// Gives what waits a moment to be sent: the process is about to end. A collector that is away keeps nobody.
    pub(crate) async fn flush(&self) {
        let sent = async {
            while self.waiting.count.load(Ordering::Relaxed) > 0 {
                self.waiting.hurry.notify_one();
                sleep(LOOK).await;
            }
        };
        // Late or not, it is the end.
        let _ = timeout(FAREWELL, sent).await;
    }
}

/// Sends what has come.
struct Sender {
    post: Post,
    settings: site::Traces,
    figures: Arc<Figures>,
    waiting: Arc<Waiting>,
    /// Whether that has been said.
    fails: bool,
}

impl Sender {
    /// Until the last plan that uses it is gone, and everything is sent.
    async fn run(mut self, mut recorded: mpsc::Receiver<Recorded>) {
        let mut batch = Vec::with_capacity(BATCH);
        while recorded.recv_many(&mut batch, BATCH).await > 0 {
            let until = tokio::time::Instant::now() + GATHER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                tokio::select! {
                    biased;
                    more = recorded.recv_many(&mut batch, room) => if more == 0 {
                        break;
                    },
                    () = self.waiting.hurry.notified() => break,
                    () = sleep_until(until) => break,
                }
            }
            let text = encode::request(&self.settings.service, &batch);
            self.send(text.into(), batch.len()).await;
            self.waiting.count.fetch_sub(batch.len(), Ordering::Relaxed);
            batch.clear();
        }
    }

    async fn send(&mut self, text: Bytes, count: usize) {
        let mut pauses = PAUSES.into_iter();
        loop {
            let why = match timeout(PATIENCE, self.post.send(text.clone())).await {
                Ok(Ok(200..=299)) => {
                    self.figures.spans_sent.add(count as u64);
                    if std::mem::replace(&mut self.fails, false) {
                        tracing::info!("spans reach {} again", self.settings.upstream);
                    }
                    return;
                }
                // Others are about the message, and would be the same again (OTLP, "Failures").
                Ok(Ok(status @ (429 | 502..=504))) => format!("it answers {status}"),
                Ok(Ok(status)) => {
                    self.lose(count, &format!("it answers {status}"));
                    return;
                }
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => format!("no answer within {PATIENCE:?}"),
            };
            match pauses.next() {
                Some(pause) => {
                    self.complain(&why);
                    sleep(pause).await;
                }
                None => return self.lose(count, &why),
            }
        }
    }

    fn lose(&mut self, count: usize, why: &str) {
        self.figures.spans_lost.add(count as u64);
        self.complain(why);
    }

    /// Once, until they reach it again.
    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.fails, true) {
            tracing::warn!("spans do not reach {}: {why}", self.settings.upstream);
        }
    }
}

/// The time between two moments, nothing if they are the other way round.
pub(crate) fn after(begun: Instant, moment: Instant) -> Duration {
    moment.saturating_duration_since(begun)
}
