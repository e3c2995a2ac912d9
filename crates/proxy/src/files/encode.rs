//! Which representation of a file a client gets: a neighbour that holds it in a coding (`app.js.br` beside `app.js`), one that
//! we encode once and keep, or the file as it is.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use message::{
    coding::{Accepted, Coding},
    field::Fields,
};
use tokio::sync::Notify;

use super::{
    blocking,
    cache::{Cache, Entry, Key},
    resolve::Wait,
    served::{Held, Representation, Served, read_whole},
};
use crate::coder::{self, Effort};

/// Shorter content fits a packet or two with its head; a coding would spare nothing.
pub(crate) const LEAST: u64 = 1024;

/// Longer content is not encoded for keeping: it would take seconds, and push everything else out of memory.
const MOST: u64 = 8 * 1024 * 1024;

/// How long a request waits for the first encoding of its file before it takes the file as it is.
const PATIENCE: Duration = Duration::from_millis(500);

/// A file's representations in codings.
#[derive(Debug)]
pub(super) struct Coded {
    /// Whether we encode it ourselves where there is no neighbour.
    is_made: bool,
    neighbours: [Option<Box<Representation>>; Coding::ALL.len()],
    made: [Made; Coding::ALL.len()],
    /// Told whenever one has been made.
    news: Notify,
}

/// One that we make.
#[derive(Debug, Default)]
struct Made {
    begun: AtomicBool,
    /// `None` inside: it came out no shorter, or could not be made.
    done: OnceLock<Option<Box<Representation>>>,
}

impl Coded {
    /// Nothing yet, for a file of this length.
    pub(super) fn new(gains: bool, length: u64) -> Self {
        Self {
            is_made: gains && (LEAST..=MOST).contains(&length),
            neighbours: Default::default(),
            made: Default::default(),
            news: Notify::new(),
        }
    }

    /// There is a neighbour.
    pub(super) fn neighbour(&mut self, coding: Coding, representation: Representation) {
        self.neighbours[coding as usize] = Some(Box::new(representation));
    }

    /// All neighbours.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = &Representation> {
        self.neighbours.iter().flatten().map(|one| &**one)
    }

    /// Whether we encode it ourselves where there is no neighbour.
    pub(super) fn is_made(&self) -> bool {
        self.is_made
    }

    fn favourite_neighbour(&self, accepted: &Accepted) -> Option<&Representation> {
        let there = Coding::ALL
            .into_iter()
            .filter(|coding| self.neighbours[*coding as usize].is_some());
        let coding = accepted.favourite(there)?;
        self.neighbours[coding as usize].as_deref()
    }
}

/// Chooses the representation that the client likes best. One that is still to be made is waited for a moment.
pub(super) async fn choose<'e>(
    entry: &'e Arc<Entry<Served>>,
    fields: &Fields,
    cache: &Arc<Cache<Served>>,
    key: Key<'_>,
) -> &'e Representation {
    let served = &entry.found;
    let coded = &served.coded;
    if !coded.is_made && coded.neighbours().next().is_none() {
        return &served.plain;
    }
    let accepted = Accepted::of(fields);
    if let Some(neighbour) = coded.favourite_neighbour(&accepted) {
        return neighbour;
    }
    if !coded.is_made {
        return &served.plain;
    }
    let Some(coding) = accepted.favourite(Coding::ALL) else {
        return &served.plain;
    };
    let made = &served.coded.made[coding as usize];
    if made.done.get().is_none() {
        make(entry, coding, cache, key).await;
    }
    match made.done.get() {
        Some(Some(made)) => made,
        _ => &served.plain,
    }
}

/// Has it made, once however many ask, and waits.
async fn make(
    entry: &Arc<Entry<Served>>,
    coding: Coding,
    cache: &Arc<Cache<Served>>,
    key: Key<'_>,
) {
    let coded = &entry.found.coded;
    let made = &coded.made[coding as usize];
    let done = async {
        loop {
            let news = coded.news.notified();
            if made.done.get().is_some() {
                return;
            }
            news.await;
        }
    };
    if !made.begun.swap(true, Ordering::Relaxed) {
        let job = Job {
            entry: Arc::clone(entry),
            coding,
            cache: Arc::clone(cache),
            folder: key.folder,
            path: key.path.into(),
        };
        tokio::spawn(job.run());
    }
    // Who has waited long enough gets the file as it is; the next one gets what is made now.
    let _ = tokio::time::timeout(PATIENCE, done).await;
}

/// One encoding.
struct Job {
    entry: Arc<Entry<Served>>,
    coding: Coding,
    cache: Arc<Cache<Served>>,
    folder: u32,
    path: Box<[u8]>,
}

impl Job {
    async fn run(self) {
        let turn = coder::turn().await;
        let (entry, coding) = (Arc::clone(&self.entry), self.coding);
        let encoded = blocking(move || encode(&entry.found, coding)).await;
        drop(turn);
        let Self {
            entry,
            coding,
            cache,
            folder,
            path,
        } = self;
        let representation = match encoded {
            Ok(content) => content.map(|content| {
                let key = Key {
                    folder,
                    path: &path,
                };
                cache.grown(key, &entry, content.len());
                Box::new(entry.found.encoded(coding, content))
            }),
            Err(error) => {
                tracing::debug!("{}: {error}", String::from_utf8_lossy(&path));
                None
            }
        };
        let coded = &entry.found.coded;
        // It was begun once.
        let _ = coded.made[coding as usize].done.set(representation);
        coded.news.notify_waiters();
    }
}

/// The file in a coding; `None` when that spares too little to be decoded for.
fn encode(served: &Served, coding: Coding) -> io::Result<Option<Bytes>> {
    let plain = &served.plain;
    let content = match &plain.content {
        Held::Memory(content) => content.clone(),
        Held::Open(source, _) => read_whole(&source.file, plain.length, Wait::Yes)?,
    };
    if content.len() as u64 != plain.length {
        return Err(super::truncated());
    }
    let encoded = coder::encode(coding, Effort::Kept, &content)?;
    Ok((encoded.len() < content.len() - content.len() / 16).then_some(encoded))
}

/// What tells an encoding of ours apart from the file, in its entity tag. The content's sum is in it: another release of a
/// coder, or another processor, may encode the same file otherwise, and a download that goes on would put two halves together
/// that do not fit.
pub(super) fn tag(coding: Coding, content: &[u8]) -> String {
    let mut sum = flate2::Crc::new();
    sum.update(content);
    format!("{}-{:x}", coding.as_str(), sum.sum())
}

/// Whether content of this type becomes smaller. What is compressed already (pictures, films, archives, web fonts) does not.
pub(crate) fn gains(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let is = |text: &str, known: &str| text.eq_ignore_ascii_case(known);
    let any = |known: &[&str]| known.iter().any(|known| is(subtype, known));
    if is(kind, "text") {
        // Each event is short, and an encoder is kept for each reader.
        return !is(subtype, "event-stream");
    }
    let ends = |ending: &str| {
        subtype
            .len()
            .checked_sub(ending.len())
            .and_then(|at| subtype.get(at..))
            .is_some_and(|end| is(end, ending))
    };
    if ends("+json") || ends("+xml") {
        return true;
    }
    match kind {
        _ if is(kind, "application") => any(&[
            "json",
            "javascript",
            "x-javascript",
            "ecmascript",
            "xml",
            "wasm",
            "x-ndjson",
            "jsonlines",
            "geo+json-seq",
            "json-seq",
            "graphql",
            "rtf",
            "sql",
            "toml",
            "yaml",
            "x-yaml",
            "x-sh",
            "x-httpd-php",
            "x-font-ttf",
            "x-font-otf",
            "vnd.ms-fontobject",
            "vnd.apple.mpegurl",
            "x-subrip",
            "postscript",
            "vnd.ms-excel",
        ]),
        _ if is(kind, "font") => any(&["ttf", "otf", "collection", "sfnt"]),
        _ if is(kind, "image") => any(&["bmp", "x-icon", "vnd.microsoft.icon", "x-ms-bmp"]),
        _ if is(kind, "model") => any(&["obj", "stl", "gltf-binary"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_gain() {
        for (kind, expected) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/CSS", true),
            ("text/event-stream", false),
            ("application/json", true),
            ("application/problem+json", true),
            ("application/javascript", true),
            ("application/wasm", true),
            ("image/svg+xml", true),
            ("image/png", false),
            ("image/jpeg", false),
            ("font/woff2", false),
            ("font/ttf", true),
            ("video/mp4", false),
            ("application/zip", false),
            ("application/gzip", false),
            ("application/octet-stream", false),
            ("application/pdf", false),
            ("", false),
            ("json", false),
        ] {
            assert_eq!(gains(kind), expected, "{kind}");
        }
    }
}
