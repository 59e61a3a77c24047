//! Flow control: holds requests back while the pool is full, and lets them go in the right order.
//!
//! ```text
//! Envoy ── EnqueueAndWait, Report ──► call  ──► gate ──► controller (pure: time is an argument)
//!                                      (gRPC)   (lock,      ├─ queue      bands, flows, order, limits, expiry
//! scraped pool ────────────────────── observe ──► alarm) ──►├─ saturation how full, dispatch budget
//!                                                  │        └─ running    what was let go and has not ended
//!                                                  └─ metrics
//! ```
//! In: questions over gRPC, samples of the pool. Out: one decision for each question. It never sees
//! a body and never chooses an endpoint.

pub mod band;
mod call;
pub mod config;
mod connection;
pub mod controller;
pub mod gate;
mod listener;
mod metrics;
pub mod objective_watch;
pub mod objectives;
mod place;
pub mod pool;
pub mod queue;
pub mod running;
pub mod saturation;
pub mod sim;
mod sips;
mod slots;
mod start;
pub mod units;
mod wire;

pub use start::{FlowControl, FlowListeners};
