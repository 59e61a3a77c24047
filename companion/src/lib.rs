//! `tallyd` as a library.
#![forbid(unsafe_code)]
pub mod collect;
pub mod flow;
pub mod lora;
pub mod page;
mod yaml;
