//! `SHA256SUMS`, as `sha256sum --check` reads it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};

use super::Release;

pub(super) fn make(release: &Release, files: &[PathBuf]) -> Result<PathBuf> {
    let mut text = String::new();
    for path in files {
        let name = path.file_name().context("a file has a name")?;
        let sum = hex(digest(&SHA256, &fs::read(path)?).as_ref());
        text.push_str(&format!("{sum}  {}\n", name.display()));
    }
    let path = release.out.join("SHA256SUMS");
    fs::write(&path, text)?;
    Ok(path)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
