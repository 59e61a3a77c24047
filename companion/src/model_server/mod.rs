//! What a model server says about itself, whatever engine it runs.
//!
//! In: an engine's name and a metrics page in pieces. Out: a [`Sample`]. It never fetches a page: `scrape` does.

mod engine;
mod lora;
mod mapping;
mod page;

pub use engine::Engine;
pub use lora::Loras;
pub use mapping::{Mapping, Overrides};
pub use page::{Page, PageError, Read};

/// One good look at a model server: all engines of it together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests waiting inside the server.
    pub waiting: f64,
    /// Requests running; none if the server does not say.
    pub running: Option<f64>,
    /// Share of the KV cache in use, 0 to 1; none if the server does not say.
    pub kv_usage: Option<f64>,
    /// LoRA adapters at work.
    pub loras: Loras,
}
