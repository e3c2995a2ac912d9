//! What a release consists of: the module that workers load is built first, then the binary around it.
//!
//! Whoever counts, measures or releases builds it in this way and no other. What else is built in the same call has a say in the
//! features of what both depend on, those in the compiler's names of functions, and by those [`crate::train`]'s counts are found.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::run_command;

/// What a checkout is compiled to.
#[derive(Debug)]
pub(crate) struct Built {
    /// The program, with the module in it.
    pub(crate) binary: PathBuf,
    /// The module alone.
    pub(crate) module: PathBuf,
}

/// Builds both; `cargo` makes a command that builds what it is told, and `folder` is where that leaves it.
pub(crate) fn release(folder: &Path, cargo: impl Fn(&[&str]) -> Result<Command>) -> Result<Built> {
    let built = Built {
        binary: folder.join("stack"),
        module: folder.join("lib_stack.so"),
    };
    run_command(&mut cargo(&["--package", "python", "--lib"])?)?;
    let mut binary = cargo(&["--package", "stack", "--bin", "stack"])?;
    run_command(binary.env("STACK_EMBED_MODULE", &built.module))?;
    Ok(built)
}
