//! What the master answers on the admin socket.
//!
//! What it knows itself it says at once. What only a pool knows is asked of the pools, and put together by a task of its own:
//! the master goes on meanwhile.

use std::time::Duration;

use appserver::{
    assignment::BUILD_ID,
    pool::keeper::{self, WorkerTrace},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    admin::{Answer, Asked, Question},
    master::Master,
};
use crate::admin::{AppStatus, ListenerStatus, ProxyStatus, Status, Trace};

/// A pool answers at once, unless it has just ended.
const PATIENCE: Duration = Duration::from_secs(5);

type Orders = mpsc::UnboundedSender<keeper::Order>;

impl Master {
    /// Answers, or has it answered.
    pub(super) fn questioned(&mut self, Asked { question, answer }: Asked) {
        match question {
            Question::Status => drop(tokio::spawn(status(
                self.status(),
                self.orders(None),
                answer,
            ))),
            Question::Trace { app } => {
                let orders = self.orders(app.as_deref());
                if let (Some(app), true) = (app, orders.is_empty()) {
                    let _ = answer.send(Answer::conflict(format!("there is no app {app:?}")));
                } else {
                    tokio::spawn(trace(orders, answer));
                }
            }
        }
    }

    /// The ways to the pools of all apps, or of one.
    fn orders(&self, app: Option<&str>) -> Vec<(String, Orders)> {
        let wanted = self
            .pools
            .iter()
            .filter(|(name, _)| app.is_none_or(|app| app == *name));
        wanted
            .map(|(name, orders)| (name.clone(), orders.clone()))
            .collect()
    }

    /// All but the workers.
    fn status(&self) -> Status {
        let listening = self.opened.listening.iter();
        let listeners = listening.map(|listening| ListenerStatus {
            name: listening.what.name.clone(),
            tls: listening.what.tls,
        });
        let apps = self.opened.loaded.site.apps.iter();
        let apps = apps.map(|app| AppStatus {
            name: app.name.clone(),
            failed: self.roster.failures().get(&app.name).cloned(),
            workers: Vec::new(),
        });
        Status {
            version: BUILD_ID.to_owned(),
            pid: std::process::id(),
            config: self.opened.loaded.site.file.clone(),
            phase: self.phase.name().to_owned(),
            uptime: self.started.elapsed().as_secs(),
            proxy: ProxyStatus {
                pid: self.front.front().map(|front| front.pid),
                state: self.front.name().to_owned(),
            },
            listeners: listeners.collect(),
            apps: apps.collect(),
        }
    }
}

async fn status(
    mut status: Status,
    orders: Vec<(String, Orders)>,
    answer: oneshot::Sender<Answer>,
) {
    for (name, orders) in orders {
        let Some(workers) = ask(&orders, keeper::Order::Status).await else {
            continue;
        };
        match status.apps.iter_mut().find(|app| app.name == name) {
            Some(app) => app.workers = workers,
            // Its last workers still leave.
            None => status.apps.push(AppStatus {
                name,
                failed: None,
                workers,
            }),
        }
    }
    // Whoever asked may have gone.
    let _ = answer.send(Answer::json(&status));
}

async fn trace(orders: Vec<(String, Orders)>, answer: oneshot::Sender<Answer>) {
    let mut workers: Vec<WorkerTrace> = Vec::new();
    // All at once: each may take its time.
    let asked: Vec<_> = orders
        .iter()
        .map(|(_, orders)| {
            let orders = orders.clone();
            tokio::spawn(async move { ask(&orders, keeper::Order::Trace).await })
        })
        .collect();
    for asked in asked {
        workers.extend(asked.await.ok().flatten().unwrap_or_default());
    }
    // Whoever asked may have gone.
    let _ = answer.send(Answer::json(&Trace { workers }));
}

async fn ask<T>(
    orders: &Orders,
    question: impl FnOnce(oneshot::Sender<T>) -> keeper::Order,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    orders.send(question(answer)).ok()?;
    tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
}
