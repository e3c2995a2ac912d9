//! `files` routes: a folder whose files are the answers.
//!
//! [`resolve`] finds the file a path names and proves that it lies below the root; [`served`] is what is known of a file;
//! [`encode`] chooses among its representations; [`cache`] remembers them, and [`watch`] hears of their changes; [`respond`] turns
//! one into a response; [`content`] is a file, or parts of one, on its way to a client.

mod cache;
mod content;
mod encode;
pub(crate) mod handed;
mod kind;
mod listing;
mod name;
mod resolve;
mod respond;
mod served;
mod source;
mod watch;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use config::site;

pub(crate) use content::{FileContent, Segment, piece, truncated};
pub(crate) use encode::{LEAST, gains};
pub(crate) use handed::{Elsewhere, Handed, SendFile};
pub(crate) use respond::respond;

use resolve::{Inside, Root};
use served::Served;
use watch::Watches;

/// A folder, and how its files are served.
#[derive(Debug)]
pub(crate) struct Folder {
    root: Root,
    rules: Arc<Rules>,
    store: Store,
    /// Its number in the store.
    number: u32,
}

/// How the files of a folder are served.
#[derive(Debug)]
struct Rules {
    index: Vec<String>,
    fallback: Option<String>,
    listing: bool,
    cache: site::Cache,
    types: BTreeMap<String, String>,
    /// Whether files are sent in codings.
    compress: bool,
    /// Whether only an app asks, which knows what it does.
    internal: bool,
}

/// What is remembered of the files of all folders.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    cache: Arc<cache::Cache<Served>>,
    /// Who hears of changes; `None` where nobody does.
    watches: Option<Arc<Watches>>,
    folders: Arc<AtomicU32>,
}

impl Store {
    /// An empty one, which keeps about `limits.file_memory` bytes of content. Must be called inside a tokio runtime.
    pub(crate) fn new(limits: &site::Limits) -> Self {
        let cache = Arc::new(cache::Cache::new(limits.file_memory));
        let most = usize::try_from(limits.file_watches).unwrap_or(usize::MAX);
        let watches = Watches::start(most, &cache);
        let kept = Arc::downgrade(&cache);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UNUSED).await;
                let Some(cache) = kept.upgrade() else { return };
                cache.close_unused();
            }
        });
        Self {
            cache,
            watches,
            folders: Arc::default(),
        }
    }

    /// Has changes of a file told, which was found just now.
    fn watch(&self, root: &Root, file: cache::Key<'_>) {
        if let Some(watches) = &self.watches {
            watches.wish(root, file);
        }
    }
}

/// How long a file that nobody asks for stays open, about.
const UNUSED: Duration = Duration::from_secs(30);

impl Folder {
    /// Opens the folder; requests are answered from it even if its name goes elsewhere.
    pub(crate) fn open(files: &site::Files, compress: bool, store: &Store) -> io::Result<Self> {
        let path: &Path = &files.root.value;
        Ok(Self {
            root: Root::open(path, files.symlinks)?,
            rules: Arc::new(Rules {
                index: files.index.clone(),
                fallback: files.fallback.clone(),
                listing: files.listing,
                cache: files.cache,
                types: files.types.clone(),
                compress,
                internal: files.internal,
            }),
            number: store.folders.fetch_add(1, Ordering::Relaxed),
            store: store.clone(),
        })
    }
}

impl Folder {
    /// Whether only an app may answer with its files.
    pub(crate) fn is_internal(&self) -> bool {
        self.rules.internal
    }
}

impl Rules {
    fn inside(&self) -> Inside<'_> {
        Inside {
            index: &self.index,
            listing: self.listing,
        }
    }

    /// Whether a file of this name is sent in codings.
    fn codes(&self, name: &[u8]) -> bool {
        self.compress && gains(&kind::of(name, &self.types))
    }
}

#[cfg(test)]
impl Default for Rules {
    fn default() -> Self {
        Self {
            index: vec!["index.html".to_owned()],
            fallback: None,
            listing: false,
            cache: site::Cache::Unsaid,
            types: BTreeMap::new(),
            compress: true,
            internal: false,
        }
    }
}

/// The media type of a file, by its name.
pub(crate) fn type_of(path: &Path) -> Box<str> {
    use std::os::unix::ffi::OsStrExt;
    kind::of(path.as_os_str().as_bytes(), &BTreeMap::new())
}

/// Runs file work where it may block: a disk that is slow must not stop the connections of a reactor thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
