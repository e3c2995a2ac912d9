//! `cargo xtask dist`: what is released, made from this checkout: one binary with the Python module inside, a Debian package, a
//! wheel, a list of what is in them, and checksums.
//!
//! The same commit gives the same bytes on the same toolchain and C compiler: times are the commit's, paths are cut out.
//! `--twice` proves it, with a copy of the checkout in another folder.

mod compile;
mod deb;
mod elf;
mod sbom;
mod sums;
mod twice;
mod wheel;
mod zip;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{output, repository};

/// What is released is for this kind of machine.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `cargo xtask dist` may be told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where everything is put
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// Build with this profile; `trial` takes a third of the time and is for trying packages, not for releases
    #[arg(long, value_name = "NAME", default_value = "dist")]
    profile: String,
    /// Make all of it again from a copy of the checkout in another folder, and compare
    #[arg(long)]
    twice: bool,
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
    let epoch = epoch(&repository)?;
    let (release, made) = make(repository, out, epoch, &options.profile)?;
    show(&release, &made)?;
    if options.twice {
        twice::compare(&release, &made, &options.profile)?;
    }
    Ok(())
}

/// Makes everything of a checkout; returns the files.
fn make(
    repository: PathBuf,
    out: PathBuf,
    epoch: u64,
    profile: &str,
) -> Result<(Release, Vec<PathBuf>)> {
    fs::create_dir_all(&out)?;
    let built = compile::run(&repository, epoch, profile)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let binary = out.join(format!("stack-{version}-linux-x86_64"));
    fs::copy(&built.binary, &binary)
        .with_context(|| format!("cannot copy {}", built.binary.display()))?;
    // The module is loaded by Pythons of the same machine, but none of its symbols are the binary's.
    let glibc = elf::glibc(&binary)?.max(elf::glibc(&built.module)?);
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
    let mut made = vec![
        release.binary.clone(),
        deb::make(&release)?,
        wheel::make(&release)?,
        sbom::make(&release)?,
    ];
    made.push(sums::make(&release, &made)?);
    Ok((release, made))
}

#[expect(clippy::print_stdout, reason = "the result of a tool for developers")]
fn show(release: &Release, made: &[PathBuf]) -> Result<()> {
    for path in made {
        println!("{:>12}  {}", fs::metadata(path)?.len(), path.display());
    }
    println!("needs glibc {} or later", release.glibc);
    Ok(())
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
