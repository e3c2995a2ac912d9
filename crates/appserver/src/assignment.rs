//! What a worker is told when it starts, and what it and the master say to each other afterwards.
//!
//! The assignment is one JSON document in a sealed memfd. The conversation is lines of JSON over a socketpair.

use std::{os::fd::RawFd, path::PathBuf};

use config::site::Entry;
use serde::{Deserialize, Serialize};

/// The build that this code belongs to. Binary and module must agree on it.
pub const BUILD_ID: &str = env!("STACK_BUILD_ID");

/// The script that a worker's Python runs: it refuses unsuitable interpreters, then loads the module and hands over.
pub const BOOTSTRAP: &str = include_str!("../../python/src/bootstrap.py");

/// A worker's task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The build that made the binary; the module refuses any other.
    pub build: String,
    /// The app's name.
    pub app: String,
    /// The worker's number.
    pub number: u32,
    /// What to import.
    pub entry: Entry,
    /// Called once the app is imported, before the slots accept.
    pub on_start: Option<Entry>,
    /// Called once the slots have ended.
    pub on_stop: Option<Entry>,
    /// First on `sys.path`; already the working directory.
    pub root: PathBuf,
    /// How many slots.
    pub threads: u16,
    /// How many workers the app has (for `wsgi.multiprocess`).
    pub workers: u16,
    /// Descriptor of the listening Unix socket.
    pub listener: RawFd,
    /// Descriptor of the worker's end of the conversation.
    pub control: RawFd,
    /// The user whose connections are accepted (`SO_PEERCRED`): the proxy's.
    pub proxy_uid: u32,
    /// Descriptor of the scoreboard ([`supervisor::scoreboard`]).
    pub scoreboard: RawFd,
    /// Descriptor that [`DUMP_SIGNAL`] writes to.
    pub dump: RawFd,
    /// After so many requests it says [`Report::Worn`], once.
    pub max_requests: Option<u64>,
    /// Whether the proxy gets tracebacks, for who develops the app.
    pub dev: bool,
}

/// The signal at which a worker writes where each of its threads is, from the signal handler itself and therefore even when
/// C code holds the GIL (`faulthandler.register`). The last but one of the real-time signals, which no library claims.
pub const DUMP_SIGNAL: i32 = 63;

/// From the worker to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The app is imported and the slots accept.
    Ready,
    /// The app cannot be served; the worker exits after this.
    Failed {
        /// One line: `ModuleNotFoundError: No module named 'flask'`.
        why: String,
        /// The traceback as Python prints it; may be empty.
        traceback: String,
    },
    /// It has served `max_requests`, and goes on serving until it is released.
    Worn,
    /// What was asked for by [`Order::Trace`].
    Stacks(Vec<Stack>),
}

/// Where a busy slot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The slot's number.
    pub slot: u16,
    /// As Python prints a stack, the innermost frame last.
    pub text: String,
}

/// From the master to the worker. The end of the stream means the same as `Drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// No new request will come; go on with those that run.
    Retire,
    /// Accept nothing more; leave when the last connection has ended.
    Drain,
    /// Say where the busy slots are.
    Trace,
}
