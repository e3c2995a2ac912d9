//! `[app.NAME]`: a Python application and its workers.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Account, Located};

/// `[app.NAME]`: one Python application and its pool of workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The name in `[app.NAME]`: `[a-z0-9_-]+`.
    pub name: String,
    /// What to import and which attribute of it is the application.
    pub wsgi: Located<Entry>,
    /// Called in each worker once the app is imported, before its first request.
    pub on_start: Option<Located<Entry>>,
    /// Called in each worker that leaves, after its last request.
    pub on_stop: Option<Located<Entry>>,
    /// Working directory, and first on `sys.path`.
    pub root: Located<PathBuf>,
    /// Where the interpreter was asked for.
    pub interpreter: Located<Interpreter>,
    /// How many worker processes.
    pub workers: Workers,
    /// How many slots (threads) in each worker.
    pub threads: u16,
    /// How many live responses (events, streams) it may have at once (503); `None`: as many as half of its slots.
    pub streams: Option<u16>,
    /// Environment on top of the master's own: `env_file`, then `env`.
    pub env: BTreeMap<String, String>,
    /// Folders, absolute, whose files it may answer with (`X-Sendfile`).
    pub sendfile: Vec<Located<PathBuf>>,
    /// Time a request may take until its response head (504).
    pub timeout: Duration,
    /// Time a worker may take until it is ready.
    pub boot_timeout: Duration,
    /// Who its workers run as; `None` for the proxy's user.
    pub account: Option<Account>,
    /// Which permissions the workers' new files lack; `None` for our own mask.
    pub umask: Option<u32>,
    /// How many requests a worker serves until it is replaced, ± 10 %.
    pub max_requests: Option<u64>,
    /// How much memory a worker may have until it is replaced, in bytes of resident set.
    pub max_rss: Option<u64>,
    /// How long a worker serves until it is replaced, ± 10 %.
    pub max_age: Option<Duration>,
    /// How much memory a worker can have at all, in bytes.
    pub memory_max: Option<u64>,
    /// How many descriptors a worker can have.
    pub nofile: Option<u64>,
    /// Whether its workers have temporary files that nobody else sees.
    pub private_tmp: bool,
    /// How a reload brings new workers in.
    pub reload: Strategy,
    /// A command for the shell that must succeed before new workers are started.
    pub before_reload: Option<Located<String>>,
    /// Time that it may take.
    pub before_reload_timeout: Duration,
}

/// How many workers an app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// At least.
    pub least: u16,
    /// At most; the same as `least` where the number is fixed.
    pub most: u16,
}

impl Workers {
    /// Always so many.
    #[must_use]
    pub const fn fixed(number: u16) -> Self {
        Self {
            least: number,
            most: number,
        }
    }

    /// The nearest number within the range.
    #[must_use]
    pub fn clamp(self, number: usize) -> usize {
        number.clamp(self.least.into(), self.most.into())
    }
}

/// How a reload brings new workers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// `"side-by-side"`: all new ones are started beside the old ones, and take over at once.
    SideBySide,
    /// `"rolling"`: one at a time, each old one leaving before the next new one is started.
    Rolling,
}

/// `module:attribute`, or a factory `module:attribute()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Dotted module name.
    pub module: String,
    /// Dotted attribute path inside the module.
    pub attribute: String,
    /// Whether the attribute is called, without arguments, to get the application.
    pub factory: bool,
}

/// Which Python runs an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interpreter {
    /// `venv = "…"`: its `bin/python`.
    Venv(PathBuf),
    /// `python = "…"`: absolute, or a bare name such as `python3.12` that is looked up in `PATH`.
    Path(PathBuf),
    /// Neither was written: `root/.venv`, `root/venv`, else `python3` from `PATH`.
    Search,
}
