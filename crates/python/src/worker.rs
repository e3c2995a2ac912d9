//! A worker's life on its main thread: import the app, start the slots, wait for the master, leave.
//!
//! The main thread is where Python runs signal handlers, so it waits in one place where both a signal and an order wake it,
//! with the GIL released. When it leaves, `run` returns, and the interpreter ends as after any script: `atexit`, destructors.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use appserver::{
    assignment::{Assignment, BUILD_ID, Order, Report},
    crew::Crew,
    serve::Identity,
};
use pyo3::{
    exceptions::{PySystemExit, PyValueError},
    prelude::*,
    types::PyDict,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, open},
    io::{DupFlags, Errno, dup3},
    pipe::{PipeFlags, pipe_with},
};
use supervisor::{scoreboard, title::Title};
use telemetry::panics;

use crate::{
    load::{self, Loaded},
    report,
    slot::{Doorkeeper, Shared, Slot},
    stacks,
    watch::Wear,
};

/// A worker. Made once, by the bootstrap script.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    control: UnixStream,
    /// The descriptor of [`Shared::voice`], whose lock a thread that is not in the child may hold.
    voice: RawFd,
    /// A byte for each signal (`signal.set_wakeup_fd`).
    wake: (OwnedFd, OwnedFd),
    title: Title,
}

#[pymethods]
impl Worker {
    /// Takes the assignment and the descriptors that it names.
    #[new]
    fn new(assignment: &str) -> PyResult<Self> {
        let assignment: Assignment = serde_json::from_str(assignment)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let [listener, control] = [assignment.listener, assignment.control].map(adopt);
        let control = UnixStream::from(control);
        // Whatever the master did with its end: a report is sent whole.
        control.set_nonblocking(false)?;
        // Nothing else needs it once it is mapped.
        let scoreboard = adopt(assignment.scoreboard);
        let slots = 0..assignment.threads;
        let voice = control.try_clone()?;
        let voice_number = voice.as_raw_fd();
        let identity = Identity {
            build: assignment.build.clone(),
            app: assignment.app.clone(),
            worker: assignment.number,
            slot: 1,
        };
        let doorkeeper = Doorkeeper {
            proxy_uid: assignment.proxy_uid,
        };
        let shared = Shared {
            crew: Crew::new(assignment.threads, listener, identity, doorkeeper)?,
            pens: scoreboard::pens(scoreboard, assignment.threads)?,
            threads: slots.map(|_| AtomicU64::new(0)).collect(),
            wear: Wear::new(assignment.max_requests),
            voice: Mutex::new(voice),
            assignment,
        };
        let wake = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(io::Error::from)?;
        let worker = Self {
            shared: Arc::new(shared),
            control,
            voice: voice_number,
            wake,
            // Python has its own copy of the arguments.
            title: Title::find(),
        };
        worker.show("worker", " (starting)");
        Ok(worker)
    }

    /// The whole life; the exit code.
    fn run(this: Bound<'_, Self>) -> PyResult<i32> {
        let py = this.py();
        let worker = this.get();
        // Before the import: it may fork already.
        guard_forks(&this)?;
        let loaded = match worker.load(py) {
            Ok(loaded) => loaded,
            Err(failed) => {
                worker.say(&failed)?;
                return Ok(1);
            }
        };
        freeze(py)?;
        let slots = worker.start(py, &loaded.app)?;
        worker.show("worker", "");
        worker.say(&Report::Ready)?;
        worker.wait(py)?;
        worker.show("worker", " (draining)");
        worker.shared.crew.stop();
        for slot in slots {
            join(py, &slot);
        }
        if let Some(Err(error)) = loaded.on_stop.map(|hook| hook.call0(py)) {
            let traceback = report::traceback(py, &error);
            let app = &worker.shared.assignment.app;
            report::log(
                py,
                &format!("app {app}: on_stop raised an exception\n{traceback}"),
            );
        }
        // What is frozen is not collected, and the modules of the app would go without their `__del__`.
        py.import("gc")?.call_method0("unfreeze")?;
        Ok(0)
    }

    /// In the child of a fork: our descriptors lead nowhere there. They stay open, on /dev/null, because the copies of our
    /// threads' values still name them.
    fn let_go(&self) -> PyResult<()> {
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)?;
        let fixed = [
            self.control.as_raw_fd(),
            self.voice,
            self.shared.assignment.dump,
            self.wake.0.as_raw_fd(),
            self.wake.1.as_raw_fd(),
        ];
        self.shared.crew.is_copied();
        for descriptor in fixed.into_iter().chain(self.shared.crew.descriptors()) {
            replace(&null, descriptor)?;
        }
        self.show("child of", "");
        Ok(())
    }
}

impl Worker {
    /// For `ps`: `stack: worker web·3 (draining)`. In `top` it is `stack: web·3`.
    fn show(&self, what: &str, how: &str) {
        let Assignment { app, number, .. } = &self.shared.assignment;
        let title = format!("stack: {what} {app}·{number}");
        let full = format!("{title}{how}");
        self.title
            .set(&format!("stack: {app}·{number}"), &[&full, &title]);
    }

    fn say(&self, report: &Report) -> io::Result<()> {
        report::send(&mut panics::lock(&self.shared.voice), report)
    }

    fn load(&self, py: Python<'_>) -> Result<Loaded, Report> {
        let assignment = &self.shared.assignment;
        if assignment.build != BUILD_ID {
            return Err(Report::Failed {
                why: format!(
                    "the module _stack is of build {BUILD_ID}, the binary of {}",
                    assignment.build
                ),
                traceback: String::new(),
            });
        }
        load::load(py, assignment)
    }

    fn start<'py>(&self, py: Python<'py>, app: &Py<PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let signal = py.import("signal")?;
        let quiet = PyDict::new(py);
        quiet.set_item("warn_on_full_buffer", false)?;
        signal.call_method("set_wakeup_fd", (self.wake.1.as_raw_fd(),), Some(&quiet))?;
        (1..=self.shared.assignment.threads)
            .map(|number| self.start_slot(py, app, number))
            .collect()
    }

    fn start_slot<'py>(
        &self,
        py: Python<'py>,
        app: &Py<PyAny>,
        number: u16,
    ) -> PyResult<Bound<'py, PyAny>> {
        let slot = Bound::new(
            py,
            Slot {
                shared: Arc::clone(&self.shared),
                app: app.clone_ref(py),
            },
        )?;
        let how = PyDict::new(py);
        how.set_item("target", slot.getattr("run")?)?;
        how.set_item("name", format!("slot-{number}"))?;
        how.set_item("daemon", false)?;
        let thread = py
            .import("threading")?
            .call_method("Thread", (), Some(&how))?;
        thread.call_method0("start")?;
        Ok(thread)
    }

    /// Waits for the order to leave, or for the end of the master; runs Python's signal handlers meanwhile.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let mut said = Vec::new();
        loop {
            py.detach(|| self.sleep())?;
            drain(&self.wake.0);
            if let Err(error) = py.check_signals() {
                if error.is_instance_of::<PySystemExit>(py) {
                    return Ok(());
                }
                report::log(
                    py,
                    &format!(
                        "a signal handler raised an exception\n{}",
                        report::traceback(py, &error)
                    ),
                );
            }
            if self.is_told_to_leave(py, &mut said)? {
                return Ok(());
            }
        }
    }

    fn sleep(&self) -> io::Result<()> {
        let mut ends = [
            PollFd::new(&self.control, PollFlags::IN),
            PollFd::new(&self.wake.0, PollFlags::IN),
        ];
        match poll(&mut ends, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what the master said, without a wait.
    fn is_told_to_leave(&self, py: Python<'_>, said: &mut Vec<u8>) -> PyResult<bool> {
        self.control.set_nonblocking(true)?;
        let end = (&self.control).read_to_end(said);
        while let Some(feed) = memchr::memchr(b'\n', said) {
            let line: Vec<u8> = said.drain(..=feed).collect();
            match serde_json::from_slice(&line) {
                Ok(Order::Retire) => self.show("worker", " (draining)"),
                Ok(Order::Drain) => return Ok(true),
                Ok(Order::Trace) => self.trace(py)?,
                Err(error) => report::log(
                    py,
                    &format!("an order of the master is not understood: {error}"),
                ),
            }
        }
        // Anything but "nothing yet" means that the master is gone.
        Ok(!matches!(end, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
    }

    fn trace(&self, py: Python<'_>) -> PyResult<()> {
        let report = stacks::report(py, &self.shared)?;
        // The master may take its time; slots need the GIL meanwhile.
        Ok(py.detach(|| self.say(&report))?)
    }
}

/// Once the app is imported and before any slot runs. What the import made lives as long as the process: frozen, it is not
/// looked through by every full collection, and its memory stays shared with a forked child.
fn freeze(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    Ok(())
}

/// Has every fork of the app let go of our descriptors.
fn guard_forks(worker: &Bound<'_, Worker>) -> PyResult<()> {
    let py = worker.py();
    let hook = PyDict::new(py);
    hook.set_item("after_in_child", worker.getattr("let_go")?)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&hook))?;
    Ok(())
}

/// Waits for a thread, whatever signal handlers raise meanwhile.
fn join(py: Python<'_>, thread: &Bound<'_, PyAny>) {
    while let Err(error) = thread.call_method0("join") {
        report::log(
            py,
            &format!(
                "a signal handler raised an exception\n{}",
                report::traceback(py, &error)
            ),
        );
    }
}

fn drain(pipe: &OwnedFd) {
    let mut bytes = [0; 64];
    while matches!(rustix::io::read(pipe.as_fd(), &mut bytes), Ok(1..)) {}
}

fn adopt(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the master opened this descriptor for us and named it in the assignment; nothing else in this process knows
    // of it, and a worker is made once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn replace(null: &OwnedFd, descriptor: RawFd) -> PyResult<()> {
    // SAFETY: the descriptor is open in this process, and its owner goes on owning it: it is forgotten below.
    let mut owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let replaced = dup3(null, &mut owned, DupFlags::CLOEXEC);
    std::mem::forget(owned);
    replaced.map_err(|error| io::Error::from(error).into())
}
