//! Users and groups of this machine, and whether we may become another one.
//!
//! Looked up by the C library, so that directories (LDAP, sssd, systemd's dynamic users) are asked as well. A look-up may
//! block: it is for the start and for reloads, never for a reactor that serves.

use std::{
    ffi::{CStr, CString, OsStr},
    io, mem,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
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
                // SAFETY: the call succeeded, so `pw_dir` is a string that ends with NUL inside the buffer, which lives.
                let home = unsafe { CStr::from_ptr(record.pw_dir) };
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

    /// Makes the calling thread this user's, for good: groups, group, user, and no capability is left.
    ///
    /// For a child between `fork` and `exec`: system calls only, no memory is allocated.
    pub(crate) fn become_it(&self) -> io::Result<()> {
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)?;
        Ok(())
    }
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
    fn another_group_replaces_the_primary_one() {
        let group = Group(Gid::from_raw(4));
        let root = User::find("root").unwrap().unwrap().with_group(group);
        assert_eq!((root.uid(), root.gid()), (0, 4));
        assert!(!root.is_us());
    }
}
