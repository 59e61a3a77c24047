//! Any text as the adapters' file: so many adapters as are allowed, or one sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match tallyd::lora::check(text) {
    Ok(found) => assert!(found.adapters <= 1_000, "{found:?}"),
    Err(problem) => assert!(!problem.is_empty()),
});
