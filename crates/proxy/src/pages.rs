//! What a visitor sees of a failure: the site's own page, or a plain one of ours; in JSON or as text for who is no browser.
//!
//! The pages of a site are read once, with its configuration: what went wrong may be the disk.

use std::{fs::File, io, io::Read, path::Path};

use bytes::Bytes;
use config::site::{ErrorPage, Statuses};
use message::{field::Fields, status};

use crate::{failure::Failure, files::type_of, request::RequestId};

/// Longest page; what is longer is no page, but a mistake.
const MOST: u64 = 1024 * 1024;

/// The pages of a site.
#[derive(Debug, Default)]
pub(crate) struct Pages(Vec<(Statuses, Page)>);

/// A page.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Its media type.
    pub(crate) content_type: Box<str>,
    /// Its content.
    pub(crate) content: Bytes,
}

impl Pages {
    /// Reads them.
    ///
    /// # Errors
    /// The page that cannot be read, or is too long.
    pub(crate) fn read(pages: &[ErrorPage]) -> Result<Self, (String, io::Error)> {
        let read = |written: &ErrorPage| Ok((written.statuses, Page::read(&written.page.value)?));
        pages.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The page for a status: one for it alone before one for its kind.
    fn find(&self, status: u16) -> Option<&Page> {
        let of = |wanted: Statuses| {
            let mut found = self.0.iter();
            found.find_map(|(statuses, page)| (*statuses == wanted).then_some(page))
        };
        of(Statuses::One(status)).or_else(|| of(Statuses::Hundred(status / 100)))
    }
}

impl Page {
    /// Reads one.
    ///
    /// # Errors
    /// That it cannot be read, or is too long.
    pub(crate) fn read(path: &Path) -> Result<Self, (String, io::Error)> {
        let content = read(path).map_err(|error| (path.display().to_string(), error))?;
        Ok(Self {
            content_type: type_of(path),
            content,
        })
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut content = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content.into())
}

/// The page of a failure. `asked` are the fields of its request, if there was one.
pub(crate) fn page(
    failure: &Failure,
    own: Option<&Pages>,
    asked: Option<&Fields>,
    id: RequestId,
) -> Page {
    let wish = asked.map_or(Wish::Nothing, Wish::of);
    let own = failure
        .page()
        .or_else(|| own.and_then(|pages| pages.find(failure.status())));
    // A program that asked for JSON can do nothing with a page for people.
    match (own, wish) {
        (Some(page), Wish::Html | Wish::Nothing) => page.clone(),
        (Some(page), Wish::Json) if page.content_type.contains("json") => page.clone(),
        (_, Wish::Json) => made("application/json", json(failure, id)),
        (_, Wish::Html) => made("text/html; charset=utf-8", html(failure, id)),
        (_, Wish::Nothing) => made("text/plain; charset=utf-8", text(failure, id)),
    }
}

fn made(content_type: &str, content: String) -> Page {
    Page {
        content_type: content_type.into(),
        content: content.into(),
    }
}

/// What a client would like to read (RFC 9110 §12.5.1), as far as we have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It names HTML, as browsers do.
    Html,
    /// It names JSON, and not HTML.
    Json,
    /// It names neither, as curl.
    Nothing,
}

impl Wish {
    /// What the fields of a request say.
    pub(crate) fn of(fields: &Fields) -> Self {
        let names = |kind: &[u8]| {
            fields
                .all("accept")
                .any(|accept| memchr::memmem::find(accept, kind).is_some())
        };
        if names(b"text/html") {
            Self::Html
        } else if names(b"/json") || names(b"+json") {
            Self::Json
        } else {
            Self::Nothing
        }
    }
}

fn json(failure: &Failure, id: RequestId) -> String {
    let status = failure.status();
    let json = serde_json::json!({
        "status": status,
        "error": status::reason(status),
        "cause": failure.cause(),
        "request_id": id.as_str(),
    });
    format!("{json}\n")
}

fn text(failure: &Failure, id: RequestId) -> String {
    let status = failure.status();
    let (reason, advice) = (status::reason(status), failure.advice());
    format!("{status} {reason}\n{advice}\nRequest {id}\n")
}

fn html(failure: &Failure, id: RequestId) -> String {
    let status = failure.status();
    let (reason, advice) = (status::reason(status), failure.advice());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {reason}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:18vh auto;padding:0 1em;color:#222;\
         background:#fff}}h1{{font-weight:600}}small{{color:#777}}@media(prefers-color-scheme:dark){{body{{color:#ddd;\
         background:#181818}}}}</style>\n<h1>{status} {reason}</h1>\n<p>{advice}</p>\n<p><small>Request {id}</small></p>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Fields {
        Fields::from_pairs([(&b"Accept"[..], value.as_bytes())])
    }

    #[test]
    fn everybody_gets_what_he_can_read() {
        for (value, expected) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", Wish::Html),
            ("application/json", Wish::Json),
            ("application/json, text/plain, */*", Wish::Json),
            ("application/problem+json", Wish::Json),
            ("text/html,application/json", Wish::Html),
            ("*/*", Wish::Nothing),
            ("image/png", Wish::Nothing),
        ] {
            assert_eq!(Wish::of(&accept(value)), expected, "{value}");
        }
        let id = RequestId::new();
        let json = page(
            &Failure::NoRoute,
            None,
            Some(&accept("application/json")),
            id,
        );
        let value: serde_json::Value = serde_json::from_slice(&json.content).expect("valid JSON");
        assert_eq!(value["cause"], "no-route");
        assert_eq!(value["request_id"], id.as_str());
        let page = page(&Failure::NoRoute, None, None, id);
        let text = String::from_utf8_lossy(&page.content).into_owned();
        assert_eq!(
            text,
            format!("404 Not Found\nThere is nothing at this address.\nRequest {id}\n")
        );
    }

    #[test]
    fn a_page_of_the_site_goes_before_ours_but_not_before_json() {
        let own = |name: &'static str, content_type: &str| Page {
            content_type: content_type.into(),
            content: name.into(),
        };
        let pages = Pages(vec![
            (Statuses::Hundred(4), own("any", "text/html")),
            (Statuses::One(404), own("missing", "text/html")),
            (Statuses::One(413), own("large", "application/json")),
        ]);
        let large = Failure::BodyTooLarge { limit: 1 };
        for (failure, value, expected) in [
            (&Failure::NoFile, "text/html", "missing"),
            (&Failure::NoFile, "*/*", "missing"),
            (&Failure::Expectation, "text/html", "any"),
            (&large, "application/json", "large"),
            (&large, "text/html", "large"),
        ] {
            let found = page(
                failure,
                Some(&pages),
                Some(&accept(value)),
                RequestId::new(),
            );
            assert_eq!(found.content, expected, "{value}");
        }
        let json = Some(&accept("application/json"));
        let ours = page(&Failure::NoFile, Some(&pages), json, RequestId::new());
        assert_eq!(&*ours.content_type, "application/json");
    }
}
