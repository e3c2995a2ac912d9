//! A folder of pages without an app: what is written by hand, or made by a generator of static sites or a bundler.

use std::path::Path;

/// Where they are, the likeliest first.
const USUAL: [&str; 9] = [
    "dist", "public", "_site", "site", "build", "out", "html", "htdocs", "www",
];

/// The folder below this one that has pages. Pages of the folder itself are not meant: its `site.toml` would be served with them.
pub(super) fn below(folder: &Path) -> Option<&'static str> {
    USUAL.into_iter().find(|name| has(&folder.join(name)))
}

/// Whether a folder has a page that answers for it.
pub(super) fn has(folder: &Path) -> bool {
    folder.join("index.html").is_file()
}

/// The routes that serve them.
pub(super) fn routes(folder: &str) -> Vec<String> {
    vec![
        format!("  {{ path = \"/\", files = {folder:?} }},"),
        "  # of a single-page app, whose paths are no files:".to_owned(),
        format!("  #{{ path = \"/\", files = {folder:?}, fallback = \"index.html\" }},"),
    ]
}
