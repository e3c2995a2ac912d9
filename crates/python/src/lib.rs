//! The module `_stack`: what turns the user's interpreter into a worker.
//!
//! `bootstrap.py` loads it, makes a `Worker` and runs it: the worker imports the app, starts its slots, each a
//! `threading.Thread` that runs the loop of [`appserver::serve`], and waits for the master on the main thread. A slot
//! implements [`appserver::application::Application`] by WSGI (PEP 3333). The module knows nothing of the binary's
//! configuration; what it must know is in its [`appserver::assignment::Assignment`].
//!
//! It is built for the stable ABI of CPython 3.10. The GIL is held from the building of an environ to the last byte that
//! the app produced, and released for every wait on the connection.
#![allow(
    unsafe_code,
    reason = "the hot path uses functions of the C API that pyo3 does not wrap, and descriptors arrive as numbers"
)]

use pyo3::prelude::*;

mod environ;
mod errors;
mod file_wrapper;
mod input;
mod load;
mod report;
mod responder;
mod slot;
mod stacks;
mod text;
mod watch;
mod worker;
mod wsgi;

/// The module `_stack`.
#[pymodule]
fn _stack(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("BUILD_ID", appserver::assignment::BUILD_ID)?;
    module.add(
        "ProtocolError",
        module.py().get_type::<responder::ProtocolError>(),
    )?;
    module.add_class::<worker::Worker>()?;
    module.add_class::<input::Input>()?;
    module.add_class::<errors::Errors>()?;
    module.add_class::<file_wrapper::FileWrapper>()
}
