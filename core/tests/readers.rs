//! The push readers against slow, obvious ones: any cut of any bytes gives the same findings.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "readers/exchange.rs"]
mod exchange;
#[path = "readers/inflate.rs"]
mod inflate;
#[path = "readers/json.rs"]
mod json;
mod oracles;
#[path = "readers/recorded.rs"]
mod recorded;
#[path = "readers/sse.rs"]
mod sse;
