//! How many connections there may be: of all clients, and of one.
//!
//! A connection needs a permit before it is accepted (`limits.connections`); without one the kernel's backlog is the queue.
//! What one client may have of them (`limits.connections_per_client`) is known only once it is accepted, so what is too many
//! is closed. Both are bounded further by what the machine allows: descriptors.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use config::site::Site;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telemetry::panics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::network::Network;

/// Who may come in.
#[derive(Debug)]
pub(crate) struct Door {
    most: AtomicUsize,
    permits: Arc<Semaphore>,
    clients: Arc<Clients>,
}

/// A connection's place among all.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    client: Option<Counted>,
}

/// How many connections each client has, if that is bounded.
#[derive(Debug, Default)]
struct Clients(Mutex<HashMap<Network, u64>>);

/// One of a client's connections.
#[derive(Debug)]
struct Counted {
    clients: Arc<Clients>,
    client: Network,
}

impl Door {
    /// For so many connections, or as many as there are descriptors for.
    pub(crate) fn new(most: u64) -> Self {
        let most = permits(most);
        Self {
            most: AtomicUsize::new(most),
            permits: Arc::new(Semaphore::new(most)),
            clients: Arc::default(),
        }
    }

    /// For so many from here on. Nobody is sent away: where there are more, as many must leave before the next comes in.
    pub(crate) fn resize(&self, most: u64) {
        let most = permits(most);
        let before = self.most.swap(most, Ordering::Relaxed);
        if most >= before {
            self.permits.add_permits(most - before);
            return;
        }
        let fewer = u32::try_from(before - most).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.permits);
        tokio::spawn(async move {
            if let Ok(gone) = permits.acquire_many(fewer).await {
                gone.forget();
            }
        });
    }

    /// A place for one more connection, as soon as there is one.
    pub(crate) async fn permit(&self) -> Permit {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        Permit {
            _place: permit.expect("the semaphore is never closed"),
            client: None,
        }
    }

    /// Counts a connection as this client's; `false` if that has `most` already. 0 is any number.
    pub(crate) fn count(&self, permit: &mut Permit, client: Network, most: u64) -> bool {
        if most == 0 {
            return true;
        }
        let mut clients = self.clients.lock();
        let count = clients.entry(client).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        permit.client = Some(Counted {
            clients: Arc::clone(&self.clients),
            client,
        });
        true
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        // While it becomes smaller there may be more free than there are places.
        let most = self.most.load(Ordering::Relaxed);
        most.saturating_sub(self.permits.available_permits())
    }

    /// Resolves when nobody is inside, and lets nobody in after that.
    pub(crate) async fn empty(&self) {
        let all = u32::try_from(self.most.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        if let Ok(all) = self.permits.acquire_many(all).await {
            all.forget();
        }
    }
}

fn permits(most: u64) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // The most that can be acquired at once (`empty`).
    most.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize)
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, HashMap<Network, u64>> {
        panics::lock(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut clients = self.clients.lock();
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Raises the limit of open descriptors as far as this process may (the soft limit is low for the sake of programs that use
/// `select`, which this is not), and says how many there are.
pub(crate) fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(most) = maximum else {
        return u64::MAX;
    };
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(error) => {
            tracing::warn!("cannot raise the limit of open files to {most}: {error}");
            current.unwrap_or(most)
        }
    }
}

/// How many connections there can be with so many descriptors; says so where that is fewer than the configuration wants.
pub(crate) fn connections(site: &Site, descriptors: u64) -> u64 {
    let wanted = site.limits.connections;
    let apps = site.apps.iter();
    // Twice: a reload has both generations for a while.
    let slots: u64 = apps
        .map(|app| 2 * u64::from(app.workers.most) * u64::from(app.threads))
        .sum();
    let possible = (descriptors.saturating_sub(OWN + slots) / 9 * 8).max(1);
    if wanted <= possible {
        return wanted;
    }
    let needed = OWN + slots + wanted / 8 * 9 + 9;
    tracing::warn!(
        "limits.connections is {wanted}, and the limit of open files, {descriptors}, leaves room for {possible}: \
         more wait to be accepted; raise the hard limit to {needed} (LimitNOFILE= in the unit, `ulimit -Hn`), or lower \
         limits.connections"
    );
    possible
}

/// Descriptors for what is no connection: listeners, logs, roots of files, the runtime. Beside these, one connection in
/// eight is taken to have a file open as well, be it a spooled one or one that is sent; where there are more, the request
/// that finds no descriptor is refused, and no other.
const OWN: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_client_has_so_many_and_another_its_own() {
        let door = Door::new(10);
        let (one, other) = (Network::V4(1), Network::V4(2));
        let enter = async |client| {
            let mut permit = door.permit().await;
            door.count(&mut permit, client, 2).then_some(permit)
        };
        let first = enter(one).await;
        let second = enter(one).await;
        assert!(first.is_some() && second.is_some());
        assert!(enter(one).await.is_none());
        assert!(enter(other).await.is_some());
        drop(first);
        assert!(enter(one).await.is_some());
        assert_eq!(door.inside(), 1);
        drop(second);
        assert!(door.clients.lock().is_empty());
        door.empty().await;
    }
}
