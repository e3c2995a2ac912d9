//! Whether a release can be repeated: the same sources in another folder give the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Release, make};
use crate::output;

/// Makes everything again from a copy of the checkout and compares it with what was `made`.
pub(super) fn compare(release: &Release, made: &[PathBuf], profile: &str) -> Result<()> {
    let elsewhere = tempfile::tempdir().context("cannot make a folder for the copy")?;
    let copy = elsewhere.path().join("a-checkout-in-another-place");
    copy_checkout(&release.repository, &copy)?;
    let (_, again) = make(copy, elsewhere.path().join("out"), release.epoch, profile)?;
    ensure!(made.len() == again.len(), "twice is not as many files");
    let mut different = Vec::new();
    for (first, second) in made.iter().zip(&again) {
        if let Some(how) = difference(first, second)? {
            different.push(format!("{}: {how}", first.display()));
        }
    }
    if !different.is_empty() {
        bail!(
            "built again in another folder, it is not the same:\n{}",
            different.join("\n")
        );
    }
    say(made.len());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn say(files: usize) {
    println!("built again in another folder: all {files} files are the same, byte by byte");
}

/// What Git knows, as it is now.
fn copy_checkout(from: &Path, to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ])
    .current_dir(from);
    let names = output(&mut git).context("`--twice` needs git")?;
    for name in names.split_terminator('\0') {
        let (source, target) = (from.join(name), to.join(name));
        // One that was deleted and not committed yet.
        if !source.exists() {
            continue;
        }
        let folder = target.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder)?;
        fs::copy(&source, &target).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

/// Where two files begin to differ; `None` when they do not.
fn difference(first: &Path, second: &Path) -> Result<Option<String>> {
    let (one, two) = (fs::read(first)?, fs::read(second)?);
    let place = one.iter().zip(&two).position(|(one, two)| one != two);
    Ok(match place {
        Some(place) => Some(format!("from byte {place} on")),
        None if one.len() != two.len() => Some(format!("{} bytes, {}", one.len(), two.len())),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let one = file("one", "abc");
        assert_eq!(difference(&one, &file("same", "abc")).unwrap(), None);
        let place = difference(&one, &file("other", "abd")).unwrap();
        assert_eq!(place.as_deref(), Some("from byte 2 on"));
        let length = difference(&one, &file("longer", "abcd")).unwrap();
        assert_eq!(length.as_deref(), Some("3 bytes, 4"));
    }
}
