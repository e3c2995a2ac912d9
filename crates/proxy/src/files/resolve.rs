//! Which file a path names. Nothing outside the root is ever opened, by no spelling of the path and by no symbolic link.
//!
//! The path has been decoded once, its dot segments resolved (RFC 3986 §5.2.4); what is opened is what was routed. The
//! kernel walks it below an open folder (`openat2` with `RESOLVE_BENEATH`), so a link or a rename in the middle of the walk
//! cannot lead outside (CVE-2013-4547 and its kin are mistakes of user-space walks).

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use config::site::Symlinks;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

/// An open folder.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    folder: Arc<OwnedFd>,
    resolve: ResolveFlags,
}

/// Whether a look at the file system may wait for a disk or another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It may: this is a thread for that.
    Yes,
    /// It may not: what the kernel does not know by heart is [`io::ErrorKind::WouldBlock`].
    No,
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file, and its path: an index has one of its own.
    File(OpenFile, Box<[u8]>),
    /// A folder that has an answer, asked for without its slash.
    Folder,
    /// A folder without an index, whose content may be shown.
    Listing(OwnedFd),
    /// Nothing that may be served.
    Nothing,
}

/// A regular file, open for reading.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) identity: Identity,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    pub(crate) inode: u64,
    pub(crate) length: u64,
    pub(crate) modified: Option<SystemTime>,
}

/// What is looked for in a folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    /// The names that answer for it, in order.
    pub(super) index: &'a [String],
    /// Whether its content may be shown.
    pub(super) listing: bool,
}

impl Root {
    /// Opens the folder; requests are answered from it even if its name goes elsewhere.
    pub(crate) fn open(path: &Path, symlinks: Symlinks) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())?;
        let resolve = match symlinks {
            Symlinks::Inside => ResolveFlags::BENEATH,
            // A decoded path is relative and has no dot segments, so links alone can lead outside.
            Symlinks::Follow => ResolveFlags::empty(),
        };
        Ok(Self {
            folder: folder.into(),
            // Links of /proc lead to whatever a process has open, below the root or not.
            resolve: resolve | ResolveFlags::NO_MAGICLINKS,
        })
    }

    /// A path by which this process finds what is at `path` below the folder, wherever the folder has gone. Only for looking: a
    /// link may lead outside.
    pub(super) fn place(&self, path: &[u8]) -> Vec<u8> {
        let folder = format!("/proc/self/fd/{}/", self.folder.as_raw_fd());
        [folder.as_bytes(), path].concat()
    }

    /// Finds what `path` (decoded, relative to the folder, without a leading slash) names.
    pub(super) fn find(&self, path: &[u8], inside: Inside<'_>, wait: Wait) -> io::Result<Found> {
        if path.is_empty() || path.ends_with(b"/") {
            return self.find_in_folder(path, inside, wait);
        }
        let Some(file) = self.open_below(path, wait)? else {
            return Ok(Found::Nothing);
        };
        let metadata = file.metadata()?;
        if metadata.is_file() {
            let identity = Identity::of(&metadata);
            return Ok(Found::File(OpenFile { file, identity }, path.into()));
        }
        if !metadata.is_dir() {
            return Ok(Found::Nothing);
        }
        let with_slash = [path, b"/"].concat();
        Ok(match self.find_in_folder(&with_slash, inside, wait)? {
            Found::File(..) | Found::Listing(_) => Found::Folder,
            Found::Folder | Found::Nothing => Found::Nothing,
        })
    }

    fn find_in_folder(&self, path: &[u8], inside: Inside<'_>, wait: Wait) -> io::Result<Found> {
        for index in inside.index {
            let index = [path, index.as_bytes()].concat();
            if let Some(file) = self.find_file(&index, wait)? {
                return Ok(Found::File(file, index.into()));
            }
        }
        if !inside.listing {
            return Ok(Found::Nothing);
        }
        let path = if path.is_empty() { b"." } else { path };
        Ok(match self.open_below(path, wait)? {
            Some(folder) if folder.metadata()?.is_dir() => Found::Listing(folder.into()),
            _ => Found::Nothing,
        })
    }

    /// Opens a regular file.
    pub(crate) fn find_file(&self, path: &[u8], wait: Wait) -> io::Result<Option<OpenFile>> {
        match self.open_below(path, wait)? {
            Some(file) => regular(file),
            None => Ok(None),
        }
    }

    /// Opens below the folder, or finds that there is nothing to open. `O_NONBLOCK`: a fifo must not hold the thread.
    fn open_below(&self, path: &[u8], wait: Wait) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = match wait {
            Wait::Yes => self.resolve,
            Wait::No => self.resolve | ResolveFlags::CACHED,
        };
        if path.starts_with(b"/") {
            return Ok(None);
        }
        loop {
            return match openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                Ok(file) => Ok(Some(file.into())),
                Err(Errno::AGAIN) if wait == Wait::No => Err(io::ErrorKind::WouldBlock.into()),
                // A kernel before 5.12 does not know how to look without waiting.
                Err(Errno::INVAL) if wait == Wait::No => Err(io::ErrorKind::WouldBlock.into()),
                // AGAIN: a rename raced with the walk, and the kernel could not prove the result to be inside.
                Err(Errno::AGAIN | Errno::INTR) => continue,
                // XDEV: the walk would leave the root. LOOP: too many links. NXIO: a socket, or a device without one.
                Err(
                    Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::XDEV
                    | Errno::LOOP
                    | Errno::NAMETOOLONG
                    | Errno::NXIO
                    | Errno::NODEV
                    | Errno::INVAL,
                ) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl Identity {
    /// By what is known of an open file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }

    /// Whether it was changed no earlier than the other. Seconds count: what is unpacked or checked out together may come in
    /// any order within one.
    pub(super) fn is_not_older(&self, other: &Self) -> bool {
        let seconds = |time: Option<SystemTime>| {
            let since = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(since.as_secs())
        };
        seconds(self.modified) >= seconds(other.modified)
    }
}

fn regular(file: File) -> io::Result<Option<OpenFile>> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then(|| OpenFile {
        identity: Identity::of(&metadata),
        file,
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn kind(root: &Root, path: &str, listing: bool) -> &'static str {
        let index = ["index.html".to_owned(), "index.htm".to_owned()];
        let inside = Inside {
            index: &index,
            listing,
        };
        let found = root.find(path.as_bytes(), inside, Wait::Yes);
        match root.find(path.as_bytes(), inside, Wait::No) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{path}"),
            Ok(now) => assert_eq!(
                std::mem::discriminant(&now),
                std::mem::discriminant(found.as_ref().expect("found")),
                "{path}"
            ),
        }
        match found {
            Ok(Found::File(..)) => "file",
            Ok(Found::Folder) => "folder",
            Ok(Found::Listing(_)) => "listing",
            Ok(Found::Nothing) => "nothing",
            Err(_) => "error",
        }
    }

    #[test]
    fn only_regular_files_inside_the_root_are_found() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("secret"), "secret").expect("written");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("a.txt"), "a").expect("written");
        fs::create_dir(path.join("sub")).expect("made");
        fs::write(path.join("sub/index.htm"), "index").expect("written");
        fs::create_dir(path.join("empty")).expect("made");
        symlink("a.txt", path.join("inside")).expect("linked");
        symlink(outside.path().join("secret"), path.join("outside")).expect("linked");
        symlink("../../../../../../etc/passwd", path.join("climbing")).expect("linked");
        symlink(outside.path(), path.join("folder-outside")).expect("linked");
        symlink("loop", path.join("loop")).expect("linked");
        rustix::fs::mkfifoat(CWD, path.join("fifo"), Mode::RUSR).expect("made");
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).expect("bound");
        let root = Root::open(path, Symlinks::Inside).expect("opened");
        for (name, found) in [
            ("a.txt", "file"),
            ("inside", "file"),
            ("sub", "folder"),
            ("sub/", "file"),
            ("", "nothing"),
            ("empty", "nothing"),
            ("empty/", "nothing"),
            ("a.txt/", "nothing"),
            ("a.txt/x", "nothing"),
            ("missing", "nothing"),
            ("outside", "nothing"),
            ("climbing", "nothing"),
            ("folder-outside/secret", "nothing"),
            ("folder-outside", "nothing"),
            ("loop", "nothing"),
            ("fifo", "nothing"),
            ("socket", "nothing"),
            ("../secret", "nothing"),
            ("/etc/passwd", "nothing"),
        ] {
            assert_eq!(kind(&root, name, false), found, "{name}");
        }
        assert_eq!(kind(&root, &"x".repeat(5000), false), "nothing");
        for (name, found) in [
            ("", "listing"),
            ("empty", "folder"),
            ("empty/", "listing"),
            ("sub/", "file"),
        ] {
            assert_eq!(kind(&root, name, true), found, "{name}");
        }
        let root = Root::open(path, Symlinks::Follow).expect("opened");
        for (name, found) in [
            ("outside", "file"),
            ("folder-outside/secret", "file"),
            ("loop", "nothing"),
            ("fifo", "nothing"),
        ] {
            assert_eq!(kind(&root, name, false), found, "{name}");
        }
    }
}
