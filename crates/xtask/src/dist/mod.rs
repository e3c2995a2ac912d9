//! `cargo xtask dist`: what is released, made from this checkout: one binary with the Python module inside, a Debian package, a
//! wheel, a list of what is in them, and checksums.
//!
//! The same commit gives the same bytes on the same toolchain and C compiler: times are the commit's, paths are cut out.

mod compile;
mod deb;
mod elf;
mod sbom;
mod sums;
mod wheel;
mod zip;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// What is released is for this kind of machine.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `cargo xtask dist` may be told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where everything is put
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// Package this binary instead of building one; the tests of packages do so
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What all parts need to know.
#[derive(Debug)]
struct Release {
    /// The checkout.
    repository: PathBuf,
    /// Where everything is put.
    out: PathBuf,
    /// `0.1.0`.
    version: String,
    /// The time that everything carries, in seconds since 1970.
    epoch: u64,
    /// The binary.
    binary: PathBuf,
    /// The newest version of glibc that it needs.
    glibc: elf::Glibc,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "releases are for {TARGET}, and this is another kind of machine"
    );
    let repository = repository()?;
    let out = repository.join(&options.out);
    fs::create_dir_all(&out)?;
    let epoch = epoch(&repository)?;
    let built = match &options.binary {
        Some(binary) => binary.clone(),
        None => compile::run(&repository, epoch)?,
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let binary = out.join(format!("stack-{version}-linux-x86_64"));
    fs::copy(&built, &binary).with_context(|| format!("cannot copy {}", built.display()))?;
    let glibc = elf::glibc(&binary)?;
    ensure!(
        glibc <= elf::BASELINE,
        "the binary needs glibc {glibc}, and releases promise {}",
        elf::BASELINE
    );
    let release = Release {
        repository,
        out,
        version,
        epoch,
        binary,
        glibc,
    };
    let made = [
        release.binary.clone(),
        deb::make(&release)?,
        wheel::make(&release)?,
        sbom::make(&release)?,
    ];
    let sums = sums::make(&release, &made)?;
    show(&release, made.iter().chain([&sums]))
}

#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn show<'a>(release: &Release, made: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    for path in made {
        println!("{:>12}  {}", fs::metadata(path)?.len(), path.display());
    }
    println!("needs glibc {} or later", release.glibc);
    Ok(())
}

/// The checkout that this program was built from.
fn repository() -> Result<PathBuf> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crates.ancestors().nth(2);
    Ok(root.context("crates/xtask is two folders deep")?.to_owned())
}

/// `SOURCE_DATE_EPOCH` (reproducible-builds.org), else the time of the commit.
fn epoch(repository: &Path) -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(repository);
    let text = output(&mut git).context("set SOURCE_DATE_EPOCH where there is no git")?;
    Ok(text.trim().parse()?)
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
