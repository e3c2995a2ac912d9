//! Where the apps may write: what the service must leave open, when everything else is read-only to it.
//!
//! Nothing says so in the configuration, but the machine does: a folder that belongs to the app's user, or that they may write
//! to, was made so by somebody who meant it, such as one of uploads or of an SQLite file. Looked at are the apps' folders
//! and those directly in them, and the folders that are served.

use std::{
    fs,
    path::{Path, PathBuf},
};

use config::site::Site;
use supervisor::user::{Permission, User};

/// Who the service is when the configuration names nobody.
const SERVICE: &str = "stack";

/// Open anyhow.
const OPEN: [&str; 4] = ["/var/lib/stack", "/var/log/stack", "/tmp", "/var/tmp"];

/// Those of them that somebody may write to, without those inside another one.
pub(super) fn folders(site: &Site) -> Vec<PathBuf> {
    let served: Vec<PathBuf> = site.served().map(|path| path.value.clone()).collect();
    let mut found = Vec::new();
    for app in &site.apps {
        let name = site
            .account(app)
            .map_or(SERVICE, |account| &account.user.value);
        // One who is not there yet owns nothing yet.
        let Ok(Some(user)) = User::find(name) else {
            continue;
        };
        let root = app.root.value.clone();
        let candidates = std::iter::once(root.clone()).chain(inside(&root));
        found.extend(
            candidates
                .chain(served.clone())
                .filter(|path| path.is_dir() && user.obstacle(path, Permission::Write).is_none()),
        );
    }
    outermost(found)
}

fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.retain(|path| path.is_dir());
    folders
}

fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.retain(|path| !OPEN.iter().any(|open| path.starts_with(open)));
    // A folder comes before what is in it.
    paths.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.iter().any(|outer| path.starts_with(outer)) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_another_one_or_open_anyhow_is_not_listed() {
        let paths = [
            "/srv/web/media/new",
            "/srv/web/media",
            "/var/lib/stack/db",
            "/srv/web2",
            "/srv/web/media",
        ];
        let paths = paths.map(PathBuf::from).to_vec();
        assert_eq!(
            outermost(paths),
            ["/srv/web/media", "/srv/web2"].map(PathBuf::from)
        );
    }
}
