//! Virtual environments with pinned packages, made once below `target/` and shared by all tests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The program behind `python3`, which may be a script of a version manager that takes longer than Python itself.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let say = "import sys; print(sys.executable)";
        let output = Command::new("python3")
            .args(["-c", say])
            .output()
            .expect("there is a python3");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// A venv of `python3` that has what a requirements file of an example names.
pub fn of_example(example: &str) -> PathBuf {
    let requirements = super::repository()
        .join("examples")
        .join(example)
        .join("requirements.txt");
    make(
        example,
        &fs::read_to_string(&requirements).expect("the example has requirements"),
    )
}

/// A venv of `python3` with these requirements.
pub fn with(name: &str, requirements: &str) -> PathBuf {
    make(name, requirements)
}

/// Makes it, unless one with these very requirements is there. Tests run beside each other, and so may test runs: a lock
/// file lets one make it while the others wait.
fn make(name: &str, requirements: &str) -> PathBuf {
    let folder = folder();
    fs::create_dir_all(&folder).expect("target is ours");
    let lock = File::create(folder.join(format!("{name}.lock"))).expect("target is ours");
    lock.lock().expect("locks work here");
    let venv = folder.join(name);
    let made = venv.join("requirements.txt");
    if fs::read_to_string(&made).is_ok_and(|there| there == requirements) {
        return venv;
    }
    succeed(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    );
    let wanted = folder.join(format!("{name}.txt"));
    fs::write(&wanted, requirements).expect("target is ours");
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ])
    .arg(&wanted);
    succeed(&mut pip);
    fs::write(&made, requirements).expect("target is ours");
    venv
}

fn folder() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_stack"));
    let target = binary.ancestors().nth(2).expect("target/debug/stack");
    target.join("test-venvs")
}

fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
