//! Which workers are ready and which apps have failed: what a proxy must be told, and told again when it is a new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ::proxy::control::{Order, WorkerName};

/// What is known of the apps.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    ready: BTreeMap<WorkerName, (PathBuf, u16)>,
    /// Whom the proxy is to let go of, and has not yet.
    releasing: BTreeSet<WorkerName>,
    /// Apps without a worker, and why.
    failed: BTreeMap<String, String>,
}

impl Roster {
    /// A worker is ready, so its app has not failed.
    pub(crate) fn ready(&mut self, worker: WorkerName, socket: PathBuf, threads: u16) -> Order {
        self.failed.remove(&worker.app);
        self.ready.insert(worker.clone(), (socket.clone(), threads));
        Order::WorkerReady {
            worker,
            socket,
            threads,
        }
    }

    /// A worker is to be let go of.
    pub(crate) fn release(&mut self, worker: WorkerName) -> Order {
        self.ready.remove(&worker);
        self.releasing.insert(worker.clone());
        Order::ReleaseWorker { worker }
    }

    /// The proxy has let go of a worker; whether that was asked for.
    pub(crate) fn released(&mut self, worker: &WorkerName) -> bool {
        self.releasing.remove(worker)
    }

    /// The proxy is gone, and with it every connection to those whom it was to let go of.
    pub(crate) fn all_released(&mut self) -> BTreeSet<WorkerName> {
        std::mem::take(&mut self.releasing)
    }

    /// A worker is gone.
    pub(crate) fn gone(&mut self, worker: WorkerName, how: String) -> Order {
        self.ready.remove(&worker);
        self.releasing.remove(&worker);
        Order::WorkerDied { worker, how }
    }

    /// An app has no worker, and the last one could not start.
    pub(crate) fn failed(&mut self, app: String, why: String) -> Order {
        self.failed.insert(app.clone(), why.clone());
        Order::AppFailed { app, why }
    }

    /// Apps that are no more have not failed.
    pub(crate) fn forget_failures(&mut self, is_served: impl Fn(&str) -> bool) {
        self.failed.retain(|app, _| is_served(app));
    }

    /// Another proxy takes over, with other workers: those of the old one.
    pub(crate) fn hand_over(&mut self) -> BTreeSet<WorkerName> {
        let ready = std::mem::take(&mut self.ready).into_keys();
        ready.chain(std::mem::take(&mut self.releasing)).collect()
    }

    /// Whether this worker is ready.
    pub(crate) fn has(&self, app: &str, number: u32) -> bool {
        let app = app.to_owned();
        self.ready.contains_key(&WorkerName { app, number })
    }

    /// Apps without a worker, and why.
    pub(crate) fn failures(&self) -> &BTreeMap<String, String> {
        &self.failed
    }

    /// All of it, for a proxy that knows nothing.
    pub(crate) fn orders(&self) -> Vec<Order> {
        let ready = self
            .ready
            .iter()
            .map(|(worker, (socket, threads))| Order::WorkerReady {
                worker: worker.clone(),
                socket: socket.clone(),
                threads: *threads,
            });
        let failed = self.failed.iter().map(|(app, why)| Order::AppFailed {
            app: app.clone(),
            why: why.clone(),
        });
        ready.chain(failed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u32) -> WorkerName {
        WorkerName {
            app: "web".to_owned(),
            number,
        }
    }

    #[test]
    fn a_new_proxy_hears_of_those_who_are_there_now() {
        let mut roster = Roster::default();
        roster.failed("web".to_owned(), "SyntaxError".to_owned());
        roster.failed("api".to_owned(), "ImportError".to_owned());
        roster.ready(worker(1), "/run/web.1.sock".into(), 4);
        let second = roster.ready(worker(2), "/run/web.2.sock".into(), 4);
        roster.gone(worker(1), "killed by SIGKILL".to_owned());
        let failed = Order::AppFailed {
            app: "api".to_owned(),
            why: "ImportError".to_owned(),
        };
        assert_eq!(roster.orders(), [second, failed]);
    }

    #[test]
    fn a_new_proxy_hears_nothing_of_those_who_leave() {
        let mut roster = Roster::default();
        for number in 1..=3 {
            roster.ready(worker(number), "/run/web.sock".into(), 4);
            roster.release(worker(number));
        }
        assert!(roster.orders().is_empty());
        assert!(roster.released(&worker(1)));
        assert!(!roster.released(&worker(1)), "once");
        roster.gone(worker(2), "exit code 0".to_owned());
        assert_eq!(roster.all_released(), BTreeSet::from([worker(3)]));
    }
}
