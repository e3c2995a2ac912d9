//! Whether threads are threads.
//!
//! A slot is a `threading.Thread` that blocks. An app that has replaced threads by greenlets while it was imported (gevent's
//! and eventlet's `monkey.patch_all()`) would have its slots in greenlets of the main thread, where none of them ever runs;
//! and in threads started in spite of it, two requests at once have been seen to wait for each other for ever. So such an app
//! is refused, instead of a worker that is ready and answers nothing.

use pyo3::prelude::*;

/// What `threading.Thread.start` calls: the name in CPython 3.13 and later, and before.
const STARTERS: [&str; 2] = ["_start_joinable_thread", "_start_new_thread"];

/// How `threading` starts a thread.
pub(crate) struct Starter(Option<Py<PyAny>>);

impl Starter {
    /// As it is now. To be asked before any code of the app runs.
    pub(crate) fn current(py: Python<'_>) -> PyResult<Self> {
        let threading = py.import("threading")?;
        for name in STARTERS {
            if let Some(starter) = threading.getattr_opt(name)? {
                return Ok(Self(Some(starter.unbind())));
            }
        }
        Ok(Self(None))
    }

    /// Whether threads are no longer started as they were.
    pub(crate) fn is_replaced(&self, py: Python<'_>) -> PyResult<bool> {
        let (Self(before), Self(now)) = (self, Self::current(py)?);
        Ok(match (before, now) {
            (Some(before), Some(now)) => !before.is(&now),
            (before, now) => before.is_some() != now.is_some(),
        })
    }
}
