//! `wsgi.errors`: whole lines to standard error, each with the request id.

use std::sync::{Mutex, MutexGuard};

use pyo3::{prelude::*, types::PyString};
use telemetry::panics;

use crate::report;

/// A line that does not end is cut here, so that an app cannot fill the memory with it.
const LONGEST_LINE: usize = 64 * 1024;

/// The error stream of one request.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct Errors {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    request_id: String,
    /// The beginning of a line.
    partial: String,
}

impl Errors {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Py<Self>> {
        Py::new(
            py,
            Self {
                state: Mutex::default(),
            },
        )
    }

    /// Makes ready for a request.
    pub(crate) fn begin(&self, request_id: &str) {
        let mut state = self.state();
        state.request_id.clear();
        state.request_id.push_str(request_id);
    }

    /// Writes what is left of the last line.
    pub(crate) fn end(&self, py: Python<'_>) {
        let lines = {
            let mut state = self.state();
            if state.partial.is_empty() {
                return;
            }
            state.partial.push('\n');
            state.whole_lines()
        };
        report::log(py, &lines);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        panics::lock(&self.state)
    }
}

impl State {
    /// Takes the whole lines, tagged.
    fn whole_lines(&mut self) -> String {
        let Some(end) = self.partial.rfind('\n') else {
            return String::new();
        };
        let rest = self.partial.split_off(end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        lines
            .lines()
            .flat_map(|line| ["[", &self.request_id, "] ", line, "\n"])
            .collect()
    }
}

#[pymethods]
impl Errors {
    fn write(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<usize> {
        let readable = report::readable(text)?;
        let lines = {
            let mut state = self.state();
            state.partial.push_str(&readable);
            if state.partial.len() > LONGEST_LINE {
                state.partial.push('\n');
            }
            state.whole_lines()
        };
        if !lines.is_empty() {
            report::log(py, &lines);
        }
        text.len()
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, &line?.cast_into::<PyString>()?)?;
        }
        Ok(())
    }

    /// Whole lines are out already; the beginning of one waits for its end.
    #[expect(clippy::unused_self, reason = "a method of the stream")]
    fn flush(&self) {}
}
