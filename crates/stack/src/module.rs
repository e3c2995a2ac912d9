//! The module that workers load, as far as this binary has it inside.

/// Empty in a checkout, where it lies beside the executable (`build.rs`).
pub(crate) static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/module"));
