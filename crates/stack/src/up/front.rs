//! One proxy process, as the master sees it: orders go in, reports and at last its end come out.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::proxy::{
    channel::{Channel, Receiver, Sender},
    control::{Order, Report},
};
use anyhow::Context;
use supervisor::{
    child::{Child, Command, Exit, Signal, Stdio},
    fds, notify,
    user::User,
};
use telemetry::{log, metrics::Snapshot};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::proxy::CONTROL_FD;

/// What a proxy tells the master.
#[derive(Debug)]
pub(crate) enum Told {
    /// By itself.
    Report(Report),
    /// By its death; the last one.
    Exited(Exit),
}

type Asking = Arc<Mutex<VecDeque<oneshot::Sender<Snapshot>>>>;

/// A proxy process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Front {
    /// Its process id.
    pub(crate) pid: i32,
    orders: mpsc::UnboundedSender<(Order, Vec<OwnedFd>)>,
    /// Who waits for its figures, in the order of asking.
    asking: Asking,
    kill: mpsc::UnboundedSender<()>,
}

impl Front {
    /// Starts one and tells it what to serve. Must be called on the main thread: see [`Command::spawn`].
    pub(crate) fn start(
        serve: (Order, Vec<OwnedFd>),
        user: Option<&User>,
        told: mpsc::UnboundedSender<Told>,
    ) -> anyhow::Result<Self> {
        let (ours, theirs) = fds::socket_pair().context("cannot make a channel to the proxy")?;
        // The same file as this process, even when another has taken its name since.
        let mut command = Command::new("/proc/self/exe")
            .name("stack")
            .arg("proxy")
            .stdin(Stdio::Null)
            .env(log::FILTER_VARIABLE, log::filter())
            .env(log::FORMAT_VARIABLE, log::format().name())
            .descriptor(theirs, CONTROL_FD)
            .no_new_privileges()
            .own_group();
        // All but the journal's mark: the proxy writes to the same place as we do.
        let not_the_mark = |name: &&str| *name != "JOURNAL_STREAM";
        for name in notify::FROM_MANAGER.into_iter().filter(not_the_mark) {
            command = command.env_remove(name);
        }
        if let Some(user) = user {
            command = command.user(user.clone());
        }
        let child = command.spawn().context("cannot start the proxy")?;
        let pid = child.pid();
        let (sender, receiver) = Channel::new(ours)
            .context("cannot talk to the proxy")?
            .split();
        let (orders, outbox) = mpsc::unbounded_channel();
        let (kill, killed) = mpsc::unbounded_channel();
        tokio::spawn(send(sender, outbox));
        let asking = Asking::default();
        let inbox = Inbox {
            receiver,
            asking: Arc::clone(&asking),
            told,
        };
        tokio::spawn(live(child, inbox, killed));
        let front = Self {
            pid,
            orders,
            asking,
            kill,
        };
        front.order(serve);
        Ok(front)
    }

    /// Tells it something, with descriptors.
    pub(crate) fn hand(&self, order: Order, descriptors: Vec<OwnedFd>) {
        self.order((order, descriptors));
    }

    /// Tells it something; what it no longer hears its end will say.
    pub(crate) fn tell(&self, order: Order) {
        self.order((order, Vec::new()));
    }

    fn order(&self, order: (Order, Vec<OwnedFd>)) {
        let _ = self.orders.send(order);
    }

    /// Asks for its figures.
    pub(crate) fn figures(&self) -> oneshot::Receiver<Snapshot> {
        let (answer, answered) = oneshot::channel();
        lock(&self.asking).push_back(answer);
        self.tell(Order::Figures);
        answered
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        let _ = self.kill.send(());
    }
}

/// A proxy that does not listen must not keep the master from its other work, so sending is a task of its own.
async fn send(mut sender: Sender, mut outbox: mpsc::UnboundedReceiver<(Order, Vec<OwnedFd>)>) {
    while let Some((order, descriptors)) = outbox.recv().await {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if let Err(error) = sender.send(&order, &descriptors).await {
            // The proxy is dead or about to be; its death is reported by the other task.
            tracing::debug!("cannot tell the proxy: {error}");
            return;
        }
    }
}

/// What a proxy says, and where that goes.
struct Inbox {
    receiver: Receiver,
    asking: Asking,
    told: mpsc::UnboundedSender<Told>,
}

async fn live(mut child: Child, mut inbox: Inbox, mut killed: mpsc::UnboundedReceiver<()>) {
    let mut hears = true;
    let mut condemned = false;
    let exit = loop {
        tokio::select! {
            exit = child.wait() => break exit,
            hears_on = inbox.pass_on(), if hears => hears = hears_on,
            // Told to, or its owner is gone.
            _ = killed.recv(), if !condemned => {
                condemned = true;
                kill(&child);
            }
        }
    };
    // What it said last. Only it held the other end, so the stream ends.
    while hears {
        hears = inbox.pass_on().await;
    }
    // Whoever still asks is told that there is no answer.
    lock(&inbox.asking).clear();
    let exit = exit.unwrap_or_else(|error| {
        error!("cannot learn how the proxy ended: {error}");
        Exit::Unknown
    });
    let _ = inbox.told.send(Told::Exited(exit));
}

impl Inbox {
    /// Passes on what it says next; returns whether there can be more. Cancel-safe.
    async fn pass_on(&mut self) -> bool {
        match self.receiver.receive().await {
            Ok(Some((Report::Figures(figures), _))) => {
                if let Some(asking) = lock(&self.asking).pop_front() {
                    // Whoever asked may have gone.
                    let _ = asking.send(*figures);
                }
                true
            }
            Ok(Some((report, _))) => self.told.send(Told::Report(report)).is_ok(),
            Ok(None) => false,
            Err(error) => {
                // A proxy that was killed leaves unread orders behind, which resets the channel.
                if error.kind() != std::io::ErrorKind::ConnectionReset {
                    warn!("the proxy cannot be understood: {error}");
                }
                false
            }
        }
    }
}

fn lock(asking: &Asking) -> MutexGuard<'_, VecDeque<oneshot::Sender<Snapshot>>> {
    asking.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(child: &Child) {
    if let Err(error) = child.signal(Signal::KILL) {
        error!("cannot kill the proxy: {error}");
    }
}
