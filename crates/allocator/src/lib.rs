//! The allocator of the binary, what it does without, and the way back for memory that it does not need any more.
//!
//! mimalloc has pages for each thread, and looks at those that have become empty when that thread allocates. The threads of a
//! proxy rest after a rush, and what the rush has taken would stay with them for as long.
//!
//! A crate of its own because whoever links it has this allocator: our module in the user's Python must not.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// mimalloc: the proxy allocates for each request on several threads, and glibc's arenas cost both time and memory there.
///
/// The crate `mimalloc` has the same, but asks for an alignment each time. What is not a power of two in size is then given
/// with room to align it in (mimalloc 3, `alloc-aligned.c`), which costs four times as much, and a third of what a request
/// allocates is such; here that is for what mimalloc does not align by itself.
struct Mimalloc;

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

/// How blocks are aligned in any case: to 16 (`MI_MAX_ALIGN_SIZE`), or to 8 if they are no larger than that.
const ALIGNED: usize = 16;

const fn is_aligned_anyway(size: usize, align: usize) -> bool {
    align <= ALIGNED && align <= size
}

#[expect(
    unsafe_code,
    reason = "an allocator cannot be had otherwise, and the one of the crate `mimalloc` is slower"
)]
// SAFETY: mimalloc is one: blocks are as large as asked for, do not overlap, stay until they are freed, are null where there
// is no memory, and nothing unwinds. They are aligned as asked for: by themselves where that is enough, else by request. A
// block may be freed and made larger by either kind of call, whichever has allocated it.
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size may be asked for, and `Layout` has only alignments that are powers of two.
        unsafe {
            match is_aligned_anyway(layout.size(), layout.align()) {
                true => mi_malloc(layout.size()).cast(),
                false => mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            match is_aligned_anyway(layout.size(), layout.align()) {
                true => mi_zalloc(layout.size()).cast(),
                false => mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller has it from here, and gives it back once.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has it from here; it is freed only where another takes its place.
        unsafe {
            match is_aligned_anyway(size, layout.align()) {
                true => mi_realloc(block.cast(), size).cast(),
                false => mi_realloc_aligned(block.cast(), size, layout.align()).cast(),
            }
        }
    }
}

/// Runs before `main`, and before what allocates in front of it: constructors with a number come first, and those below 101 are
/// the C library's.
#[expect(unsafe_code, reason = "nothing in Rust comes before the first block")]
#[used]
// SAFETY: the section is an array of such functions, by the ABI. This one makes a system call, and needs nothing that is not there
// yet.
#[unsafe(link_section = ".init_array.00101")]
static BEFORE_MAIN: extern "C" fn() = without_huge_pages;

/// mimalloc asks for huge pages, and each that is touched once is 2 MiB that stay, almost all of them zeros. Three are touched
/// before the command line is read: without any, master and proxy at rest have 3 MiB of their own in place of 14, and a request
/// costs the same (measured).
extern "C" fn without_huge_pages() {
    // A kernel that cannot leaves things as they are.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Before this process becomes another program, which would do without huge pages as well.
pub fn allow_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(false);
}

#[expect(
    unsafe_code,
    reason = "libmimalloc-sys names it only with what needs another C library's types"
)]
// SAFETY: so it is declared in mimalloc.h, and it is in what `libmimalloc-sys` links. It takes no pointer, and any thread may
// call it at any time.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives the system what the calling thread holds and does not use. Takes milliseconds where that is much.
pub fn give_back() {
    mi_collect(true);
}

#[cfg(test)]
mod tests {
    use std::alloc::{alloc, alloc_zeroed, dealloc, realloc};

    use super::*;

    /// That it is linked, and that what is in use stays.
    #[test]
    fn what_is_in_use_stays() {
        let before: Vec<Vec<u8>> = (0..1000_usize).map(|length| vec![7; length]).collect();
        drop(vec![1_u8; 1 << 20]);
        give_back();
        for (length, bytes) in before.iter().enumerate() {
            assert!(bytes.len() == length && bytes.iter().all(|byte| *byte == 7));
        }
    }

    /// Every alignment, at every size about which something could be different, and after it has changed.
    #[test]
    #[expect(unsafe_code, reason = "what is tried here is not to be had otherwise")]
    fn blocks_are_aligned() {
        for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
            for size in (1..300).chain([1024, 1040, 3608, 3784, 16_384, 100_000, 1 << 20]) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: no size is 0; each block is freed once, by the layout that it has then.
                unsafe {
                    let plain = alloc(layout);
                    let zeroed = alloc_zeroed(layout);
                    assert!(is_aligned(plain, align), "{size} {align}");
                    assert!(is_aligned(zeroed, align), "{size} {align}");
                    assert!((0..size).all(|at| zeroed.add(at).read() == 0));
                    plain.write_bytes(7, size);
                    let larger = realloc(plain, layout, size * 2);
                    assert!(is_aligned(larger, align), "{size} {align}");
                    assert!((0..size).all(|at| larger.add(at).read() == 7));
                    let layout_of_larger =
                        Layout::from_size_align(size * 2, align).expect("a layout");
                    let smaller = realloc(larger, layout_of_larger, 1);
                    assert!(is_aligned(smaller, align), "{size} {align}");
                    assert_eq!(smaller.read(), 7);
                    dealloc(
                        smaller,
                        Layout::from_size_align(1, align).expect("a layout"),
                    );
                    dealloc(zeroed, layout);
                }
            }
        }
    }

    fn is_aligned(block: *mut u8, align: usize) -> bool {
        !block.is_null() && block.addr().is_multiple_of(align)
    }
}
