//! Figures about everything: their names, how they are counted, and the text that Prometheus reads.
//!
//! A process counts with [`Sharded`] cells, which cost a request some nanoseconds and no lock, and says what it has counted
//! as a [`Snapshot`]. Snapshots of several processes are added up and written as one text. Every name is in [`FAMILIES`]
//! and nowhere else, so that the documentation, the text and the code cannot disagree.

mod encode;
mod histogram;
mod sharded;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    encode::{Format, encode},
    histogram::{BOUNDS, Histogram, Observed},
    sharded::{Counter, Sharded},
};

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the processes live.
    Counter,
    /// Is what it is now.
    Gauge,
    /// How often values of each size came.
    Histogram,
}

impl Kind {
    /// As the text says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A name, and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// `stack_requests`; a counter's samples have `_total` behind it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// By what its samples differ.
    pub labels: &'static [&'static str],
    /// For people.
    pub help: &'static str,
}

macro_rules! families {
    ($($(#[doc = $help:literal])+ $constant:ident: $kind:ident $name:literal [$($label:literal),*];)*) => {
        $(
            $(#[doc = $help])+
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: concat!($($help),+),
            };
        )*
        /// All of them, in the order of the text.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    /// The version that runs; its value is 1.
    BUILD: Gauge "stack_build_info" ["version"];
    /// When the master began, in seconds since 1970.
    STARTED: Gauge "stack_start_time_seconds" [];
    /// Requests that were answered, by site, path of the route and status.
    REQUESTS: Counter "stack_requests" ["site", "route", "code"];
    /// How long they took, from the first byte of the request to the last of the response.
    DURATION: Histogram "stack_request_duration_seconds" ["site", "route"];
    /// Bytes of the contents of requests.
    BYTES_IN: Counter "stack_request_bytes" ["site", "route"];
    /// Bytes of the contents of responses that were sent.
    BYTES_OUT: Counter "stack_response_bytes" ["site", "route"];
    /// Requests that failed, by cause; docs/logs.md has all causes.
    FAILURES: Counter "stack_failures" ["cause"];
    /// How long apps took until their response began.
    APP_DURATION: Histogram "stack_app_duration_seconds" ["app"];
    /// How long requests waited for a slot, of those that had to.
    QUEUE_WAIT: Histogram "stack_queue_wait_seconds" ["app"];
    /// Requests that wait for a slot now.
    QUEUE: Gauge "stack_queue_requests" ["app"];
    /// Slots by what they do: idle, busy, or opening.
    SLOTS: Gauge "stack_slots" ["app", "state"];
    /// Live responses (events and the like) and uploads that are passed on as they come: each takes a slot.
    STREAMS: Gauge "stack_streams" ["app"];
    /// Slots that wait for clients that read slowly, because neither memory nor disk may hold more.
    STALLED: Gauge "stack_slots_stalled" ["app"];
    /// Workers that are ready.
    WORKERS: Gauge "stack_workers" ["app"];
    /// Workers that became ready.
    WORKER_STARTS: Counter "stack_worker_starts" ["app"];
    /// Workers that had served and ended, by why: reload, max_requests, max_rss, max_age, stuck, asked, fewer or stop for those
    /// that left as they were told; overdue for those that had to be killed; else how they died: exit code, signal or out of memory.
    WORKER_EXITS: Counter "stack_worker_exits" ["app", "reason"];
    /// Whether the app could not start, 1, or not, 0.
    APP_FAILED: Gauge "stack_app_failed" ["app"];
    /// Connections that are open.
    CONNECTIONS: Gauge "stack_connections" [];
    /// Connections that were accepted, by listener.
    ACCEPTED: Counter "stack_connections_accepted" ["listener"];
    /// Connections that were closed at once, because their client had as many as one may have.
    REFUSED: Counter "stack_connections_refused" [];
    /// TLS handshakes, by result: TLSv1.2 or TLSv1.3 where they came about, failed or late where not.
    HANDSHAKES: Counter "stack_tls_handshakes" ["result"];
    /// HTTP/2 connections that were closed for keeping us busy for nothing, by what they did.
    ATTACKS: Counter "stack_http2_attacks" ["kind"];
    /// When the certificate of a site ends, in seconds since 1970.
    CERTIFICATE: Gauge "stack_tls_certificate_expiry_timestamp_seconds" ["site"];
    /// When a certificate is ordered next by ACME, in seconds since 1970; it may have passed while an order runs.
    ACME_NEXT: Gauge "stack_acme_next_order_timestamp_seconds" ["site"];
    /// What is closed for maintenance, by a command or by the configuration; its value is 1.
    CLOSED: Gauge "stack_maintenance" ["what"];
    /// Orders that have failed since the last certificate by ACME.
    ACME_FAILURES: Gauge "stack_acme_failures" ["site"];
    /// Orders of certificates by ACME, by result: done or failed.
    ACME_ORDERS: Counter "stack_acme_orders" ["site", "result"];
    /// Bytes that requests and responses hold in memory and on disk.
    BUFFERED: Gauge "stack_buffered_bytes" ["where"];
    /// What they may hold.
    BUFFERED_LIMIT: Gauge "stack_buffered_limit_bytes" ["where"];
    /// Lines of the access log that were dropped because its reader stalled.
    LOG_DROPPED: Counter "stack_access_log_dropped" [];
    /// Lines of the log, and of what workers print, that were dropped because the reader of standard error stalled; by who said them.
    STDERR_DROPPED: Counter "stack_log_dropped" ["process"];
    /// Requests whose spans were sent to the collector of `traces`, or lost because it was away or too slow.
    TRACED: Counter "stack_traced_requests" ["result"];
    /// Times that another proxy had to be started because one had died.
    PROXY_DEATHS: Counter "stack_proxy_deaths" [];
    /// Reloads, by result: done or refused.
    RELOADS: Counter "stack_reloads" ["result"];
    /// Memory that processes hold: the master, the proxy, and the workers of each app together.
    MEMORY: Gauge "stack_process_resident_memory_bytes" ["process"];
    /// Time that they have run on a CPU.
    CPU: Counter "stack_process_cpu_seconds" ["process"];
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// Any other.
    Number(f64),
    /// A histogram.
    Observed(Observed),
}

impl Value {
    fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(one), Self::Count(two)) => *one += two,
            (Self::Number(one), Self::Number(two)) => *one += two,
            (Self::Observed(one), Self::Observed(two)) => one.add(two),
            // A family has one kind of value.
            (one, other) => other.clone_into(one),
        }
    }
}

/// What one process has counted, or several together. As JSON it is a list of samples for each name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Snapshot {
    families: BTreeMap<String, BTreeMap<Vec<String>, Value>>,
}

impl Snapshot {
    /// Adds a figure; `labels` are the values of the family's labels, in order.
    pub fn add<L: Into<String>>(
        &mut self,
        family: &Family,
        labels: impl IntoIterator<Item = L>,
        value: Value,
    ) {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let samples = self.families.entry(family.name.to_owned()).or_default();
        match samples.get_mut(&labels) {
            Some(known) => known.add(&value),
            None => drop(samples.insert(labels, value)),
        }
    }

    /// Adds a count.
    pub fn count<'l>(
        &mut self,
        family: &Family,
        labels: impl IntoIterator<Item = &'l str>,
        count: u64,
    ) {
        self.add(family, labels, Value::Count(count));
    }

    /// Adds all that another one has. Gauges of processes that live at the same time add up, too.
    pub fn merge(&mut self, other: &Self) {
        for (family, samples) in &other.families {
            let known = self.families.entry(family.clone()).or_default();
            for (labels, value) in samples {
                match known.get_mut(labels) {
                    Some(known) => known.add(value),
                    None => drop(known.insert(labels.clone(), value.clone())),
                }
            }
        }
    }

    /// What remains of a process that is gone: what only grows, so that the sum with its successor never shrinks.
    #[must_use]
    pub fn remains(mut self) -> Self {
        self.families.retain(|name, _| {
            let family = FAMILIES.iter().find(|family| family.name == name);
            family.is_some_and(|family| family.kind != Kind::Gauge)
        });
        self
    }

    /// The samples of a family: label values, and figure.
    pub fn samples(&self, family: &Family) -> impl Iterator<Item = (&[String], &Value)> {
        let samples = self.families.get(family.name);
        samples
            .into_iter()
            .flatten()
            .map(|(labels, value)| (labels.as_slice(), value))
    }

    /// The sum of a family's counts whose labels are as asked.
    pub fn total(&self, family: &Family, which: impl Fn(&[String]) -> bool) -> u64 {
        self.samples(family)
            .filter(|(labels, _)| which(labels))
            .map(|(_, value)| match value {
                Value::Count(count) => *count,
                Value::Number(_) | Value::Observed(_) => 0,
            })
            .sum()
    }

    /// A family's histograms whose labels are as asked, together.
    pub fn observed(&self, family: &Family, which: impl Fn(&[String]) -> bool) -> Observed {
        let mut all = Observed::default();
        for (_, value) in self.samples(family).filter(|(labels, _)| which(labels)) {
            if let Value::Observed(observed) = value {
                all.add(observed);
            }
        }
        all
    }
}

/// How a snapshot is written: `{"stack_slots": [{"app": "web", "state": "idle", "value": 4}]}`.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Written(BTreeMap<String, Vec<Sample>>);

#[derive(Serialize, Deserialize)]
struct Sample {
    #[serde(flatten)]
    labels: BTreeMap<String, String>,
    value: Value,
}

impl From<Snapshot> for Written {
    fn from(snapshot: Snapshot) -> Self {
        let mut written = BTreeMap::new();
        for family in FAMILIES {
            let samples: Vec<Sample> = snapshot
                .samples(family)
                .map(|(labels, value)| {
                    let names = family.labels.iter().map(|name| (*name).to_owned());
                    Sample {
                        labels: names.zip(labels.iter().cloned()).collect(),
                        value: value.clone(),
                    }
                })
                .collect();
            if !samples.is_empty() {
                written.insert(family.name.to_owned(), samples);
            }
        }
        Self(written)
    }
}

impl From<Written> for Snapshot {
    /// Names that this version does not know are passed over.
    fn from(Written(mut written): Written) -> Self {
        let mut snapshot = Self::default();
        for family in FAMILIES {
            let samples = written.remove(family.name).unwrap_or_default();
            for Sample { mut labels, value } in samples {
                let values = family
                    .labels
                    .iter()
                    .map(|name| labels.remove(*name).unwrap_or_default());
                let values: Vec<String> = values.collect();
                snapshot.add(family, values, value);
            }
        }
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for family in FAMILIES {
            let Family {
                name,
                kind,
                labels,
                help,
            } = family;
            assert!(name.starts_with("stack_"), "{name}");
            assert!(
                name.chars()
                    .all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()),
                "{name}"
            );
            assert!(!name.ends_with("_total"), "{name}: the text adds it");
            assert!(help.ends_with('.'), "{name}");
            assert!(labels.iter().all(|label| *label != "le"), "{name}");
            if *kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            let same = FAMILIES.iter().filter(|other| other.name == *name).count();
            assert_eq!(same, 1, "{name}");
        }
    }

    #[test]
    fn it_is_read_back_as_it_was_written() {
        let mut snapshot = Snapshot::default();
        snapshot.count(&REQUESTS, ["a", "/", "200"], 2);
        snapshot.add(&CPU, ["proxy"], Value::Number(2.0));
        let histogram = Histogram::default();
        histogram.observe(std::time::Duration::from_millis(3));
        snapshot.add(
            &APP_DURATION,
            ["web"],
            Value::Observed(histogram.observed()),
        );
        let text = serde_json::to_string(&snapshot).unwrap();
        assert!(
            text.contains(r#""stack_requests":[{"code":"200","route":"/","site":"a","value":2}]"#),
            "{text}"
        );
        let again: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(again, snapshot);
        let unknown: Snapshot = serde_json::from_str(r#"{"stack_later":[{"value":1}]}"#).unwrap();
        assert_eq!(unknown, Snapshot::default());
    }

    #[test]
    fn processes_add_up_and_the_dead_leave_what_only_grows() {
        let mut one = Snapshot::default();
        one.count(&REQUESTS, ["a", "/", "200"], 2);
        one.count(&CONNECTIONS, [], 5);
        let mut two = Snapshot::default();
        two.count(&REQUESTS, ["a", "/", "200"], 3);
        two.count(&REQUESTS, ["a", "/", "404"], 1);
        two.merge(&one.remains());
        assert_eq!(two.total(&REQUESTS, |labels| labels[2] == "200"), 5);
        assert_eq!(two.total(&REQUESTS, |_| true), 6);
        assert_eq!(two.total(&CONNECTIONS, |_| true), 0);
    }
}
