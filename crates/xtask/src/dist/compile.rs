//! The binary: the module that workers load is built first, then the binary around it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{cargo_in, run_command, train};

/// Its own folder: the flags differ from those of every other build.
const FOLDER: &str = "target/dist-build";

/// What a checkout is compiled to.
#[derive(Debug)]
pub(super) struct Built {
    /// The program, with the module in it.
    pub(super) binary: PathBuf,
    /// The module alone.
    pub(super) module: PathBuf,
}

/// Builds it, with one of the profiles of `Cargo.toml`.
pub(super) fn run(repository: &Path, epoch: u64, profile: &str) -> Result<Built> {
    let built = repository.join(FOLDER).join(profile);
    let cargo = |what: &[&str]| cargo(repository, epoch, profile, what);
    run_command(&mut cargo(&["--package", "python", "--lib"])?)?;
    let module = built.join("lib_stack.so");
    let mut binary = cargo(&["--package", "stack", "--bin", "stack"])?;
    run_command(binary.env("STACK_EMBED_MODULE", &module))?;
    Ok(Built {
        binary: built.join("stack"),
        module,
    })
}

fn cargo(repository: &Path, epoch: u64, profile: &str, what: &[&str]) -> Result<Command> {
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
    let counts = match profile {
        "dist" => train::flags(repository)?,
        // Counts are kept by names, and what is optimised otherwise has others.
        _ => Vec::new(),
    };
    let flags = [ours, counts].concat();
    let mut command = cargo_in(repository);
    command
        .args(["build", "--locked", "--profile", profile])
        .args(["--target-dir", FOLDER])
        .args(what)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("RUSTFLAGS", flags.join(" "))
        .env("CFLAGS", map("-ffile-prefix-map"));
    Ok(command)
}
