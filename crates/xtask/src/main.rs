//! Tasks of this repository that are not part of the product: `cargo xtask bench`, `cargo xtask soak`, `cargo xtask train`,
//! `cargo xtask dist`, `cargo xtask book`.

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares of what was measured"
)]
mod bench;
mod book;
mod compile;
mod dist;
mod floor;
mod train;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

/// Tasks of the stack repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure the release build against its peers, in one run on this machine.
    Bench(bench::Options),
    /// Let something go wrong each second under all kinds of clients, and judge what came of it.
    Soak(bench::deploy::soak::Options),
    /// Let a build that counts its branches serve, and keep the counts that releases are compiled with.
    Train(train::Options),
    /// Make what is released: one binary, a Debian package, a wheel, their contents and checksums.
    Dist(dist::Options),
    /// Make a book of the guides, with every key and every command.
    Book(book::Options),
    /// Serve with nothing but system calls: what the bench compares with.
    #[command(hide = true)]
    Floor(floor::Options),
}

fn main() -> Result<()> {
    match Args::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Soak(options) => bench::deploy::soak::run(&options),
        Task::Train(options) => train::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Book(options) => book::run(&options),
        Task::Floor(options) => floor::run(&options),
    }
}

/// The checkout that this program was built from.
fn repository() -> Result<PathBuf> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crates.ancestors().nth(2);
    Ok(root.context("crates/xtask is two folders deep")?.to_owned())
}

/// Cargo, of the toolchain that the checkout names: rustup finds it by the folder, unless `cargo xtask` has found it before.
fn cargo_in(repository: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository);
    command
}

/// Runs a command to its end and takes what it prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that shows what it does.
fn run_command(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
