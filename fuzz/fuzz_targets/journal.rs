//! What is read may be damaged: however much it says there is, no more memory is taken than for what is there.
#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The system's memory, with a count of what is in use and of the most that was.
struct Counted {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[global_allocator]
static MEMORY: Counted = Counted { now: AtomicUsize::new(0), most: AtomicUsize::new(0) };

// SAFETY: all is left to `System`.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = self.now.fetch_add(layout.size(), Relaxed) + layout.size();
        self.most.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Bytes for the buffers that any reading takes and the page of a bot with 65,536 shards, and for each byte of a journal.
const ANY: usize = 64 << 20;
const EACH: usize = 1 << 10;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let before = MEMORY.now.load(Relaxed);
    MEMORY.most.store(before, Relaxed);
    shardmeter_manager::fuzzing::journal(input);
    let taken = MEMORY.most.load(Relaxed) - before;
    assert!(
        taken < ANY + EACH * input.len(),
        "{taken} bytes of memory for {} of input",
        input.len()
    );
});
