//! What a run needs: our build, the peers' virtual environment, the apps.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::apps;
use crate::{compile, train};

/// Where things are.
#[derive(Clone)]
pub(crate) struct Place {
    /// Cargo's folder for everything that is made.
    pub(crate) target: PathBuf,
    /// Our binary.
    pub(crate) stack: PathBuf,
    /// The module in it, if it was built here.
    module: Option<PathBuf>,
    /// The folder of the apps that every server serves.
    pub(super) app: PathBuf,
    /// The peers' virtual environment.
    pub(super) venv: PathBuf,
    /// Whether our proxy may write files of its own, which it needs to when it is trained ([`crate::train`]).
    pub(super) unconfined: bool,
}

/// Pinned, so that figures of different days speak of the same peers.
pub(crate) const PEERS: &[&str] = &[
    "flask==3.1.3",
    "gunicorn==27.0.1",
    "granian==2.8.7",
    "waitress==3.0.2",
    "uwsgi==2.0.31",
    "django==5.2.19",
];

/// Where that is built which is measured.
const MEASURED: &str = "target/measured";

impl Place {
    /// Builds what is ours, unless it is given, and installs what is theirs, for this Python.
    pub(crate) fn prepare(stack: Option<&Path>, python: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("no workspace")?;
        let target = root.join("target");
        let mut module = None;
        let stack = match stack {
            Some(stack) => there(stack)?,
            // Compiled as a release is, in a folder of its own: the flags differ from those of every other build.
            None => {
                let measured = root.join(MEASURED);
                let flags = train::flags(root)?.join(" ");
                let built = compile::again(root, &measured, &flags)?;
                train::check(root, &measured.join("release/deps"))?;
                let slot = ["--package", "appserver", "--example", "bare_slot"];
                succeed(&mut compile::cargo(root, &measured, &flags, &slot))?;
                module = Some(built.module);
                built.binary
            }
        };
        let app = target.join("bench-app");
        apps::write(&app)?;
        let venv = venv(&target, python)?;
        Ok(Self {
            target,
            stack,
            module,
            app,
            venv,
            unconfined: false,
        })
    }

    /// The same with another build of ours.
    pub(crate) fn with(&self, stack: &Path) -> Result<Self> {
        Ok(Self {
            stack: there(stack)?,
            module: None,
            ..self.clone()
        })
    }

    /// The same with another app.
    pub(crate) fn serving(&self, app: &Path) -> Self {
        Self {
            app: app.to_owned(),
            ..self.clone()
        }
    }

    /// The folder of a soak: what it has its server stand on.
    pub(crate) fn soak(&self) -> PathBuf {
        Self::soak_below(&self.target)
    }

    /// The same, before there is a place.
    pub(crate) fn soak_below(target: &Path) -> PathBuf {
        target.join("bench-soak")
    }

    /// The interpreter that every server runs on.
    pub(crate) fn python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    /// The module that our workers load: the one in our binary, or what stands beside one that was built elsewhere.
    pub(crate) fn module(&self) -> Result<PathBuf> {
        if let Some(module) = &self.module {
            return Ok(module.clone());
        }
        let folder = self.stack.parent().context("the binary is in no folder")?;
        let places = [
            folder.join("deps/lib_stack.so"),
            folder.join("lib_stack.so"),
        ];
        let found = places.into_iter().find(|path| path.exists());
        found.context("no lib_stack.so beside the binary")
    }
}

fn there(stack: &Path) -> Result<PathBuf> {
    fs::canonicalize(stack).with_context(|| format!("no {}", stack.display()))
}

fn venv(target: &Path, python: &str) -> Result<PathBuf> {
    let version = version(python)?;
    let venv = target.join(format!("bench-venv-{version}"));
    if !venv.join("bin/python").exists() {
        succeed(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
    }
    let mut pip = Command::new(venv.join("bin/pip"));
    let pip = pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    succeed(pip.args(PEERS))?;
    Ok(venv)
}

/// `3.11.7`.
pub(crate) fn version(python: &str) -> Result<String> {
    let say = "import platform; print(platform.python_version())";
    let output = Command::new(python)
        .args(["-c", say])
        .output()
        .with_context(|| format!("cannot run {python}; name another with --python"))?;
    ensure!(
        output.status.success(),
        "{python} does not run; name another with --python"
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
