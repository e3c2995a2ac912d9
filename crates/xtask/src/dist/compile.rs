//! The binary, the same to the byte wherever it is built.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    cargo_in,
    compile::{self, Built},
    train,
};

/// Its own folder: the flags differ from those of every other build.
const FOLDER: &str = "target/dist-build";

/// Builds it, with one of the profiles of `Cargo.toml`.
pub(super) fn run(repository: &Path, epoch: u64, profile: &str) -> Result<Built> {
    let folder = repository.join(FOLDER);
    let cargo = |target: &Path, what: &[&str]| cargo(repository, target, epoch, profile, what);
    let release = compile::release(&folder, &folder, profile, cargo)?;
    if is_counted(profile) {
        train::check(repository, &folder.join(profile).join("deps"))?;
    }
    Ok(release)
}

fn cargo(
    repository: &Path,
    target: &Path,
    epoch: u64,
    profile: &str,
    what: &[&str],
) -> Result<Command> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    // Where this was built is nobody's business, and would make every machine's binary another one.
    let places = [(repository, "/stack"), (&cargo_home, "/cargo")];
    let map = |flag: &str| {
        let flags = places.map(|(from, to)| format!("{flag}={}={to}", from.display()));
        flags.join(" ")
    };
    let strip = "-Cstrip=symbols".to_owned();
    let ours = vec![map("--remap-path-prefix"), strip];
    let counts = match is_counted(profile) {
        true => train::flags(repository)?,
        false => Vec::new(),
    };
    let flags = [ours, counts].concat();
    let mut command = cargo_in(repository);
    command
        .args(["build", "--locked", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .args(what)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("RUSTFLAGS", flags.join(" "))
        .env("CFLAGS", map("-ffile-prefix-map"));
    Ok(command)
}

/// Whether counts are for this profile: they are kept by names, and what is optimised otherwise has others.
fn is_counted(profile: &str) -> bool {
    profile == "dist"
}
