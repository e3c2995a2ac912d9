//! How much all requests and responses together may hold, in memory and on disk: two counters, and shares of them that give
//! themselves back.
//!
//! A share is taken as bytes arrive, not for what a client announces: a thousand heads that promise uploads would otherwise
//! take all of it with no byte sent. Where more has begun than there is room for in the end, the first that finds none ends,
//! and what it gives back lets the others go on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

/// The room for buffers.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pub(crate) memory: Arc<Account>,
    pub(crate) disk: Arc<Account>,
}

/// One kind of room.
#[derive(Debug, Default)]
pub(crate) struct Account {
    most: AtomicU64,
    used: AtomicU64,
}

/// A part of an account that is in use. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    account: Arc<Account>,
    bytes: u64,
}

impl Budget {
    /// Sets how much there is; what is in use stays.
    pub(crate) fn set(&self, memory: u64, disk: u64) {
        self.memory.most.store(memory, Ordering::Relaxed);
        self.disk.most.store(disk, Ordering::Relaxed);
    }
}

impl Account {
    /// An empty share.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share {
            account: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Whether something new of this size may begin: it would fit into what is left. While the last eighth is in use nothing
    /// begins at all: that is for what has begun, which it would be a pity to refuse in the middle. What is as large as all
    /// of the room may begin where nothing else is in it; the configuration allows no body that is larger.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let used = self.used();
        used < most - most / 8 && used.saturating_add(bytes) <= most
    }

    /// How much is in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = used.saturating_add(bytes) <= most;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Share {
    /// How much it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more; `false` if there is not as much.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.account.take(bytes as u64);
        if fits {
            self.bytes += bytes as u64;
        }
        fits
    }

    /// Gives some back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.bytes -= bytes;
        self.account.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Gives all of it back.
    pub(crate) fn clear(&mut self) {
        self.shrink(usize::MAX);
    }

    /// Bytes that hold their share for as long as anybody holds them.
    pub(crate) fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        struct Held<T>(T, #[expect(dead_code, reason = "it is held")] Share);
        impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
            fn as_ref(&self) -> &[u8] {
                self.0.as_ref()
            }
        }
        Bytes::from_owner(Held(bytes, self))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = Budget::default();
        budget.set(100, 1000);
        let mut one = budget.memory.share();
        let mut two = budget.memory.share();
        assert!(one.grow(60) && !two.grow(60) && two.grow(40));
        assert_eq!(budget.memory.used(), 100);
        one.shrink(20);
        assert!(two.grow(20) && !two.grow(1));
        let bytes = two.hold(vec![0; 60]);
        let slice = bytes.slice(5..10);
        drop((one, bytes));
        assert_eq!(budget.memory.used(), 60, "a slice holds all of it");
        drop(slice);
        assert_eq!(budget.memory.used(), 0);
    }

    #[test]
    fn what_is_new_leaves_room_for_what_has_begun() {
        let budget = Budget::default();
        budget.set(0, 800);
        let mut share = budget.disk.share();
        assert!(budget.disk.has_room(800) && !budget.disk.has_room(801));
        assert!(share.grow(699) && budget.disk.has_room(101) && !budget.disk.has_room(102));
        assert!(share.grow(1) && !budget.disk.has_room(1) && share.grow(100));
        // A smaller budget by a new configuration.
        budget.set(0, 400);
        assert!(!share.grow(1));
        drop(share);
        assert!(budget.disk.has_room(400));
        budget.set(0, 0);
        assert!(!budget.disk.has_room(0));
    }
}
