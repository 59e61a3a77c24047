//! Tally's pure core.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod admission;
pub mod catalog;
pub mod exposition;
pub mod histogram;
pub mod inflate;
pub mod json;
pub mod sse;
