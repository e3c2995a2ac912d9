//! What the binary says of its build, and the module that workers load, when it is told where that module is.
//!
//! Cargo builds binary and module in one go and so cannot put one into the other. `cargo xtask dist` builds twice: the module
//! first, then the binary with `STACK_EMBED_MODULE` set, so that a release is one file. A checkout has an empty one here and
//! takes the file beside the executable.

use std::{env, fs, io, path::Path, process::Command};

/// Absolute path of the module, `lib_stack.so`.
const VARIABLE: &str = "STACK_EMBED_MODULE";

fn main() -> io::Result<()> {
    describe();
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

/// What `stack --version` says beside the version and the build id, which `appserver` makes. Nothing of the sources is asked
/// for: a script that ran at each change would cost more than it says.
fn describe() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=STACK_COMMIT");
    for (name, from) in [
        ("STACK_TARGET", "TARGET"),
        ("STACK_PROFILE", "PROFILE"),
        // A release names the commit it is made of; a build of a working copy may be of none.
        ("STACK_BUILT_FROM", "STACK_COMMIT"),
    ] {
        let value = env::var(from).unwrap_or_else(|_| "a working copy".to_owned());
        println!("cargo::rustc-env={name}={value}");
    }
    println!("cargo::rustc-env=STACK_RUSTC={}", compiler());
}

fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().ok();
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "rustc".to_owned(), |text| text.trim().to_owned())
}
