//! Tells callgrind when to count.

/// Callgrind's requests are numbered from its two letters.
const CALLGRIND: u64 = ('C' as u64) << 24 | ('T' as u64) << 16;
const TOGGLE_COLLECT: u64 = CALLGRIND + 2;
const START_INSTRUMENTATION: u64 = CALLGRIND + 4;

/// From here on callgrind looks at every instruction; it counts those between [`on`] and [`off`].
pub fn instrument() {
    request(START_INSTRUMENTATION);
}

pub fn on() {
    request(TOGGLE_COLLECT);
}

pub fn off() {
    request(TOGGLE_COLLECT);
}

/// Does `work` counted.
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    instrument();
    on();
    let done = work();
    off();
    std::hint::black_box(done)
}

/// A client request as valgrind.h makes it; outside of valgrind it does nothing.
#[cfg(target_arch = "x86_64")]
fn request(request: u64) {
    let arguments = [request, 0, 0, 0, 0, 0];
    // SAFETY: without valgrind the rotations of rdi add up to 128 bits and change nothing, and the
    // exchange is of a register with itself. Valgrind reads the six words that rax points to, which
    // live through the block, and writes rdx, which is named as changed.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0u64 => _,
            options(nostack),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: u64) {
    panic!("only x86-64 knows these requests so far");
}
