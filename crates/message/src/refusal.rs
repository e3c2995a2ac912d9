//! Why a message is not accepted: one cause, one status code, and the rule behind it.
//!
//! Nothing is repaired. What can be read in two ways is refused, since somebody before or behind us may read it the other
//! way (RFC 9112 §11.2, request smuggling).

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A line ended with LF alone. RFC 9112 §2.2 lets a recipient accept it; we do not.
    #[error("a line ends with a bare LF")]
    BareLineFeed,
    /// A CR that is not followed by LF (RFC 9112 §2.2).
    #[error("a CR stands alone")]
    BareCarriageReturn,
    /// The request line is not `method SP target SP version` (RFC 9112 §3).
    #[error("the request line is malformed")]
    RequestLine,
    /// A TLS handshake on a port that speaks plain HTTP.
    #[error("TLS was spoken on a plain HTTP port")]
    TlsOnPlainPort,
    /// Plain HTTP on a port that speaks TLS.
    #[error("plain HTTP was spoken on a TLS port")]
    PlainOnTlsPort,
    /// The method is not a token (RFC 9110 §9.1).
    #[error("the method is not a token")]
    Method,
    /// Another major version, or a minor one that does not exist (RFC 9110 §2.5).
    #[error("the HTTP version is not supported")]
    Version,
    /// The version is not written as RFC 9112 §2.3 has it.
    #[error("the HTTP version is malformed")]
    VersionSyntax,
    /// The request line is longer than the limit (RFC 9112 §3).
    #[error("the request line is too long")]
    LineTooLong,
    /// The head is longer than the limit (RFC 6585 §5).
    #[error("the head is too long")]
    HeadTooLong,
    /// There are more field lines than the limit (RFC 6585 §5).
    #[error("there are too many fields")]
    TooManyFields,
    /// A field line without a colon, or with a name that is not a token (RFC 9110 §5.1).
    #[error("a field name is not a token")]
    FieldName,
    /// White space between name and colon (RFC 9112 §5.1).
    #[error("white space stands before a colon")]
    SpaceBeforeColon,
    /// A field line that is folded (RFC 9112 §5.2).
    #[error("a field line is folded")]
    ObsFold,
    /// A control character in a field value (RFC 9110 §5.5).
    #[error("a field value has a control character")]
    FieldValue,
    /// Content-Length and Transfer-Encoding in one message (RFC 9112 §6.1, §6.3).
    #[error("Content-Length and Transfer-Encoding are both given")]
    ContentLengthAndTransferEncoding,
    /// Content-Length is not one decimal number (RFC 9110 §8.6).
    #[error("Content-Length is not one decimal number")]
    ContentLength,
    /// Content-Length more than once, be it the same (RFC 9112 §6.3).
    #[error("Content-Length is given more than once")]
    RepeatedContentLength,
    /// A transfer coding other than `chunked` alone (RFC 9112 §6.1).
    #[error("the transfer coding is not supported")]
    TransferCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    TransferEncodingInHttp10,
    /// A chunk's size line (RFC 9112 §7.1).
    #[error("a chunk is malformed")]
    Chunk,
    /// Chunk extensions or trailers past their bound (CVE-2023-39326).
    #[error("chunk extensions or trailers are too long")]
    ChunkOverhead,
    /// No Host in HTTP/1.1 (RFC 9112 §3.2).
    #[error("there is no Host field")]
    MissingHost,
    /// More than one Host (RFC 9112 §3.2).
    #[error("there is more than one Host field")]
    RepeatedHost,
    /// A Host, or an authority, that is not `host[:port]` (RFC 9110 §7.2).
    #[error("the host is malformed")]
    Host,
    /// The authority of the target is not the Host (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
    #[error("the target's authority is not the Host")]
    AuthorityMismatch,
    /// A target that has none of the four forms (RFC 9112 §3.2), or a character that none may have.
    #[error("the target is malformed")]
    Target,
    /// `%` without two hexadecimal digits, or `%00` (RFC 3986 §2.1).
    #[error("the target has a malformed percent-encoding")]
    PercentEncoding,
    /// `..` above the root: no honest client sends it, since it resolves dot segments itself (RFC 3986 §5.2.4).
    #[error("the path leads above the root")]
    AboveRoot,
    /// A response whose status line is not `HTTP/1.x SP 3DIGIT SP reason` (RFC 9112 §4).
    #[error("the status line is malformed")]
    StatusLine,
    /// 101 without a request for it, or with another protocol than those offered (RFC 9110 §7.8).
    #[error("it switched to a protocol that was not offered")]
    UnaskedUpgrade,
    /// A 101 whose `Sec-WebSocket-Accept` does not answer the key (RFC 6455 §4.1): nobody there speaks WebSocket, or a cache has
    /// answered.
    #[error("its Sec-WebSocket-Accept does not answer the key")]
    WebSocketAccept,
    /// A field that HTTP/2 forbids (RFC 9113 §8.2.2).
    #[error("a connection-specific field was sent over HTTP/2")]
    ConnectionField,
    /// A pseudo-field of HTTP/2 that is missing, unknown, repeated, empty or behind other fields (RFC 9113 §8.3).
    #[error("the pseudo-fields are malformed")]
    PseudoField,
    /// The content of an HTTP/2 request is longer or shorter than its Content-Length (RFC 9113 §8.1.1).
    #[error("the content is not as long as Content-Length says")]
    ContentLengthMismatch,
}

impl Refusal {
    /// The status code of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::LineTooLong => 414,
            Self::HeadTooLong | Self::TooManyFields => 431,
            Self::TransferCoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// The cause, as the access log names it.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::BareLineFeed => "bare-lf",
            Self::BareCarriageReturn => "bare-cr",
            Self::RequestLine => "bad-request-line",
            Self::TlsOnPlainPort => "tls-on-plain-port",
            Self::PlainOnTlsPort => "plain-on-tls-port",
            Self::Method => "bad-method",
            Self::Version => "unsupported-version",
            Self::VersionSyntax => "bad-version",
            Self::LineTooLong => "line-too-long",
            Self::HeadTooLong => "head-too-long",
            Self::TooManyFields => "too-many-fields",
            Self::FieldName => "bad-field-name",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::ObsFold => "folded-field",
            Self::FieldValue => "bad-field-value",
            Self::ContentLengthAndTransferEncoding => "length-and-coding",
            Self::ContentLength => "bad-content-length",
            Self::RepeatedContentLength => "repeated-content-length",
            Self::TransferCoding => "unsupported-coding",
            Self::TransferEncodingInHttp10 => "coding-in-http10",
            Self::Chunk => "bad-chunk",
            Self::ChunkOverhead => "chunk-overhead",
            Self::MissingHost => "missing-host",
            Self::RepeatedHost => "repeated-host",
            Self::Host => "bad-host",
            Self::AuthorityMismatch => "authority-mismatch",
            Self::Target => "bad-target",
            Self::PercentEncoding => "bad-percent-encoding",
            Self::AboveRoot => "above-root",
            Self::StatusLine => "bad-status-line",
            Self::UnaskedUpgrade => "unasked-upgrade",
            Self::WebSocketAccept => "bad-websocket-accept",
            Self::ConnectionField => "connection-field",
            Self::PseudoField => "bad-pseudo-field",
            Self::ContentLengthMismatch => "content-length-mismatch",
        }
    }
}
