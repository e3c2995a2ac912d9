//! From a path to a response: which file, conditions (RFC 9110 §13), ranges (§14), content.

use std::{io, ops::Range, sync::Arc, time::SystemTime};

use bytes::Bytes;
use config::site::Cache;
use message::{
    coding::Coding,
    condition::{self, Validators, Verdict},
    field::Fields,
    head::Method,
    range::{self, Wanted},
};

use super::{
    FileContent, Folder, Rules, Segment, blocking,
    cache::{Entry, Key, Known},
    encode::choose,
    listing,
    name::is_servable,
    resolve::{Found, OpenFile, Root, Wait},
    served::{Held, Opened, Representation, Served, cache_control},
};
use crate::{
    failure::Failure,
    redirect,
    request::{Request, RequestId},
    response::{Content, FieldLines, Response},
};

/// The methods a file takes.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// Answers from the folder. `prefix` is the length of the path's part that the route names, its last slash included.
/// Whoever is `alone` also answers for methods that read no file.
pub(crate) async fn respond(
    folder: &Folder,
    prefix: usize,
    request: &Request<'_>,
    alone: bool,
) -> Result<Response, Failure> {
    match request.head.method {
        Method::Get | Method::Head => {}
        Method::Options if alone => {
            return Ok(Response::new(204, Content::None).with("Allow", ALLOW));
        }
        _ => return Err(Failure::Method { allow: ALLOW }),
    }
    let path = &request.target.path;
    let below = path.as_bytes().get(prefix..).unwrap_or_default();
    // An encoded slash or backslash never names a file: what a cache or a filter before us read as one segment would be two.
    if path.encoded_separator() {
        return Err(Failure::NoFile);
    }
    match find(folder, below).await? {
        Answer::File(entry) => folder.represent(&entry, below, request).await,
        // Relative links in its index need the slash.
        Answer::Folder => Ok(redirect::response(
            301,
            redirect::with_slash(&request.target),
        )),
        // Boxed: a file that is there has no room for them.
        Answer::Listing(open) => Box::pin(listing::respond(folder, open, below, request)).await,
        Answer::Nothing => Box::pin(fallback(folder, below, request)).await,
    }
}

/// What answers a path.
pub(super) enum Answer {
    File(Arc<Entry<Served>>),
    /// A folder, asked for without its slash.
    Folder,
    /// What is in a folder.
    Listing(std::os::fd::OwnedFd),
    Nothing,
}

/// Finds what answers: what is known, or what a look at the file system shows.
pub(super) async fn find(folder: &Folder, below: &[u8]) -> Result<Answer, Failure> {
    let key = folder.key(below);
    let known = match folder.store.cache.get(key) {
        Known::Fresh(entry) if folder.rules.cache != Cache::Never => {
            return Ok(Answer::File(entry));
        }
        Known::Fresh(entry) | Known::Stale(entry) => Some(entry),
        Known::Unknown if !folder.rules.internal && !is_servable(below) => {
            return Ok(Answer::Nothing);
        }
        Known::Unknown => None,
    };
    // Most looks need no disk; a thread for each would cost more than the look.
    let now = look(&folder.root, &folder.rules, below, known.as_ref(), Wait::No);
    let seen = match now {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let (root, rules) = (folder.root.clone(), Arc::clone(&folder.rules));
            let below = below.to_vec();
            blocking(move || look(&root, &rules, &below, known.as_ref(), Wait::Yes)).await
        }
        seen => seen,
    };
    Ok(match seen.map_err(Failure::FileUnreadable)? {
        Seen::Same(entry) => {
            entry.confirm();
            folder.store.watch(&folder.root, key);
            Answer::File(entry)
        }
        Seen::New(served) => {
            let (weight, settled) = (served.weight(), served.is_settled());
            let entry = Arc::new(Entry::new(*served));
            if settled {
                folder.store.cache.put(key, Arc::clone(&entry), weight);
                folder.store.watch(&folder.root, key);
            } else {
                folder.store.cache.forget(key);
            }
            Answer::File(entry)
        }
        Seen::Other(answer) => {
            folder.store.cache.forget(key);
            answer
        }
    })
}

/// What a look has shown.
enum Seen {
    /// The file is what it was.
    Same(Arc<Entry<Served>>),
    /// There is another file, or the first.
    New(Box<Served>),
    /// No file.
    Other(Answer),
}

fn look(
    root: &Root,
    rules: &Rules,
    below: &[u8],
    known: Option<&Arc<Entry<Served>>>,
    wait: Wait,
) -> io::Result<Seen> {
    let (file, path) = match root.find(below, rules.inside(), wait)? {
        Found::File(file, path) => (file, path),
        Found::Folder => return Ok(Seen::Other(Answer::Folder)),
        Found::Listing(folder) => return Ok(Seen::Other(Answer::Listing(folder))),
        Found::Nothing => return Ok(Seen::Other(Answer::Nothing)),
    };
    let opened = Opened {
        neighbours: neighbours(root, rules, &path, &file, wait)?,
        file,
    };
    if let Some(entry) = known.filter(|entry| entry.found.is(&opened)) {
        return Ok(Seen::Same(Arc::clone(entry)));
    }
    let cache = cache_control(&path, rules);
    let served = Served::new(opened, &path, rules, cache.as_deref(), wait)?;
    Ok(Seen::New(Box::new(served)))
}

/// Files that hold this one in a coding: not older than it, or they hold what it was.
fn neighbours(
    root: &Root,
    rules: &Rules,
    path: &[u8],
    file: &OpenFile,
    wait: Wait,
) -> io::Result<[Option<OpenFile>; Coding::ALL.len()]> {
    let mut found = [None, None, None];
    if !rules.codes(path) {
        return Ok(found);
    }
    for coding in Coding::ALL {
        let name = [path, coding.ending().as_bytes()].concat();
        let neighbour = match root.find_file(&name, wait) {
            // One that cannot be read is none.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => None,
            found => found?,
        };
        found[coding as usize] =
            neighbour.filter(|neighbour| neighbour.identity.is_not_older(&file.identity));
    }
    Ok(found)
}

/// What answers where there is no file, if the route says so.
async fn fallback(
    folder: &Folder,
    below: &[u8],
    request: &Request<'_>,
) -> Result<Response, Failure> {
    let page = folder.rules.fallback.as_ref().ok_or(Failure::NoFile)?;
    let varies = match wants_page(below, &request.head.fields) {
        Page::Yes => false,
        Page::Asked => true,
        Page::No => return Err(Failure::NoFile),
    };
    let Answer::File(entry) = find(folder, page.as_bytes()).await? else {
        return Err(Failure::NoFile);
    };
    let response = folder.represent(&entry, page.as_bytes(), request).await?;
    Ok(if varies {
        response.with("Vary", "Accept")
    } else {
        response
    })
}

/// Whether a page would be an answer.
enum Page {
    Yes,
    /// Only because it was asked for: another request for the same path would get 404.
    Asked,
    No,
}

/// A name with an ending is a script or a picture, and a page in its place would only hide that it is missing; unless the
/// client says that it wants a page, as for `/users/jane.doe`.
fn wants_page(below: &[u8], fields: &Fields) -> Page {
    let name = below
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    let asked = || {
        fields
            .all("accept")
            .any(|accept| memchr::memmem::find(accept, b"text/html").is_some())
    };
    match memchr::memchr(b'.', name) {
        None => Page::Yes,
        Some(_) if name.ends_with(b".html") || name.ends_with(b".htm") => Page::Yes,
        Some(_) if asked() => Page::Asked,
        Some(_) => Page::No,
    }
}

impl Folder {
    fn key<'a>(&self, path: &'a [u8]) -> Key<'a> {
        Key {
            folder: self.number,
            path,
        }
    }

    async fn represent(
        &self,
        entry: &Arc<Entry<Served>>,
        path: &[u8],
        request: &Request<'_>,
    ) -> Result<Response, Failure> {
        answer(&self.chosen(entry, path, request).await, request)
    }

    /// The file in the representation that the client likes best.
    pub(super) async fn chosen<'e>(
        &self,
        entry: &'e Arc<Entry<Served>>,
        path: &[u8],
        request: &Request<'_>,
    ) -> Selected<'e> {
        let fields = &request.head.fields;
        let chosen = choose(entry, fields, &self.store.cache, self.key(path)).await;
        Selected::of(&entry.found, chosen)
    }
}

/// What a request is about: a representation, and what is said of it.
pub(super) struct Selected<'a> {
    pub(super) content: &'a Held,
    pub(super) length: u64,
    pub(super) etag: &'a str,
    pub(super) modified: Option<SystemTime>,
    pub(super) content_type: &'a str,
    /// The fields of a whole response.
    pub(super) fields: &'a Bytes,
    /// The fields of a 304.
    pub(super) fields_unchanged: &'a Bytes,
}

impl<'a> Selected<'a> {
    /// The file as it is.
    pub(super) fn plain(served: &'a Served) -> Self {
        Self::of(served, &served.plain)
    }

    fn of(served: &'a Served, chosen: &'a Representation) -> Self {
        Self {
            content: &chosen.content,
            length: chosen.length,
            etag: &chosen.etag,
            modified: served.modified,
            content_type: &served.content_type,
            fields: &chosen.fields,
            fields_unchanged: &chosen.fields_unchanged,
        }
    }
}

/// Answers conditions and ranges.
pub(super) fn answer(selected: &Selected<'_>, request: &Request<'_>) -> Result<Response, Failure> {
    let fields = &request.head.fields;
    if !is_conditional(fields) {
        return Ok(whole(selected));
    }
    let method = &request.head.method;
    let validators = Validators {
        etag: selected.etag,
        modified: selected.modified,
    };
    match condition::evaluate(method, fields, &validators) {
        Verdict::PreconditionFailed => return Err(Failure::Precondition),
        Verdict::NotModified => return Ok(unchanged(selected)),
        Verdict::Proceed => {}
    }
    Ok(
        match range::wanted(method, fields, &validators, selected.length) {
            Wanted::Whole => whole(selected),
            Wanted::Parts(parts) => match &parts[..] {
                [part] => single(selected, part.clone()),
                _ => multiple(selected, &parts, request.id),
            },
            Wanted::Unsatisfiable => {
                return Err(Failure::NoPart {
                    length: selected.length,
                });
            }
        },
    )
}

/// Whether there is a precondition or a range: most requests have neither, and one look at the names tells.
fn is_conditional(fields: &Fields) -> bool {
    fields.iter().any(|(name, _)| {
        let is = |start: &[u8]| {
            name.get(..start.len())
                .is_some_and(|name| name.eq_ignore_ascii_case(start))
        };
        is(b"if-") || is(b"range")
    })
}

pub(super) fn whole(selected: &Selected<'_>) -> Response {
    let content = match selected.content {
        Held::Memory(content) => Content::Bytes(content.clone()),
        Held::Open(file, offset) => Content::File(FileContent::new(
            Arc::clone(file),
            [Segment::File(*offset..*offset + selected.length)],
        )),
    };
    Response {
        status: 200,
        fields: FieldLines::beginning(selected.fields),
        content,
    }
}

/// RFC 9110 §15.4.5.
fn unchanged(selected: &Selected<'_>) -> Response {
    Response {
        status: 304,
        fields: FieldLines::beginning(selected.fields_unchanged),
        content: Content::None,
    }
}

fn single(selected: &Selected<'_>, part: Range<u64>) -> Response {
    let range = format!("bytes {}-{}/{}", part.start, part.end - 1, selected.length);
    let content = contents(selected, vec![Segment::File(part)]);
    Response {
        status: 206,
        fields: FieldLines::beginning(selected.fields),
        content,
    }
    .with("Content-Range", range)
}

/// RFC 9110 §15.3.7.2: each part under a head of its own. The boundary is the request's id, which no file can know.
fn multiple(selected: &Selected<'_>, parts: &[Range<u64>], id: RequestId) -> Response {
    let mut segments = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let head = format!(
            "\r\n--{id}\r\nContent-Type: {}\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            selected.content_type,
            part.start,
            part.end - 1,
            selected.length
        );
        segments.push(Segment::Text(head.into()));
        segments.push(Segment::File(part.clone()));
    }
    segments.push(Segment::Text(format!("\r\n--{id}--\r\n").into()));
    let mut fields = FieldLines::beginning(selected.fields);
    fields.retain(|name, _| !name.eq_ignore_ascii_case(b"content-type"));
    fields.push(
        b"Content-Type",
        format!("multipart/byteranges; boundary={id}").as_bytes(),
    );
    Response {
        status: 206,
        fields,
        content: contents(selected, segments),
    }
}

/// The segments as content: put together where it is in memory.
fn contents(selected: &Selected<'_>, segments: Vec<Segment>) -> Content {
    let small = match selected.content {
        Held::Open(file, offset) => {
            let segments = segments.into_iter().map(|segment| segment.shifted(*offset));
            return Content::File(FileContent::new(Arc::clone(file), segments));
        }
        Held::Memory(content) => content,
    };
    let slice = |range: &Range<u64>| {
        let at = |place: u64| usize::try_from(place).expect("inside what is in memory");
        small.slice(at(range.start)..at(range.end))
    };
    match &segments[..] {
        [Segment::File(range)] => Content::Bytes(slice(range)),
        segments => {
            let mut all = Vec::new();
            for segment in segments {
                match segment {
                    Segment::Text(text) => all.extend_from_slice(text),
                    Segment::File(range) => all.extend_from_slice(&slice(range)),
                }
            }
            Content::Bytes(all.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_answers_for_pages() {
        for (path, accept, expected) in [
            ("users/7", "*/*", "yes"),
            ("", "*/*", "yes"),
            ("users/", "image/png", "yes"),
            ("app.js", "*/*", "no"),
            ("app.js", "text/html,*/*;q=0.8", "asked"),
            ("users/jane.doe", "*/*", "no"),
            ("old.html", "*/*", "yes"),
        ] {
            let fields = Fields::from_pairs([(&b"Accept"[..], accept.as_bytes())]);
            let found = match wants_page(path.as_bytes(), &fields) {
                Page::Yes => "yes",
                Page::Asked => "asked",
                Page::No => "no",
            };
            assert_eq!(found, expected, "{path} {accept}");
        }
    }
}
