//! A request on its way through the exchange: what was asked, by whom, and the content that may still be arriving.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use message::{
    digits::hexadecimal, framing::Body, head::RequestHead, target::Target, trace::Context,
};

use crate::{
    failure::Failure,
    origin::interim::{Interim, Interims},
    put::put_line,
    response::FieldLines,
    spans::{Exporter, Spans},
    tls::Presented,
};

/// What is known of a connection before any request came on it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The other end; `None` for a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// The TLS version, if the connection is encrypted.
    pub(crate) tls: Option<&'static str>,
    /// Whether the client speaks TLS with a proxy before us that has said so for the whole connection.
    pub(crate) tls_before: bool,
    /// The port that was connected to, for `SERVER_PORT` when the request names none.
    pub(crate) local_port: Option<u16>,
    /// What came of asking for a client's certificate; `None` where nobody asked.
    pub(crate) presented: Option<Arc<Presented>>,
}

impl Peer {
    /// Whether the client speaks TLS, as far as the connection knows.
    pub(crate) fn https(&self) -> bool {
        self.tls.is_some() || self.tls_before
    }
}

/// A request that has been let in: every rule that can be checked without its content holds.
#[derive(Debug)]
pub(crate) struct Request<'head> {
    /// The head as it came.
    pub(crate) head: &'head RequestHead,
    /// What is asked for.
    pub(crate) target: Target,
    /// Who asks.
    pub(crate) client: Client,
    /// Its name in every log.
    pub(crate) id: RequestId,
    /// Who it has shown to be, where it had to.
    pub(crate) user: Option<String>,
    /// What a server that was asked who it is says of it, for its origin.
    pub(crate) vouched: Vouched,
    /// Which trace it belongs to.
    pub(crate) trace: Trace,
    /// What its origin says before it answers.
    pub(crate) interims: Interims,
}

/// The trace of a request (W3C Trace Context).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    /// What its origin is told; `None` until it is known that there is one.
    pub(crate) context: Option<Context>,
    /// Whether the client has begun it.
    came: bool,
}

impl Trace {
    /// The client's, if it has sent a valid one.
    pub(crate) fn of(head: &RequestHead) -> Self {
        let context = Context::of(&head.fields);
        Self {
            came: context.is_some(),
            context,
        }
    }

    /// There is one from here on, be it the client's or a new one.
    pub(crate) fn begin(&mut self) {
        self.context.get_or_insert_with(|| {
            let [first, second, span] = random_ids();
            Context::begin(u128::from(first) << 64 | u128::from(second), span)
        });
    }

    /// Records it, where it is to be.
    pub(crate) fn record(&mut self, exporter: &Exporter) -> Option<Box<Spans>> {
        let came = self.context.filter(|_| self.came);
        self.begin();
        let spans = exporter.begin(came, self.context?)?;
        self.context = Some(spans.below);
        Some(spans)
    }

    /// Whether what the client says in this field does not go on: of a trace that it has not begun there is no state.
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(b"traceparent")
            || !self.came && name.eq_ignore_ascii_case(b"tracestate")
    }

    /// Writes it as a line.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if let Some(context) = self.context {
            put_line(out, b"traceparent", &context.encode());
        }
    }
}

/// Numbers that look random, and that no two requests of any process share: distinct, not secret.
pub(crate) fn random_ids() -> [u64; 3] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static KEYS: OnceLock<[u64; 3]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| [random(), random(), random()]);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    keys.map(|key| mix(key.wrapping_add(next)))
}

/// Fields that only the servers of `auth = { forward = … }` may say, and what one has said.
#[derive(Debug, Default)]
pub(crate) struct Vouched {
    /// Those of the whole configuration: an app reads a field in the same way on every route, so nowhere is it a client's.
    pub(crate) everywhere: Option<Arc<[Box<str>]>>,
    /// Those of the route.
    pub(crate) here: Option<Arc<[Box<str>]>>,
    /// What was said.
    pub(crate) fields: FieldLines,
}

impl Vouched {
    /// Whether what a client says in this field does not go on.
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        let lists = [&self.everywhere, &self.here].into_iter().flatten();
        lists
            .flat_map(|list| list.iter())
            .any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
    }
}

/// Who asks, once trusted proxies have been believed.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// `None`: a Unix socket whose peer told no address.
    pub(crate) address: Option<IpAddr>,
    /// 0 when unknown.
    pub(crate) port: u16,
    /// Whether the client speaks TLS, to us or to a trusted proxy before us.
    pub(crate) https: bool,
}

/// The content of a request, wherever it arrives.
pub(crate) trait Upload: Send {
    /// How its length is known.
    fn framing(&self) -> Body;

    /// Whether it can go on while the response is sent, as in a stream of HTTP/2.
    fn goes_on(&self) -> bool {
        false
    }

    /// The next piece; `None` at the end. The first call tells a client that waits (`Expect: 100-continue`) to go on.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;

    /// Resolves when the client has gone away. Cancel-safe.
    fn left(&mut self) -> impl Future<Output = ()> + Send;

    /// Sends interim responses, if the client knows such. Not cancel-safe: half of one must be followed by its rest.
    fn inform(
        &mut self,
        interims: Vec<Interim>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Names one request in logs, in `X-Request-ID` and in the application's `environ`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 16]);

impl RequestId {
    /// A new one: unique in this process, and unlike those of any other.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static KEY: OnceLock<u64> = OnceLock::new();
        let key = *KEY.get_or_init(random);
        let number = mix(key.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
        Self(hexadecimal(number))
    }

    /// The sixteen digits, as they are written.
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The sixteen digits.
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A bijection (SplitMix64's finaliser): different numbers stay different, neighbours look unlike each other.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The standard library's own per-process randomness; ids need to be distinct, not secret.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct() {
        let ids: HashSet<String> = (0..10_000).map(|_| RequestId::new().to_string()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
