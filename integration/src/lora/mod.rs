//! What the tests of `tallyd lora-syncer` stand on: the real process with its ConfigMap, and model servers.
//!
//! In: a built tallyd, a server that replays vLLM's recorded answers (`replayer.rs`) or a real vLLM (`vllm.rs`).
//! Out: the syncer's page, the server's own listing. Never: believes the syncer about the server.

mod replayer;
mod syncer;
mod vllm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::Request;

pub use replayer::{Mood, Replayer};
pub use syncer::{Syncer, status};
pub use vllm::Vllm;

/// A model server that a test can kill and start again at the same port.
pub trait ModelServer {
    /// Where it listens on 127.0.0.1, also while it is down.
    fn port(&self) -> u16;
    /// Path of one of its adapters, 1 to 3.
    fn adapter(&self, number: u8) -> PathBuf;
    /// Ends it at once; what was loaded is lost.
    ///
    /// # Errors
    /// If it cannot be ended.
    fn kill(&mut self) -> Result<()>;
    /// Starts it again and waits until it serves.
    ///
    /// # Errors
    /// If it does not come up.
    fn restart(&mut self) -> Result<()>;
    /// Status and text of this model's answer, always to the same question; `None` if this server knows no answers.
    ///
    /// # Errors
    /// If it does not answer at all.
    fn ask(&self, model: &str) -> Result<Option<(u16, String)>>;

    /// Adapters that it says it has, with their sources.
    ///
    /// # Errors
    /// If it does not answer as vLLM does.
    fn adapters(&self) -> Result<BTreeMap<String, String>> {
        let answer = Request::bare("GET", "/v1/models").header("connection", "close").send(self.port())?;
        ensure!(answer.status == 200, "the listing has status {}", answer.status);
        let page: Value = serde_json::from_slice(&answer.body)?;
        let models = page.get("data").and_then(Value::as_array).context("no data")?;
        let text = |model: &Value, key: &str| Some(model.get(key)?.as_str()?.to_owned());
        let adapters = models.iter().filter(|model| text(model, "parent").is_some());
        adapters.map(|model| text(model, "id").zip(text(model, "root")).context("no id or no root")).collect()
    }

    /// Loads or unloads an adapter behind the syncer's back; a source of `None` unloads.
    ///
    /// # Errors
    /// If the server refuses.
    fn meddle(&self, id: &str, source: Option<&Path>) -> Result<()> {
        let (path, body) = match source {
            Some(source) => ("/v1/load_lora_adapter", json!({ "lora_name": id, "lora_path": source })),
            None => ("/v1/unload_lora_adapter", json!({ "lora_name": id })),
        };
        let answer = Request::post(path, body.to_string()).header("connection", "close").send(self.port())?;
        ensure!(answer.status == 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        Ok(())
    }
}
