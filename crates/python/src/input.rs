//! `wsgi.input`: the content of a request as a file (PEP 3333, "Input and Error Streams").
//!
//! Reads from the connection as the app reads, with the GIL released for every wait. EOF is at the Content-Length.

use std::{io, mem::MaybeUninit, slice};

use appserver::content::Content;
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    ffi,
    prelude::*,
    types::{PyBytes, PyList, PyMemoryView, PySlice},
};

/// The input stream of one request.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct Input {
    /// `None`: there is no content.
    content: Option<Content>,
}

impl Input {
    pub(crate) fn empty(py: Python<'_>) -> PyResult<Py<Self>> {
        Py::new(py, Self { content: None })
    }

    pub(crate) fn of(py: Python<'_>, content: &Content) -> PyResult<Py<Self>> {
        Py::new(
            py,
            Self {
                content: Some(content.clone()),
            },
        )
    }

    /// How much a read of `size` can bring. Negative and `None` ask for everything.
    fn bounded(&self, size: Option<isize>) -> PyResult<usize> {
        let Some(content) = &self.content else {
            return Ok(0);
        };
        let remaining = content
            .remaining()
            .ok_or_else(|| PyRuntimeError::new_err("another thread is reading this wsgi.input"))?;
        let remaining = usize::try_from(remaining).unwrap_or(usize::MAX);
        Ok(match size.map(usize::try_from) {
            Some(Ok(size)) => size.min(remaining),
            Some(Err(_)) | None => remaining,
        })
    }

    fn line(&self, py: Python<'_>, size: Option<isize>) -> PyResult<Vec<u8>> {
        let mut line = Vec::new();
        let limit = self.bounded(size)?;
        if let Some(content) = self.content.as_ref().filter(|_| limit > 0) {
            let read = if content.line_is_here(limit) {
                content.read_line(limit, &mut line)
            } else {
                py.detach(|| content.read_line(limit, &mut line))
            };
            read.map_err(raise)?;
        }
        Ok(line)
    }
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = self.bounded(size)?;
        match &self.content {
            Some(content) => read_bytes(py, content, wanted),
            None => Ok(PyBytes::new(py, b"")),
        }
    }

    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.line(py, size)?))
    }

    /// Stops after the line that reaches `hint` bytes; zero and less mean no bound, as for files.
    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let bound = hint
            .and_then(|hint| usize::try_from(hint).ok())
            .filter(|&hint| hint > 0);
        let lines = PyList::empty(py);
        let mut total = 0;
        loop {
            let line = self.line(py, None)?;
            if line.is_empty() {
                return Ok(lines);
            }
            total += line.len();
            lines.append(PyBytes::new(py, &line))?;
            if bound.is_some_and(|bound| total >= bound) {
                return Ok(lines);
            }
        }
    }

    /// The stable ABI of 3.10 has no buffer protocol, so the way into the buffer is a memoryview.
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = PyMemoryView::from(buffer)?.call_method1("cast", ("B",))?;
        let bytes = self.read(py, Some(view.len()?.try_into()?))?;
        let length = bytes.as_bytes().len();
        view.set_item(PySlice::new(py, 0, length.try_into()?, 1), bytes)?;
        Ok(length)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(py, None)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    // What io.BufferedReader and io.TextIOWrapper ask of what they wrap.

    #[expect(clippy::unused_self, reason = "a method of the stream")]
    fn readable(&self) -> bool {
        true
    }

    #[expect(clippy::unused_self, reason = "a method of the stream")]
    fn writable(&self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "a method of the stream")]
    fn seekable(&self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "an attribute of the stream")]
    #[getter]
    fn closed(&self) -> bool {
        false
    }
}

/// Reads straight into a new `bytes`; `wanted` is no more than remains, so it comes out full.
fn read_bytes<'py>(
    py: Python<'py>,
    content: &Content,
    wanted: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let size = ffi::Py_ssize_t::try_from(wanted)?;
    // SAFETY: with a null pointer the function returns a new `bytes` of that size with indeterminate content, or null with
    // an exception set.
    let bytes = unsafe {
        let bytes = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size);
        Bound::from_owned_ptr_or_err(py, bytes)?.cast_into_unchecked::<PyBytes>()
    };
    // SAFETY: the pointer is to the `wanted` bytes of the object, which lives until the end of this function and which
    // nobody else has seen; MaybeUninit does not claim that they are initialised. For size 0 the shared empty object is
    // given no writable byte.
    let space = unsafe {
        let start = ffi::PyBytes_AsString(bytes.as_ptr());
        slice::from_raw_parts_mut(start.cast::<MaybeUninit<u8>>(), wanted)
    };
    // The proxy has most of it here already, and to give the GIL up is to wait for others that want it.
    let mut count = content.read_what_is_here(space).map_err(raise)?;
    if count < wanted {
        let rest = &mut space[count..];
        count += py.detach(|| content.read(rest)).map_err(raise)?;
        if count < wanted {
            return Err(PyRuntimeError::new_err(
                "another thread is reading this wsgi.input",
            ));
        }
    }
    Ok(bytes)
}

/// As Python's own files do it.
fn raise(error: io::Error) -> PyErr {
    if error.kind() == io::ErrorKind::NotConnected {
        PyValueError::new_err(error.to_string())
    } else {
        error.into()
    }
}
