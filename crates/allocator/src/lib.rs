//! The allocator of the binary, and the way back for memory that it does not need any more.
//!
//! mimalloc has pages for each thread, and looks at those that have become empty when that thread allocates. The threads of a
//! proxy rest after a rush, and what the rush has taken would stay with them for as long.
//!
//! A crate of its own because whoever links it has this allocator: our module in the user's Python must not.

// The proxy allocates for each request on several threads; glibc's arenas cost both time and memory there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(
    unsafe_code,
    reason = "the crate mimalloc has no word for it, and the one below it only with another C library's types"
)]
// SAFETY: so it is declared in mimalloc.h, and it is in what `mimalloc` links. It takes no pointer, and any thread may call
// it at any time.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives the system what the calling thread holds and does not use. Takes milliseconds where that is much.
pub fn give_back() {
    mi_collect(true);
}

#[cfg(test)]
mod tests {
    /// That it is linked, and that what is in use stays.
    #[test]
    fn what_is_in_use_stays() {
        let before: Vec<Vec<u8>> = (0..1000_usize).map(|length| vec![7; length]).collect();
        drop(vec![1_u8; 1 << 20]);
        super::give_back();
        for (length, bytes) in before.iter().enumerate() {
            assert!(bytes.len() == length && bytes.iter().all(|byte| *byte == 7));
        }
    }
}
