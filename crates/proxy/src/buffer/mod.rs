//! What is held for clients that are slower than the app: uploads that are not whole yet, responses that are not taken yet.
//!
//! Memory first, then a file without a name ([`scratch`]), and both within one [`budget`] over all requests and responses. A
//! [`pipe`] is a response between the two speeds; [`stalls`] bounds how many responses may hold their origin up when there
//! is no more room. No thread of the runtime waits for a disk.

pub(crate) mod budget;
pub(crate) mod pipe;
pub(crate) mod scratch;
pub(crate) mod stalls;

use std::{path::Path, sync::Arc};

use config::site::Limits;

use self::{
    budget::Budget,
    scratch::{Folder, FolderError},
};

/// Where all of it is kept.
#[derive(Debug)]
pub(crate) struct Store {
    /// How much there may be.
    pub(crate) budget: Arc<Budget>,
    /// Where files are made.
    folder: Folder,
}

impl Store {
    /// Keeps files in this folder, or where there is a disk.
    pub(crate) fn open(folder: Option<&Path>, budget: Arc<Budget>) -> Result<Self, FolderError> {
        Ok(Self {
            budget,
            folder: match folder {
                Some(path) => Folder::open(path)?,
                None => Folder::find()?,
            },
        })
    }

    /// One with this much room.
    #[cfg(test)]
    pub(crate) fn for_tests(memory: u64, disk: u64) -> Arc<Self> {
        let budget = Arc::new(Budget::default());
        budget.set(memory, disk);
        Arc::new(Self::open(Some(&std::env::temp_dir()), budget).expect("a folder for files"))
    }
}

/// How one response is held.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) store: Arc<Store>,
    /// Most in memory.
    pub(crate) memory: usize,
    /// Most on disk.
    pub(crate) disk: u64,
}

impl Holding {
    /// As the table has it.
    pub(crate) fn new(store: &Arc<Store>, limits: &Limits) -> Self {
        Self {
            store: Arc::clone(store),
            memory: usize::try_from(limits.response_memory).unwrap_or(usize::MAX),
            disk: limits.response_disk,
        }
    }

    /// The same without a disk: for what is worth nothing when it is late.
    pub(crate) fn in_memory(&self) -> Self {
        Self {
            disk: 0,
            ..self.clone()
        }
    }
}
