//! The filter.
#![forbid(unsafe_code)]
