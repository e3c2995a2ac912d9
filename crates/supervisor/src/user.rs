//! Users and groups of this machine, and whether we may become another one.
//!
//! Looked up by the C library, so that directories (LDAP, sssd, systemd's dynamic users) are asked as well. A look-up may
//! block: it is for the start and for reloads, never for a reactor that serves.

use std::{
    ffi::{CStr, CString, OsStr},
    io, mem,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    ptr,
};

use rustix::{
    process::{Gid, Uid},
    thread::CapabilitySet,
};

/// Records of one user are small; a group may have thousands of members.
const FIRST_BUFFER: usize = 4 * 1024;

/// Past that the directory is broken.
const LARGEST_BUFFER: usize = 16 << 20;

/// The kernel's limit (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Variables that name folders of the user that we are.
pub const PERSONAL: [&str; 5] = [
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
];

/// A user, and what a process of theirs has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
    uid: Uid,
    gid: Gid,
    /// Supplementary groups, the primary one included.
    groups: Vec<Gid>,
}

impl User {
    /// The user of this name, with the groups that they are a member of; `None` if there is no such user.
    ///
    /// # Errors
    /// When the user database cannot be read.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        let Ok(c_name) = CString::new(name) else {
            return Ok(None);
        };
        let found = look_up(
            |record: *mut libc::passwd, buffer, length, result| {
                // SAFETY: the name ends with NUL; record, buffer of this length and result are live and ours.
                unsafe { libc::getpwnam_r(c_name.as_ptr(), record, buffer, length, result) }
            },
            |record| {
                // Some directory services have users without a home.
                let home = if record.pw_dir.is_null() {
                    c"/"
                } else {
                    // SAFETY: the call succeeded, so this is a string that ends with NUL inside the buffer, which lives.
                    unsafe { CStr::from_ptr(record.pw_dir) }
                };
                (record.pw_uid, record.pw_gid, path(home))
            },
        )?;
        let Some((uid, gid, home)) = found else {
            return Ok(None);
        };
        let groups = groups_of(&c_name, gid);
        Ok(Some(Self {
            name: name.to_owned(),
            home,
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
        }))
    }

    /// The same user with another primary group.
    #[must_use]
    pub fn with_group(mut self, group: Group) -> Self {
        self.gid = group.0;
        self
    }

    /// The user's number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The primary group's number.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid.as_raw()
    }

    /// Whether this process runs as this user and group already.
    #[must_use]
    pub fn is_us(&self) -> bool {
        self.uid == rustix::process::geteuid() && self.gid == rustix::process::getegid()
    }

    /// The first folder on the way to this path, or what is there itself, that this user lacks the permission for; `None`
    /// when nothing is in the way, and where only the kernel can tell: links that lead nowhere, access control lists.
    #[must_use]
    pub fn obstacle(&self, path: &Path, wanted: Permission) -> Option<PathBuf> {
        // Root's rights are a matter of capabilities, not of modes.
        if self.uid.is_root() {
            return None;
        }
        let path = path.canonicalize().ok()?;
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        let last = way.len() - 1;
        way.into_iter().enumerate().find_map(|(index, place)| {
            let wanted = if index == last {
                wanted
            } else {
                Permission::Enter
            };
            (!self.has(place, wanted)?).then(|| place.to_owned())
        })
    }

    /// `None` where modes do not tell.
    fn has(&self, place: &Path, wanted: Permission) -> Option<bool> {
        let metadata = place.metadata().ok()?;
        let mode = metadata.mode();
        let granted = if metadata.uid() == self.uid() {
            mode >> 6
        } else if self.is_member(metadata.gid()) {
            mode >> 3
        } else {
            mode
        };
        let bits = match wanted {
            Permission::Enter => 0o1,
            Permission::Read => 0o4,
            Permission::Use => 0o5,
            Permission::Write => 0o3,
        };
        if granted & bits == bits {
            return Some(true);
        }
        let mut list = [0; 1024];
        let has_list = rustix::fs::getxattr(place, "system.posix_acl_access", &mut list).is_ok();
        (!has_list).then_some(false)
    }

    fn is_member(&self, gid: u32) -> bool {
        self.gid() == gid || self.groups.iter().any(|group| group.as_raw() == gid)
    }

    /// What the environment of this user's processes says about them.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &OsStr); 3] {
        let name = OsStr::new(&self.name);
        [
            ("HOME", self.home.as_os_str()),
            ("USER", name),
            ("LOGNAME", name),
        ]
    }

    /// Makes the calling thread this user's, for good: groups, group and user. For a process of one thread that is about to
    /// run another program: system calls only, no memory is allocated.
    ///
    /// # Errors
    /// When only root may.
    pub fn assume(&self) -> io::Result<()> {
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)?;
        Ok(())
    }
}

/// What a user must be allowed to do with a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Go through a folder, or run a program.
    Enter,
    /// Read a file.
    Read,
    /// Go into a folder and see what is there, or run a script.
    Use,
    /// Make and remove files in a folder.
    Write,
}

/// A group of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(Gid);

impl Group {
    /// The group of this name; `None` if there is none.
    ///
    /// # Errors
    /// When the group database cannot be read.
    pub fn find(name: &str) -> io::Result<Option<Self>> {
        let Ok(c_name) = CString::new(name) else {
            return Ok(None);
        };
        let found = look_up(
            |record: *mut libc::group, buffer, length, result| {
                // SAFETY: the name ends with NUL; record, buffer of this length and result are live and ours.
                unsafe { libc::getgrnam_r(c_name.as_ptr(), record, buffer, length, result) }
            },
            |record| record.gr_gid,
        )?;
        Ok(found.map(|gid| Self(Gid::from_raw(gid))))
    }
}

/// Whether we may start processes of other users: root may, and whoever has both capabilities.
#[must_use]
pub fn may_switch() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Calls one of the `get…_r` functions with a buffer that is large enough, and takes what is needed out of the record.
fn look_up<R, T>(
    call: impl Fn(*mut R, *mut libc::c_char, usize, *mut *mut R) -> libc::c_int,
    take: impl FnOnce(&R) -> T,
) -> io::Result<Option<T>> {
    let mut buffer: Vec<libc::c_char> = vec![0; FIRST_BUFFER];
    loop {
        let mut record = mem::MaybeUninit::<R>::uninit();
        let mut result = ptr::null_mut();
        let error = call(
            record.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut result,
        );
        match error {
            0 if result.is_null() => return Ok(None),
            // SAFETY: success with a result means that the record was written (getpwnam_r(3)); what it points at lies in
            // `buffer`, which outlives the use.
            0 => return Ok(Some(take(unsafe { record.assume_init_ref() }))),
            libc::ERANGE if buffer.len() < LARGEST_BUFFER => buffer.resize(buffer.len() * 4, 0),
            libc::EINTR => {}
            // What systems say instead of "not found" (getpwnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn groups_of(name: &CStr, primary: libc::gid_t) -> Vec<libc::gid_t> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the name ends with NUL, `groups` has room for `count` of them, and both are ours.
        let done = unsafe {
            libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), &raw mut count)
        };
        let needed = usize::try_from(count).unwrap_or_default();
        if done != -1 {
            groups.truncate(needed);
            return groups;
        }
        if groups.len() >= GROUPS_MAX {
            // More than a process can have.
            return groups;
        }
        groups.resize((groups.len() * 4).max(needed).min(GROUPS_MAX), 0);
    }
}

fn path(text: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_nobody_of_that_name_is_not() {
        let root = User::find("root").unwrap().unwrap();
        assert_eq!((root.uid(), root.gid()), (0, 0));
        assert!(root.groups.contains(&Gid::from_raw(0)));
        assert!(root.home.is_absolute());
        assert_eq!(User::find("no-such-user").unwrap(), None);
        assert_eq!(User::find("nul\0inside").unwrap(), None);
        assert_eq!(Group::find("root").unwrap(), Some(Group(Gid::from_raw(0))));
        assert_eq!(Group::find("no-such-group").unwrap(), None);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        use std::fs::{self, Permissions};
        use std::os::unix::fs::PermissionsExt;

        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let set = |name: &str, mode| {
            fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(path("home/web")).unwrap();
        fs::write(path("home/web/secret"), "").unwrap();
        set("", 0o755);
        set("home", 0o755);
        set("home/web", 0o755);
        set("home/web/secret", 0o640);
        let stranger = User {
            name: "stranger".to_owned(),
            home: PathBuf::from("/"),
            uid: Uid::from_raw(54_321),
            gid: Gid::from_raw(54_321),
            groups: Vec::new(),
        };
        let obstacle = |user: &User, name: &str, wanted| user.obstacle(&path(name), wanted);
        let real = |name: &str| Some(path(name).canonicalize().unwrap());
        assert_eq!(obstacle(&stranger, "home/web", Permission::Use), None);
        assert_eq!(
            obstacle(&stranger, "home/web/secret", Permission::Read),
            real("home/web/secret")
        );
        set("home", 0o710);
        assert_eq!(
            obstacle(&stranger, "home/web", Permission::Use),
            real("home")
        );
        let gid = path("home").metadata().unwrap().gid();
        let member = User {
            groups: vec![Gid::from_raw(gid)],
            ..stranger
        };
        assert_eq!(obstacle(&member, "home/web", Permission::Use), None);
        assert_eq!(obstacle(&member, "home", Permission::Use), real("home"));
        assert_eq!(obstacle(&member, "nowhere", Permission::Use), None);
    }

    #[test]
    fn another_group_replaces_the_primary_one() {
        let group = Group(Gid::from_raw(4));
        let root = User::find("root").unwrap().unwrap().with_group(group);
        assert_eq!((root.uid(), root.gid()), (0, 4));
        assert!(!root.is_us());
    }
}
