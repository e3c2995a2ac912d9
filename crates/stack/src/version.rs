//! What `stack --version` says: enough for a report of a fault, in lines that can be copied.

use std::sync::LazyLock;

use appserver::assignment::BUILD_ID;

/// `stack -V`.
pub(crate) const SHORT: &str = env!("CARGO_PKG_VERSION");

/// `stack --version`.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{SHORT}\n\
             build     {BUILD_ID} (binary and Python module agree on it)\n\
             from      {}\n\
             target    {}, {}\n\
             compiler  {}\n\
             Python    CPython 3.10 or later, by the stable ABI\n\
             TLS       rustls with aws-lc-rs",
            env!("STACK_BUILT_FROM"),
            env!("STACK_TARGET"),
            env!("STACK_PROFILE"),
            env!("STACK_RUSTC"),
        )
    });
    &LONG
}
