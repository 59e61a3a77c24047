//! The filter: a thin shell around `tally-core`, one instance in each of Envoy's workers.
//!
//! ```text
//! Envoy ──callbacks──► root (one per VM)  ──► table ──tick──► stats ──► Envoy's counters and gauges
//!                        └─ stream (one per request) ─► core::Exchange ─┘
//!                             └─ admit, report ──gRPC──► tallyd, only if admission is on
//! ```
//! It knows Envoy's calls and no JSON. It never pauses, buffers or alters what passes, unless the configuration asks for it.
#![forbid(unsafe_code)]

mod admit;
mod edit;
mod flow;
mod host;
mod report;
mod root;
mod route;
mod slot;
mod stats;
mod stream;

use proxy_wasm::traits::RootContext;
use proxy_wasm::types::LogLevel;

/// Envoy's way in, in a module of its own: the macro's function has no documentation.
mod entry {
    proxy_wasm::main! {{ super::start(); }}
}

/// What Envoy calls first: from here on it can make contexts.
pub fn start() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> { Box::new(root::Root::new(id)) });
}
