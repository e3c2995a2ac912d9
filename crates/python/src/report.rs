//! What a worker says: to the master over the control socket, and to people on standard error.

use std::{
    io::{self, Write as _},
    os::unix::net::UnixStream,
};

use appserver::assignment::Report;
use pyo3::{
    prelude::*,
    types::{PyList, PyString},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Sends one line to the master.
pub(crate) fn send(control: &mut UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        match control.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Reading needs it not to block, and the flag belongs to both directions.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut end = [PollFd::new(&*control, PollFlags::OUT)];
                match poll(&mut end, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The exception as one line and as Python prints it.
pub(crate) fn failed(py: Python<'_>, error: &PyErr) -> Report {
    Report::Failed {
        why: summary(py, error),
        traceback: traceback(py, error),
    }
}

/// `ModuleNotFoundError: No module named 'flask'`.
fn summary(py: Python<'_>, error: &PyErr) -> String {
    let lines = format(py, "format_exception_only", error).unwrap_or_default();
    // A SyntaxError begins with the place, indented; notes come last.
    let line = lines
        .iter()
        .find(|line| !line.starts_with(char::is_whitespace));
    line.map_or_else(|| error.to_string(), |line| line.trim_end().to_owned())
}

/// The traceback as Python prints it. Frames of ours are not in it: there are none between us and the app.
pub(crate) fn traceback(py: Python<'_>, error: &PyErr) -> String {
    // Formatting runs code of the app (`__str__`, `__cause__`) and can itself fail.
    format(py, "format_exception", error).map_or_else(|_| error.to_string(), |lines| lines.concat())
}

fn format(py: Python<'_>, function: &str, error: &PyErr) -> PyResult<Vec<String>> {
    let value = error.value(py);
    let arguments = (value.get_type(), value, error.traceback(py));
    let module = py.import("traceback")?;
    let lines = if function == "format_exception" {
        module.call_method1(function, arguments)?
    } else {
        module.call_method1(function, (arguments.0, arguments.1))?
    };
    lines
        .cast_into::<PyList>()?
        .iter()
        .map(|line| readable(&line.cast_into::<PyString>()?))
        .collect()
}

/// A `str` as UTF-8, lone surrogates escaped.
pub(crate) fn readable(text: &Bound<'_, PyString>) -> PyResult<String> {
    if let Ok(text) = text.to_str() {
        return Ok(text.to_owned());
    }
    let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
    Ok(String::from_utf8_lossy(bytes.extract()?).into_owned())
}

/// Writes whole lines to standard error, in one piece so that those of other slots do not come between.
///
/// To the descriptor and not to `sys.stderr`, which the app may have replaced; the master reads the other end.
pub(crate) fn log(py: Python<'_>, text: &str) {
    let mut lines = text.trim_end().to_owned();
    lines.push('\n');
    // Nobody is left to be told of a failure here.
    py.detach(|| drop(io::stderr().write_all(lines.as_bytes())));
}
