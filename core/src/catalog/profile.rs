//! The same measurements under other products' names, labels and bounds: only where `profile` asks for them.
//!
//! llm-d's are those of its router's metrics documentation; OpenTelemetry's are those of the semantic conventions up to
//! v1.41, which gateways emit and dashboards read, in the spelling of its exporter for Prometheus.

use super::buckets::{
    FIRST_CHUNK, INPUT_TOKENS, INTER_TOKEN, LATENCY, NORMALIZED_TIME, OTEL_DURATION, OTEL_FIRST_TOKEN, OTEL_PER_TOKEN,
    OTEL_TOKENS, OUTPUT_TOKENS, REQUEST_SIZE, RESPONSE_SIZE, STREAMING_PER_TOKEN,
};
use super::{Bound, Family, Kind, Origin, Source, Unit};
use crate::doc;

/// Labels of llm-d's request families.
pub const LLM_D_LABELS: &[&str] = &["model_name", "target_model_name", "fairness_id", "priority"];
/// Labels of OpenTelemetry's families.
pub const GEN_AI_LABELS: &[&str] =
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"];

const fn llm_d(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: Unit,
    help: &'static str,
) -> Family {
    Family { name, kind, labels, unit, help: doc(help), origin: Origin::LlmD, source: Source::Envoy }
}

const fn llm_d_histogram(name: &'static str, bounds: &'static [Bound], unit: Unit, help: &'static str) -> Family {
    llm_d(name, Kind::Histogram(bounds), LLM_D_LABELS, unit, help)
}

const fn gen_ai(
    name: &'static str,
    bounds: &'static [Bound],
    labels: &'static [&'static str],
    unit: Unit,
    help: &'static str,
) -> Family {
    let kind = Kind::Histogram(bounds);
    Family { name, kind, labels, unit, help: doc(help), origin: Origin::OpenTelemetry, source: Source::Envoy }
}

use Unit::{Bytes, Requests, Seconds, Tokens};

/// As `inference_objective_request_total`.
pub const REQUEST_TOTAL: Family =
    llm_d("llm_d_epp_request_total", Kind::Counter, LLM_D_LABELS, Requests, "Inference requests.");
/// As `inference_objective_request_error_total`.
pub const REQUEST_ERROR_TOTAL: Family = llm_d(
    "llm_d_epp_request_error_total",
    Kind::Counter,
    &["model_name", "target_model_name", "fairness_id", "priority", "error_code"],
    Requests,
    "Failed inference requests by error code. A client that leaves is not an error.",
);
/// As `inference_objective_request_duration_seconds`.
pub const REQUEST_DURATION: Family = llm_d_histogram(
    "llm_d_epp_request_duration_seconds",
    LATENCY,
    Seconds,
    "Time from the request's headers to the end of its response.",
);
/// As `inference_objective_request_sizes`.
pub const REQUEST_SIZE_BYTES: Family =
    llm_d_histogram("llm_d_epp_request_size_bytes", REQUEST_SIZE, Bytes, "Request body size on the wire.");
/// As `inference_objective_response_sizes`.
pub const RESPONSE_SIZE_BYTES: Family = llm_d_histogram(
    "llm_d_epp_response_size_bytes",
    RESPONSE_SIZE,
    Bytes,
    "Response body size on the wire, streams included.",
);
/// As `inference_objective_input_tokens`.
pub const REQUEST_INPUT_TOKENS: Family = llm_d_histogram(
    "llm_d_epp_request_input_tokens",
    INPUT_TOKENS,
    Tokens,
    "Input tokens of a request, cached ones included.",
);
/// As `inference_objective_output_tokens`.
pub const REQUEST_OUTPUT_TOKENS: Family = llm_d_histogram(
    "llm_d_epp_request_output_tokens",
    OUTPUT_TOKENS,
    Tokens,
    "Output tokens of a request, reasoning included.",
);
/// As `inference_objective_prompt_cached_tokens`.
pub const REQUEST_CACHED_TOKENS: Family = llm_d_histogram(
    "llm_d_epp_request_cached_tokens",
    INPUT_TOKENS,
    Tokens,
    "Input tokens read from the prefix cache, where the server says so.",
);
/// As `inference_objective_running_requests`.
pub const REQUEST_RUNNING: Family =
    llm_d("llm_d_epp_request_running", Kind::Gauge, LLM_D_LABELS, Requests, "Inference requests in flight.");
/// As `inference_objective_normalized_time_per_output_token_seconds`.
pub const REQUEST_NTPOT: Family = llm_d_histogram(
    "llm_d_epp_request_ntpot_seconds",
    NORMALIZED_TIME,
    Seconds,
    "Request duration divided by its output tokens.",
);
/// As `inference_objective_request_ttft_seconds`, and the first byte of what is no stream.
pub const REQUEST_TTFT: Family = llm_d(
    "llm_d_epp_request_ttft_seconds",
    Kind::Histogram(FIRST_CHUNK),
    &["model_name", "target_model_name", "fairness_id", "priority", "streaming"],
    Seconds,
    "Time from the request's headers to the first output token of a stream, or to the first byte of a whole answer.",
);
/// As `inference_objective_request_tpot_seconds`.
pub const REQUEST_STREAMING_TPOT: Family = llm_d_histogram(
    "llm_d_epp_request_streaming_tpot_seconds",
    STREAMING_PER_TOKEN,
    Seconds,
    "Time from the first output token to the end of a stream, divided by the output tokens after the first.",
);
/// As `inference_objective_request_itl_seconds`.
pub const REQUEST_STREAMING_ITL: Family = llm_d_histogram(
    "llm_d_epp_request_streaming_itl_seconds",
    INTER_TOKEN,
    Seconds,
    "Gap between output events of a stream; events that arrive in one read share the gap before it.",
);

/// As `inference_objective_request_duration_seconds`.
pub const SERVER_REQUEST_DURATION: Family = gen_ai(
    "gen_ai_server_request_duration_seconds",
    OTEL_DURATION,
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "error_type"],
    Seconds,
    "Time from the request's headers to the end of its response; `error_type` only where it failed.",
);
/// As `inference_objective_request_ttft_seconds`.
pub const SERVER_TIME_TO_FIRST_TOKEN: Family = gen_ai(
    "gen_ai_server_time_to_first_token_seconds",
    OTEL_FIRST_TOKEN,
    GEN_AI_LABELS,
    Seconds,
    "Time from the request's headers to the first output token of a complete stream.",
);
/// As `inference_objective_request_tpot_seconds`.
pub const SERVER_TIME_PER_OUTPUT_TOKEN: Family = gen_ai(
    "gen_ai_server_time_per_output_token_seconds",
    OTEL_PER_TOKEN,
    GEN_AI_LABELS,
    Seconds,
    "Time from the first output token to the end of a complete stream, divided by the output tokens after the first.",
);
/// As `inference_objective_input_tokens` and `inference_objective_output_tokens`.
pub const CLIENT_TOKEN_USAGE: Family = gen_ai(
    "gen_ai_client_token_usage",
    OTEL_TOKENS,
    &[
        "gen_ai_operation_name",
        "gen_ai_provider_name",
        "gen_ai_request_model",
        "gen_ai_response_model",
        "gen_ai_token_type",
    ],
    Tokens,
    "Tokens of a complete request by type: input, output.",
);

/// All of the above, in the order docs list them.
pub const FAMILIES: &[&Family] = &[
    &REQUEST_TOTAL,
    &REQUEST_ERROR_TOTAL,
    &REQUEST_DURATION,
    &REQUEST_SIZE_BYTES,
    &RESPONSE_SIZE_BYTES,
    &REQUEST_INPUT_TOKENS,
    &REQUEST_OUTPUT_TOKENS,
    &REQUEST_CACHED_TOKENS,
    &REQUEST_RUNNING,
    &REQUEST_NTPOT,
    &REQUEST_TTFT,
    &REQUEST_STREAMING_TPOT,
    &REQUEST_STREAMING_ITL,
    &SERVER_REQUEST_DURATION,
    &SERVER_TIME_TO_FIRST_TOKEN,
    &SERVER_TIME_PER_OUTPUT_TOKEN,
    &CLIENT_TOKEN_USAGE,
];
