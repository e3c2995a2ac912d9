//! From a file to a response: type, validators, conditions (RFC 9110 §8.8, §13), ranges (§14), content.

use std::{
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use message::{
    condition::{self, Validators, Verdict},
    field::Fields,
    head::Method,
    range::{self, Wanted},
};

use super::{
    FileContent, Root, Segment, blocking,
    cache::{Entry, Held, Identity, Known},
    resolve::{Found, OpenFile, find, is_servable},
};
use crate::{
    failure::Failure,
    redirect,
    request::{Request, RequestId},
    response::{Content, FieldLines, Response},
};

/// The methods a file takes.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// Up to this size a file is kept in memory, and leaves with its head in one write.
const SMALL: u64 = 64 * 1024;

/// Answers from the folder. `prefix` is the length of the path's part that the route names, its last slash included.
pub(crate) async fn respond(
    root: &Root,
    prefix: usize,
    request: &Request<'_>,
) -> Result<Response, Failure> {
    match request.head.method {
        Method::Get | Method::Head => {}
        Method::Options => return Ok(Response::new(204, Content::None).with("Allow", ALLOW)),
        _ => return Err(Failure::Method { allow: ALLOW }),
    }
    let path = &request.target.path;
    let below = path.as_bytes().get(prefix..).unwrap_or_default();
    // An encoded slash or backslash never names a file: what a cache or a filter before us read as one segment would be two.
    if path.encoded_separator() || !is_servable(below) {
        return Err(Failure::NoFile);
    }
    match root.cache.get(below) {
        Known::Fresh(entry) => Ok(answer(&entry, request)),
        Known::Stale(entry) => look(root, below, Some(entry), request).await,
        Known::Unknown => look(root, below, None, request).await,
    }
}

/// Looks at the file system, where it may block.
async fn look(
    root: &Root,
    below: &[u8],
    known: Option<Arc<Entry>>,
    request: &Request<'_>,
) -> Result<Response, Failure> {
    let (folder, path) = (root.folder(), below.to_vec());
    let cache_control = root.cache_control.clone();
    let looked = blocking(move || {
        let found = find(&folder, &path)?;
        seen(found, known, cache_control.as_deref())
    });
    match looked.await.map_err(Failure::FileUnreadable)? {
        Seen::Same(entry) => Ok(answer(&entry, request)),
        Seen::New(entry) => {
            let response = answer(&entry, request);
            root.cache.put(below, entry);
            Ok(response)
        }
        Seen::Folder => {
            root.cache.forget(below);
            // Relative links in its index need the slash.
            Ok(redirect::response(
                301,
                redirect::with_slash(&request.target),
            ))
        }
        Seen::Nothing => {
            root.cache.forget(below);
            Err(Failure::NoFile)
        }
    }
}

/// What a look has shown.
enum Seen {
    /// The file is what it was.
    Same(Arc<Entry>),
    /// There is another file, or the first.
    New(Arc<Entry>),
    Folder,
    Nothing,
}

fn seen(found: Found, known: Option<Arc<Entry>>, cache_control: Option<&str>) -> io::Result<Seen> {
    let open = match found {
        Found::File(open) => open,
        Found::Folder => return Ok(Seen::Folder),
        Found::Nothing => return Ok(Seen::Nothing),
    };
    match known {
        Some(entry) if entry.identity == open.identity => {
            entry.confirm();
            Ok(Seen::Same(entry))
        }
        _ => Ok(Seen::New(Arc::new(entry(open, cache_control)?))),
    }
}

fn entry(open: OpenFile, cache_control: Option<&str>) -> io::Result<Entry> {
    let mut identity = open.identity;
    let content = if identity.length <= SMALL {
        let content = read_whole(&open)?;
        // A file that is just being written may have another length by now; the next look will see it.
        identity.length = content.len() as u64;
        Held::Small(content)
    } else {
        Held::Open(Arc::new(open.file))
    };
    let (etag, content_type) = (entity_tag(&identity), content_type(&open.name));
    let mut fields = FieldLines::with_capacity(256);
    fields.push(b"Content-Type", content_type.as_bytes());
    fields.push(b"X-Content-Type-Options", b"nosniff");
    fields.push(b"Accept-Ranges", b"bytes");
    push_validators(&mut fields, &etag, identity.modified, cache_control);
    Ok(Entry::new(content, identity, etag, content_type, fields))
}

fn push_validators(
    fields: &mut FieldLines,
    etag: &str,
    modified: Option<SystemTime>,
    cache_control: Option<&str>,
) {
    fields.push(b"ETag", etag.as_bytes());
    if let Some(modified) = modified {
        fields.push(
            b"Last-Modified",
            httpdate::fmt_http_date(modified).as_bytes(),
        );
    }
    if let Some(cache) = cache_control {
        fields.push(b"Cache-Control", cache.as_bytes());
    }
}

fn read_whole(open: &OpenFile) -> io::Result<Bytes> {
    let length = usize::try_from(open.identity.length).expect("checked to be small");
    let mut content = vec![0; length];
    let mut filled = 0;
    while filled < content.len() {
        match open.file.read_at(&mut content[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    content.truncate(filled);
    Ok(content.into())
}

/// A strong validator: another inode, size or modification time is another content. Two writes within the file system's
/// clock tick that keep the size look the same; nginx and Apache share that limit.
fn entity_tag(identity: &Identity) -> String {
    let modified = identity
        .modified
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .unwrap_or(Duration::ZERO);
    format!(
        "\"{:x}-{:x}-{:x}\"",
        identity.inode,
        identity.length,
        modified.as_nanos()
    )
}

fn answer(entry: &Entry, request: &Request<'_>) -> Response {
    let fields = &request.head.fields;
    if !is_conditional(fields) {
        return whole(entry);
    }
    let method = &request.head.method;
    let validators = Validators {
        etag: &entry.etag,
        modified: entry.modified,
    };
    match condition::evaluate(method, fields, &validators) {
        Verdict::PreconditionFailed => Response::new(412, Content::Bytes(Bytes::new())),
        Verdict::NotModified => not_modified(entry),
        Verdict::Proceed => match range::wanted(method, fields, &validators, entry.length) {
            Wanted::Whole => whole(entry),
            Wanted::Unsatisfiable => unsatisfiable(entry),
            Wanted::Parts(parts) => match &parts[..] {
                [part] => single(entry, part.clone()),
                _ => multiple(entry, &parts, request.id),
            },
        },
    }
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

fn whole(entry: &Entry) -> Response {
    let content = match &entry.content {
        Held::Small(content) => Content::Bytes(content.clone()),
        Held::Open(file) => Content::File(FileContent::new(
            Arc::clone(file),
            [Segment::File(0..entry.length)],
        )),
    };
    Response {
        status: 200,
        fields: entry.fields.clone(),
        content,
    }
}

/// RFC 9110 §15.4.5: what a 200 would have said of validators and caching, and nothing of the content.
fn not_modified(entry: &Entry) -> Response {
    let mut fields = FieldLines::with_capacity(128);
    for (name, value) in entry.fields.iter() {
        if matches!(name, b"ETag" | b"Last-Modified" | b"Cache-Control") {
            fields.push(name, value);
        }
    }
    Response {
        status: 304,
        fields,
        content: Content::None,
    }
}

fn unsatisfiable(entry: &Entry) -> Response {
    let length = entry.length;
    Response::new(416, Content::Bytes(Bytes::new()))
        .with("Content-Range", format!("bytes */{length}"))
}

fn single(entry: &Entry, part: std::ops::Range<u64>) -> Response {
    let range = format!("bytes {}-{}/{}", part.start, part.end - 1, entry.length);
    let content = contents(entry, vec![Segment::File(part)]);
    Response {
        status: 206,
        fields: entry.fields.clone(),
        content,
    }
    .with("Content-Range", range)
}

/// RFC 9110 §15.3.7.2: each part under a head of its own. The boundary is the request's id, which no file can know.
fn multiple(entry: &Entry, parts: &[std::ops::Range<u64>], id: RequestId) -> Response {
    let mut segments = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let head = format!(
            "\r\n--{id}\r\nContent-Type: {}\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            entry.content_type,
            part.start,
            part.end - 1,
            entry.length
        );
        segments.push(Segment::Text(head.into()));
        segments.push(Segment::File(part.clone()));
    }
    segments.push(Segment::Text(format!("\r\n--{id}--\r\n").into()));
    let mut fields = FieldLines::with_capacity(256);
    fields.push(
        b"Content-Type",
        format!("multipart/byteranges; boundary={id}").as_bytes(),
    );
    for (name, value) in entry.fields.iter() {
        if name != b"Content-Type" {
            fields.push(name, value);
        }
    }
    Response {
        status: 206,
        fields,
        content: contents(entry, segments),
    }
}

/// The segments as content: put together where the file is in memory.
fn contents(entry: &Entry, segments: Vec<Segment>) -> Content {
    let small = match &entry.content {
        Held::Open(file) => return Content::File(FileContent::new(Arc::clone(file), segments)),
        Held::Small(content) => content,
    };
    let slice = |range: &std::ops::Range<u64>| {
        let at = |place: u64| usize::try_from(place).expect("inside a small file");
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

/// The type by the name's ending; text says its encoding, since a browser would otherwise guess.
fn content_type(name: &[u8]) -> String {
    let guess = str::from_utf8(name)
        .ok()
        .and_then(|name| mime_guess::from_path(name).first_raw());
    match guess {
        None => "application/octet-stream".to_owned(),
        Some(text) if text.starts_with("text/") || text == "application/javascript" => {
            format!("{text}; charset=utf-8")
        }
        Some(other) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (name, expected) in [
            ("style.css", "text/css; charset=utf-8"),
            ("page.html", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("logo.svg", "image/svg+xml"),
            ("photo.JPG", "image/jpeg"),
            ("data.json", "application/json"),
            ("font.woff2", "font/woff2"),
            ("module.wasm", "application/wasm"),
            ("noending", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(content_type(b"\xff.css"), "application/octet-stream");
    }
}
