//! Futures in memory of their own.

use std::pin::Pin;

/// Puts what `make` makes into memory of its own.
///
/// `Box::pin(future)` makes the future where the caller is, and then copies all of it, though hardly any of it has been
/// written to: what a request needs at most is some KiB, and its arguments are some words. Made behind the allocation, it is
/// made in its place.
#[inline]
pub(crate) fn boxed<T>(make: impl FnOnce() -> T) -> Pin<Box<T>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}
