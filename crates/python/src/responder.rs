//! `start_response` and `write` (PEP 3333, "The start_response() Callable").
//!
//! Both are methods of one [`Responder`], which has the response while its request runs and a detached one otherwise. The
//! lock is never held while Python runs or a write waits; it is there because an app may hand these callables to threads.

use std::{
    mem,
    sync::{Mutex, MutexGuard},
};

use appserver::response::{COPIED, Head, Misuse, Response};
use pyo3::{
    create_exception,
    exceptions::{PyException, PyOSError},
    intern,
    prelude::*,
    types::{PyBytes, PyList, PyString, PyTuple},
};
use telemetry::panics;

use crate::text;

create_exception!(
    _stack,
    ProtocolError,
    PyException,
    "The app broke a rule of WSGI (PEP 3333)."
);

/// What `start_response` and `write` act on.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct Responder {
    state: Mutex<State>,
}

/// The response of the request that runs.
pub(crate) struct State {
    pub(crate) head: Head,
    /// Whether `head` was given.
    pub(crate) given: bool,
    pub(crate) response: Response,
    /// Returned by `start_response`.
    write: Option<Py<PyAny>>,
    /// Where hints are put together.
    hints: Head,
}

impl Responder {
    fn new() -> Self {
        let state = State {
            head: Head::default(),
            given: false,
            response: Response::detached(),
            write: None,
            hints: Head::default(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain values, whole at each step.
        panics::lock(&self.state)
    }

    /// Takes the response out, so that a write can wait without the lock.
    pub(crate) fn take(&self) -> Response {
        mem::replace(&mut self.state().response, Response::detached())
    }

    pub(crate) fn put(&self, response: Response) {
        self.state().response = response;
    }
}

impl State {
    /// Fixes the head, if it is not yet; `total` is the length of the content if that is all known.
    pub(crate) fn begin(&mut self, total: Option<u64>) -> PyResult<()> {
        if self.response.has_begun() {
            return Ok(());
        }
        if !self.given {
            return Err(ProtocolError::new_err(
                "the app gave content, or returned, before it called start_response",
            ));
        }
        self.response.begin(&self.head, total);
        Ok(())
    }
}

/// Checks and serialises what the app gave. Runs without the lock: an error shows the app's objects, by their own code.
fn fill(head: &mut Head, status: &Bound<'_, PyAny>, fields: &Bound<'_, PyAny>) -> PyResult<()> {
    let status = status
        .cast::<PyString>()
        .map_err(|_| refuse(format!("the status is {}, not str", kind(status))))?;
    let bytes = text::encode(status)
        .ok_or_else(|| refuse(format!("the status {} is not latin-1", shown(status))))?;
    head.start(&bytes).map_err(misuse)?;
    fill_fields(head, fields)
}

fn fill_fields(head: &mut Head, fields: &Bound<'_, PyAny>) -> PyResult<()> {
    let list = fields.cast::<PyList>().map_err(|_| {
        refuse(format!(
            "the response fields are {}, not a list",
            kind(fields)
        ))
    })?;
    for pair in list.iter() {
        fill_field(head, &pair)?;
    }
    Ok(())
}

fn fill_field(head: &mut Head, pair: &Bound<'_, PyAny>) -> PyResult<()> {
    let tuple = pair.cast::<PyTuple>().ok().filter(|tuple| tuple.len() == 2);
    let tuple = tuple.ok_or_else(|| {
        refuse(format!(
            "the field {} is not a tuple of name and value",
            shown(pair)
        ))
    })?;
    let (name, value) = (tuple.get_item(0)?, tuple.get_item(1)?);
    let part = |part, what: &str| -> PyResult<Bound<'_, PyString>> {
        let wrong = |part: &Bound<'_, PyAny>| {
            refuse(format!(
                "the {what} of the field {} is {}, not str",
                shown(&name),
                kind(part)
            ))
        };
        Bound::cast_into(part).map_err(|error| wrong(&error.into_inner()))
    };
    let (name_text, value_text) = (part(name.clone(), "name")?, part(value, "value")?);
    let not_latin = |what: &str| {
        refuse(format!(
            "the {what} of the field {} is not latin-1",
            shown(&name)
        ))
    };
    let name_bytes = text::encode(&name_text).ok_or_else(|| not_latin("name"))?;
    let value_bytes = text::encode(&value_text).ok_or_else(|| not_latin("value"))?;
    head.field(&name_bytes, &value_bytes).map_err(misuse)
}

#[pymethods]
impl Responder {
    #[pyo3(signature = (status, response_headers, exc_info = None, /))]
    fn start_response<'py>(
        this: &Bound<'py, Self>,
        status: &Bound<'_, PyAny>,
        response_headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let responder = this.get();
        let mut head = {
            let mut state = responder.state();
            match exc_info {
                Some(exc_info) if state.response.has_begun() => {
                    drop(state);
                    return Err(raise_again(exc_info)?);
                }
                None if state.given => {
                    return Err(refuse(
                        "start_response was called a second time without exc_info".to_owned(),
                    ));
                }
                _ => state.given = false,
            }
            mem::take(&mut state.head)
        };
        let filled = fill(&mut head, status, response_headers);
        let write = {
            let mut state = responder.state();
            state.head = head;
            state.given = filled.is_ok();
            let write = state.write.as_ref();
            write.map(|write| write.bind(this.py()).clone())
        };
        filled?;
        // One that the app kept past its request has given its own up.
        write.map_or_else(|| this.getattr(intern!(this.py(), "write")), Ok)
    }

    /// `wsgi.early_hints`: fields that the client may act upon before the answer is there (103, RFC 8297), as gunicorn has it.
    #[pyo3(signature = (headers, /))]
    fn early_hints(&self, py: Python<'_>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut hints = mem::take(&mut self.state().hints);
        hints.hints();
        let filled = fill_fields(&mut hints, headers);
        if filled.is_ok() {
            let mut response = self.take();
            if !response.hint(&hints) {
                response = py.detach(|| {
                    response.flush();
                    response
                });
            }
            self.put(response);
        }
        self.state().hints = hints;
        filled
    }

    /// The callable that `start_response` returns.
    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = data.cast::<PyBytes>().map_err(|_| {
            ProtocolError::new_err(format!("write() was given {}, not bytes", kind(data)))
        })?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        self.state().begin(None)?;
        self.send(py, data.as_bytes());
        let broken = self
            .state()
            .response
            .error()
            .map(|error| PyOSError::new_err(error.to_string()));
        broken.map_or(Ok(()), Err)
    }
}

impl Responder {
    /// Sends a block before it returns, as PEP 3333 wants it before the app is asked for the next.
    ///
    /// A small one goes out at once with the GIL held: giving it up and waiting to get it back from a busy thread would cost
    /// a switch interval (5 ms) for a write of 2 µs. Only when the connection does not take it is the GIL released.
    pub(crate) fn send(&self, py: Python<'_>, data: &[u8]) {
        let mut response = self.take();
        if data.len() <= COPIED {
            response.push(data);
            if response.flush_without_wait() {
                return self.put(response);
            }
        }
        let copied = data.len() <= COPIED;
        let response = py.detach(|| {
            if copied {
                response.flush();
            } else {
                response.write(data);
            }
            response
        });
        self.put(response);
    }
}

/// A [`Responder`] with its two callables: used again for the next request unless the app kept one of them.
pub(crate) struct Callables {
    pub(crate) responder: Py<Responder>,
    pub(crate) start_response: Py<PyAny>,
    pub(crate) early_hints: Py<PyAny>,
}

impl Callables {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let responder = Bound::new(py, Responder::new())?;
        let start_response = responder.getattr(intern!(py, "start_response"))?.unbind();
        let write = responder.getattr(intern!(py, "write"))?.unbind();
        let early_hints = responder.getattr(intern!(py, "early_hints"))?.unbind();
        responder.get().state().write = Some(write);
        Ok(Self {
            responder: responder.unbind(),
            start_response,
            early_hints,
        })
    }

    /// Whether only we hold these: us and the three methods the responder, us `start_response`, the responder `write`, us and the
    /// base environ `early_hints`.
    fn are_ours(&self, py: Python<'_>) -> bool {
        let state = self.responder.get().state();
        let write = state
            .write
            .as_ref()
            .map_or(1, |write| count(write.bind(py)));
        write == 1
            && count(self.start_response.bind(py)) == 1
            && count(self.early_hints.bind(py)) == 2
            && count(self.responder.bind(py).as_any()) == 4
    }

    /// Callables for the next request that no one kept from the last; whether they are new.
    pub(crate) fn renew(&mut self, py: Python<'_>) -> PyResult<bool> {
        if self.are_ours(py) {
            return Ok(false);
        }
        let kept = mem::replace(self, Self::new(py)?);
        // Breaks the circle of the responder and its method; what was kept now writes to nobody.
        let write = kept.responder.get().state().write.take();
        drop(write);
        Ok(true)
    }
}

/// How many references there are.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the lower half of it is the figure"
)]
pub(crate) fn count(object: &Bound<'_, PyAny>) -> u32 {
    // SAFETY: the object is alive, as `Bound` says, and the GIL is held, so nobody changes the figure. From CPython 3.14 on
    // the upper half of the word holds flags; so only the lower half is used.
    let count = unsafe { pyo3::ffi::Py_REFCNT(object.as_ptr()) };
    count as u32
}

/// The exception of `exc_info`, to be raised again because the head is already out.
fn raise_again(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    let error = PyErr::from_value(value);
    Ok(error)
}

fn refuse(why: String) -> PyErr {
    ProtocolError::new_err(why)
}

fn misuse(misuse: Misuse) -> PyErr {
    ProtocolError::new_err(misuse.to_string())
}

/// The name of an object's type.
pub(crate) fn kind(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .name()
        .map_or_else(|_| "something".to_owned(), |name| name.to_string())
}

fn shown(object: &Bound<'_, PyAny>) -> String {
    object
        .repr()
        .map_or_else(|_| kind(object), |text| text.to_string_lossy().into_owned())
}
