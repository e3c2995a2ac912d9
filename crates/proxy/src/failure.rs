//! Every way an exchange can fail, and the one place where a failure becomes a response.
//!
//! A failure says who failed (the client, the files, the worker or us), has one status code and one cause: a token that
//! operators find in the access log and in the documentation. What a visitor sees is the status, one sentence and the
//! request id; what an operator sees says more.

use std::{io, sync::Arc, time::Duration};

use message::{field::Fields, frame::Code, refusal::Refusal};
use telemetry::text::Elapsed;

use crate::{
    access::{TooMany, bare_fields, is_bare},
    pages::{Page, Pages, page},
    request::RequestId,
    response::{Content, Response},
};

/// How long somebody waited, for people.
fn waiting(waited: Duration) -> String {
    match waited.is_zero() {
        true => "at once".to_owned(),
        false => format!("after {} in its queue", Elapsed(waited)),
    }
}

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The request itself, or its sender.
    Client,
    /// A file that is not there or cannot be read.
    Files,
    /// The application or the process it runs in.
    Worker,
    /// Another server that answers for us.
    Upstream,
    /// stack, or the machine it runs on.
    Us,
}

/// Why an exchange did not end as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The request breaks a rule of the protocol.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No site answers for the host (RFC 9110 §15.5.20).
    #[error("no site is configured for the host {0:?}")]
    UnknownHost(String),
    /// A site that asks for clients' certificates was asked for on a connection of another one, or the other way round
    /// (RFC 9110 §15.5.20, CVE-2025-23419).
    #[error("the connection was not made for the host {0:?}")]
    OtherConnection(String),
    /// The site has no route for the path.
    #[error("no route matches the path")]
    NoRoute,
    /// The route's folder has no such file.
    #[error("no such file")]
    NoFile,
    /// The file is there but cannot be read.
    #[error("the file cannot be read: {0}")]
    FileUnreadable(#[source] io::Error),
    /// The file is not, or no longer, the one that If-Match or If-Unmodified-Since names (RFC 9110 §15.5.13).
    #[error("the file is not the one that the request is about")]
    Precondition,
    /// The file has none of the parts that are asked for (RFC 9110 §15.5.17).
    #[error("a file of {length} bytes has no such part")]
    NoPart {
        /// How long what would be sent is, in bytes.
        length: u64,
    },
    /// The site, or the app, is closed for a while.
    #[error("closed for maintenance")]
    Maintenance {
        /// What the site shows meanwhile.
        page: Option<Page>,
        /// When visitors shall come back.
        retry_after: Duration,
    },
    /// The client's address is not let in.
    #[error("the client's address is not let in here")]
    Denied,
    /// Nobody has shown who they are (RFC 9110 §15.5.2).
    #[error("no name and password that fit")]
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: Arc<str>,
    },
    /// Too many passwords are being checked.
    #[error("the password could not be checked in time")]
    AuthBusy,
    /// A server that was asked who may come in (`auth = { forward = … }`) says no.
    #[error("the server that `auth` asks lets nobody in who says this")]
    AuthRefused(Box<Response>),
    /// That server cannot say, so nobody comes in.
    #[error("who may come in cannot be asked: {0}")]
    AuthUnavailable(Arc<str>),
    /// The client asks more often than a `limit` has it (RFC 6585 §4).
    #[error("more requests than the limit allows{}", if .0.banned { ", and again and again" } else { "" })]
    TooMany(TooMany),
    /// The target does not take this method.
    #[error("the method is not allowed here")]
    Method {
        /// The value of `Allow` (RFC 9110 §10.2.1).
        allow: &'static str,
    },
    /// CONNECT (RFC 9110 §9.3.6): there are no tunnels to elsewhere. A client may have sent its tunnel's first bytes along, which
    /// are no requests.
    #[error("there are no tunnels to other hosts here")]
    Connect {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// A tunnel over HTTP/2 (RFC 8441) to what is none: any success would tell the client that it has its tunnel.
    #[error("what was asked for is no WebSocket")]
    NoTunnel,
    /// An `Expect` other than `100-continue` (RFC 9110 §10.1.1).
    #[error("the expectation is not known")]
    Expectation,
    /// The content is longer than `limits.body`.
    #[error("the content is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The content stopped coming, or came slower than `limits.body_rate`.
    #[error("the content came too slowly")]
    BodyTimeout,
    /// The head did not arrive within `limits.head_timeout`.
    #[error("the head of the request did not arrive in {0:?}")]
    HeadTimeout(Duration),
    /// The client went away before it had its answer.
    #[error("the client went away")]
    ClientLeft,
    /// The client took nothing of its answer for `limits.send_timeout`.
    #[error("the client took nothing of the response for too long")]
    ClientStalled,
    /// `limits.queue_length` requests wait already.
    #[error("{length} requests of app {app} wait for a slot already")]
    QueueFull {
        /// Which app.
        app: Arc<str>,
        /// How many wait.
        length: usize,
        /// How long the next to be served has waited.
        retry_after: Duration,
    },
    /// `limits.queue_per_client` requests of this client wait already.
    #[error("{count} requests of this client wait for a slot of app {app} already")]
    QueueClient {
        /// Which app.
        app: Arc<str>,
        /// How many wait.
        count: usize,
        /// How long the next to be served has waited.
        retry_after: Duration,
    },
    /// The queue has been there for so long that who waited longer than `limits.queue_target` is sent away.
    #[error(
        "app {app} gets more than it can answer; the request was turned away {}", waiting(*.waited)
    )]
    QueueShed {
        /// Which app.
        app: Arc<str>,
        /// How long it waited.
        waited: Duration,
        /// How long the next to be served has waited.
        retry_after: Duration,
    },
    /// No slot became free within `limits.queue_timeout`.
    #[error("no slot of app {app} became free in {waited:?}")]
    QueueTimeout {
        /// Which app.
        app: Arc<str>,
        /// How long it waited.
        waited: Duration,
        /// How long the next to be served has waited.
        retry_after: Duration,
    },
    /// The app has no worker, because none could start.
    #[error("app {app} could not start: {why}")]
    AppNotReady {
        /// Which app.
        app: Arc<str>,
        /// One line; the traceback is in the log.
        why: Arc<str>,
    },
    /// The worker died with the request inside it. It is never run again.
    #[error("worker {worker} died while it ran the request: {how}")]
    WorkerDied {
        /// Which worker.
        worker: String,
        /// `killed by SIGSEGV`.
        how: String,
    },
    /// The worker closed the connection inside a response, or before it, and lives on.
    #[error("worker {worker} closed the connection before the response was complete")]
    WorkerCut {
        /// Which worker.
        worker: String,
    },
    /// The worker's response breaks a rule of the protocol.
    #[error("worker {worker} sent a broken response: {rule}")]
    BadResponse {
        /// Which worker.
        worker: String,
        /// Which rule.
        #[source]
        rule: Refusal,
    },
    /// No response head within the app's `timeout`.
    #[error("worker {worker} did not answer within {timeout:?}")]
    AppTimeout {
        /// Which worker.
        worker: String,
        /// The app's `timeout`.
        timeout: Duration,
    },
    /// The app raised, or broke WSGI, before its response began; the traceback is in the log.
    #[error("the application failed in worker {worker} ({what}); its log has the traceback")]
    AppFailed {
        /// Which worker.
        worker: String,
        /// What the worker's runtime called it: `exception`, `protocol`.
        what: String,
        /// The traceback, where the site is served to who develops it.
        traceback: Option<String>,
    },
    /// No member of the upstream takes the request; not a byte of it was sent to any.
    #[error("upstream {upstream} cannot be reached: {member}: {source}")]
    UpstreamUnreachable {
        /// Which upstream.
        upstream: Arc<str>,
        /// The member that was tried last.
        member: Arc<str>,
        /// Why that failed.
        #[source]
        source: io::Error,
    },
    /// The upstream has all the requests that it may have at once, and was not done with one in time.
    #[error("upstream {upstream} had no place for the request in {waited:?}")]
    UpstreamFull {
        /// Which upstream.
        upstream: Arc<str>,
        /// How long it waited; nothing where too many wait already.
        waited: Duration,
    },
    /// The member sent nothing for too long.
    #[error("{member} sent nothing for {waited:?}")]
    UpstreamTimeout {
        /// Which member.
        member: Arc<str>,
        /// How long that was waited for.
        waited: Duration,
    },
    /// The member closed the connection before its response was complete. The request is not sent again.
    #[error("{member} closed the connection before the response was complete")]
    UpstreamCut {
        /// Which member.
        member: Arc<str>,
    },
    /// The member ended the stream of HTTP/2 before its response was complete, or broke the protocol. The request is not sent again.
    #[error("{member} broke off: {source}")]
    UpstreamReset {
        /// Which member.
        member: Arc<str>,
        /// What the client is told, once the status can no longer say it.
        code: Code,
        /// What it said, or did.
        #[source]
        source: h2::Error,
    },
    /// The member's response breaks a rule of the protocol.
    #[error("{member} sent a broken response: {rule}")]
    UpstreamBroken {
        /// Which member.
        member: Arc<str>,
        /// Which rule.
        #[source]
        rule: Refusal,
    },
    /// The temporary file of an upload could not be written.
    #[error("the content could not be stored: {0}")]
    Spool(#[source] io::Error),
    /// The app has as many live responses as it may have at once (`streams`).
    #[error(
        "app {app} has as many live responses (events, streams) at once as its `streams` allows"
    )]
    StreamsFull {
        /// Which app.
        app: Arc<str>,
    },
    /// All requests and responses together hold as much as they may (`limits.buffers_disk`).
    #[error("there is no room for the content: limits.buffers_disk is used up")]
    SpoolFull,
    /// The client read so slowly that its response kept a slot from others, of whom there were too many like it.
    #[error("the client read too slowly, and its response kept a slot busy")]
    SlowReader,
    /// A response could not be encoded.
    #[error("the response could not be encoded: {0}")]
    Encoding(#[source] io::Error),
    /// The app answered with a path that its operator has not opened to it.
    #[error("the app answered with {said:?}, but {why}")]
    ElsewhereRefused {
        /// The field line.
        said: String,
        /// For people.
        why: &'static str,
    },
    /// The app answered with an open file, and what came of it is not one that can be sent.
    #[error("the file that the app answered with could not be taken over: {0}")]
    Handed(#[source] io::Error),
}

impl Failure {
    /// The status code. A client that left gets none; 499 is what the log says, as nginx has it.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::UnknownHost(_) | Self::OtherConnection(_) => 421,
            Self::Denied => 403,
            Self::Unauthorized { .. } => 401,
            Self::AuthRefused(answer) => answer.status,
            Self::TooMany(_) => 429,
            Self::NoRoute | Self::NoFile => 404,
            Self::FileUnreadable(_) => 403,
            Self::Method { .. } | Self::Connect { .. } => 405,
            Self::NoTunnel => 501,
            Self::Precondition => 412,
            Self::NoPart { .. } => 416,
            Self::Expectation => 417,
            Self::BodyTooLarge { .. } => 413,
            Self::BodyTimeout | Self::HeadTimeout(_) => 408,
            Self::ClientLeft | Self::ClientStalled | Self::SlowReader => 499,
            Self::QueueFull { .. }
            | Self::QueueClient { .. }
            | Self::QueueShed { .. }
            | Self::QueueTimeout { .. }
            | Self::AppNotReady { .. }
            | Self::AuthBusy
            | Self::AuthUnavailable(_)
            | Self::Maintenance { .. }
            | Self::Spool(_)
            | Self::SpoolFull
            | Self::StreamsFull { .. }
            | Self::Handed(_) => 503,
            Self::WorkerDied { .. } | Self::WorkerCut { .. } | Self::BadResponse { .. } => 502,
            Self::AppTimeout { .. } | Self::UpstreamTimeout { .. } => 504,
            Self::UpstreamUnreachable { source, .. } if is_late(source) => 504,
            Self::UpstreamUnreachable { .. }
            | Self::UpstreamCut { .. }
            | Self::UpstreamReset { .. }
            | Self::UpstreamBroken { .. } => 502,
            Self::UpstreamFull { .. } => 503,
            Self::AppFailed { .. } | Self::Encoding(_) | Self::ElsewhereRefused { .. } => 500,
        }
    }

    /// The cause as the access log names it.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.cause(),
            Self::UnknownHost(_) => "unknown-host",
            Self::Maintenance { .. } => "maintenance",
            Self::Denied => "address-denied",
            Self::Unauthorized { .. } => "unauthorized",
            Self::AuthBusy => "auth-busy",
            Self::AuthRefused(_) => "auth-refused",
            Self::AuthUnavailable(_) => "auth-unavailable",
            Self::TooMany(TooMany { banned: true, .. }) => "banned",
            Self::TooMany(_) => "rate-limited",
            Self::OtherConnection(_) => "other-connection",
            Self::NoRoute => "no-route",
            Self::NoFile => "no-file",
            Self::FileUnreadable(_) => "file-unreadable",
            Self::Precondition => "precondition-failed",
            Self::NoPart { .. } => "no-such-part",
            Self::Method { .. } => "method-not-allowed",
            Self::Connect { .. } => "connect",
            Self::NoTunnel => "no-tunnel",
            Self::Expectation => "unknown-expectation",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::BodyTimeout => "body-timeout",
            Self::HeadTimeout(_) => "head-timeout",
            Self::ClientLeft => "client-left",
            Self::ClientStalled => "send-timeout",
            Self::QueueFull { .. } => "queue-full",
            Self::QueueClient { .. } => "queue-client",
            Self::QueueShed { .. } => "queue-shed",
            Self::QueueTimeout { .. } => "queue-timeout",
            Self::AppNotReady { .. } => "app-not-ready",
            Self::WorkerDied { .. } => "worker-died",
            Self::WorkerCut { .. } => "worker-cut",
            Self::BadResponse { .. } => "bad-response",
            Self::AppTimeout { .. } => "app-timeout",
            Self::AppFailed { .. } => "app-failed",
            Self::UpstreamUnreachable { .. } => "upstream-unreachable",
            Self::UpstreamFull { .. } => "upstream-full",
            Self::UpstreamTimeout { .. } => "upstream-timeout",
            Self::UpstreamCut { .. } => "upstream-cut",
            Self::UpstreamReset { .. } => "upstream-reset",
            Self::UpstreamBroken { .. } => "upstream-broken",
            Self::Spool(_) => "spool-failed",
            Self::SpoolFull => "spool-full",
            Self::StreamsFull { .. } => "streams-full",
            Self::SlowReader => "slow-reader",
            Self::Encoding(_) => "encoding-failed",
            Self::ElsewhereRefused { .. } => "file-refused",
            Self::Handed(_) => "file-lost",
        }
    }

    /// Who failed.
    pub(crate) fn who(&self) -> Who {
        match self {
            Self::NoRoute | Self::NoFile | Self::FileUnreadable(_) => Who::Files,
            Self::AppNotReady { .. }
            | Self::WorkerDied { .. }
            | Self::WorkerCut { .. }
            | Self::BadResponse { .. }
            | Self::AppTimeout { .. }
            | Self::AppFailed { .. }
            | Self::ElsewhereRefused { .. } => Who::Worker,
            Self::UpstreamUnreachable { .. }
            | Self::UpstreamFull { .. }
            | Self::UpstreamTimeout { .. }
            | Self::UpstreamCut { .. }
            | Self::UpstreamReset { .. }
            | Self::UpstreamBroken { .. }
            | Self::AuthUnavailable(_) => Who::Upstream,
            Self::QueueFull { .. }
            | Self::QueueClient { .. }
            | Self::QueueShed { .. }
            | Self::QueueTimeout { .. }
            | Self::AuthBusy
            | Self::Maintenance { .. }
            | Self::Spool(_)
            | Self::SpoolFull
            | Self::StreamsFull { .. }
            | Self::Encoding(_)
            | Self::Handed(_) => Who::Us,
            _ => Who::Client,
        }
    }

    /// Whether the error log tells of it: what somebody could mend here. Not what clients do, nor what somebody has wanted so.
    pub(crate) fn is_news(&self) -> bool {
        match self {
            Self::Maintenance { .. } => false,
            // A missing file is missed by whoever made the link; one that is there was meant to be served.
            Self::FileUnreadable(_) => true,
            _ => matches!(self.who(), Who::Worker | Who::Upstream | Who::Us),
        }
    }

    /// A page for it alone.
    pub(crate) fn page(&self) -> Option<&Page> {
        match self {
            Self::Maintenance { page, .. } => page.as_ref(),
            _ => None,
        }
    }

    /// What tells the client in a stream of HTTP/2 that its response is not whole (RFC 9113 §7).
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::UpstreamReset { code, .. } => *code,
            _ => Code::Internal,
        }
    }

    /// Whether the connection can no longer tell where the next request begins, or should not be trusted with one.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::BodyTooLarge { .. }
                | Self::BodyTimeout
                | Self::HeadTimeout(_)
                | Self::ClientLeft
                | Self::Expectation
                | Self::Connect { .. }
                | Self::TooMany(TooMany { banned: true, .. })
                | Self::Spool(_)
                | Self::SpoolFull
        )
    }

    /// What a visitor can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::PlainOnTlsPort) => {
                return "This port speaks TLS: put https:// in front of the address.";
            }
            Self::Refused(Refusal::TlsOnPlainPort) => {
                return "This port speaks plain HTTP: put http:// in front of the address.";
            }
            Self::Maintenance { .. } => {
                return "This site is being worked on. Please come back a little later.";
            }
            _ => {}
        }
        match self.status() {
            401 => "This address asks for a name and a password.",
            403 => "This address is not open to everybody.",
            404 => "There is nothing at this address.",
            405 => "This address does not take this kind of request.",
            408 => "The request took too long to arrive.",
            412 => "What is at this address is not what the request was made for.",
            413 => "What was sent is larger than this site accepts.",
            416 => "What is at this address has no such part.",
            421 => "This server does not answer for the name that was asked for.",
            429 => "There were too many requests from where you are. Please wait a moment.",
            501 => "This address does not do what was asked for.",
            500 => "The application failed while it worked on this request.",
            502 => "The application stopped in the middle of this request.",
            503 => "The application cannot take this request now. Please try again in a moment.",
            504 => "The application took too long to answer.",
            400..500 => "The request was not understood.",
            _ => "Something failed while this request was answered.",
        }
    }

    /// The one place where a failure becomes a response.
    pub(crate) fn into_response(
        self,
        pages: Option<&Pages>,
        asked: Option<&Fields>,
        id: RequestId,
    ) -> Response {
        let this = match self {
            Self::AuthRefused(answer) if !is_bare(&answer) => return *answer,
            other => other,
        };
        this.into_page(pages, asked, id)
    }

    fn into_page(self, pages: Option<&Pages>, asked: Option<&Fields>, id: RequestId) -> Response {
        let status = self.status();
        let page = page(&self, pages, asked, id);
        let retry_after = self.retry_after();
        let mut response = Response::new(status, Content::Bytes(page.content));
        match &self {
            Self::AuthRefused(answer) => response.fields = bare_fields(answer.fields.clone()),
            _ => response = response.with("Cache-Control", "no-store"),
        }
        response = response.with("Content-Type", page.content_type.as_bytes());
        if let Self::Method { allow } | Self::Connect { allow } = &self {
            response = response.with("Allow", allow);
        }
        if let Self::NoPart { length } = &self {
            response = response.with("Content-Range", format!("bytes */{length}"));
        }
        if let Self::Unauthorized { challenge } = &self {
            response = response.with("WWW-Authenticate", challenge.as_bytes());
        }
        if let Self::TooMany(too_many) = &self {
            // As draft-ietf-httpapi-ratelimit-headers has them.
            let (requests, seconds) = (too_many.requests, too_many.per.as_secs_f64().ceil());
            response = response
                .with(
                    "RateLimit-Policy",
                    format!("\"limit\";q={requests};w={seconds}"),
                )
                .with("RateLimit", format!("\"limit\";r=0;t={retry_after}"));
        }
        let said = matches!(self, Self::AuthRefused(_));
        if matches!(status, 429 | 503) && !said {
            response = response.with("Retry-After", retry_after.to_string());
        }
        response
    }

    /// Seconds after which a refused client may come again: as long as the queue takes now, or about what a worker needs to
    /// start.
    fn retry_after(&self) -> u64 {
        match self {
            Self::QueueFull { retry_after, .. }
            | Self::QueueClient { retry_after, .. }
            | Self::QueueShed { retry_after, .. }
            | Self::QueueTimeout { retry_after, .. } => {
                (retry_after.as_secs() + 1).min(RETRY_AFTER_MOST)
            }
            Self::TooMany(too_many) => too_many.retry.as_secs() + 1,
            Self::Maintenance { retry_after, .. } => retry_after.as_secs().max(1),
            _ => RETRY_AFTER,
        }
    }
}

const RETRY_AFTER: u64 = 5;
const RETRY_AFTER_MOST: u64 = 60;

fn is_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_says_when_to_come_again() {
        let failure = Failure::QueueFull {
            app: "web".into(),
            length: 512,
            retry_after: Duration::from_millis(1400),
        };
        let response = failure.into_response(None, None, RequestId::new());
        assert_eq!(response.status, 503);
        assert!(format!("{:?}", response.fields).contains("Retry-After: 2\r"));
    }

    /// Who adds a cause documents it: in `telemetry::causes::ALL`, and then `BLESS=1 cargo test -p telemetry` for docs/logs.md.
    #[test]
    fn every_cause_is_documented() {
        let sources = [
            include_str!("failure.rs"),
            include_str!("../../message/src/refusal.rs"),
        ];
        let mut named = Vec::new();
        for source in sources {
            let (_, causes) = source
                .split_once("fn cause(")
                .expect("causes are named there");
            let (causes, _) = causes.split_once("\n    }\n").expect("a function ends");
            named.extend(causes.lines().filter_map(|line| line.split('"').nth(1)));
        }
        for name in &named {
            let known = telemetry::causes::index(name).is_some();
            assert!(known, "{name} is not in `telemetry::causes::ALL`");
        }
        for cause in telemetry::causes::ALL {
            assert!(
                named.contains(&cause.name),
                "nothing fails with {}",
                cause.name
            );
        }
    }
}
