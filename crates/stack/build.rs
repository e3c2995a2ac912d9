//! Puts the module that workers load into the binary, when it is told where that module is: a release is one file.
//!
//! Cargo builds binary and module in one go and so cannot put one into the other. `cargo xtask dist` builds twice: the module
//! first, then the binary with `STACK_EMBED_MODULE` set. A checkout has an empty one here and takes the file beside the
//! executable.

use std::{env, fs, io, path::Path};

/// Absolute path of the module, `lib_stack.so`.
const VARIABLE: &str = "STACK_EMBED_MODULE";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let module = match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(path)?
        }
        None => Vec::new(),
    };
    fs::write(Path::new(&out).join("module"), module)
}
