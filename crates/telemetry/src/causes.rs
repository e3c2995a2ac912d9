//! Every cause that an access record can name: one word, who failed, and what it means.
//!
//! The list is what the documentation shows and what failures are counted by. Those who name a cause live elsewhere
//! (`message::refusal`, `proxy::failure`); a test there compares.

/// A cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The word.
    pub name: &'static str,
    /// `client`, `files`, `worker`, `upstream` or `us`.
    pub who: &'static str,
    /// The status that the client gets.
    pub status: u16,
    /// What happened, for people.
    pub meaning: &'static str,
}

const fn cause(name: &'static str, who: &'static str, status: u16, meaning: &'static str) -> Cause {
    Cause {
        name,
        who,
        status,
        meaning,
    }
}

/// All of them: what failed in the middle first, then the rules of the protocol.
pub const ALL: &[Cause] = &[
    cause(
        "unknown-host",
        "client",
        421,
        "No site is configured for this host.",
    ),
    cause(
        "other-connection",
        "client",
        421,
        "A site that asks for clients' certificates was asked for on a connection that was not made for it.",
    ),
    cause(
        "no-route",
        "files",
        404,
        "The site has no route for this path.",
    ),
    cause(
        "no-file",
        "files",
        404,
        "The route's folder has no such file.",
    ),
    cause(
        "file-unreadable",
        "files",
        403,
        "The file is there but we may not read it.",
    ),
    cause(
        "precondition-failed",
        "client",
        412,
        "The file is not, or no longer, the one that If-Match or If-Unmodified-Since names.",
    ),
    cause(
        "no-such-part",
        "client",
        416,
        "The file has none of the parts that Range asks for, or they overlap.",
    ),
    cause(
        "method-not-allowed",
        "client",
        405,
        "The address does not take this method.",
    ),
    cause(
        "connect",
        "client",
        405,
        "CONNECT: there are no tunnels to other hosts here.",
    ),
    cause(
        "no-tunnel",
        "client",
        501,
        "A WebSocket over HTTP/2 was asked for where there is none.",
    ),
    cause(
        "unknown-expectation",
        "client",
        417,
        "An Expect other than `100-continue`.",
    ),
    cause(
        "body-too-large",
        "client",
        413,
        "The content is larger than `limits.body`.",
    ),
    cause(
        "body-timeout",
        "client",
        408,
        "The content stopped coming, or came slower than `limits.body_rate`.",
    ),
    cause(
        "head-timeout",
        "client",
        408,
        "The head did not arrive within `limits.head_timeout`.",
    ),
    cause(
        "client-left",
        "client",
        499,
        "The client went away before it had its whole answer; no status was sent, or it was cut.",
    ),
    cause(
        "maintenance",
        "us",
        503,
        "The site or the app is closed for maintenance, by `maintenance` or `stack maintenance on`.",
    ),
    cause(
        "queue-full",
        "us",
        503,
        "`limits.queue_length` requests of the app wait already.",
    ),
    cause(
        "queue-client",
        "us",
        503,
        "`limits.queue_per_client` requests of this client wait already.",
    ),
    cause(
        "queue-shed",
        "us",
        503,
        "The app is overloaded, and this request would have waited longer than `limits.queue_target`.",
    ),
    cause(
        "queue-timeout",
        "us",
        503,
        "No slot became free within `limits.queue_timeout`.",
    ),
    cause(
        "app-not-ready",
        "worker",
        503,
        "The app has no worker: none could start. The log has the traceback.",
    ),
    cause(
        "worker-died",
        "worker",
        502,
        "The worker died with the request inside it. It is not run again.",
    ),
    cause(
        "worker-cut",
        "worker",
        502,
        "The worker closed the connection inside its response, and lives on.",
    ),
    cause(
        "bad-response",
        "worker",
        502,
        "The worker's response breaks a rule of HTTP.",
    ),
    cause(
        "app-timeout",
        "worker",
        504,
        "No response began within the app's `timeout`. The log has the stack.",
    ),
    cause(
        "app-failed",
        "worker",
        500,
        "The app raised before its response began. The log has the traceback.",
    ),
    cause(
        "spool-failed",
        "us",
        503,
        "The temporary file of an upload could not be written.",
    ),
    cause(
        "file-lost",
        "us",
        503,
        "The file that the app answered with could not be taken over.",
    ),
    cause(
        "bare-lf",
        "client",
        400,
        "A line of the head ended with LF alone.",
    ),
    cause("bare-cr", "client", 400, "A CR stood alone in the head."),
    cause(
        "bad-request-line",
        "client",
        400,
        "The request line is not `method target version`.",
    ),
    cause(
        "tls-on-plain-port",
        "client",
        400,
        "TLS was spoken on a plain HTTP port.",
    ),
    cause(
        "plain-on-tls-port",
        "client",
        400,
        "Plain HTTP was spoken on a TLS port.",
    ),
    cause("bad-method", "client", 400, "The method is not a token."),
    cause(
        "unsupported-version",
        "client",
        505,
        "An HTTP version that does not exist.",
    ),
    cause(
        "bad-version",
        "client",
        400,
        "The version is not written as `HTTP/1.1`.",
    ),
    cause(
        "line-too-long",
        "client",
        414,
        "The request line is longer than `limits.request_line`.",
    ),
    cause(
        "head-too-long",
        "client",
        431,
        "The head is longer than `limits.head`.",
    ),
    cause(
        "too-many-fields",
        "client",
        431,
        "There are more fields than `limits.fields`.",
    ),
    cause(
        "bad-field-name",
        "client",
        400,
        "A field has no colon, or its name is not a token.",
    ),
    cause(
        "space-before-colon",
        "client",
        400,
        "White space stood before the colon of a field.",
    ),
    cause(
        "folded-field",
        "client",
        400,
        "A field was folded over several lines.",
    ),
    cause(
        "bad-field-value",
        "client",
        400,
        "A field value has a control character.",
    ),
    cause(
        "length-and-coding",
        "client",
        400,
        "Content-Length and Transfer-Encoding were both given: request smuggling.",
    ),
    cause(
        "bad-content-length",
        "client",
        400,
        "Content-Length is not one decimal number.",
    ),
    cause(
        "repeated-content-length",
        "client",
        400,
        "Content-Length was given more than once.",
    ),
    cause(
        "unsupported-coding",
        "client",
        501,
        "A transfer coding other than `chunked` alone.",
    ),
    cause(
        "coding-in-http10",
        "client",
        400,
        "HTTP/1.0 has no Transfer-Encoding.",
    ),
    cause("bad-chunk", "client", 400, "A chunk is malformed."),
    cause(
        "chunk-overhead",
        "client",
        400,
        "Chunk extensions or trailers are too long.",
    ),
    cause("missing-host", "client", 400, "There is no Host."),
    cause(
        "repeated-host",
        "client",
        400,
        "There is more than one Host.",
    ),
    cause("bad-host", "client", 400, "The Host is malformed."),
    cause(
        "authority-mismatch",
        "client",
        400,
        "The target names another host than Host.",
    ),
    cause(
        "bad-target",
        "client",
        400,
        "The target has none of the forms that a target can have.",
    ),
    cause(
        "bad-percent-encoding",
        "client",
        400,
        "The target has a malformed `%`, or `%00`.",
    ),
    cause("above-root", "client", 400, "`..` leads above the root."),
    cause(
        "bad-status-line",
        "worker",
        502,
        "A response began with a malformed status line.",
    ),
    cause(
        "connection-field",
        "client",
        400,
        "A connection-specific field was sent over HTTP/2.",
    ),
    cause(
        "address-denied",
        "client",
        403,
        "The route's or site's `allow` and `deny` do not let this address in.",
    ),
    cause(
        "unauthorized",
        "client",
        401,
        "No name and password that fit.",
    ),
    cause(
        "auth-busy",
        "us",
        503,
        "Too many passwords are being checked at once.",
    ),
    cause(
        "auth-refused",
        "client",
        401,
        "The server that `auth` asks said no. The status is its own: 401, 403, or one that leads to where people log in.",
    ),
    cause(
        "auth-unavailable",
        "upstream",
        503,
        "The server that `auth` asks did not answer in time, cannot be reached, or answered with 5xx; nobody comes in meanwhile.",
    ),
    cause(
        "banned",
        "client",
        429,
        "The client is banned for a while, after too many refusals.",
    ),
    cause(
        "rate-limited",
        "client",
        429,
        "The client asks more often than its `rate` allows.",
    ),
    cause(
        "spool-full",
        "us",
        503,
        "All requests and responses together hold as much as `limits.buffers_disk`.",
    ),
    cause(
        "streams-full",
        "us",
        503,
        "The app has as many live responses at once as its `streams` allows.",
    ),
    cause(
        "slow-reader",
        "client",
        499,
        "The client read so slowly that its response kept a slot from others, and was cut.",
    ),
    cause(
        "encoding-failed",
        "us",
        500,
        "The response could not be compressed.",
    ),
    cause(
        "file-refused",
        "worker",
        500,
        "The app answered with a path (X-Accel-Redirect, X-Sendfile) that its operator has not opened to it.",
    ),
    cause(
        "bad-pseudo-field",
        "client",
        400,
        "The pseudo-fields of an HTTP/2 request are malformed.",
    ),
    cause(
        "content-length-mismatch",
        "client",
        400,
        "The content of an HTTP/2 request is not as long as its Content-Length.",
    ),
    cause(
        "send-timeout",
        "client",
        499,
        "The client took nothing of the response for `limits.send_timeout`, and was cut.",
    ),
    cause(
        "upstream-unreachable",
        "upstream",
        502,
        "No upstream could be connected to; 504 where the last one tried took longer than `connect_timeout`.",
    ),
    cause(
        "upstream-full",
        "upstream",
        503,
        "The upstream has as many requests at once as its `connections` allow, and no place became free in time.",
    ),
    cause(
        "upstream-timeout",
        "upstream",
        504,
        "No response of the upstream began within its `timeout`.",
    ),
    cause(
        "upstream-cut",
        "upstream",
        502,
        "The upstream closed the connection before its response was complete.",
    ),
    cause(
        "upstream-reset",
        "upstream",
        502,
        "The upstream broke off the stream (HTTP/2) before its response was complete.",
    ),
    cause(
        "upstream-broken",
        "upstream",
        502,
        "The upstream's response breaks a rule of HTTP.",
    ),
    cause(
        "unasked-upgrade",
        "worker",
        502,
        "A response switched protocols, which the request had not asked for.",
    ),
    cause(
        "bad-websocket-accept",
        "upstream",
        502,
        "A response agreed to a WebSocket, but not as an answer to this request.",
    ),
];

/// The place of a cause in [`ALL`].
#[must_use]
pub fn index(name: &str) -> Option<usize> {
    ALL.iter().position(|cause| cause.name == name)
}
