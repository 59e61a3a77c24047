//! The readers' benchmarks for a wasm host: cases and ways by number.

use std::cell::OnceCell;

#[path = "../../cases/mod.rs"]
mod cases;

use cases::{Case, WAYS};

thread_local! {
    static CASES: OnceCell<Vec<Case>> = const { OnceCell::new() };
}

fn with<R>(case: usize, f: impl FnOnce(&Case) -> R) -> R {
    CASES.with(|cases| f(&cases.get_or_init(cases::cases)[case]))
}

/// How many cases there are.
#[unsafe(no_mangle)]
pub extern "C" fn cases() -> usize {
    cases::cases().len()
}

/// The size of a case.
#[unsafe(no_mangle)]
pub extern "C" fn bytes(case: usize) -> usize {
    with(case, Case::bytes)
}

/// The number of its pieces.
#[unsafe(no_mangle)]
pub extern "C" fn pieces(case: usize) -> usize {
    with(case, |case| case.pieces.len())
}

/// Where its name lies.
#[unsafe(no_mangle)]
pub extern "C" fn name(case: usize) -> *const u8 {
    with(case, |case| case.name.as_ptr())
}

/// How long its name is.
#[unsafe(no_mangle)]
pub extern "C" fn name_bytes(case: usize) -> usize {
    with(case, |case| case.name.len())
}

/// Reads it in one of the four ways, so many times.
#[unsafe(no_mangle)]
pub extern "C" fn run(case: usize, way: usize, times: usize) -> usize {
    with(case, |case| (0..times).map(|_| case.read(WAYS[way].1)).fold(0, usize::wrapping_add))
}
