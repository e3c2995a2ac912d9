//! What is written down, how and where.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::Located;

/// Where access records go and how they look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The destination.
    pub to: LogTarget,
    /// The format; `None` means one that suits the destination: pretty for a terminal, else combined.
    pub format: Option<LogFormat>,
    /// When its file is moved aside; `None` leaves that to others.
    pub rotation: Option<Rotation>,
}

impl AccessLog {
    /// Whether both mean the same, wherever the file says so.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let to = |log: &Self| match &log.to {
            LogTarget::File(path) => Some(path.value.clone()),
            LogTarget::Off | LogTarget::Stdout => None,
        };
        let kind = |log: &Self| std::mem::discriminant(&log.to);
        to(self) == to(other) && kind(self) == kind(other) && self.format == other.format
    }
}

/// When a file is moved aside, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Once it has this many bytes.
    pub size: Option<u64>,
    /// Once it is this old.
    pub age: Option<Duration>,
    /// How many old ones are kept.
    pub keep: u32,
}

/// The log of everything but requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLog {
    /// What is said: `info`, `warn,proxy=debug`.
    pub level: String,
    /// How lines look.
    pub format: ErrorLogFormat,
    /// Where they go; `None` is standard error.
    pub file: Option<Located<PathBuf>>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorLogFormat {
    /// For people, and for the journal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// `"off"`.
    Off,
    /// Standard output, the default.
    Stdout,
    /// A file, appended to.
    File(Located<PathBuf>),
}

/// How an access record looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For eyes: short, in colour on a terminal.
    Pretty,
    /// The combined format of Apache and nginx.
    Combined,
    /// One JSON object a line.
    Json,
    /// A format of the user's own, with `$names`.
    Own(String),
}
