//! The Debian package: the binary, the units, man pages and completions, and an example that serves at once.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::Release;
use crate::{output, run_command};

/// The package; `stack` is another program's name in Debian (haskell-stack).
const NAME: &str = "stack-server";

const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;

/// What is copied from the repository: from, to, mode.
const FILES: [(&str, &str, u32); 13] = [
    (
        "deploy/stack.service",
        "usr/lib/systemd/system/stack.service",
        FILE,
    ),
    (
        "deploy/stack-users.service",
        "usr/lib/systemd/system/stack-users.service",
        FILE,
    ),
    (
        "deploy/stack@.service",
        "usr/lib/systemd/system/stack@.service",
        FILE,
    ),
    (
        "deploy/stack-http.socket",
        "usr/lib/systemd/system/stack-http.socket",
        FILE,
    ),
    (
        "deploy/stack-https.socket",
        "usr/lib/systemd/system/stack-https.socket",
        FILE,
    ),
    (
        "deploy/stack.sysusers",
        "usr/lib/sysusers.d/stack.conf",
        FILE,
    ),
    (
        "deploy/stack.tmpfiles",
        "usr/lib/tmpfiles.d/stack.conf",
        FILE,
    ),
    ("deploy/stack.logrotate", "etc/logrotate.d/stack", FILE),
    ("deploy/stack.ufw", "etc/ufw/applications.d/stack", FILE),
    ("deploy/site.toml", "etc/stack/site.toml", FILE),
    (
        "config/reference.toml",
        "usr/share/doc/stack-server/reference.toml",
        FILE,
    ),
    ("README.md", "usr/share/doc/stack-server/README.md", FILE),
    (
        "deploy/debian/copyright",
        "usr/share/doc/stack-server/copyright",
        FILE,
    ),
];

/// What belongs to whoever administers the machine; upgrades ask before they change it.
const CONFFILES: &str =
    "/etc/logrotate.d/stack\n/etc/stack/site.toml\n/etc/ufw/applications.d/stack\n";

/// Builds it; returns where it is.
pub(super) fn make(release: &Release) -> Result<PathBuf> {
    let tree = release.out.join("deb");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    put(&tree, "usr/bin/stack", PROGRAM, &fs::read(&release.binary)?)?;
    for (from, to, mode) in FILES {
        let path = release.repository.join(from);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        put(&tree, to, mode, &content)?;
    }
    pages(release, &tree)?;
    compressed(
        &tree,
        "usr/share/doc/stack-server/changelog.gz",
        &fs::read(release.repository.join("CHANGELOG.md"))?,
    )?;
    put(&tree, "DEBIAN/conffiles", FILE, CONFFILES.as_bytes())?;
    for script in ["postinst", "prerm", "postrm"] {
        let content = fs::read(release.repository.join("deploy/debian").join(script))?;
        put(&tree, &format!("DEBIAN/{script}"), PROGRAM, &content)?;
    }
    let control = control(release, &tree)?;
    put(&tree, "DEBIAN/control", FILE, control.as_bytes())?;
    let path = release
        .out
        .join(format!("{NAME}_{}_amd64.deb", release.version));
    run_command(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&tree)
            .arg(&path)
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(path)
}

fn put(tree: &Path, to: &str, mode: u32, content: &[u8]) -> Result<()> {
    let path = tree.join(to);
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(&path, content)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    // Whatever our mask is: folders of a package can be entered.
    for folder in folder.ancestors().take_while(|folder| *folder != tree) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Without a time inside (`gzip -n`).
fn compressed(tree: &Path, to: &str, content: &[u8]) -> Result<()> {
    use std::io::Write as _;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    put(tree, to, FILE, &encoder.finish()?)
}

/// Man pages and completions are made by the binary itself.
fn pages(release: &Release, tree: &Path) -> Result<()> {
    let folder = release.out.join("man");
    run_command(
        Command::new(&release.binary)
            .args(["man", "--dir"])
            .arg(&folder),
    )?;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .context("a page has a name")?
            .display()
            .to_string();
        let to = format!("usr/share/man/man1/{name}.gz");
        compressed(tree, &to, &fs::read(&path)?)?;
    }
    fs::remove_dir_all(&folder)?;
    for (shell, to) in [
        ("bash", "usr/share/bash-completion/completions/stack"),
        ("zsh", "usr/share/zsh/vendor-completions/_stack"),
        ("fish", "usr/share/fish/vendor_completions.d/stack.fish"),
    ] {
        let script = output(Command::new(&release.binary).args(["completions", shell]))?;
        put(tree, to, FILE, script.as_bytes())?;
    }
    Ok(())
}

fn control(release: &Release, tree: &Path) -> Result<String> {
    let size = installed_size(tree)?;
    let (version, glibc) = (&release.version, release.glibc);
    Ok(format!(
        "Package: {NAME}\nVersion: {version}\nArchitecture: amd64\nMaintainer: The stack developers <stack@localhost>\n\
         Installed-Size: {size}\nDepends: libc6 (>= {glibc}), libgcc-s1, init-system-helpers\n\
         Recommends: python3 (>= 3.10), python3-venv\nSuggests: logrotate\nConflicts: haskell-stack\n\
         Section: web\nPriority: optional\nHomepage: https://github.com/stack-server/stack\n\
         Description: web server for Python apps: reverse proxy and app server in one\n \
         Serves WSGI apps such as Flask and Django, and their files, over HTTP/1.1,\n \
         HTTP/2 and TLS: what nginx and gunicorn do together, in one program that is\n \
         described by one file. Apps run in their own virtual environments.\n"
    ))
}

/// In KiB, each file rounded up and one for each folder (deb-substvars(5)): not what a file system makes of it, which differs
/// from machine to machine.
fn installed_size(tree: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let about = entry.metadata()?;
        size += if about.is_dir() {
            1 + installed_size(&entry.path())?
        } else {
            about.len().div_ceil(1024)
        };
    }
    Ok(size)
}
