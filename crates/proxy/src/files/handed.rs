//! Files that an app answers with: as an open one (`wsgi.file_wrapper`), as a path of an internal route (`X-Accel-Redirect`,
//! nginx's name for it), or as a path of this machine (`X-Sendfile`, Apache's).
//!
//! The app is done when it has said which; conditions and ranges are answered here. What it says of the file stands: its type,
//! how long it may be kept, the name to save it under. Only the validators of a path are ours, since we know the file. An app
//! cannot name what its operator has not opened to it: a route that is `internal`, a folder in `sendfile`.

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use config::site::{App, Symlinks};
use message::{field::Fields, head::Method, target};

use super::{
    Folder, blocking, kind,
    resolve::{Identity, OpenFile, Root, Wait},
    respond::{Answer, Selected, answer, find, whole},
    served::{Held, etag, is_settled},
    source::Source,
};
use crate::{
    failure::Failure,
    request::Request,
    response::{Content, FieldLines, Response, http_date},
};

/// A response whose content is elsewhere.
#[derive(Debug)]
pub(crate) struct Handed {
    /// As the app made it; its content is not wanted.
    pub(crate) response: Response,
    /// Where the content is.
    pub(crate) place: Elsewhere,
}

/// Where an app's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// `X-Accel-Redirect`: at this path of the site, percent-encoded.
    Route(Bytes),
    /// `X-Sendfile`: in this file of the machine.
    File(Bytes),
}

const ROUTE: &str = "x-accel-redirect";
const FILE: &str = "x-sendfile";

impl Elsewhere {
    /// What the fields of an app's response say of it.
    pub(crate) fn of(fields: &Fields) -> Option<Self> {
        fields.iter().find_map(|(name, value)| {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match name.len() {
                16 if is(ROUTE) => Some(Self::Route(Bytes::copy_from_slice(value))),
                10 if is(FILE) => Some(Self::File(Bytes::copy_from_slice(value))),
                _ => None,
            }
        })
    }

    fn refused(&self, why: &'static str) -> Failure {
        let (field, value) = match self {
            Self::Route(path) => ("X-Accel-Redirect", path),
            Self::File(path) => ("X-Sendfile", path),
        };
        Failure::ElsewhereRefused {
            said: format!("{field}: {}", String::from_utf8_lossy(value)),
            why,
        }
    }
}

/// The decoded path of an `X-Accel-Redirect`, without its query.
pub(crate) fn path(value: &Bytes) -> Option<target::Path> {
    let end = memchr::memchr(b'?', value).unwrap_or(value.len());
    target::Path::new(value.slice(..end)).ok()
}

/// Answers with a file of an internal route: its folder, and how much of the path the route names.
pub(crate) async fn from_route(
    handed: Handed,
    path: &target::Path,
    route: Option<(&Folder, usize)>,
    request: &Request<'_>,
) -> Result<Response, Failure> {
    let (folder, prefix) = route.ok_or_else(|| {
        let why = "no route that is `internal` has this path";
        handed.place.refused(why)
    })?;
    let below = path.as_bytes().get(prefix..).unwrap_or_default();
    if path.encoded_separator() {
        return Err(Failure::NoFile);
    }
    let Answer::File(entry) = find(folder, below).await? else {
        return Err(Failure::NoFile);
    };
    // What the app says is encoded is so in the file.
    let selected = match handed.response.fields.get("content-encoding") {
        Some(_) => Selected::plain(&entry.found),
        None => folder.chosen(&entry, below, request).await,
    };
    let (fields, fields_unchanged) = merged(handed.response.fields, selected.fields);
    let selected = Selected {
        fields: &fields,
        fields_unchanged: &fields_unchanged,
        ..selected
    };
    finish(handed.response.status, &selected, request)
}

/// The folders whose files an app may answer with.
#[derive(Debug)]
pub(crate) struct SendFile {
    /// Each by its name, and by the one that links in it lead to.
    roots: Vec<(PathBuf, Root)>,
    /// Where a relative path begins.
    base: PathBuf,
}

impl SendFile {
    /// Opens them.
    ///
    /// # Errors
    /// The folder that cannot be opened.
    pub(crate) fn open(app: &App) -> Result<Self, (PathBuf, io::Error)> {
        let mut roots = Vec::new();
        for folder in &app.sendfile {
            let path = folder.value.clone();
            let root = Root::open(&path, Symlinks::Inside);
            let root = root.map_err(|error| (path.clone(), error))?;
            // Apps often know their folders by the real name.
            if let Ok(real) = path.canonicalize()
                && real != path
            {
                roots.push((real, root.clone()));
            }
            roots.push((path, root));
        }
        Ok(Self {
            roots,
            base: app.root.value.clone(),
        })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The folder that a path lies in, and the rest of the path. A path with `..` lies in none.
    fn find(&self, path: &[u8]) -> Option<(&Root, PathBuf)> {
        use std::os::unix::ffi::OsStrExt;
        let path = self.base.join(std::ffi::OsStr::from_bytes(path));
        if path.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        self.roots.iter().find_map(|(folder, root)| {
            let rest = path.strip_prefix(folder).ok()?;
            Some((root, rest.to_owned()))
        })
    }

    /// Answers with a file of one of them.
    pub(crate) async fn respond(
        &self,
        handed: Handed,
        request: &Request<'_>,
    ) -> Result<Response, Failure> {
        let Elsewhere::File(path) = &handed.place else {
            return Err(Failure::NoFile);
        };
        let (root, rest) = self.find(path).ok_or_else(|| {
            let why = "it is in none of the folders that the app's `sendfile` names";
            handed.place.refused(why)
        })?;
        let name = kind::of(path, &Default::default());
        let open = open(root.clone(), rest).await?;
        let (identity, length) = (open.identity, open.identity.length);
        let own = Own {
            etag: etag(&identity, None, is_settled(identity.modified)),
            modified: identity.modified,
            content_type: name,
        };
        let (fields, fields_unchanged) = merged(handed.response.fields, &own.lines());
        let selected = Selected {
            content: &Held::Open(Source::new(open.file, length).into(), 0),
            length,
            etag: &own.etag,
            modified: own.modified,
            content_type: &own.content_type,
            fields: &fields,
            fields_unchanged: &fields_unchanged,
        };
        finish(handed.response.status, &selected, request)
    }
}

async fn open(root: Root, rest: PathBuf) -> Result<OpenFile, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let look = |root: &Root, rest: &Path, wait| root.find_file(rest.as_os_str().as_bytes(), wait);
    let found = match look(&root, &rest, Wait::No) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            blocking(move || look(&root, &rest, Wait::Yes)).await
        }
        found => found,
    };
    found
        .map_err(Failure::FileUnreadable)?
        .ok_or(Failure::NoFile)
}

/// Answers with a part of a file that the app has opened: all there is of it, so conditions and ranges are about that part.
pub(crate) fn from_descriptor(
    file: File,
    part: Range<u64>,
    response: Response,
    request: &Request<'_>,
) -> Result<Response, Failure> {
    let length = part.end - part.start;
    let identity = Identity::of(&file.metadata().map_err(Failure::Handed)?);
    let content = Held::Open(Source::new(file, part.end).into(), part.start);
    let given = |name: &str| {
        let value = response.fields.get(name)?;
        str::from_utf8(value).ok()
    };
    let variant = (part != (0..identity.length)).then(|| format!("{:x}-{length:x}", part.start));
    let own_etag = || etag(&identity, variant.as_deref(), is_settled(identity.modified));
    let own = Own {
        etag: given("etag").map_or_else(own_etag, Into::into),
        modified: match given("last-modified") {
            Some(date) => httpdate::parse_http_date(date).ok(),
            None => identity.modified,
        },
        content_type: given("content-type").unwrap_or_default().into(),
    };
    // An app that has answered a range by itself, or a condition, knows more than we do.
    let is_whole = response.status == 200 && given("content-range").is_none();
    let mut fields = response.fields.clone();
    if is_whole {
        for (name, value) in own.lines_but_type().iter() {
            if response
                .fields
                .get(&String::from_utf8_lossy(name))
                .is_none()
            {
                fields.push(name, value);
            }
        }
    }
    let (fields, fields_unchanged) = with_unchanged(fields);
    let selected = Selected {
        content: &content,
        length,
        etag: &own.etag,
        modified: own.modified,
        content_type: &own.content_type,
        fields: &fields,
        fields_unchanged: &fields_unchanged,
    };
    if is_whole {
        return finish(200, &selected, request);
    }
    let mut whole = whole(&selected);
    whole.status = response.status;
    Ok(whole)
}

/// What we know of a file by ourselves.
struct Own {
    etag: Box<str>,
    modified: Option<std::time::SystemTime>,
    content_type: Box<str>,
}

impl Own {
    fn lines(&self) -> Bytes {
        let mut lines = FieldLines::with_capacity(256);
        lines.push(b"Content-Type", self.content_type.as_bytes());
        for (name, value) in self.lines_but_type().iter() {
            lines.push(name, value);
        }
        lines.into_shared()
    }

    fn lines_but_type(&self) -> FieldLines {
        let mut lines = FieldLines::with_capacity(256);
        lines.push(b"Accept-Ranges", b"bytes");
        lines.push(b"ETag", self.etag.as_bytes());
        if let Some(date) = self.modified.and_then(http_date) {
            lines.push(b"Last-Modified", date.as_bytes());
        }
        lines
    }
}

/// The app's fields and ours: those of a whole response, and those of a 304.
fn merged(mut given: FieldLines, own: &Bytes) -> (Bytes, Bytes) {
    // What speaks of the content that was not wanted, or of where it is.
    const DROPPED: [&str; 6] = [
        ROUTE,
        FILE,
        "etag",
        "last-modified",
        "accept-ranges",
        "content-range",
    ];
    let any = |names: &[&str], name: &[u8]| {
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        names.iter().any(is)
    };
    given.retain(|name, _| !any(&DROPPED, name));
    let has_type = given.get("content-type").is_some();
    let own = FieldLines::beginning(own);
    let mut all = given.clone();
    for (name, value) in own.iter() {
        // Who says the type may be wrong about it, as frameworks are that say text/html of everything.
        let is_said = has_type && any(&["x-content-type-options"], name)
            || given.get(&String::from_utf8_lossy(name)).is_some();
        if any(&["vary"], name) || !is_said {
            all.push(name, value);
        }
    }
    with_unchanged(all)
}

fn with_unchanged(fields: FieldLines) -> (Bytes, Bytes) {
    let mut unchanged = fields.clone();
    unchanged.retain(|name, _| {
        let is_of_content = name
            .get(..8)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        !is("accept-ranges") && (!is_of_content || is("content-location"))
    });
    (fields.into_shared(), unchanged.into_shared())
}

fn finish(
    status: u16,
    selected: &Selected<'_>,
    request: &Request<'_>,
) -> Result<Response, Failure> {
    let reads = matches!(request.head.method, Method::Get | Method::Head);
    Ok(match status {
        // A part that the app cut is cut by us: it was told which.
        200 | 206 if reads => answer(selected, request)?,
        200 | 206 => whole(selected),
        204 | 304 => Response {
            status,
            fields: FieldLines::beginning(selected.fields_unchanged),
            content: Content::None,
        },
        416 => {
            return Err(Failure::NoPart {
                length: selected.length,
            });
        }
        status => Response {
            status,
            ..whole(selected)
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Fields::from_pairs(pairs)
    }

    #[test]
    fn where_the_content_is() {
        for (name, value, expected) in [
            (
                "X-Accel-Redirect",
                "/a",
                Some(Elsewhere::Route("/a".into())),
            ),
            (
                "x-sendfile",
                "/srv/a",
                Some(Elsewhere::File("/srv/a".into())),
            ),
            ("X-Accel-Limit", "1", None),
            ("X-SendfilE", "", Some(Elsewhere::File("".into()))),
        ] {
            assert_eq!(Elsewhere::of(&fields(&[(name, value)])), expected, "{name}");
        }
    }

    #[test]
    fn a_path_is_decoded_once_and_has_no_query() {
        for (value, expected) in [
            ("/a%20b?x=1", Some("/a b")),
            ("/a/../b//c", Some("/b/c")),
            ("/%2e%2e/a", None),
            ("/caf\u{e9}", Some("/caf\u{e9}")),
            ("a", None),
            ("", None),
            ("/a%00", None),
        ] {
            let path = path(&Bytes::copy_from_slice(value.as_bytes()));
            let text = path.map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned());
            assert_eq!(text.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn what_the_app_says_stands_but_for_validators() {
        let lines = |pairs: &[(&str, &str)]| {
            let mut lines = FieldLines::default();
            for (name, value) in pairs {
                lines.push(name.as_bytes(), value.as_bytes());
            }
            lines
        };
        let given = lines(&[
            ("X-Accel-Redirect", "/a"),
            ("content-type", "image/png"),
            ("Content-Disposition", "attachment"),
            ("ETag", "\"app\""),
            ("Vary", "Cookie"),
        ]);
        let own = lines(&[
            ("Content-Type", "text/plain"),
            ("X-Content-Type-Options", "nosniff"),
            ("ETag", "\"file\""),
            ("Vary", "Accept-Encoding"),
            ("Cache-Control", "max-age=1"),
        ]);
        let (all, unchanged) = merged(given, &own.into_shared());
        assert_eq!(
            all,
            "content-type: image/png\r\nContent-Disposition: attachment\r\nVary: Cookie\r\nETag: \"file\"\r\n\
             Vary: Accept-Encoding\r\nCache-Control: max-age=1\r\n"
        );
        assert_eq!(
            unchanged,
            "Vary: Cookie\r\nETag: \"file\"\r\nVary: Accept-Encoding\r\nCache-Control: max-age=1\r\n"
        );
    }
}
