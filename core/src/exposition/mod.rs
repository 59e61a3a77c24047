//! Prometheus' text formats.
//!
//! In and out: pages. What is written is driven by the catalog, so a page cannot say a name, a type or a help text that
//! docs, dashboards and alerts do not know.

pub mod read;
pub mod write;

pub use write::{Format, Writer};
