//! How heads are put together.
//!
//! Once for all of their parts: a request has some fifty of them, and as many copies of what makes room in a `Vec` take more of the
//! first cache than the calls cost.

/// Appends this.
#[inline(never)]
pub(crate) fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
}

/// Appends a field line (RFC 9112 §5).
#[inline(never)]
pub(crate) fn put_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
