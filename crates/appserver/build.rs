//! Names this build, so that the binary and the module that a worker loads can tell whether they belong together.
//!
//! The name is a hash of the sources that both sides share, not a time: two builds of the same sources are the same.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// What must agree: the wire (`message`), the loop and the assignment (here), the module (`python`).
const SHARED: [&str; 3] = ["../message/src", "src", "../python/src"];

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    for folder in SHARED {
        println!("cargo::rerun-if-changed={folder}");
        collect(Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    env::var_os("PROFILE").hash(&mut hasher);
    for file in &files {
        file.hash(&mut hasher);
        fs::read(file)?.hash(&mut hasher);
    }
    println!(
        "cargo::rustc-env=STACK_BUILD_ID={}-{:016x}",
        env!("CARGO_PKG_VERSION"),
        hasher.finish()
    );
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|end| end == "rs" || end == "py")
        {
            files.push(path);
        }
    }
    Ok(())
}
