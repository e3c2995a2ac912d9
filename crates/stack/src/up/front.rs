//! One proxy process, as the master sees it: orders go in, reports and at last its end come out.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::{Arc, Mutex},
};

use ::proxy::{
    channel::{Channel, Receiver, Sender},
    confine,
    control::{Order, Report},
};
use anyhow::Context;
use config::site::Site;
use supervisor::{
    child::{Child, Exit, Signal},
    fds,
    user::User,
};
use telemetry::panics::lock;
use telemetry::{metrics::Snapshot, panics::Vital};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::role::Role;

/// What a proxy tells the master.
#[derive(Debug)]
pub(crate) enum Told {
    /// By itself.
    Report(Report),
    /// By its death; the last one.
    Exited(Exit),
}

/// Where proxies tell what they tell, each with its process id.
pub(crate) type Tell = mpsc::UnboundedSender<(i32, Told)>;

type Asking = Arc<Mutex<VecDeque<oneshot::Sender<Snapshot>>>>;

/// A proxy process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Front {
    /// Its process id.
    pub(crate) pid: i32,
    reach: Reach,
    orders: mpsc::UnboundedSender<(Order, Vec<OwnedFd>)>,
    /// Who waits for its figures, in the order of asking.
    asking: Asking,
    kill: mpsc::UnboundedSender<()>,
}

impl Front {
    /// Starts one and tells it what to serve. Must be called on the main thread: see [`supervisor::child::Command::spawn`].
    pub(crate) fn start(
        serve: (Order, Vec<OwnedFd>),
        user: Option<&User>,
        told: Tell,
    ) -> anyhow::Result<Self> {
        let reach = match &serve.0 {
            Order::Serve { site, .. } => Reach::of(site),
            _ => Reach::default(),
        };
        let (ours, theirs) = fds::socket_pair().context("cannot make a channel to the proxy")?;
        let command = Role::PROXY.command(theirs, user);
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
            pid,
            receiver,
            asking: Arc::clone(&asking),
            told,
        };
        tokio::spawn(live(child, inbox, killed));
        let front = Self {
            pid,
            reach,
            orders,
            asking,
            kill,
        };
        front.order(serve);
        Ok(front)
    }

    /// Whether it can serve this configuration too. It has confined itself to what the first one needed, and cannot be widened.
    pub(crate) fn can_serve(&self, site: &Site) -> bool {
        self.reach.covers(site)
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

    /// A way to tell it something later, from elsewhere.
    pub(crate) fn teller(&self) -> Teller {
        Teller(self.orders.clone())
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

/// A way to tell a proxy something.
#[derive(Debug)]
pub(crate) struct Teller(mpsc::UnboundedSender<(Order, Vec<OwnedFd>)>);

impl Teller {
    /// Tells it; one that is gone hears nothing.
    pub(crate) fn tell(&self, order: Order) {
        let _ = self.0.send((order, Vec::new()));
    }
}

/// What a proxy has left of the machine: the folders of its first configuration, as they were then. A link that leads
/// elsewhere by now leads to what it cannot open.
#[derive(Debug, Default)]
struct Reach {
    /// Device and inode.
    folders: BTreeSet<(u64, u64)>,
    /// Whether it gave up files and system calls at all.
    confined: (bool, bool),
}

impl Reach {
    fn of(site: &Site) -> Self {
        let folders = confine::folders(site);
        Self {
            folders: folders.iter().filter_map(|path| identity(path)).collect(),
            confined: (site.server.landlock, site.server.seccomp),
        }
    }

    fn covers(&self, site: &Site) -> bool {
        let wanted = confine::folders(site);
        self.confined == (site.server.landlock, site.server.seccomp)
            && wanted.iter().all(|path| self.contains(path))
    }

    /// Whether the folder, wherever links lead, or one that it is in, is among them. One that is not there is nobody's.
    fn contains(&self, path: &Path) -> bool {
        let Ok(real) = path.canonicalize() else {
            return true;
        };
        let known = |path: &Path| identity(path).is_some_and(|id| self.folders.contains(&id));
        real.ancestors().any(known)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// A proxy that does not listen must not keep the master from its other work, so sending is a task of its own.
async fn send(mut sender: Sender, mut outbox: mpsc::UnboundedReceiver<(Order, Vec<OwnedFd>)>) {
    let _vital = Vital::new("a word to the proxy");
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
    pid: i32,
    receiver: Receiver,
    asking: Asking,
    told: Tell,
}

async fn live(mut child: Child, mut inbox: Inbox, mut killed: mpsc::UnboundedReceiver<()>) {
    let _vital = Vital::new("who watches the proxy");
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
    let _ = inbox.told.send((inbox.pid, Told::Exited(exit)));
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
            Ok(Some((report, _))) => {
                let told = (self.pid, Told::Report(report));
                self.told.send(told).is_ok()
            }
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

fn kill(child: &Child) {
    if let Err(error) = child.signal(Signal::KILL) {
        error!("cannot kill the proxy: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::PathBuf};

    use super::*;

    fn site(root: &Path, landlock: bool) -> Site {
        let text = format!(
            "[server]\nlandlock = {landlock}\nspool = {root:?}\n\
             [[site]]\nroutes = [{{ path = \"/\", files = {root:?} }}]\n"
        );
        let loaded = config::parse(Path::new("/site.toml"), text, false).unwrap();
        loaded.site
    }

    #[test]
    fn a_confined_proxy_reaches_what_it_was_given_and_what_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| -> PathBuf {
            let path = place.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (one, two, inner) = (folder("one"), folder("two"), folder("one/inner"));
        let link = place.path().join("current");
        symlink(&one, &link).unwrap();
        let reach = Reach::of(&site(&link, true));
        assert!(reach.covers(&site(&one, true)), "the same by another name");
        assert!(reach.covers(&site(&inner, true)));
        assert!(!reach.covers(&site(&two, true)));
        assert!(!reach.covers(&site(&one, false)), "to be confined no more");
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert!(
            !reach.covers(&site(&link, true)),
            "another by the same name"
        );
        let wide = Reach::of(&site(&one, false));
        assert!(wide.covers(&site(&two, false)));
    }
}
