//! `tallyd` as a library.
#![forbid(unsafe_code)]
pub mod flow;
pub mod lora;
