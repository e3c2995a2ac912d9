//! A slot: one thread that owns one connection at a time.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use appserver::{
    assignment::Assignment,
    serve::{Identity, serve},
};
use pyo3::prelude::*;
use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with, sockopt},
    process::getuid,
};

use supervisor::scoreboard::Pen;

use crate::{
    environ::Fixed,
    report,
    watch::{Watched, Wear},
    wsgi::Wsgi,
};

/// What all slots of a worker share.
pub(crate) struct Shared {
    pub(crate) assignment: Assignment,
    pub(crate) listener: OwnedFd,
    /// Set before the listener is shut down.
    pub(crate) stopping: AtomicBool,
    /// Each slot's connection, or -1; for the child of a fork, which must not keep them.
    pub(crate) connections: Vec<AtomicI32>,
    /// Each slot's place on the scoreboard.
    pub(crate) pens: Vec<Pen>,
    /// Each slot's thread (`threading.get_ident`); 0 before it runs.
    pub(crate) threads: Vec<AtomicU64>,
    pub(crate) wear: Wear,
    /// For reports to the master, whole lines one at a time.
    pub(crate) voice: Mutex<UnixStream>,
}

/// The target of a slot's thread.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct Slot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) app: Py<PyAny>,
    pub(crate) number: u16,
}

#[pymethods]
impl Slot {
    /// Serves connections until the worker stops.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let assignment = &self.shared.assignment;
        let fixed = Fixed {
            multithread: assignment.threads > 1,
            multiprocess: assignment.workers > 1,
        };
        let mut wsgi = Wsgi::new(py, self.app.clone_ref(py), &assignment.app, &fixed)?;
        let thread = py.import("threading")?.call_method0("get_ident")?;
        self.shared.sign(self.number, thread.extract()?);
        py.detach(|| self.shared.serve_all(self.number, &mut wsgi));
        Ok(())
    }
}

impl Shared {
    fn serve_all(&self, slot: u16, wsgi: &mut Wsgi) {
        let assignment = &self.assignment;
        let identity = Identity {
            build: assignment.build.clone(),
            app: assignment.app.clone(),
            worker: assignment.number,
            slot,
        };
        while let Some(stream) = self.accept() {
            let place = &self.connections[usize::from(slot - 1)];
            place.store(stream.as_raw_fd(), Ordering::Release);
            // A fault of ours costs this connection, not the slot.
            let mut watched = Watched {
                application: &mut *wsgi,
                pen: &self.pens[usize::from(slot - 1)],
                shared: self,
            };
            let end = catch_unwind(AssertUnwindSafe(|| serve(stream, &identity, &mut watched)));
            place.store(-1, Ordering::Release);
            match end {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log(&format!(
                    "slot {slot} closed a connection: {}",
                    with_source(&error)
                )),
                Err(_) => {
                    self.pens[usize::from(slot - 1)].end();
                    wsgi.abandon();
                    log(&format!(
                        "slot {slot} closed a connection: a bug in stack, please report it"
                    ));
                }
            }
        }
    }

    fn sign(&self, slot: u16, thread: u64) {
        let place = usize::from(slot - 1);
        self.threads[place].store(thread, Ordering::Release);
        self.pens[place].sign(thread);
    }

    /// The next connection of the proxy; `None` when the worker stops.
    fn accept(&self) -> Option<UnixStream> {
        while !self.stopping.load(Ordering::Acquire) {
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(stream) if self.is_proxy(&stream) => return Some(UnixStream::from(stream)),
                Ok(_) => log("a connection was refused: it is not the proxy's user"),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    log(&format!(
                        "no connection can be accepted: {}; trying again",
                        io::Error::from(error)
                    ));
                    // Only the app can give descriptors back, and nothing tells us when it does.
                    thread::sleep(Duration::from_secs(1));
                }
                Err(error) => {
                    if !self.stopping.load(Ordering::Acquire) {
                        log(&format!("the listener failed: {}", io::Error::from(error)));
                    }
                    return None;
                }
            }
        }
        None
    }

    /// Whether the peer is the proxy, ourselves or root.
    fn is_proxy(&self, stream: &OwnedFd) -> bool {
        sockopt::socket_peercred(stream).is_ok_and(|peer| {
            peer.uid.as_raw() == self.assignment.proxy_uid
                || peer.uid == getuid()
                || peer.uid.is_root()
        })
    }
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
