//! The engines whose metric names are known.
//!
//! In: a name from a config or a pod label. Out: the engine, and its series. It never guesses a name it does not know.

use std::str::FromStr;

use serde::Serialize;

/// A model server's engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Whichever engine the page is of.
    #[default]
    Auto,
    /// llama.cpp's `llama-server --metrics`.
    LlamaCpp,
    /// SGLang with `--enable-metrics`.
    Sglang,
    /// Hugging Face Text Generation Inference.
    Tgi,
    /// TensorRT-LLM behind Triton.
    Triton,
    /// TensorRT-LLM's own `trtllm-serve`.
    TrtLlm,
    /// vLLM.
    Vllm,
}

/// An engine's series, in the grammar of [`tally_core::exposition::read::Spec`]; of several the first on the page counts.
pub(super) struct Names {
    pub(super) waiting: &'static [&'static str],
    pub(super) running: &'static [&'static str],
    pub(super) kv_usage: &'static [&'static str],
    pub(super) lora_info: &'static [&'static str],
}

impl Engine {
    /// The names that a config may say.
    pub const EXPECTED: &'static str = "vllm, sglang, trtllm, triton, llamacpp, tgi or auto";

    /// Engines with names of their own.
    pub const KNOWN: [Self; 6] = [Self::Vllm, Self::Sglang, Self::TrtLlm, Self::Triton, Self::LlamaCpp, Self::Tgi];

    /// The series of the engine; `Auto` has none of its own.
    pub(super) const fn names(self) -> Names {
        let (waiting, running, kv_usage, lora_info): (&[_], &[_], &[_], &[_]) = match self {
            Self::Auto => (&[], &[], &[], &[]),
            Self::LlamaCpp => (&["llamacpp:requests_deferred"], &["llamacpp:requests_processing"], &[], &[]),
            Self::Sglang => (&["sglang:num_queue_reqs"], &["sglang:num_running_reqs"], &["sglang:token_usage"], &[]),
            Self::Tgi => (&["tgi_queue_size"], &["tgi_batch_current_size"], &[], &[]),
            Self::Triton => (
                &["nv_trt_llm_request_metrics{request_type=waiting}", "nv_inference_pending_request_count"],
                &["nv_trt_llm_request_metrics{request_type=scheduled}"],
                &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"],
                &[],
            ),
            Self::TrtLlm => (
                &["trtllm_num_requests_waiting"],
                &["trtllm_num_requests_running"],
                &["trtllm_kv_cache_utilization"],
                &[],
            ),
            // Between two releases vLLM showed both cache gauges: they are one thing under two names.
            Self::Vllm => (
                &["vllm:num_requests_waiting"],
                &["vllm:num_requests_running"],
                &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
                &["vllm:lora_requests_info"],
            ),
        };
        Names { waiting, running, kv_usage, lora_info }
    }
}

impl FromStr for Engine {
    type Err = ();

    /// Our names and the endpoint picker's.
    fn from_str(name: &str) -> Result<Self, ()> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "auto" => Self::Auto,
            "llamacpp" | "llama-cpp" | "llama.cpp" => Self::LlamaCpp,
            "sglang" => Self::Sglang,
            "tgi" => Self::Tgi,
            "triton" | "triton-tensorrt-llm" | "triton-trtllm" => Self::Triton,
            "trtllm" | "trtllm-serve" | "tensorrt-llm" => Self::TrtLlm,
            "vllm" => Self::Vllm,
            _ => return Err(()),
        })
    }
}
