//! Flow control: holds requests back while the pool is full, and lets them go in the right order.
//!
//! ```text
//! Envoy ── EnqueueAndWait, Report ──► service ──► controller (pure: time is an argument)
//!                                                  ├─ queue      bands, flows, order, limits, expiry
//! scraped pool ────────────────────── observe ──►  ├─ saturation how full, dispatch budget
//!                                                  └─ running    what was let go and has not ended
//! ```
//! In: questions over gRPC, samples of the pool. Out: one decision for each question. It never sees
//! a body and never chooses an endpoint.

pub mod band;
pub mod controller;
pub mod queue;
pub mod running;
pub mod saturation;
mod slots;
