//! What is remembered of an exchange while it goes on, and the one access record that comes of it.

use std::{
    fmt::{self, Display},
    io::{self, IsTerminal},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use message::{
    head::{RequestHead, Version},
    trace::Context,
};
use telemetry::access::{self, Log, Record};

use crate::{
    address::AddressText,
    app::slot::Place,
    clock,
    failure::Failure,
    figures::Exchange,
    plan::Plan,
    request::{Peer, RequestId},
    spans::{Recorded, Spans, after},
};

/// An exchange's notes. Every exchange has one, from its first byte on, and ends it with one record.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Its name.
    pub(crate) id: RequestId,
    /// What answered.
    pub(crate) route: Route,
    /// Where it is counted, among the places of the plan.
    pub(crate) place: usize,
    /// Who asked, once that is decided.
    pub(crate) client: Option<IpAddr>,
    /// Who has shown to be whom.
    pub(crate) user: Option<String>,
    /// Which trace it belongs to, where there is one.
    pub(crate) trace: Option<Context>,
    /// What is to be recorded of it.
    pub(crate) spans: Option<Box<Spans>>,
    /// Bytes of the request's content.
    pub(crate) received: u64,
    /// The slot that ran it.
    pub(crate) slot: Option<Place>,
    /// The member of an upstream that answered it.
    pub(crate) member: Option<Arc<str>>,
    queue: Queue,
    /// How long the app took to its response head.
    app_time: Option<Duration>,
    /// When it was asked.
    app_begun: Option<Instant>,
    first_byte: Option<Duration>,
    begun: Instant,
    /// When the clock was last read for it.
    latest: Instant,
    failed: Option<Cause>,
    /// What came in the place of a request line, where that was not understood.
    line: Option<Box<[u8]>>,
}

/// Its wait for a slot.
#[derive(Clone, Copy, Debug)]
enum Queue {
    /// There was none.
    None,
    Since(Instant),
    For {
        since: Instant,
        time: Duration,
    },
}

/// What answered.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// Nothing was found, or something of ours.
    Fixed(&'static str),
    /// An app or an upstream, by its label.
    Named(Arc<str>),
}

#[derive(Debug)]
struct Cause {
    token: &'static str,
    detail: String,
    closes: bool,
    /// The client went away.
    left: bool,
    /// The error log tells of it.
    is_news: bool,
}

impl Journal {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self::begin_at(Instant::now())
    }

    /// The same for one that has begun just now: whoever has read the clock for something else has done it for this as well.
    pub(crate) fn begin_at(begun: Instant) -> Self {
        Self {
            id: RequestId::new(),
            route: Route::Fixed("-"),
            place: 0,
            client: None,
            user: None,
            trace: None,
            spans: None,
            received: 0,
            slot: None,
            member: None,
            queue: Queue::None,
            app_time: None,
            app_begun: None,
            first_byte: None,
            begun,
            latest: begun,
            failed: None,
            line: None,
        }
    }

    /// It begins to wait for a slot.
    pub(crate) fn queue(&mut self) {
        self.queue = Queue::Since(Instant::now());
    }

    /// That wait is over, and this is how long it was. One that is given up with its request ends with that.
    pub(crate) fn dequeue(&mut self) -> Duration {
        let Queue::Since(begun) = self.queue else {
            return Duration::ZERO;
        };
        let waited = begun.elapsed();
        self.queue = Queue::For {
            since: begun,
            time: waited,
        };
        waited
    }

    /// Its origin, which was asked at this time, has begun to answer.
    pub(crate) fn answered(&mut self, begun: tokio::time::Instant) {
        let begun = begun.into_std();
        self.latest = Instant::now();
        self.app_time = Some(self.latest.duration_since(begun));
        self.app_begun = Some(begun);
    }

    /// There is a response, and sending it may take a while.
    pub(crate) fn responds(&mut self) {
        self.first_byte = Some(self.begun.elapsed());
    }

    /// Remembers why it failed. The first cause stands: what follows are its consequences.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        if self.failed.is_some() {
            return;
        }
        // What fails may have taken long to.
        self.latest = Instant::now();
        self.failed = Some(Cause {
            token: failure.cause(),
            detail: failure.to_string(),
            closes: failure.closes(),
            left: matches!(failure, Failure::ClientLeft),
            is_news: failure.is_news(),
        });
    }

    /// Remembers what came in the place of a head: its first line, or what there is of it.
    pub(crate) fn refused(&mut self, came: &[u8]) {
        let came = came.strip_prefix(b"\r\n").unwrap_or(came);
        let line = came.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.line = Some(line[..line.len().min(LINE_RECORDED)].into());
    }

    /// When its response came to be, to some milliseconds.
    pub(crate) fn time(&self) -> SystemTime {
        clock::wall(self.latest)
    }

    /// Whether the client went away before there was a response. No status says so: an app may answer any.
    pub(crate) fn client_left(&self) -> bool {
        self.failed.as_ref().is_some_and(|cause| cause.left)
    }

    /// Whether what happened makes the connection unfit for another request.
    pub(crate) fn closes(&self) -> bool {
        self.failed.as_ref().is_some_and(|cause| cause.closes)
    }

    /// Counts the exchange and writes its record. What is not the client's doing is also a line in the error log, since that
    /// is where an operator looks first; it says what was asked, because the master's line about a dead worker, which it is
    /// read beside, cannot.
    pub(crate) fn record(
        &self,
        plan: &Plan,
        peer: &Peer,
        head: Option<&RequestHead>,
        status: u16,
        sent: u64,
    ) {
        let duration = self.begun.elapsed();
        let queue = match self.queue {
            Queue::None => None,
            Queue::Since(begun) => Some(begun.elapsed()),
            Queue::For { time, .. } => Some(time),
        };
        self.record_spans(plan, head, peer, status, duration, queue);
        plan.count(
            self.place,
            &Exchange {
                status,
                bytes_in: self.received,
                bytes_out: sent,
                duration,
                app: self.app_time,
                wait: queue,
                cause: self.failed.as_ref().map(|cause| cause.token),
            },
        );
        let log = &plan.log;
        // On one terminal the record is enough: it says the same.
        if !(log.is_on_terminal() && io::stderr().is_terminal()) {
            self.complain(log, head, status);
        }
        if !log.is_on() {
            return;
        }
        let address = self
            .client
            .or_else(|| peer.address.map(|address| address.ip().to_canonical()));
        let client = address.map(AddressText::new);
        let field = |name| head.and_then(|head| head.fields.get(name));
        let sent_fields = head.map(Sent);
        let trace = self.trace.map(Trace);
        log.record(&Record {
            time: clock::wall(self.begun),
            duration,
            client: client.as_ref().map_or(b"unix", AddressText::as_bytes),
            user: self.user.as_deref().unwrap_or("-"),
            method: head.map_or("", |head| head.method.as_str()),
            target: match head {
                Some(head) => &head.target,
                None => self.line.as_deref().unwrap_or_default(),
            },
            protocol: head.map_or("", |head| protocol(head.version)),
            host: field("host").unwrap_or_default(),
            status,
            bytes_in: self.received,
            bytes_out: sent,
            referer: field("referer"),
            user_agent: field("user-agent"),
            request_id: self.id.as_bytes(),
            route: match &self.route {
                Route::Fixed(name) => name,
                Route::Named(label) => label,
            },
            worker: self
                .slot
                .as_ref()
                .map(|place| place as &(dyn Display + Sync))
                .or_else(|| {
                    let member = self.member.as_ref();
                    member.map(|member| member as &(dyn Display + Sync))
                }),
            queue,
            app_time: self.app_time,
            first_byte: self.first_byte,
            tls: peer.tls,
            cause: self.failed.as_ref().map(|cause| cause.token),
            detail: self.failed.as_ref().map(|cause| cause.detail.as_str()),
            trace_id: trace.as_ref().map(|trace| trace as &(dyn Display + Sync)),
            fields: sent_fields
                .as_ref()
                .map(|sent| sent as &(dyn access::Fields + Sync)),
        });
    }

    fn record_spans(
        &self,
        plan: &Plan,
        head: Option<&RequestHead>,
        peer: &Peer,
        status: u16,
        duration: Duration,
        queue: Option<Duration>,
    ) {
        let (Some(exporter), Some(spans), Some(head)) = (&plan.spans, &self.spans, head) else {
            return;
        };
        let since = match self.queue {
            Queue::None => None,
            Queue::Since(since) | Queue::For { since, .. } => Some(since),
        };
        let path = head.target.split(|byte| *byte == b'?').next();
        let path = path.unwrap_or_default();
        let text = |bytes: &[u8]| {
            let shown = &bytes[..bytes.len().min(PATH_RECORDED)];
            String::from_utf8_lossy(shown).into_owned()
        };
        let slot = self.slot.as_ref().map(ToString::to_string);
        exporter.record(Recorded {
            spans: spans.clone(),
            begun: clock::wall(self.begun),
            duration,
            queue: since
                .zip(queue)
                .map(|(since, time)| (after(self.begun, since), time)),
            origin: self
                .app_begun
                .zip(self.app_time)
                .map(|(begun, time)| (after(self.begun, begun), time)),
            method: head.method.as_str().to_owned(),
            path: text(path),
            host: text(head.fields.get("host").unwrap_or_default()),
            protocol: protocol(head.version).trim_start_matches("HTTP/"),
            https: peer.https(),
            status,
            route: match &self.route {
                Route::Fixed(name) => (*name).into(),
                Route::Named(label) => Arc::clone(label),
            },
            client: self.client,
            worker: slot.or_else(|| self.member.as_ref().map(ToString::to_string)),
            request_id: self.id.to_string(),
            cause: self.failed.as_ref().map(|cause| cause.token),
        });
    }

    fn complain(&self, log: &Log, head: Option<&RequestHead>, status: u16) {
        let Some(cause) = self.failed.as_ref().filter(|cause| cause.is_news) else {
            return;
        };
        let method = head.map_or("-", |head| head.method.as_str());
        let target = head.map_or(&b""[..], |head| &head.target);
        let target = log.shown(&target[..target.len().min(TARGET_SHOWN)]);
        tracing::warn!(
            "request {} ({method} {}): {status} {}: {}",
            self.id,
            String::from_utf8_lossy(&target),
            cause.token,
            cause.detail
        );
    }
}

/// The name of a trace, for a format that has it: it is put together only there.
struct Trace(Context);

impl Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trace_id().as_str())
    }
}

/// The fields of a head, for a format that asks for one.
struct Sent<'a>(&'a RequestHead);

impl access::Fields for Sent<'_> {
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.0.fields.get(name)
    }
}

/// How much the access log has of what is no request line: enough to tell an attack from a typing error.
const LINE_RECORDED: usize = 1024;

/// How much of a path a span has.
const PATH_RECORDED: usize = 1024;

/// How much of a target the error log repeats; the access log has all of it.
const TARGET_SHOWN: usize = 200;

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2.0",
    }
}
