//! `auth = { forward = … }`: a server that is asked for each request whether it may come in.
//!
//! A status of 2xx lets it in, one of 3xx or 4xx is the client's answer. Everything else (no answer in time, no connection, 5xx)
//! keeps it out: a door whose guard is away stays shut.

use std::sync::Arc;

use config::site;

use super::Entered;
use crate::{
    failure::Failure,
    request::Request,
    response::{Content, FieldLines, Response},
    upstream::Inquiry,
};

/// Who is asked, and what of the answer counts.
#[derive(Debug)]
pub(crate) struct Forward {
    inquiry: Inquiry,
    /// Fields that go on with the request.
    copied: Vec<Box<str>>,
    /// Fields that no client says on a route of this: those, and the user.
    claimed: Arc<[Box<str>]>,
    /// The one that names the user.
    user: Box<str>,
}

impl Forward {
    pub(super) fn new(forward: &site::Forward, inquiry: Inquiry) -> Self {
        Self {
            inquiry,
            copied: forward
                .copy
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            claimed: claimed(forward).map(Into::into).collect(),
            user: forward.user.as_str().into(),
        }
    }

    /// Fields that clients cannot say on a route of this.
    pub(super) fn claimed(&self) -> Arc<[Box<str>]> {
        Arc::clone(&self.claimed)
    }

    /// Asks, and says who comes in.
    pub(super) async fn enter(&self, request: &Request<'_>) -> Result<Entered, Failure> {
        let asked = self.inquiry.ask(request).await;
        let answer = asked.map_err(|failure| unavailable(&failure))?;
        match answer.status {
            200..=299 => self.entered(&answer),
            300..=499 => Err(Failure::AuthRefused(Box::new(self.refusal(answer)))),
            status => {
                let why = format!("it answered with {status}");
                Err(Failure::AuthUnavailable(why.into()))
            }
        }
    }

    fn entered(&self, answer: &Response) -> Result<Entered, Failure> {
        let mut entered = Entered::default();
        for (name, value) in answer.fields.iter() {
            if is(name, &self.user) && entered.user.is_none() {
                entered.user = Some(user(value)?);
            }
            if self.copied.iter().any(|copied| is(name, copied)) {
                entered.fields.push(name, value);
            }
            if is(name, "set-cookie") {
                entered.cookies.push(name, value);
            }
        }
        Ok(entered)
    }

    /// What the server says to who may not come in. What it would have said to the app is not the client's.
    fn refusal(&self, mut answer: Response) -> Response {
        let inner = |name: &[u8]| self.claimed.iter().any(|claimed| is(name, claimed));
        answer.fields.retain(|name, _| !inner(name));
        match answer.fields.get("cache-control") {
            Some(_) => answer,
            // The next time it may be another answer.
            None => answer.with("Cache-Control", "no-store"),
        }
    }
}

/// Fields that are this server's to say.
pub(super) fn claimed(forward: &site::Forward) -> impl Iterator<Item = &str> {
    let fields = forward.copy.iter().chain([&forward.user]);
    fields.map(String::as_str)
}

/// A name as the app and the logs take it: no spaces, nothing beyond ASCII. Anything else might be read as another one.
fn user(value: &[u8]) -> Result<String, Failure> {
    let plain = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    let name = plain.then(|| str::from_utf8(value).ok()).flatten();
    name.map(str::to_owned).ok_or_else(|| {
        let shown = String::from_utf8_lossy(value);
        let why = format!("the name {shown:?} has a space in it, or what is not ASCII, or nothing");
        Failure::AuthUnavailable(why.into())
    })
}

/// Whatever failed between us and that server.
fn unavailable(failure: &Failure) -> Failure {
    Failure::AuthUnavailable(failure.to_string().into())
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

/// Whether it says nothing at all, so that a page of ours says more.
pub(crate) fn is_bare(refusal: &Response) -> bool {
    let nothing = matches!(&refusal.content, Content::None)
        || matches!(&refusal.content, Content::Bytes(bytes) if bytes.is_empty());
    nothing && refusal.status >= 400
}

/// The fields of a refusal without those that were about its content.
pub(crate) fn bare_fields(mut fields: FieldLines) -> FieldLines {
    fields.retain(|name, _| !name.get(..8).is_some_and(|start| is(start, "content-")));
    fields
}
