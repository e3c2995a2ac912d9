//! What a release consists of: the module that workers load is built first, then the binary around it.
//!
//! Whoever counts, measures or releases builds it in this way and no other. What else is built in the same call has a say in the
//! features of what both depend on, those in the compiler's names of functions, and by those [`crate::train`]'s counts are found.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{cargo_in, run_command};

/// What a checkout is compiled to.
#[derive(Debug)]
pub(crate) struct Built {
    /// The program, with the module in it.
    pub(crate) binary: PathBuf,
    /// The module alone.
    pub(crate) module: PathBuf,
}

/// Builds both as a release is, with flags of the compiler's, into a target folder of its own that is used again and again.
///
/// So the module has its own below. The binary depends on it as well, with features that it does not have alone, and both are one
/// file: in one folder each is built anew because of the other, and the binary with them.
pub(crate) fn again(repository: &Path, target: &Path, flags: &str) -> Result<Built> {
    release(target, &target.join("module"), "release", |target, what| {
        Ok(cargo(repository, target, flags, what))
    })
}

/// A command that builds something with the profile `release` and these flags.
pub(crate) fn cargo(repository: &Path, target: &Path, flags: &str, what: &[&str]) -> Command {
    let mut cargo = cargo_in(repository);
    cargo.args(["build", "--locked", "--release", "--target-dir"]);
    cargo.arg(target).args(what).env("RUSTFLAGS", flags);
    cargo
}

/// Builds both below their target folders, with the profile that has this folder in them; `cargo` makes a command that builds
/// something into a target folder.
pub(crate) fn release(
    target: &Path,
    of_module: &Path,
    profile: &str,
    cargo: impl Fn(&Path, &[&str]) -> Result<Command>,
) -> Result<Built> {
    let built = Built {
        binary: target.join(profile).join("stack"),
        module: of_module.join(profile).join("lib_stack.so"),
    };
    run_command(&mut cargo(of_module, &["--package", "python", "--lib"])?)?;
    let mut binary = cargo(target, &["--package", "stack", "--bin", "stack"])?;
    run_command(binary.env("STACK_EMBED_MODULE", &built.module))?;
    Ok(built)
}
