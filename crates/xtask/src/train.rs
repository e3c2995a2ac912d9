//! `cargo xtask train`: what a release is compiled for is counted, not guessed (profile-guided optimisation).
//!
//! A request runs through more code than the first cache of a core holds, most of it branches that are not taken. A build that
//! counts its branches serves what servers serve, the counts are kept in the repository, and `dist` and `bench` compile with
//! them: what is taken lies together, what is not lies elsewhere. Kept, so that everybody's release is the same to the byte.
//!
//! Functions that have changed since are compiled without counts; make them anew before a release.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{bench, cargo_in, output, repository, run_command};

/// The counts.
const COUNTS: &str = "crates/xtask/release.profdata";

/// Where the build that counts is made, and where it leaves what it has counted.
const FOLDER: &str = "target/trained";

/// What is served: a proxy's work by each protocol, a worker's by each kind of message, and files.
const CASES: &[&str] = &[
    "hello",
    "flask",
    "json",
    "post-64k",
    "response-1m",
    "file-1k",
    "file-304",
    "file-100k",
    "file-many",
    "file-tls-1k",
    "file-tls-100k",
    "forward-hello",
    "forward-websocket",
    "tls-handshake",
    "h2-1k",
];

/// What `cargo xtask train` may be told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of load in each case
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// The tool that puts counts together, of LLVM 19 or newer [default: the first of llvm-profdata and llvm-profdata-19 to -22]
    #[arg(long, value_name = "PROGRAM")]
    llvm_profdata: Option<OsString>,
    /// The Python of the workers
    #[arg(long, default_value = "python3.11")]
    python: String,
}

/// Builds, serves, and writes down what was counted.
pub(crate) fn run(options: &Options) -> Result<()> {
    let tool = tool(options.llvm_profdata.as_ref())?;
    let repository = repository()?;
    let folder = repository.join(FOLDER);
    let raw = folder.join("counts");
    let mut build = cargo_in(&repository);
    let build = build.args(["build", "--locked", "--release", "--target-dir", FOLDER]);
    let build = build.args(["--package", "stack", "--package", "python"]);
    let flag = format!("-Cprofile-generate={}", raw.display());
    run_command(build.env("RUSTFLAGS", flag))?;
    // Those of other builds do not fit, and what has run in this one, macros and build scripts, serves nobody.
    if raw.exists() {
        fs::remove_dir_all(&raw).with_context(|| format!("cannot clear {}", raw.display()))?;
    }
    let stack = folder.join("release/stack");
    let time = Duration::from_secs(options.seconds);
    bench::serve_cases(CASES, &stack, &options.python, time)?;
    let counts = repository.join(COUNTS);
    let mut merge = Command::new(&tool);
    let merge = merge.args(["merge", "--sparse", "--output"]).arg(&counts);
    run_command(merge.args(files(&raw)?))
}

/// What has the compiler use the counts.
pub(crate) fn flags(repository: &Path) -> Result<Vec<String>> {
    let counts = repository.join(COUNTS);
    ensure!(
        counts.exists(),
        "{} is missing: git has it, and `cargo xtask train` makes it",
        counts.display()
    );
    Ok(vec![
        format!("-Cprofile-use={}", counts.display()),
        // That a function has changed since is no news.
        "-Cllvm-args=-no-pgo-warn-mismatch".into(),
    ])
}

/// What was counted, a file for each program.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = fs::read_dir(folder)
        .with_context(|| format!("nothing was counted: there is no {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in found {
        files.push(entry?.path());
    }
    // The module and the binary.
    ensure!(files.len() >= 2, "only {files:?} was counted");
    Ok(files)
}

fn tool(named: Option<&OsString>) -> Result<OsString> {
    let usual = ["", "-22", "-21", "-20", "-19"];
    let usual = usual.map(|version| OsString::from(format!("llvm-profdata{version}")));
    let mut candidates = named
        .map_or_else(|| usual.to_vec(), |named| vec![named.clone()])
        .into_iter();
    let runs = |tool: &OsString| output(Command::new(tool).arg("--version")).is_ok();
    candidates.find(runs).context(
        "no llvm-profdata runs here; it is in the package llvm-19 and in rustup's component llvm-tools; name it with \
         --llvm-profdata",
    )
}
