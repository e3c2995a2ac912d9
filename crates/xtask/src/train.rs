//! `cargo xtask train`: what a release is compiled for is counted, not guessed (profile-guided optimisation).
//!
//! A request runs through more code than the first cache of a core holds, most of it branches that are not taken. A build that
//! counts its branches serves what servers serve, the counts are kept in the repository, and `dist` and `bench` compile with
//! them: what is taken lies together, what is not lies elsewhere. Kept, so that everybody's release is the same to the byte.
//!
//! Counts are kept by the compiler's names of functions, and those have in them whatever their crate depends on: a function
//! that has changed since is compiled without counts, and when a dependency has, all that stand above it. So whoever compiles
//! with them says how many fit ([`check`]); make them anew before a release.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{bench, compile, output, repository, run_command};

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
    let flag = format!("-Cprofile-generate={}", raw.display());
    let built = compile::again(&repository, &folder, &flag)?;
    // Those of other builds do not fit, and what has run in this one, macros and build scripts, serves nobody.
    if raw.exists() {
        fs::remove_dir_all(&raw).with_context(|| format!("cannot clear {}", raw.display()))?;
    }
    let time = Duration::from_secs(options.seconds);
    bench::serve_cases(CASES, &built.binary, &options.python, time)?;
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

/// Says so where the counts are of another tree than the one that has been compiled into this folder (`deps` of a profile). The
/// compiler does not: a function without counts is a function that never runs.
pub(crate) fn check(repository: &Path, deps: &Path) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let counts = read(&repository.join(COUNTS))?;
    let compiled = read(&newest(deps, "libproxy-", ".rlib")?)?;
    let Fit { same, other } = fit(&counts, &compiled);
    // Some always have other names, since they are made for each crate that calls them: a seventh of a tree that fits.
    if same < 2 * other {
        bench::eprintln_line(&format!(
            "The counts that releases are compiled with are of another tree: {other} functions of the proxy have other names now, \
             {same} have the same. `cargo xtask train` makes them anew."
        ));
    }
    Ok(())
}

/// How many functions that were counted have the same name still, and how many have the same but for the compiler's number. One that
/// was made for several types, and so has several numbers, is the same if one of them is.
#[derive(Debug, PartialEq, Eq)]
struct Fit {
    same: usize,
    other: usize,
}

fn fit(counts: &[u8], compiled: &[u8]) -> Fit {
    let now = numbers(compiled);
    let mut fit = Fit { same: 0, other: 0 };
    for (name, counted) in numbers(counts) {
        match now.get(name) {
            Some(now) if now.is_disjoint(&counted) => fit.other += 1,
            Some(_) => fit.same += 1,
            None => {}
        }
    }
    fit
}

/// The compiler's numbers of each name.
fn numbers(text: &[u8]) -> HashMap<&[u8], HashSet<&[u8]>> {
    let mut numbers: HashMap<&[u8], HashSet<&[u8]>> = HashMap::new();
    for (name, number) in names(text) {
        numbers.entry(name).or_default().insert(number);
    }
    numbers
}

/// The names of functions in whatever holds such as text, each without the number at its end, and that: `_ZN…17h` and sixteen
/// hexadecimal digits.
fn names(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    const NUMBER: &[u8] = b"17h";
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    text.split(move |byte| !is_part(byte)).flat_map(|word| {
        // Names may stand side by side.
        memchr::memmem::find_iter(word, b"_ZN").filter_map(|at| {
            let name = &word[at..];
            let number = memchr::memmem::find(name, NUMBER)? + NUMBER.len();
            let end = number + 16;
            let digits = name.get(number..end)?;
            let is_name = digits.iter().all(u8::is_ascii_hexdigit) && name.get(end) == Some(&b'E');
            is_name.then_some((&name[..number], digits))
        })
    })
}

fn newest(folder: &Path, start: &str, end: &str) -> Result<PathBuf> {
    let mut found = None;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(start) && name.ends_with(end) {
            let modified = entry.metadata()?.modified()?;
            found = found.max(Some((modified, entry.path())));
        }
    }
    let (_, path) = found.with_context(|| format!("no {start}*{end} in {}", folder.display()))?;
    Ok(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_another_tree_are_known_by_their_names() {
        let compiled = b"\0_ZN5proxy3one17h0123456789abcdefE\0\0_ZN5proxy3two17h0123456789abcdefE_ZN5proxy5three17h0000000000000000E\0";
        let counts = b"\x01_ZN5proxy3one17h0123456789abcdefE\x02\x03lib.rs;_ZN5proxy3two17hffffffffffffffffE\
            \0_ZN5proxy3one17h9999999999999999E\0_ZN5proxy4gone17h0123456789abcdefE\
            \0_ZN5proxy5three17h0000000000000000E\0_ZN5other17hno_number";
        assert_eq!(fit(counts, compiled), Fit { same: 2, other: 1 });
        assert_eq!(fit(b"", compiled), Fit { same: 0, other: 0 });
    }
}
