//! Temporary files of a child alone: a folder that only its user can enter, which it finds as `/tmp` and `/var/tmp` where the kernel
//! lets us give it a view of its own (mount_namespaces(7), which needs `CAP_SYS_ADMIN`), and by `TMPDIR` elsewhere.

use std::{
    ffi::{CStr, CString, OsStr},
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, chown},
    },
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    thread::{CapabilitySet, UnshareFlags},
};

use crate::user::User;

/// How the folders are called; the process id of whoever made them follows.
const PREFIX: &str = "stack-tmp-";

/// What a child sees in place of the whole machine's, and what our folders for it are called.
const SEEN: [(&CStr, &str); 2] = [(c"/tmp", "tmp"), (c"/var/tmp", "var-tmp")];

/// A folder of temporary files; removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct PrivateTmp {
    folder: PathBuf,
    view: Option<View>,
}

/// What is mounted where.
#[derive(Clone, Debug)]
pub(crate) struct View(Vec<(CString, &'static CStr)>);

impl PrivateTmp {
    /// Makes it in `parent`, for children of this user; `name` tells it from others of ours. What masters have left there that
    /// were killed is removed first. Where one of the files that a child `needs` would be hidden, nothing is.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn make(
        parent: &Path,
        name: &str,
        user: Option<&User>,
        needs: &[&Path],
    ) -> io::Result<Self> {
        let parent = fs::canonicalize(parent)?;
        sweep(&parent);
        let folder = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
        // Ours to go through, and nobody's to list.
        fs::DirBuilder::new().mode(0o711).create(&folder)?;
        let mut made = Self { folder, view: None };
        let mut view = Vec::new();
        for (seen, name) in SEEN {
            let path = made.folder.join(name);
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            if let Some(user) = user {
                chown(&path, Some(user.uid()), Some(user.gid()))?;
            }
            view.push((CString::new(path.as_os_str().as_bytes())?, seen));
        }
        // Once a folder is mounted over, what lies below it is not found any more: the one that holds ours comes last.
        view.sort_by_key(|(_, seen)| is_below(&made.folder, seen));
        let hides = |path: &Path| SEEN.iter().any(|(seen, _)| is_below(path, seen));
        if !needs.iter().any(|path| hides(path)) {
            made.view = View(view).if_allowed();
        }
        Ok(made)
    }

    /// Whether children see it as `/tmp`; otherwise they are told by [`PrivateTmp::directory`].
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        self.view.is_some()
    }

    /// What `TMPDIR` is for a child.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        match self.view {
            Some(_) => PathBuf::from("/tmp"),
            None => self.folder.join(SEEN[0].1),
        }
    }

    pub(crate) fn view(&self) -> Option<View> {
        self.view.clone()
    }
}

impl Drop for PrivateTmp {
    fn drop(&mut self) {
        // What cannot be removed is litter, which the next master tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl View {
    /// Itself, if a child could have it: tried in a thread, whose view of the machine ends with it.
    fn if_allowed(self) -> Option<Self> {
        let needed = CapabilitySet::SYS_ADMIN;
        let sets = rustix::thread::capabilities(None).ok()?;
        if !sets.effective.contains(needed) {
            return None;
        }
        let tried = self.clone();
        let tried = thread::Builder::new().spawn(move || tried.enter()).ok()?;
        tried
            .join()
            .is_ok_and(|tried| tried.is_ok())
            .then_some(self)
    }

    /// From here on the calling thread, and what it starts, sees it so. System calls only: nothing is allocated.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: no table of descriptors is unshared (that is what could surprise the standard library), only mounts and, with
        // them, the working directory; the thread is one that ends, or the only one of a child before `exec`.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        // What is mounted later elsewhere comes here; nothing of ours goes there.
        mount_change(
            c"/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )?;
        for (folder, seen) in &self.0 {
            mount_bind(folder.as_c_str(), *seen)?;
        }
        Ok(())
    }
}

fn is_below(path: &Path, seen: &CStr) -> bool {
    path.starts_with(OsStr::from_bytes(seen.to_bytes()))
}

/// Removes what masters of our user have left that are no more. Others may put folders of such names here too.
fn sweep(parent: &Path) {
    let us = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(maker) = maker(name.as_bytes()) else {
            continue;
        };
        let path = entry.path();
        let is_ours =
            fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == us);
        if is_ours && !Path::new("/proc").join(maker.to_string()).exists() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// `stack-tmp-4711-web`.
fn maker(name: &[u8]) -> Option<u32> {
    let rest = std::str::from_utf8(name.strip_prefix(PREFIX.as_bytes())?).ok()?;
    rest.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_ours_alone_and_goes_with_all_that_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let made = PrivateTmp::make(parent.path(), "web", None, &[]).unwrap();
        let folder = made.folder.clone();
        let mode = folder.join("tmp").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::create_dir(folder.join("tmp/deep")).unwrap();
        fs::write(folder.join("tmp/deep/file"), "x").unwrap();
        drop(made);
        assert!(!folder.exists());
    }

    #[test]
    fn what_the_dead_have_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let place = |name: &str| parent.path().join(name);
        let us = std::process::id();
        // No process has a number above the largest there can be (proc_sys_kernel(5)).
        let dead = place("stack-tmp-4194305-web");
        let others = [
            place(&format!("stack-tmp-{us}-web")),
            place("stack-tmp-web"),
            place("else"),
        ];
        for folder in others.iter().chain([&dead]) {
            fs::create_dir(folder).unwrap();
        }
        std::os::unix::fs::symlink(&others[2], place("stack-tmp-4194306-web")).unwrap();
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(others.iter().all(|folder| folder.exists()));
    }
}
