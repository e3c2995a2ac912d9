//! `files` routes: a folder whose files are the answers.
//!
//! [`resolve`] finds the file a path names and proves that it lies below the root; [`cache`] remembers what was found for a
//! second at least; [`respond`] turns it into a response; [`content`] is a file, or parts of one, on its way to a client.

mod cache;
mod content;
mod resolve;
mod respond;

use std::io;

pub(crate) use content::{FileContent, Segment, truncated};
pub(crate) use resolve::Root;
pub(crate) use respond::respond;

/// Runs file work where it may block: a disk that is slow must not stop the connections of a reactor thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
