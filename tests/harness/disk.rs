//! A disk that can be full: a file system in memory, of so many bytes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Mounted as long as this lives.
pub struct Disk(PathBuf);

impl Disk {
    /// At this folder, which is made, and ours alone. `None`, and loudly, for who may not mount.
    pub fn mount(folder: &Path, bytes: u32) -> Option<Self> {
        fs::create_dir_all(folder).expect("the folder is ours");
        let disk = Self(folder.to_owned());
        if !rustix::process::geteuid().is_root() || !disk.set("size", bytes) {
            println!("!!! NOT TESTED: only root can mount a disk that is full");
            std::mem::forget(disk);
            return None;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
        Some(disk)
    }

    /// There is more room from now on.
    pub fn grow(&self, bytes: u32) {
        assert!(self.set("remount,size", bytes), "a larger one is no harm");
    }

    fn set(&self, option: &str, bytes: u32) -> bool {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("{option}={bytes}"), "tests"]);
        mount
            .arg(&self.0)
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file there keeps it; the name is free.
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
