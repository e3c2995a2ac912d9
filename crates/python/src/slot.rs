//! A thread of a worker: it answers what its crew finds, with the GIL, and waits without it.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use appserver::{
    assignment::Assignment,
    crew::{Crew, Steward},
    serve::{Connection, Error},
};
use pyo3::prelude::*;
use rustix::{net::sockopt, process::getuid};

use supervisor::scoreboard::Pen;
use telemetry::panics::Vital;

use crate::{
    environ::Fixed,
    report,
    watch::{Watched, Wear},
    wsgi::Wsgi,
};

/// What all threads of a worker share.
pub(crate) struct Shared {
    pub(crate) assignment: Assignment,
    pub(crate) crew: Crew<Doorkeeper>,
    /// Each slot's place on the scoreboard.
    pub(crate) pens: Vec<Pen>,
    /// The thread that runs each slot's request (`threading.get_ident`); 0 while it has none.
    pub(crate) threads: Vec<AtomicU64>,
    pub(crate) wear: Wear,
    /// For reports to the master, whole lines one at a time.
    pub(crate) voice: Mutex<UnixStream>,
}

/// The target of one of the threads.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct Slot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) app: Py<PyAny>,
}

#[pymethods]
impl Slot {
    /// Answers requests until the worker stops.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let Shared {
            assignment, crew, ..
        } = &*self.shared;
        let fixed = Fixed {
            multithread: assignment.threads > 1,
            multiprocess: assignment.workers > 1,
        };
        let mut wsgi = Wsgi::new(py, self.app.clone_ref(py), assignment, &fixed)?;
        let thread = py.import("threading")?.call_method0("get_ident")?;
        let thread = thread.extract()?;
        let _vital = Vital::new("one of its threads");
        while py.detach(|| crew.wait()) {
            let mut job = crew.claim();
            while let Some(connection) = job {
                self.shared.answer(connection, thread, &mut wsgi);
                job = crew.next();
            }
        }
        Ok(())
    }
}

impl Shared {
    fn answer(&self, mut connection: Box<Connection>, thread: u64, wsgi: &mut Wsgi) {
        let slot = connection.slot();
        let place = usize::from(slot - 1);
        let mut watched = Watched {
            application: wsgi,
            pen: &self.pens[place],
            place: &self.threads[place],
            thread,
            shared: self,
        };
        self.crew.begin();
        // A fault of ours costs this connection, not the thread.
        let end = catch_unwind(AssertUnwindSafe(|| connection.answer(&mut watched)));
        let goes_on = match end {
            Ok(Ok(goes_on)) => goes_on,
            Ok(Err(error)) => {
                broke(slot, &error);
                false
            }
            Err(_) => {
                self.pens[place].end();
                self.threads[place].store(0, Ordering::Release);
                wsgi.abandon();
                log(&format!(
                    "slot {slot} closed a connection: a bug in stack, please report it"
                ));
                false
            }
        };
        self.crew.finish(connection, goes_on);
    }
}

/// Who may connect, and where what goes wrong with connections is said.
pub(crate) struct Doorkeeper {
    pub(crate) proxy_uid: u32,
}

impl Steward for Doorkeeper {
    /// Whether the peer is the proxy, ourselves or root.
    fn admits(&self, stream: &OwnedFd) -> bool {
        sockopt::socket_peercred(stream).is_ok_and(|peer| {
            peer.uid.as_raw() == self.proxy_uid || peer.uid == getuid() || peer.uid.is_root()
        })
    }

    fn log(&self, line: &str) {
        log(line);
    }

    fn broke(&self, slot: u16, error: &Error) {
        broke(slot, error);
    }
}

fn broke(slot: u16, error: &Error) {
    log(&format!(
        "slot {slot} closed a connection: {}",
        with_source(error)
    ));
}

fn log(line: &str) {
    Python::attach(|py| report::log(py, line));
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
