//! Where busy slots are: the frames of their threads, looked at from the main thread while they go on.

use appserver::assignment::{Report, Stack};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyString},
};

use crate::{report, slot::Shared};

/// Where each slot is that runs something of the app.
pub(crate) fn report(py: Python<'_>, shared: &Shared) -> PyResult<Report> {
    let frames = py.import("sys")?.call_method0("_current_frames")?;
    let frames = frames.cast_into::<PyDict>()?;
    let threading: String = py.import("threading")?.getattr("__file__")?.extract()?;
    let traceback = py.import("traceback")?;
    let mut stacks = Vec::new();
    for (slot, thread) in (1..).zip(&shared.threads) {
        let thread = thread.load(std::sync::atomic::Ordering::Acquire);
        let Some(frame) = frames.get_item(thread)? else {
            continue;
        };
        let whole = traceback.call_method1("extract_stack", (frame,))?;
        let text = text(&traceback, &whole, &threading)?;
        if !text.is_empty() {
            stacks.push(Stack { slot, text });
        }
    }
    Ok(Report::Stacks(stacks))
}

/// The stack as Python prints it, without the frames of `threading` that every slot begins with. An idle slot has no other.
fn text(
    traceback: &Bound<'_, PyModule>,
    whole: &Bound<'_, PyAny>,
    threading: &str,
) -> PyResult<String> {
    let of_app = PyList::empty(traceback.py());
    let mut begun = false;
    for frame in whole.try_iter()? {
        let frame = frame?;
        let file: String = frame.getattr("filename")?.extract()?;
        begun = begun || file != threading;
        if begun {
            of_app.append(frame)?;
        }
    }
    let lines = traceback.call_method1("format_list", (of_app,))?;
    lines
        .cast_into::<PyList>()?
        .iter()
        .map(|line| report::readable(&line.cast_into::<PyString>()?))
        .collect()
}
