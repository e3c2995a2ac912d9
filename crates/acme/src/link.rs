//! The agent's way to its master: what it asks for is answered, sooner or later, by a number.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use telemetry::panics::lock;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    channel::{Receiver, Sender},
    message::{Answer, Keep, Order, Report},
    order::Failure,
    schedule::Kind,
};

/// How long the master may take to write a file, or the proxy to hear of an answer: it may just be started again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reports that wait to be sent; the master reads at once.
const REPORTS: usize = 64;

/// The way to the master.
#[derive(Debug)]
pub(crate) struct Link {
    reports: mpsc::Sender<Report>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// Who waits for which answer; it is trouble, or none.
    asked: HashMap<u64, oneshot::Sender<Option<String>>>,
}

impl Link {
    /// With somebody to send what is said. Must be called inside a runtime.
    pub(crate) fn new(mut sender: Sender) -> Self {
        let (reports, mut outbox) = mpsc::channel(REPORTS);
        tokio::spawn(async move {
            while let Some(report) = outbox.recv().await {
                if let Err(error) = sender.send(&report).await {
                    // The master is gone, and so are we in a moment.
                    tracing::debug!("cannot tell the master: {error}");
                    return;
                }
            }
        });
        Self {
            reports,
            waiting: Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Says something that has no answer.
    pub(crate) async fn tell(&self, report: Report) {
        // Nobody hears it only when the master is gone.
        let _ = self.reports.send(report).await;
    }

    /// Has something kept.
    pub(crate) async fn keep(&self, what: Keep) -> Result<(), Failure> {
        self.ask(|number| Report::Save { number, what }).await
    }

    /// Has challenges answered.
    pub(crate) async fn answer(&self, answers: Vec<Answer>) -> Result<(), Failure> {
        self.ask(|number| Report::Answers { number, answers }).await
    }

    async fn ask(&self, report: impl FnOnce(u64) -> Report) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting();
            waiting.last += 1;
            let number = waiting.last;
            waiting.asked.insert(number, answer);
            number
        };
        self.tell(report(number)).await;
        let trouble = match timeout(PATIENCE, answered).await {
            Ok(Ok(trouble)) => trouble,
            Ok(Err(_)) => Some("the master is gone".to_owned()),
            Err(_) => {
                self.waiting().asked.remove(&number);
                Some("the master or the proxy does not answer".to_owned())
            }
        };
        match trouble {
            None => Ok(()),
            Some(trouble) => Err(Failure::new(Kind::Here, trouble)),
        }
    }

    /// Gives answers to who waits for them, and everything else to `orders`; returns when the master is gone.
    pub(crate) async fn hear(
        &self,
        mut receiver: Receiver,
        orders: mpsc::Sender<Order>,
    ) -> io::Result<()> {
        while let Some(order) = receiver.receive().await? {
            let (number, trouble) = match order {
                Order::Saved { number, trouble } => (number, trouble),
                Order::Answering { number } => (number, None),
                order @ (Order::Now | Order::Rehearse) => {
                    // One that waits already is enough: they are all alike.
                    let _ = orders.try_send(order);
                    continue;
                }
                order => {
                    // Answers to what is being done come meanwhile.
                    let orders = orders.clone();
                    tokio::spawn(async move { drop(orders.send(order).await) });
                    continue;
                }
            };
            if let Some(asker) = self.waiting().asked.remove(&number) {
                let _ = asker.send(trouble);
            }
        }
        Ok(())
    }
}
