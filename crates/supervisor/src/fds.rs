//! Descriptors that are handed from process to process: inherited numbers, sealed memory, pairs.
//!
//! Everything made here is close-on-exec. A child gets what [`crate::child::Command::descriptor`] gives it, nothing else.

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::{Errno, FdFlags},
    net::{AddressFamily, SocketFlags, SocketType},
};

/// Takes the descriptor that our parent left at this number across `exec`, and makes it close-on-exec.
///
/// # Errors
/// When the number is not open, or is not inherited: what this process opens itself is close-on-exec from birth, so a
/// number can be taken only once and never from its owner.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    let absent = |what| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("descriptor {number} is {what}"),
        )
    };
    if number < 0 {
        return Err(absent("not open"));
    }
    // SAFETY: borrowed for two fcntl calls, which do no harm to a number that is not open (EBADF) or that is another's.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = match rustix::io::fcntl_getfd(borrowed) {
        Ok(flags) => flags,
        Err(Errno::BADF) => return Err(absent("not open")),
        Err(error) => return Err(error.into()),
    };
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(absent("not inherited"));
    }
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: open, and without close-on-exec until the line above: nothing in this process made it, so nothing owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Where the sockets of a service manager begin (sd_listen_fds(3)).
const ACTIVATED_FIRST: RawFd = 3;

/// More is a broken environment.
const ACTIVATED_MOST: i32 = 1024;

/// The sockets that the service manager has opened for us, each with the name that it gave to it
/// (`FileDescriptorName=`, sd_listen_fds_with_names(3)). To be called once, before anything else takes descriptors.
///
/// # Errors
/// When the environment promises descriptors that are not there.
pub fn activated() -> io::Result<Vec<(String, OwnedFd)>> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    // They are for the process of that number, and not for what it has started.
    if number("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, ACTIVATED_MOST);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (ACTIVATED_FIRST..ACTIVATED_FIRST + count)
        .map(|number| {
            let name = names.next().unwrap_or_default().to_owned();
            Ok((name, inherited(number)?))
        })
        .collect()
}

/// Anonymous memory that holds these bytes and can never be changed again, to be read from its start.
///
/// Each reader needs one of its own: duplicates share the position.
///
/// # Errors
/// When memory or descriptors are short.
pub fn sealed_memory(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory(name)?);
    file.write_all(content)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Memory that can be mapped, but not run as a program: where `vm.memfd_noexec` is 2 no other is to be had. Kernels before
/// 6.3 do not know the flag.
fn memory(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        result => Ok(result?),
    }
}

/// A connected pair of stream sockets.
///
/// # Errors
/// When descriptors are short.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::IntoRawFd};

    use super::*;

    #[test]
    fn sealed_memory_holds_its_bytes_and_takes_no_others() {
        let mut file = File::from(sealed_memory("test", b"print()").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "print()");
        assert_eq!(
            file.write(b"x").unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        assert_eq!(
            file.set_len(0).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        assert!(
            rustix::io::fcntl_getfd(&file)
                .unwrap()
                .contains(FdFlags::CLOEXEC)
        );
    }

    #[test]
    fn only_what_is_inherited_can_be_taken() {
        let (ours, _peer) = socket_pair().unwrap();
        let number = ours.into_raw_fd();
        assert_eq!(
            inherited(number).unwrap_err().to_string(),
            format!("descriptor {number} is not inherited")
        );
        // SAFETY: ours since `into_raw_fd`; what an exec would leave behind has no close-on-exec.
        rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::empty())
            .unwrap();
        let taken = inherited(number).unwrap();
        assert!(
            rustix::io::fcntl_getfd(&taken)
                .unwrap()
                .contains(FdFlags::CLOEXEC)
        );
        assert!(inherited(number).is_err(), "taken twice");
        assert!(inherited(-1).is_err());
        assert!(inherited(1_000_000).is_err());
    }
}
