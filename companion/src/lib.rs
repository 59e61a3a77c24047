//! `tallyd` as a library.
#![forbid(unsafe_code)]
mod auth;
pub mod collect;
pub mod config;
mod envoy;
pub mod flow;
pub mod lora;
mod metrics;
pub mod page;
pub mod serve;
mod watch;
mod yaml;
