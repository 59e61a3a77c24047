//! `tallyd` as a library.
#![forbid(unsafe_code)]

mod auth;
pub mod collect;
pub mod config;
pub mod discovery;
pub mod doctor;
mod envoy;
pub mod flow;
pub mod lora;
mod metrics;
pub mod model_server;
pub mod page;
pub mod pool;
mod pprof;
pub mod scrape;
pub mod serve;
mod watch;
mod yaml;
