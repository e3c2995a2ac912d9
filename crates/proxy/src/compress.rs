//! Responses that an app or an origin made, sent in a coding.
//!
//! # What is not, and why
//! Who can make a browser send requests with somebody's cookies, decide a part of the answer (a search term that the page
//! repeats) and see how long the encrypted answers are, can find out another part of it byte by byte: what repeats is
//! shorter (BREACH, CVE-2013-3587). So, over TLS, an answer to a request with credentials is encoded only if the browser
//! says that the site itself asked, or the user (`Sec-Fetch-Site: same-origin`, `none`): requests that another site caused say
//! `cross-site`, and cannot say otherwise (Fetch Metadata, W3C). Who sends cookies and says nothing is an old browser, and gets
//! it plain. Such an answer is also made longer by a random number of bytes, which decoders pass over, so that one look tells
//! nothing. An answer that sets a cookie is never encoded. A bearer token is no such credential: a browser does not add it by
//! itself.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::Arc,
};

use bytes::Bytes;
use message::{
    coding::{Accepted, Coding},
    field::{Fields, list_contains},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    coder::{self, Coder, Effort},
    failure::Failure,
    files::{FileContent, LEAST, blocking, gains},
    origin::relay::Relay,
    plan::Plan,
    request::Request,
    response::{Content, FieldLines, Response},
};

/// Up to this length content is encoded where it is; longer would hold up the other connections of the thread.
const INLINE: usize = 16 * 1024;

/// Among codings that a client likes the same: the fastest first.
const PREFERENCE: [Coding; 3] = [Coding::Zstandard, Coding::Brotli, Coding::Gzip];

/// Those that can be padded.
const PADDED: [Coding; 2] = [Coding::Zstandard, Coding::Gzip];

/// Most bytes of padding, as Django has it ("Heal The Breach", 2022).
const PADDING: u64 = 100;

/// Encodes the response, if it gains, the client takes it and nothing speaks against it.
pub(crate) async fn apply(mut response: Response, request: &Request<'_>, plan: &Plan) -> Response {
    let Some(gain) = Gain::of(&response) else {
        return response;
    };
    let fields = &request.head.fields;
    if !gain.varies {
        response.fields.push(b"Vary", b"Accept-Encoding");
    }
    let secrecy = Secrecy::of(request);
    let accepted = Accepted::of(fields);
    let coding = match secrecy {
        Secrecy::Exposed => None,
        Secrecy::Padded => accepted.favourite(PADDED),
        Secrecy::None => accepted.favourite(PREFERENCE),
    };
    let Some(coding) = coding else {
        return response;
    };
    let padding = match secrecy {
        Secrecy::Padded => 1 + usize::try_from(random() % PADDING).unwrap_or(0),
        _ => 0,
    };
    // Boxed: what is not encoded has no room for it.
    Box::pin(encode(response, coding, padding, plan)).await
}

async fn encode(mut response: Response, coding: Coding, padding: usize, plan: &Plan) -> Response {
    let content = match response.content {
        Content::Bytes(bytes) => match whole(bytes.clone(), coding, padding).await {
            Ok(encoded) if encoded.len() < bytes.len() => Content::Bytes(encoded),
            _ => {
                response.content = Content::Bytes(bytes);
                return response;
            }
        },
        Content::Head(_) => Content::Head(None),
        // Past the limit it goes out as it is.
        content => match Encoded::begin(content, coding, padding, plan) {
            Ok(encoded) => Content::Encoded(Box::new(encoded)),
            Err(content) => {
                response.content = content;
                return response;
            }
        },
    };
    response.content = content;
    describe(&mut response.fields, coding);
    response
}

/// The fields of what is now another representation.
fn describe(fields: &mut FieldLines, coding: Coding) {
    let is = |name: &[u8], known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let etag = fields.get("etag").map(<[u8]>::to_vec);
    // A part of what was encoded could not be found again.
    fields.retain(|name, _| !is(name, "accept-ranges") && !is(name, "etag"));
    if let Some(etag) = etag {
        // The bytes are others, and may be others again the next time (RFC 9110 §8.8.1).
        let weak: &[u8] = if etag.starts_with(b"W/") { b"" } else { b"W/" };
        fields.push(b"ETag", &[weak, &etag].concat());
    }
    fields.push(b"Content-Encoding", coding.as_str().as_bytes());
}

/// What a response has to gain.
#[derive(Debug, PartialEq, Eq)]
struct Gain {
    /// Whether it says already that it depends on `Accept-Encoding`.
    varies: bool,
}

impl Gain {
    /// `None`: nothing, or something speaks against it.
    fn of(response: &Response) -> Option<Self> {
        if matches!(response.status, 204 | 206 | 304) {
            return None;
        }
        match &response.content {
            Content::None | Content::Encoded(_) | Content::Duplex(_) | Content::Tunnel(_) => {
                return None;
            }
            content => {
                if content.length().is_some_and(|length| length < LEAST) {
                    return None;
                }
            }
        }
        let mut gain = Self { varies: false };
        let mut gains_by_type = false;
        for (name, value) in response.fields.iter() {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match name.len() {
                4 if is("vary") => {
                    gain.varies |= value == b"*" || list_contains(value, "accept-encoding");
                }
                // What was encoded, is a part, sets a cookie or is signed stays as it is.
                6 if is("digest") => return None,
                10 if is("set-cookie") => return None,
                11 if is("repr-digest") || is("content-md5") => return None,
                12 if is("content-type") => {
                    gains_by_type = str::from_utf8(value).is_ok_and(gains);
                }
                13 if is("content-range") => return None,
                13 if is("cache-control") && list_contains(value, "no-transform") => return None,
                14 if is("content-digest") => return None,
                16 if is("content-encoding") => return None,
                _ => {}
            }
        }
        gains_by_type.then_some(gain)
    }
}

/// What the length of an answer could give away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secrecy {
    /// Nothing: it is not encrypted, or says the same to everybody.
    None,
    /// Something, but nobody else can have caused it.
    Padded,
    /// Something, and another site may have caused it.
    Exposed,
}

impl Secrecy {
    fn of(request: &Request<'_>) -> Self {
        let fields = &request.head.fields;
        if !request.client.https || !has_credentials(fields) {
            return Self::None;
        }
        match fields.get("sec-fetch-site") {
            Some(b"same-origin" | b"none") => Self::Padded,
            _ => Self::Exposed,
        }
    }
}

/// Whether it has what browsers add by themselves.
fn has_credentials(fields: &Fields) -> bool {
    fields.contains("cookie")
        || fields.all("authorization").any(|value| {
            !value
                .get(..7)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
        })
}

/// Not to be guessed: every `RandomState` has keys of its own.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

async fn whole(content: Bytes, coding: Coding, padding: usize) -> io::Result<Bytes> {
    let coder = Coder::new(coding, Effort::Once, Some(content.len()), padding)?;
    push(coder, content).await?.finish()
}

/// Content goes in: here, if it is short, else on a thread for such work.
async fn push(mut coder: Coder, content: Bytes) -> io::Result<Coder> {
    if content.len() <= INLINE {
        return coder.push(&content).map(|()| coder);
    }
    let turn = coder::turn().await;
    let pushed = blocking(move || coder.push(&content).map(|()| coder)).await;
    drop(turn);
    pushed
}

/// Content that is encoded as it comes.
#[derive(Debug)]
pub(crate) struct Encoded {
    source: Source,
    /// `None` after the end.
    coder: Option<Coder>,
    /// Whether something went in that a client cannot read yet.
    held_back: bool,
    /// Its place among `limits.encoders`.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Source {
    Relay(Relay),
    File(FileContent),
}

impl Encoded {
    /// Gives the content back where there are too many already.
    fn begin(
        content: Content,
        coding: Coding,
        padding: usize,
        plan: &Plan,
    ) -> Result<Self, Content> {
        let place = Arc::clone(&plan.encoders).try_acquire_owned();
        let coder = Coder::new(coding, Effort::Once, None, padding);
        let (Ok(place), Ok(coder)) = (place, coder) else {
            return Err(content);
        };
        let source = match content {
            Content::Relay(relay) => Source::Relay(relay),
            Content::File(file) => Source::File(file),
            other => return Err(other),
        };
        Ok(Self {
            source,
            coder: Some(coder),
            held_back: false,
            _place: place,
        })
    }

    /// The next piece; `None` after the last. What the app has said is never held back while it pauses.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            let mut coder = self.coder.take()?;
            let next = match self.source.next_now() {
                Some(content) => Some(Ok(content)),
                None if self.held_back && self.source.pauses() => {
                    self.held_back = false;
                    return Some(self.flush(coder));
                }
                None => self.source.next().await,
            };
            let content = match next {
                None => return Some(coder.finish().map_err(Failure::Encoding)),
                Some(Err(failure)) => return Some(Err(failure)),
                Some(Ok(content)) => content,
            };
            coder = match push(coder, content).await {
                Ok(coder) => coder,
                Err(error) => return Some(Err(Failure::Encoding(error))),
            };
            self.held_back = true;
            let out = coder.take();
            self.coder = Some(coder);
            if !out.is_empty() {
                return Some(Ok(out));
            }
            // Content that becomes very short could go on for long without a wait.
            tokio::task::consume_budget().await;
        }
    }

    fn flush(&mut self, mut coder: Coder) -> Result<Bytes, Failure> {
        coder.flush().map_err(Failure::Encoding)?;
        let out = coder.take();
        self.coder = Some(coder);
        Ok(out)
    }
}

impl Source {
    fn next_now(&mut self) -> Option<Bytes> {
        match self {
            Self::Relay(relay) => relay.next_now(),
            Self::File(_) => None,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        match self {
            Self::Relay(relay) => relay.next().await,
            Self::File(file) => file
                .next()
                .await
                .map_err(Failure::FileUnreadable)
                .transpose(),
        }
    }

    /// Whether more may be long in coming.
    fn pauses(&self) -> bool {
        matches!(self, Self::Relay(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&str, &str)]) -> Response {
        let content = Content::Bytes(vec![b'a'; 2000].into());
        fields
            .iter()
            .fold(Response::new(200, content), |response, (name, value)| {
                response.with(name, value)
            })
    }

    #[test]
    fn what_speaks_against_it() {
        const HTML: (&str, &str) = ("Content-Type", "text/html; charset=utf-8");
        let gain = |varies| Some(Gain { varies });
        for (fields, expected) in [
            (&[HTML][..], gain(false)),
            (&[("content-type", "application/json")], gain(false)),
            (&[HTML, ("Vary", "Cookie")], gain(false)),
            (&[HTML, ("Vary", "Cookie, Accept-Encoding")], gain(true)),
            (&[HTML, ("Vary", "*")], gain(true)),
            (
                &[HTML, ("Cache-Control", "private, max-age=0")],
                gain(false),
            ),
            (&[], None),
            (&[("Content-Type", "image/png")], None),
            (&[("Content-Type", "text/event-stream")], None),
            (&[HTML, ("Content-Encoding", "gzip")], None),
            (&[HTML, ("Content-Encoding", "identity")], None),
            (&[HTML, ("Set-Cookie", "a=b")], None),
            (&[HTML, ("Cache-Control", "public, No-Transform")], None),
            (&[HTML, ("Content-Range", "bytes 0-1/2")], None),
            (&[HTML, ("Content-Digest", "sha-256=:x:")], None),
            (&[HTML, ("Repr-Digest", "sha-256=:x:")], None),
            (&[HTML, ("Digest", "x")], None),
        ] {
            assert_eq!(Gain::of(&response(fields)), expected, "{fields:?}");
        }
        for status in [204, 206, 304] {
            let mut response = response(&[HTML]);
            response.status = status;
            assert_eq!(Gain::of(&response), None, "{status}");
        }
        let mut short = response(&[HTML]);
        short.content = Content::Bytes(vec![b'a'; 1023].into());
        assert_eq!(Gain::of(&short), None);
    }

    #[test]
    fn credentials_are_what_a_browser_adds_by_itself() {
        for (fields, expected) in [
            (&[][..], false),
            (&[("Cookie", "a=b")], true),
            (&[("Authorization", "Basic eA==")], true),
            (&[("Authorization", "Negotiate eA==")], true),
            (&[("Authorization", "Bearer x")], false),
            (&[("Authorization", "bearer x"), ("Cookie", "")], true),
        ] {
            let fields: Vec<(&[u8], &[u8])> = fields
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect();
            let fields = Fields::from_pairs(fields);
            assert_eq!(has_credentials(&fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn the_fields_are_those_of_another_representation() {
        for (before, after) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let mut response = response(&[("ETag", before), ("Accept-Ranges", "bytes")]);
            describe(&mut response.fields, Coding::Gzip);
            assert_eq!(response.fields.get("etag"), Some(after.as_bytes()));
            assert_eq!(response.fields.get("accept-ranges"), None);
            let coding = response.fields.get("content-encoding");
            assert_eq!(coding, Some(&b"gzip"[..]));
        }
    }
}
