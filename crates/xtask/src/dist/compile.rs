//! The binary: the module that workers load is built first, then the binary around it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::run_command;

/// Its own folder: the flags differ from those of every other build.
const FOLDER: &str = "target/dist-build";

/// Builds it; returns where it is.
pub(super) fn run(repository: &Path, epoch: u64) -> Result<PathBuf> {
    let folder = repository.join(FOLDER);
    let built = folder.join("dist");
    run_command(&mut cargo(
        repository,
        epoch,
        &["--package", "python", "--lib"],
    )?)?;
    let module = built.join("lib_stack.so");
    let mut binary = cargo(repository, epoch, &["--package", "stack", "--bin", "stack"])?;
    run_command(binary.env("STACK_EMBED_MODULE", &module))?;
    Ok(built.join("stack"))
}

fn cargo(repository: &Path, epoch: u64, what: &[&str]) -> Result<Command> {
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
    let mut command = Command::new(env!("CARGO"));
    command
        .args([
            "build",
            "--locked",
            "--profile",
            "dist",
            "--target-dir",
            FOLDER,
        ])
        .args(what)
        .current_dir(repository)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("RUSTFLAGS", map("--remap-path-prefix"))
        .env("CFLAGS", map("-ffile-prefix-map"));
    Ok(command)
}
