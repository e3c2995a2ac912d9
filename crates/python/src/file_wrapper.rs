//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): an iterator over blocks of a file, and what
//! tells whether the file can be handed to the proxy instead.
//!
//! Only what Python itself reads unchanged is handed over: a `gzip.GzipFile` has a `fileno` too, but its content is another.

use std::{
    ops::Range,
    os::fd::{BorrowedFd, RawFd},
};

use pyo3::{
    exceptions::PyStopIteration,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyString, PyType},
};
use rustix::fs::{FileType, fstat};

/// A file-like object as an iterable of its blocks.
#[pyclass(frozen, module = "_stack")]
pub(crate) struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    block_size: isize,
}

impl FileWrapper {
    /// What a real file has from its position on; `None` for everything else, which is to be read.
    pub(crate) fn real_file(&self, py: Python<'_>) -> Option<RealFile> {
        // A file that cannot even tell its position shows its error again when it is read.
        self.try_real_file(py).ok().flatten()
    }

    fn try_real_file(&self, py: Python<'_>) -> PyResult<Option<RealFile>> {
        let Some(file) = reader(self.filelike.bind(py))? else {
            return Ok(None);
        };
        let position: u64 = file.call_method0(intern!(py, "tell"))?.extract()?;
        let descriptor: RawFd = file.call_method0(intern!(py, "fileno"))?.extract()?;
        if descriptor < 0 {
            return Ok(None);
        }
        // SAFETY: the file object was open a moment ago, and no Python code has run since.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let Ok(stat) = fstat(borrowed) else {
            return Ok(None);
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok((is_regular && position < size).then_some(RealFile {
            descriptor,
            range: position..size,
        }))
    }
}

/// A part of a regular file, up to its end.
pub(crate) struct RealFile {
    descriptor: RawFd,
    pub(crate) range: Range<u64>,
}

impl RealFile {
    /// The open file. To be used before any Python code runs again, which could close it.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: it was open when this value was made, and the GIL was held since; see above.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}

/// The file of Python's own that `filelike.read` reads, unchanged by anybody on the way.
fn reader<'py>(filelike: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static FILE_IO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static READER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static RANDOM: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = filelike.py();
    let file_io = FILE_IO.import(py, "io", "FileIO")?;
    let (buffered, random) = (
        READER.import(py, "io", "BufferedReader")?,
        RANDOM.import(py, "io", "BufferedRandom")?,
    );
    let filelike = if is_temporary(filelike)? {
        &filelike.getattr(intern!(py, "file"))?
    } else {
        filelike
    };
    // Whose method `read` really is: Django's `File`, for one, has that of the file within.
    let read = filelike.getattr(intern!(py, "read"))?;
    let Some(file) = read.getattr_opt(intern!(py, "__self__"))? else {
        return Ok(None);
    };
    let kind = file.get_type();
    if kind.is(file_io) {
        return Ok(Some(file));
    }
    if !(kind.is(buffered) || kind.is(random)) {
        return Ok(None);
    }
    let raw = file.getattr(intern!(py, "raw"))?;
    if !raw.get_type().is(file_io) {
        return Ok(None);
    }
    if kind.is(random) {
        file.call_method0(intern!(py, "flush"))?;
    }
    Ok(Some(file))
}

/// `tempfile.NamedTemporaryFile` wraps each method of its file anew.
fn is_temporary(filelike: &Bound<'_, PyAny>) -> PyResult<bool> {
    let kind = filelike.get_type();
    let is = |text: PyResult<Bound<'_, PyString>>, wanted: &str| -> PyResult<bool> {
        Ok(text?.to_str()? == wanted)
    };
    Ok(is(kind.name(), "_TemporaryFileWrapper")? && is(kind.module(), "tempfile")?)
}

#[pymethods]
impl FileWrapper {
    /// wsgiref's default block is 8 KiB; a larger one spares calls.
    #[new]
    #[pyo3(signature = (filelike, block_size = 65536))]
    fn new(filelike: Py<PyAny>, block_size: isize) -> Self {
        Self {
            filelike,
            block_size,
        }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let block = self
            .filelike
            .bind(py)
            .call_method1(intern!(py, "read"), (self.block_size,))?;
        if block.is_truthy()? {
            Ok(block)
        } else {
            Err(PyStopIteration::new_err(()))
        }
    }

    /// Closes the file, if it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.filelike.bind(py).getattr_opt(intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}
