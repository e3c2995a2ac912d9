//! The server side of WSGI (PEP 3333): one call of the app, its iterable, and `close()`, whatever happens.
//!
//! An exception, a `SystemExit` or a `KeyboardInterrupt` of a request ends that request and nothing else.

use appserver::{
    application::Application,
    assignment::Assignment,
    request::Request,
    response::{COPIED, Failure, Response},
};
use pyo3::{
    exceptions::PyOSError,
    intern,
    prelude::*,
    types::{PyBytes, PyList, PyTuple},
};

use crate::{
    environ::{Fixed, Template},
    errors::Errors,
    file_wrapper::FileWrapper,
    report,
    responder::{Callables, ProtocolError, Responder, State, count, kind},
};

/// A slot's side of WSGI.
pub(crate) struct Wsgi {
    app: Py<PyAny>,
    /// The app's name, for the log.
    name: String,
    /// Whether whoever asks is to see tracebacks.
    dev: bool,
    template: Template,
    callables: Callables,
    errors: Py<Errors>,
}

impl Wsgi {
    pub(crate) fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        assignment: &Assignment,
        fixed: &Fixed,
    ) -> PyResult<Self> {
        let errors = Errors::new(py)?;
        let template = Template::new(py, fixed)?;
        template.set_errors(py, &errors)?;
        let callables = Callables::new(py)?;
        template.set_early_hints(py, &callables.early_hints)?;
        Ok(Self {
            app,
            name: assignment.app.clone(),
            dev: assignment.dev,
            template,
            callables,
            errors,
        })
    }

    /// Runs the app for one request; the response is complete, or failed, after this.
    fn run(
        &mut self,
        py: Python<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> PyResult<()> {
        if self.callables.renew(py)? {
            self.template
                .set_early_hints(py, &self.callables.early_hints)?;
        }
        self.renew_errors(py)?;
        self.errors.get().begin(request.handoff().request_id);
        let responder = self.callables.responder.clone_ref(py);
        let responder = responder.get();
        {
            let mut state = responder.state();
            state.given = false;
            std::mem::swap(&mut state.response, response);
        }
        let served = self.call(py, request, responder);
        if let Err(error) = served {
            self.failed(py, request, responder, &error);
        }
        *response = responder.take();
        self.errors.get().end(py);
        Ok(())
    }

    /// Lets go of a response that a fault of ours left behind, and with it of the connection.
    pub(crate) fn abandon(&self) {
        drop(self.callables.responder.get().take());
    }

    /// The base environ and we hold `wsgi.errors`; one that the app kept stays that request's.
    fn renew_errors(&mut self, py: Python<'_>) -> PyResult<()> {
        if count(self.errors.bind(py).as_any()) > 2 {
            self.errors = Errors::new(py)?;
            self.template.set_errors(py, &self.errors)?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        py: Python<'_>,
        request: &Request<'_>,
        responder: &Responder,
    ) -> PyResult<()> {
        let environ = self.template.environ(py, request)?;
        let result = self
            .app
            .bind(py)
            .call1((environ, &self.callables.start_response))?;
        if let Ok(list) = result.cast_exact::<PyList>() {
            return send_known(py, responder, list.len(), |index| list.get_item(index));
        }
        if let Ok(tuple) = result.cast_exact::<PyTuple>() {
            return send_known(py, responder, tuple.len(), |index| tuple.get_item(index));
        }
        let file = result.cast_exact::<FileWrapper>();
        let sent = if file.is_ok_and(|file| hand_over(py, responder, file.get())) {
            Ok(())
        } else {
            send_iterable(py, responder, &result)
        };
        let closed = match result.getattr_opt(intern!(py, "close")) {
            Ok(Some(close)) => close.call0().map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match (sent, closed) {
            (Err(error), Err(second)) => {
                self.log_exception(py, request, "raised an exception in close()", &second);
                Err(error)
            }
            (sent, closed) => sent.and(closed),
        }
    }

    /// Ends a response that cannot be completed, and says why, once.
    fn failed(&self, py: Python<'_>, request: &Request<'_>, responder: &Responder, error: &PyErr) {
        // Before the lock: it runs code of the app.
        let traceback = self.dev.then(|| report::traceback(py, error));
        let broken = {
            let mut state = responder.state();
            let protocol = error.is_instance_of::<ProtocolError>(py);
            let failure = match protocol {
                true => Failure::Protocol,
                false => Failure::Exception,
            };
            state.response.fail_with(failure, traceback.as_deref());
            state.response.is_broken()
        };
        // The proxy left: whatever write() raised is no fault of the app.
        if broken && error.is_instance_of::<PyOSError>(py) {
            return;
        }
        if error.is_instance_of::<ProtocolError>(py) {
            self.log_exception(
                py,
                request,
                &format!("broke the protocol: {}", error.value(py)),
                error,
            );
        } else {
            self.log_exception(py, request, "raised an exception", error);
        }
    }

    fn log_exception(&self, py: Python<'_>, request: &Request<'_>, what: &str, error: &PyErr) {
        // Without a frame of the app the traceback only repeats the line.
        let traceback =
            if error.traceback(py).is_some() || !error.is_instance_of::<ProtocolError>(py) {
                report::traceback(py, error)
            } else {
                String::new()
            };
        let handoff = request.handoff();
        // Secrets travel in queries. What is hidden of one is the proxy's to know; its line with the same id shows the rest.
        let target = request.raw_target();
        let path = target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        report::log(
            py,
            &format!(
                "app {}: {} {} (request {}) {what}\n{traceback}",
                self.name,
                request.method().escape_ascii(),
                path.escape_ascii(),
                handoff.request_id,
            ),
        );
    }
}

impl Application for Wsgi {
    fn respond(&mut self, request: &Request<'_>, response: &mut Response) {
        Python::attach(|py| {
            if let Err(error) = self.run(py, request, response) {
                self.log_exception(py, request, "could not be called", &error);
                response.fail(Failure::Exception);
            }
        });
    }

    fn wait<T: Send>(&mut self, act: impl FnOnce() -> T + Send) -> T {
        Python::attach(|py| py.detach(act))
    }
}

/// A list or tuple: all of the content is there, so its length is known without asking.
fn send_known<'py>(
    py: Python<'py>,
    responder: &Responder,
    length: usize,
    item: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let mut total = 0;
    for index in 0..length {
        total += block(&item(index)?)?.as_bytes().len() as u64;
    }
    responder.state().begin(Some(total))?;
    for index in 0..length {
        let item = item(index)?;
        let data = block(&item)?.as_bytes();
        let mut state = responder.state();
        if state.response.has_no_content() || state.response.is_broken() {
            break;
        }
        if data.len() <= COPIED && state.response.pending() <= COPIED {
            state.response.push(data);
        } else {
            drop(state);
            responder.send(py, data);
        }
    }
    end(responder)
}

/// Gives a real file to the proxy, so that the slot is free at once. `false`: it is to be sent block by block.
fn hand_over(py: Python<'_>, responder: &Responder, wrapper: &FileWrapper) -> bool {
    let Some(file) = wrapper.real_file(py) else {
        return false;
    };
    let mut state = responder.state();
    let length = file.range.end - file.range.start;
    let disagrees = |declared| declared != length;
    if !state.given || state.head.content_length().is_some_and(disagrees) {
        return false;
    }
    let State { head, response, .. } = &mut *state;
    response.hand_over(head, file.descriptor(), &file.range)
}

fn send_iterable(
    py: Python<'_>,
    responder: &Responder,
    iterable: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let blocks = iterable
        .try_iter()
        .map_err(|error| not_iterable(py, iterable, error))?;
    for item in blocks {
        let item = item?;
        let data = block(&item)?.as_bytes();
        if data.is_empty() {
            continue;
        }
        if !responder.state().response.has_begun() {
            let total = sole_length(responder, iterable, data);
            responder.state().begin(total)?;
        }
        if responder.state().response.has_no_content() {
            break;
        }
        responder.send(py, data);
        let state = responder.state();
        if state.response.is_broken() || state.response.has_excess() {
            break;
        }
    }
    responder.state().begin(Some(0))?;
    end(responder)?;
    Ok(())
}

/// The length of content that is this one block, as `len(iterable)` tells (PEP 3333, "Handling the Content-Length Header").
fn sole_length(responder: &Responder, iterable: &Bound<'_, PyAny>, data: &[u8]) -> Option<u64> {
    // A statement of its own, so that the lock is free again when `__len__` runs.
    let given = responder.state().head.content_length().is_some();
    (!given && iterable.len().is_ok_and(|length| length == 1)).then_some(data.len() as u64)
}

fn end(responder: &Responder) -> PyResult<()> {
    let mut state = responder.state();
    if state.response.is_broken() {
        return Ok(());
    }
    state
        .response
        .end()
        .map_err(|misuse| ProtocolError::new_err(misuse.to_string()))
}

/// One block of the content.
fn block<'a, 'py>(item: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    item.cast::<PyBytes>().map_err(|_| {
        ProtocolError::new_err(format!(
            "the content must be of bytes, and one block is {}",
            kind(item)
        ))
    })
}

fn not_iterable(py: Python<'_>, iterable: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let hint = if iterable.is_none() {
        "; is a `return` missing?"
    } else {
        ""
    };
    let raised = ProtocolError::new_err(format!(
        "the app returned {}, not an iterable of bytes{hint}",
        kind(iterable)
    ));
    raised.set_cause(py, Some(error));
    raised
}
