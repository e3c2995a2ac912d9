//! Finds the app: imports its module, takes the attribute, calls the factory, and refuses what is no WSGI application.
//! Finds its hooks in the same way, both before the first of them runs: a misspelt `on_stop` is told at the start.

use std::path::Path;

use appserver::assignment::{Assignment, Report};
use config::site::Entry;
use pyo3::{
    exceptions::{PyAttributeError, PyModuleNotFoundError},
    prelude::*,
    types::PyType,
};

use crate::report;

/// `CO_COROUTINE | CO_ASYNC_GENERATOR` of a code object.
const ASYNC: u32 = 0x80 | 0x200;

/// `CO_VARARGS` of a code object.
const VARARGS: u32 = 0x04;

/// What the assignment names.
pub(crate) struct Loaded {
    pub(crate) app: Py<PyAny>,
    /// To be called after the last request.
    pub(crate) on_stop: Option<Py<PyAny>>,
}

/// Imports the app, then runs its `on_start`; or says why it cannot be served.
pub(crate) fn load(py: Python<'_>, assignment: &Assignment) -> Result<Loaded, Report> {
    let app = application(py, assignment)?;
    let hook = |entry: &Option<Entry>| {
        let entry = entry.as_ref();
        entry
            .map(|entry| hook(py, entry, &assignment.root))
            .transpose()
    };
    let (on_start, on_stop) = (hook(&assignment.on_start)?, hook(&assignment.on_stop)?);
    if let Some(on_start) = on_start {
        on_start
            .call0(py)
            .map_err(|error| report::failed(py, &error))?;
    }
    Ok(Loaded { app, on_stop })
}

fn hook(py: Python<'_>, entry: &Entry, root: &Path) -> Result<Py<PyAny>, Report> {
    let object = find(py, entry, root)?;
    if object.is_callable() {
        return Ok(object.unbind());
    }
    let kind = object.get_type().name();
    let kind = kind.map_err(|error| report::failed(py, &error))?;
    Err(plain(format!(
        "{entry} is of type {kind}, not a function that a worker can call"
    )))
}

fn find<'py>(py: Python<'py>, entry: &Entry, root: &Path) -> Result<Bound<'py, PyAny>, Report> {
    let module = py
        .import(entry.module.as_str())
        .map_err(|error| import_failed(py, entry, root, &error))?;
    let mut object = module.into_any();
    for name in entry.attribute.split('.') {
        object = object
            .getattr(name)
            .map_err(|error| attribute_failed(py, &object, name, &error))?;
    }
    Ok(object)
}

fn application(py: Python<'_>, assignment: &Assignment) -> Result<Py<PyAny>, Report> {
    let entry = &assignment.entry;
    let mut object = find(py, entry, &assignment.root)?;
    if entry.factory {
        object = object.call0().map_err(|error| report::failed(py, &error))?;
    }
    match objection(&object, entry.factory) {
        Ok(None) => Ok(object.unbind()),
        Ok(Some(why)) => Err(plain(format!("{entry} {why}"))),
        Err(error) => Err(report::failed(py, &error)),
    }
}

fn plain(why: String) -> Report {
    Report::Failed {
        why,
        traceback: String::new(),
    }
}

/// A module of that very name that is missing is a mistake in the configuration, not in the app.
fn import_failed(py: Python<'_>, entry: &Entry, root: &Path, error: &PyErr) -> Report {
    let module = entry.module.as_str();
    let missing = error
        .is_instance_of::<PyModuleNotFoundError>(py)
        .then(|| error.value(py).getattr("name"));
    let missing = missing.and_then(|name| name.ok()?.extract::<String>().ok());
    match missing {
        Some(name) if module == name || module.starts_with(&format!("{name}.")) => plain(format!(
            "ModuleNotFoundError: No module named '{name}' in {}",
            root.display()
        )),
        _ => report::failed(py, error),
    }
}

/// Names that people give to their app, for a hint.
const USUAL: [&str; 4] = ["app", "application", "create_app", "wsgi"];

fn attribute_failed(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    name: &str,
    error: &PyErr,
) -> Report {
    if !error.is_instance_of::<PyAttributeError>(py) {
        return report::failed(py, error);
    }
    let usual = USUAL
        .into_iter()
        .find(|usual| *usual != name && object.getattr(*usual).is_ok_and(|it| it.is_callable()));
    let hint = usual
        .map(|usual| format!("; it has `{usual}`"))
        .unwrap_or_default();
    plain(format!("{error}{hint}"))
}

/// Why this object is no WSGI application; `None` if it may be one.
fn objection(object: &Bound<'_, PyAny>, made: bool) -> PyResult<Option<String>> {
    if !object.is_callable() {
        let kind = object.get_type().name()?;
        let hint = if made && object.is_none() {
            "; does the factory return the app?"
        } else {
            ""
        };
        return Ok(Some(format!(
            "is of type {kind}, not a WSGI application (a callable that takes environ and start_response){hint}"
        )));
    }
    let Some(code) = code(object)? else {
        return Ok(None);
    };
    if code.flags & ASYNC != 0 || code.names == ["scope", "receive", "send"] {
        return Ok(Some(
            "is an ASGI application; a `wsgi` app is called without async: wrap it (a2wsgi.ASGIMiddleware), or name the \
             framework's WSGI application"
                .to_owned(),
        ));
    }
    if code.names.is_empty() && code.flags & VARARGS == 0 && !made {
        return Ok(Some(
            "takes no arguments; if it returns the app, write it with ()".to_owned(),
        ));
    }
    Ok(None)
}

/// What a Python function declares.
struct Code {
    flags: u32,
    /// Positional parameters, without `self`.
    names: Vec<String>,
}

/// The code that a call of this object runs; `None` if it is not a Python function's.
fn code(object: &Bound<'_, PyAny>) -> PyResult<Option<Code>> {
    let mut object = object.clone();
    // functools.partial
    while let (Some(inner), true) = (
        object.getattr_opt("func")?,
        object.getattr_opt("keywords")?.is_some(),
    ) {
        object = inner;
    }
    if object.is_instance_of::<PyType>() {
        // Calling a class makes an instance; what that does is not ours to foresee.
        return Ok(None);
    }
    if object.getattr_opt("__code__")?.is_none() {
        object = object.getattr("__call__")?;
    }
    let bound = object.getattr_opt("__self__")?.is_some();
    let Some(code) = object.getattr_opt("__code__")? else {
        return Ok(None);
    };
    let count: usize = code.getattr("co_argcount")?.extract()?;
    let names: Vec<String> = code.getattr("co_varnames")?.extract()?;
    let names = names
        .into_iter()
        .take(count)
        .skip(usize::from(bound))
        .collect();
    Ok(Some(Code {
        flags: code.getattr("co_flags")?.extract()?,
        names,
    }))
}
