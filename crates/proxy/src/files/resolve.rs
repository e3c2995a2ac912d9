//! Which file a path names. Nothing outside the root is ever opened, by no spelling of the path and by no symbolic link.
//!
//! The path has been decoded once, its dot segments resolved (RFC 3986 §5.2.4); what is opened is what was routed. The
//! kernel walks it below an open folder (`openat2` with `RESOLVE_BENEATH`), so a link or a rename in the middle of the walk
//! cannot lead outside (CVE-2013-4547 and its kin are mistakes of user-space walks).

use std::{fs::File, io, os::fd::OwnedFd, path::Path, time::Duration};

use super::cache::{Cache, Identity};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

/// An open folder.
#[derive(Debug)]
pub(crate) struct Root {
    folder: std::sync::Arc<OwnedFd>,
    /// What was found in it lately.
    pub(super) cache: Cache,
    /// The value of `Cache-Control`, where the route sets one.
    pub(super) cache_control: Option<Box<str>>,
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file.
    File(OpenFile),
    /// A folder, asked for without its slash.
    Folder,
    /// Nothing that may be served.
    Nothing,
}

/// A regular file, open for reading.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) identity: Identity,
    /// The name that decides the type: an index has its own.
    pub(super) name: Box<[u8]>,
}

/// The file that answers for a folder.
const INDEX: &[u8] = b"index.html";

impl Root {
    /// Opens the folder; requests are answered from it even if its name goes elsewhere.
    pub(crate) fn open(path: &Path, cache: Option<Duration>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())?;
        let cache_control = cache.map(|age| format!("max-age={}", age.as_secs()).into_boxed_str());
        Ok(Self {
            folder: folder.into(),
            cache: Cache::default(),
            cache_control,
        })
    }

    /// A handle for a thread that may block.
    pub(super) fn folder(&self) -> std::sync::Arc<OwnedFd> {
        std::sync::Arc::clone(&self.folder)
    }
}

/// Whether a decoded path may name a file at all. Hidden files (`.git`, `.env`) are not for visitors; `.well-known`
/// (RFC 8615) is.
pub(super) fn is_servable(path: &[u8]) -> bool {
    let mut segments = path.split(|&byte| byte == b'/');
    segments.all(|segment| !segment.starts_with(b".") || segment == b".well-known")
        && !path.contains(&0)
}

/// Finds what `path` (decoded, relative to the folder, without a leading slash) names. Blocks.
pub(super) fn find(folder: &OwnedFd, path: &[u8]) -> io::Result<Found> {
    let is_folder = path.is_empty() || path.ends_with(b"/");
    if is_folder {
        let mut index = path.to_vec();
        index.extend_from_slice(INDEX);
        return Ok(match open(folder, &index)? {
            Some(file) => regular(file, INDEX)?.map_or(Found::Nothing, Found::File),
            None => Found::Nothing,
        });
    }
    let Some(file) = open(folder, path)? else {
        return Ok(Found::Nothing);
    };
    if file.metadata()?.is_dir() {
        return Ok(Found::Folder);
    }
    Ok(regular(file, path)?.map_or(Found::Nothing, Found::File))
}

/// Opens below the folder, or finds that there is nothing to open. `O_NONBLOCK`: a fifo must not hold the thread.
fn open(folder: &OwnedFd, path: &[u8]) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        return match openat2(folder, path, flags, Mode::empty(), resolve) {
            Ok(file) => Ok(Some(file.into())),
            // AGAIN: a rename raced with the walk, and the kernel could not prove the result to be inside.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // XDEV: the walk would leave the root. LOOP: too many links. NXIO: a socket, or a fifo.
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

fn regular(file: File, path: &[u8]) -> io::Result<Option<OpenFile>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    Ok(Some(OpenFile {
        identity: Identity {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        },
        name: name.into(),
        file,
    }))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn kind(root: &Root, path: &str) -> &'static str {
        match find(&root.folder(), path.as_bytes()) {
            Ok(Found::File(_)) => "file",
            Ok(Found::Folder) => "folder",
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
        fs::write(path.join("sub/index.html"), "index").expect("written");
        fs::create_dir(path.join("empty")).expect("made");
        symlink("a.txt", path.join("inside")).expect("linked");
        symlink(outside.path().join("secret"), path.join("outside")).expect("linked");
        symlink("../../../../../../etc/passwd", path.join("climbing")).expect("linked");
        symlink(outside.path(), path.join("folder-outside")).expect("linked");
        symlink("loop", path.join("loop")).expect("linked");
        rustix::fs::mkfifoat(CWD, path.join("fifo"), Mode::RUSR).expect("made");
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).expect("bound");
        let root = Root::open(path, None).expect("opened");
        for (name, found) in [
            ("a.txt", "file"),
            ("inside", "file"),
            ("sub", "folder"),
            ("sub/", "file"),
            ("", "nothing"),
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
            assert_eq!(kind(&root, name), found, "{name}");
        }
        assert_eq!(kind(&root, &"x".repeat(5000)), "nothing");
    }

    #[test]
    fn hidden_files_are_not_for_visitors() {
        for (path, servable) in [
            ("a/b.css", true),
            ("", true),
            (".git/config", false),
            ("a/.env", false),
            (".well-known/security.txt", true),
            ("a..b", true),
            ("..", false),
        ] {
            assert_eq!(is_servable(path.as_bytes()), servable, "{path}");
        }
    }
}
