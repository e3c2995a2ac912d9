//! How workers are, for whoever asks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use supervisor::scoreboard::Entry;
use telemetry::text::{Elapsed, visible};

/// How a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// `web·3`.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// See [`crate::pool::Pool::state`].
    pub state: String,
    /// Since when its process lives, in seconds.
    pub age: u64,
    /// Its resident set, in bytes.
    pub rss: u64,
    /// How many requests it has answered.
    pub requests: u64,
    /// Its slots; one that could not be read is missing.
    pub slots: Vec<SlotStatus>,
}

/// How a slot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number, from 1.
    pub slot: u16,
    /// How many requests it has answered.
    pub requests: u64,
    /// What it does.
    pub request: Option<RequestStatus>,
}

/// A request in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Its id in every log.
    pub id: String,
    /// `GET`.
    pub method: String,
    /// The path as the client sent it, made harmless; long ones are cut. Queries have secrets in them, and which they are the
    /// proxy's log knows.
    pub target: String,
    /// For how long, in milliseconds.
    pub since: u64,
}

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerTrace {
    /// `web·3`.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// Where its busy slots are.
    pub slots: Vec<SlotTrace>,
    /// Where all its threads are, the innermost frame first: when it could not say more, because C code holds the GIL or
    /// because it still starts.
    pub dump: Option<String>,
}

/// Where a slot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTrace {
    /// Its number, from 1.
    pub slot: u16,
    /// What it does; `None` when that ended in this moment.
    pub request: Option<RequestStatus>,
    /// As Python prints a stack, the innermost frame last.
    pub stack: String,
}

impl From<&Entry> for SlotStatus {
    fn from(entry: &Entry) -> Self {
        Self {
            slot: entry.slot,
            requests: entry.count,
            request: RequestStatus::of(entry),
        }
    }
}

impl RequestStatus {
    pub(in crate::pool) fn of(entry: &Entry) -> Option<Self> {
        let running = entry.request.as_ref()?;
        Some(Self {
            id: shown(&running.id),
            method: shown(&running.method),
            target: shown(path(&running.target)),
            since: u64::try_from(running.since.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

fn path(target: &[u8]) -> &[u8] {
    target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default()
}

/// `8f3a… (GET /report) for 3.2 s`.
impl std::fmt::Display for RequestStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            id,
            method,
            target,
            since,
        } = self;
        let since = Elapsed(Duration::from_millis(*since));
        write!(f, "{id} ({method} {target}) for {since}")
    }
}

/// What a worker wrote, as text that can do no harm.
fn shown(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    visible(bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
