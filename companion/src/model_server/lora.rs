//! LoRA adapters at work, out of vLLM's info series.
//!
//! In: each series of the family. Out: the adapters of the latest. vLLM never removes an old combination of labels: a
//! series' value is the time at which it was true, so the greatest counts, and none is added to another.

use std::sync::Arc;

use tally_core::exposition::read::Labels;

/// Adapters that the server has in work, by its own report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loras {
    /// Those running or waiting, each once, sorted; at most 1024.
    pub active: Vec<Arc<str>>,
    /// How many can be in work at once, if the server says so.
    pub max: Option<u32>,
}

/// Names kept of one server; the rest is not shown.
const MAX_ADAPTERS: usize = 1024;

/// The latest series so far.
#[derive(Debug, Default)]
pub(super) struct Latest {
    at: Option<f64>,
    loras: Loras,
}

impl Latest {
    /// Looks at one series.
    pub(super) fn add(&mut self, labels: Labels<'_>, at: f64) {
        if at.is_nan() || self.at.is_some_and(|known| known >= at) {
            return;
        }
        let mut loras = Loras::default();
        for (key, value) in labels {
            match key {
                "max_lora" => loras.max = value.trim().parse().ok(),
                // Both lists name the same adapters in vLLM 0.32, so they are united and not counted.
                "running_lora_adapters" | "waiting_lora_adapters" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    loras.active.extend(names.take(MAX_ADAPTERS).map(Arc::from));
                }
                _ => {}
            }
        }
        loras.active.sort_unstable();
        loras.active.dedup();
        loras.active.truncate(MAX_ADAPTERS);
        *self = Self { at: Some(at), loras };
    }

    /// The adapters of the latest series; none if there was no series.
    pub(super) fn finish(self) -> Loras {
        self.loras
    }
}
