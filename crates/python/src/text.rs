//! Between Rust's bytes and Python's `str`: WSGI's native strings hold bytes as latin-1 (PEP 3333, "Unicode Issues").

use std::borrow::Cow;

use pyo3::{ffi, prelude::*, types::PyString};

/// Bytes as a `str` of the same code points.
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // A slice is never longer than `isize::MAX`.
    let length = bytes.len().cast_signed();
    // SAFETY: pointer and length are of one live slice; the function returns a new reference to a str, or null with an
    // exception set, which `from_owned_ptr_or_err` takes over.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Bound::from_owned_ptr_or_err(py, text).map(|text| text.cast_into_unchecked())
    }
}

/// A `str` as the bytes it stands for; `None` if it holds something beyond latin-1.
pub(crate) fn encode<'a>(text: &'a Bound<'_, PyString>) -> Option<Cow<'a, [u8]>> {
    // Fails for lone surrogates, which are beyond latin-1 too.
    let utf8 = text.to_str().ok()?;
    if utf8.is_ascii() {
        return Some(Cow::Borrowed(utf8.as_bytes()));
    }
    let bytes: Result<Vec<u8>, _> = utf8.chars().map(u8::try_from).collect();
    bytes.ok().map(Cow::Owned)
}

/// A `str` that is remembered as long as the bytes stay the same from request to request.
#[derive(Default)]
pub(crate) struct Memo {
    bytes: Vec<u8>,
    text: Option<Py<PyString>>,
}

impl Memo {
    /// Longer values are rarely the same twice, and not worth keeping.
    const LONGEST: usize = 256;

    /// `bytes` as a `str`.
    pub(crate) fn decode<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyString>> {
        if let Some(text) = &self.text
            && self.bytes == bytes
        {
            return Ok(text.bind(py).clone());
        }
        let text = decode(py, bytes)?;
        if bytes.len() <= Self::LONGEST {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
            self.text = Some(text.clone().unbind());
        }
        Ok(text)
    }
}
