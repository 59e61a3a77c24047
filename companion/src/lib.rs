//! `tallyd` as a library.
#![forbid(unsafe_code)]
pub mod collect;
pub mod discovery;
pub mod flow;
pub mod lora;
pub mod model_server;
pub mod pool;
pub mod scrape;
mod yaml;
