//! Tally's pure core: bytes and times in, measurements out.
//!
//! ```text
//! request  ─► request ─┐              ┌─► outcome
//!                      ├─ exchange ───┤                      ┌─► the proxy's stats, at a flush
//! response ─► response ┘              └─► Measured ─► table ─┘
//!              ├─ inflate   gzip, a side copy
//!              ├─ sse       events of a stream
//!              ├─ usual     the event that differs from the last one only in its text
//!              ├─ json      wanted values (schema), no tree
//!              ├─ document  what one event or body says
//!              ├─ usage     tokens, in one meaning for all APIs
//!              └─ timing    first byte, first token, gaps
//! ```
//! No I/O, no clock, no unsafe code.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod admission;
pub mod api;
pub mod catalog;
pub mod change;
pub mod config;
pub mod document;
pub mod exchange;
pub mod exposition;
pub mod histogram;
pub mod inflate;
pub mod json;
pub mod labels;
pub mod log_fields;
pub mod outcome;
pub mod request;
pub mod response;
pub mod schema;
pub mod sse;
pub mod table;
pub mod timing;
pub mod usage;
mod usual;

/// Words for documents and for the companion's page: the filter need not carry them.
const fn doc(text: &'static str) -> &'static str {
    if cfg!(target_arch = "wasm32") { "" } else { text }
}
