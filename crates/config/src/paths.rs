//! Paths of the configuration: taken from the file's folder, and made absolute.
//!
//! Links are not resolved: `current -> releases/3` must be looked at anew by each reload.

use std::path::{Component, Path, PathBuf};

use crate::error::Mistake;

/// The folder that relative paths start from.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder of a file with an absolute path.
    pub(crate) fn of(file: &Path) -> Self {
        Self(file.parent().unwrap_or_else(|| Path::new("/")).to_owned())
    }

    pub(crate) fn path(&self) -> PathBuf {
        tidy(&self.0)
    }

    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        tidy(&self.0.join(path))
    }

    /// A path as the file writes it.
    pub(crate) fn parse(&self, text: &str) -> Result<PathBuf, Mistake> {
        if text.is_empty() {
            return Err(
                Mistake::new("the path is empty").hint("write `\".\"` for the folder of this file")
            );
        }
        if text.contains('\0') {
            return Err(Mistake::new("a path cannot contain NUL"));
        }
        if text == "~" || text.starts_with("~/") {
            let hint = "write the whole path; relative ones start at the folder of this file";
            return Err(Mistake::new("`~` is not expanded").hint(hint));
        }
        Ok(self.resolve(Path::new(text)))
    }
}

/// Removes `.`, and `..` with the folder before it, unless that folder is a link: then `..` is not the folder above.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if tidy.ends_with("..") || tidy.is_symlink() => {
                tidy.push(component)
            }
            // Above the root is the root.
            Component::ParentDir => drop(tidy.pop()),
            _ => tidy.push(component),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_folder() {
        let folder = Folder::of(Path::new("/srv/web/config/site.toml"));
        for (text, expected) in [
            ("public", "/srv/web/config/public"),
            ("./public/", "/srv/web/config/public"),
            ("../static", "/srv/web/static"),
            ("../../../../../x", "/x"),
            ("/var/www/../x", "/var/x"),
            (".", "/srv/web/config"),
        ] {
            assert_eq!(folder.parse(text), Ok(PathBuf::from(expected)), "{text}");
        }
        for text in ["", "~", "~/x", "a\0b"] {
            assert!(folder.parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_link_is_left_alone() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        std::os::unix::fs::symlink("/usr/lib", temp.path().join("link")).expect("a link");
        let folder = Folder(temp.path().to_owned());
        assert_eq!(
            folder.resolve(Path::new("link/../bin")),
            temp.path().join("link/../bin")
        );
    }
}
