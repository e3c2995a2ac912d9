//! A file as it is served: its content or the way to it, its validators, and the fields of a response, put together once.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use config::site::Cache;
use message::coding::Coding;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{
    Rules,
    cache::Weight,
    encode::{self, Coded},
    kind, name,
    resolve::{Identity, OpenFile, Wait},
    source::Source,
};
use crate::response::{FieldLines, http_date};

/// Up to this size a file is kept in memory, and leaves with its head in one write.
const SMALL: u64 = 64 * 1024;

/// A file, and what it comes to in each coding.
#[derive(Debug)]
pub(super) struct Served {
    /// As it is.
    pub(super) plain: Representation,
    /// In a coding.
    pub(super) coded: Coded,
    /// When it was last changed.
    pub(super) modified: Option<SystemTime>,
    /// Its media type.
    pub(super) content_type: Box<str>,
    /// Which states of which files these are: another inode, length or time is another content.
    states: States,
    /// The field lines that all representations share.
    common: Bytes,
}

/// One representation of a file (RFC 9110 §3.2).
#[derive(Debug)]
pub(super) struct Representation {
    /// What it holds.
    pub(super) content: Held,
    /// Its length in bytes.
    pub(super) length: u64,
    /// Its entity tag, with quotes.
    pub(super) etag: Box<str>,
    /// The fields of a whole response.
    pub(super) fields: Bytes,
    /// The fields of a 304 (RFC 9110 §15.4.5).
    pub(super) fields_unchanged: Bytes,
}

/// A file's content, or the way to it.
#[derive(Debug)]
pub(super) enum Held {
    /// All of it.
    Memory(Bytes),
    /// Open; the content begins at this offset.
    Open(Arc<Source>, u64),
}

/// What was opened for a path: the file, and its neighbours that hold it in a coding.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: OpenFile,
    pub(super) neighbours: [Option<OpenFile>; Coding::ALL.len()],
}

/// Which states of the file and its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct States {
    file: Identity,
    neighbours: [Option<Identity>; Coding::ALL.len()],
    /// Whether a later write would show in the times of the file.
    settled: bool,
}

impl Opened {
    fn states(&self) -> States {
        let identity = |open: &Option<OpenFile>| open.as_ref().map(|open| open.identity);
        States {
            file: self.file.identity,
            neighbours: [0, 1, 2].map(|coding: usize| identity(&self.neighbours[coding])),
            settled: std::iter::once(&self.file)
                .chain(self.neighbours.iter().flatten())
                .all(|open| is_settled(open.identity.modified)),
        }
    }
}

/// How long after a change another one may leave the same time: the kernel's clock for files ticks every 1 to 10 ms, and some
/// file systems count in whole or in two seconds.
const TICK: Duration = Duration::from_millis(50);
const COARSE_TICK: Duration = Duration::from_secs(2);

pub(super) fn is_settled(modified: Option<SystemTime>) -> bool {
    let Some(modified) = modified else {
        return true;
    };
    let since_epoch = modified.duration_since(SystemTime::UNIX_EPOCH);
    let is_coarse = since_epoch.is_ok_and(|since| since.subsec_nanos() == 0);
    let tick = if is_coarse { COARSE_TICK } else { TICK };
    // A time in the future says nothing of when it was written.
    SystemTime::now()
        .duration_since(modified)
        .map_or(true, |age| age >= tick)
}

impl Served {
    /// Reads what is needed. `name` decides the type.
    pub(super) fn new(
        opened: Opened,
        name: &[u8],
        rules: &Rules,
        cache: Option<&str>,
        wait: Wait,
    ) -> io::Result<Self> {
        let mut states = opened.states();
        let content_type = kind::of(name, &rules.types);
        let has_neighbours = opened.neighbours.iter().any(Option::is_some);
        let mut coded = Coded::new(rules.codes(name), states.file.length);
        let varies = has_neighbours || coded.is_made();
        let common = common(&content_type, varies, &states, cache);
        let plain = Representation::new(opened.file, &states, None, &common, wait)?;
        // A file that is just being written may have another length by now; the next look will see it.
        states.file.length = plain.length;
        for (coding, open) in Coding::ALL.into_iter().zip(opened.neighbours) {
            if let Some(open) = open {
                let open = Representation::new(open, &states, Some(coding), &common, wait)?;
                coded.neighbour(coding, open);
            }
        }
        Ok(Self {
            plain,
            coded,
            modified: states.file.modified,
            content_type,
            states,
            common,
        })
    }

    /// Whether this is still what is there.
    pub(super) fn is(&self, opened: &Opened) -> bool {
        self.states == opened.states()
    }

    /// Whether it may be believed for a while. What was written a moment ago may be written once more without a trace.
    pub(super) fn is_settled(&self) -> bool {
        self.states.settled
    }

    /// What it costs to keep.
    pub(super) fn weight(&self) -> Weight {
        /// The fields, the table's own memory.
        const OVERHEAD: usize = 1024;
        let all = std::iter::once(&self.plain).chain(self.coded.neighbours());
        all.fold(
            Weight {
                bytes: OVERHEAD,
                files: 0,
            },
            |sum, one| match &one.content {
                Held::Memory(bytes) => Weight {
                    bytes: sum.bytes + bytes.len(),
                    ..sum
                },
                Held::Open(..) => Weight {
                    files: sum.files + 1,
                    ..sum
                },
            },
        )
    }

    /// The content in a coding, made by us.
    pub(super) fn encoded(&self, coding: Coding, content: Bytes) -> Representation {
        let length = content.len() as u64;
        let variant = encode::tag(coding, &content);
        let etag = etag(&self.states.file, Some(&variant), self.states.settled);
        Representation::made(
            Held::Memory(content),
            length,
            etag,
            Some(coding),
            &self.common,
        )
    }
}

impl Representation {
    fn new(
        open: OpenFile,
        states: &States,
        coding: Option<Coding>,
        common: &Bytes,
        wait: Wait,
    ) -> io::Result<Self> {
        let etag = etag(&open.identity, None, states.settled);
        let length = open.identity.length;
        if length > SMALL {
            let content = Held::Open(Source::new(open.file, length).into(), 0);
            return Ok(Self::made(content, length, etag, coding, common));
        }
        let content = read_whole(&open.file, length, wait)?;
        let length = content.len() as u64;
        Ok(Self::made(
            Held::Memory(content),
            length,
            etag,
            coding,
            common,
        ))
    }

    fn made(
        content: Held,
        length: u64,
        etag: Box<str>,
        coding: Option<Coding>,
        common: &Bytes,
    ) -> Self {
        let mut fields = FieldLines::beginning(common);
        fields.push(b"ETag", etag.as_bytes());
        if let Some(coding) = coding {
            fields.push(b"Content-Encoding", coding.as_str().as_bytes());
        }
        let mut unchanged = fields.clone();
        unchanged.retain(|name, _| {
            matches!(
                name,
                b"ETag" | b"Last-Modified" | b"Cache-Control" | b"Vary"
            )
        });
        Self {
            content,
            length,
            etag,
            fields: fields.into_shared(),
            fields_unchanged: unchanged.into_shared(),
        }
    }
}

/// What is the same in every coding.
fn common(content_type: &str, varies: bool, states: &States, cache: Option<&str>) -> Bytes {
    let mut fields = FieldLines::with_capacity(256);
    fields.push(b"Content-Type", content_type.as_bytes());
    fields.push(b"X-Content-Type-Options", b"nosniff");
    fields.push(b"Accept-Ranges", b"bytes");
    // Also of what goes out as it is: a cache must not give it to a client that would have got another.
    if varies {
        fields.push(b"Vary", b"Accept-Encoding");
    }
    if let Some(date) = states.file.modified.and_then(http_date) {
        fields.push(b"Last-Modified", date.as_bytes());
    }
    if let Some(cache) = cache {
        fields.push(b"Cache-Control", cache.as_bytes());
    }
    fields.into_shared()
}

/// What `Cache-Control` says of a path, if anything.
pub(super) fn cache_control(path: &[u8], rules: &Rules) -> Option<Box<str>> {
    /// RFC 8246. A year is as long as anything is kept.
    const FOR_EVER: &str = "max-age=31536000, immutable";
    if rules.cache == Cache::Never {
        return Some("no-store".into());
    }
    // One page under many names, which names the scripts of one release: without asking it would outlive them.
    if rules
        .fallback
        .as_deref()
        .is_some_and(|page| page.as_bytes() == path)
    {
        return Some("no-cache".into());
    }
    let is_immutable = match rules.cache {
        Cache::Immutable => true,
        Cache::Age(age) => !age.is_zero() && name::is_immutable(path),
        Cache::Unsaid => name::is_immutable(path),
        Cache::Never => false,
    };
    match rules.cache {
        _ if is_immutable => Some(FOR_EVER.into()),
        Cache::Age(age) => Some(format!("max-age={}", age.as_secs()).into()),
        Cache::Unsaid | Cache::Immutable | Cache::Never => None,
    }
}

/// A strong validator (RFC 9110 §8.8.1): another inode, size or modification time is another content. It is weak as long as a
/// second write could leave all three as they are.
pub(super) fn etag(identity: &Identity, variant: Option<&str>, settled: bool) -> Box<str> {
    let modified = identity
        .modified
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .unwrap_or(Duration::ZERO);
    let weak = if settled { "" } else { "W/" };
    let dash = if variant.is_some() { "-" } else { "" };
    format!(
        "{weak}\"{:x}-{:x}-{:x}{dash}{}\"",
        identity.inode,
        identity.length,
        modified.as_nanos(),
        variant.unwrap_or_default()
    )
    .into()
}

/// Reads a file of about this length. Without a wait, what the page cache lacks is [`io::ErrorKind::WouldBlock`].
pub(super) fn read_whole(file: &File, length: u64, wait: Wait) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut content = vec![0; length];
    let mut filled = 0;
    while filled < content.len() {
        let space = &mut content[filled..];
        let read = match wait {
            Wait::Yes => file.read_at(space, filled as u64)?,
            Wait::No => read_cached(file, space, filled as u64)?,
        };
        match read {
            0 => break,
            read => filled += read,
        }
    }
    content.truncate(filled);
    Ok(content.into())
}

fn read_cached(file: &File, space: &mut [u8], at: u64) -> io::Result<usize> {
    let mut slices = [io::IoSliceMut::new(space)];
    match preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read),
        // OPNOTSUPP: the file system cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_keeping() {
        let rules = |cache| Rules {
            cache,
            fallback: Some("index.html".into()),
            ..Rules::default()
        };
        let hour = Duration::from_secs(3600);
        let ever = Some("max-age=31536000, immutable");
        for (cache, path, expected) in [
            (Cache::Unsaid, "a.css", None),
            (Cache::Unsaid, "a.3f2a9c01d4e5.css", ever),
            (Cache::Unsaid, "index.html", Some("no-cache")),
            (Cache::Immutable, "a.css", ever),
            (Cache::Immutable, "index.html", Some("no-cache")),
            (Cache::Never, "a.3f2a9c01d4e5.css", Some("no-store")),
            (Cache::Never, "index.html", Some("no-store")),
            (Cache::Age(hour), "a.css", Some("max-age=3600")),
            (Cache::Age(hour), "a.3f2a9c01d4e5.css", ever),
            (
                Cache::Age(Duration::ZERO),
                "a.3f2a9c01d4e5.css",
                Some("max-age=0"),
            ),
        ] {
            let said = cache_control(path.as_bytes(), &rules(cache));
            assert_eq!(said.as_deref(), expected, "{cache:?} {path}");
        }
    }

    #[test]
    fn what_was_written_just_now_may_be_written_again() {
        let now = SystemTime::now();
        let ago = |time| now.checked_sub(time);
        assert!(!is_settled(Some(now)));
        assert!(is_settled(ago(Duration::from_secs(3))));
        assert!(is_settled(now.checked_add(Duration::from_secs(60))));
        let whole = SystemTime::UNIX_EPOCH
            + Duration::from_secs(
                now.duration_since(SystemTime::UNIX_EPOCH)
                    .expect("later")
                    .as_secs(),
            );
        assert!(!is_settled(Some(whole)));
        assert!(is_settled(None));
    }
}
