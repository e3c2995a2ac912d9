//! Which workers are ready and which apps have failed: what a proxy must be told, and told again when it is a new one.

use std::{collections::BTreeMap, path::PathBuf};

use ::proxy::control::{Order, WorkerName};

/// What is known of the apps.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    ready: BTreeMap<WorkerName, (PathBuf, u16)>,
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

    /// A worker is gone.
    pub(crate) fn gone(&mut self, worker: WorkerName, how: String) -> Order {
        self.ready.remove(&worker);
        Order::WorkerDied { worker, how }
    }

    /// An app has no worker, and the last one could not start.
    pub(crate) fn failed(&mut self, app: String, why: String) -> Order {
        self.failed.insert(app.clone(), why.clone());
        Order::AppFailed { app, why }
    }

    /// Apps without a worker, and why.
    pub(crate) fn failures(&self) -> &BTreeMap<String, String> {
        &self.failed
    }

    /// The workers of an app that are ready, and how many slots each has.
    pub(crate) fn workers(&self, app: &str) -> impl Iterator<Item = (&WorkerName, u16)> {
        let of_app = move |(worker, (_, threads)): (_, &(PathBuf, u16))| {
            let worker: &WorkerName = worker;
            (worker.app == app).then_some((worker, *threads))
        };
        self.ready.iter().filter_map(of_app)
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
}
