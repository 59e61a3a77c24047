//! What the filter measures of requests: EPP's families first, then what EPP does not know.

use super::buckets::{
    INPUT_TOKENS, INTER_TOKEN, LATENCY, NORMALIZED_TIME, OUTPUT_TOKENS, REQUEST_SIZE, RESPONSE_SIZE,
    TIME_PER_OUTPUT_TOKEN,
};
use super::{Bound, Family, Kind, Origin, Source, Unit};
use crate::doc;

/// Labels of nearly every request family.
pub const MODEL_LABELS: &[&str] = &["model_name", "target_model_name"];

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: Unit,
    origin: Origin,
    help: &'static str,
) -> Family {
    Family { name, kind, labels, unit, help: doc(help), origin, source: Source::Envoy }
}

const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Family {
    family(name, Kind::Counter, MODEL_LABELS, unit, Origin::Tally, help)
}

const fn histogram(
    name: &'static str,
    bounds: &'static [Bound],
    unit: Unit,
    origin: Origin,
    help: &'static str,
) -> Family {
    family(name, Kind::Histogram(bounds), MODEL_LABELS, unit, origin, help)
}

use Origin::{Epp, LlmD, Tally};
use Unit::{Bytes, Requests, Seconds, Tokens};

/// Requests to a known path, however they ended.
pub const REQUEST_TOTAL: Family = family(
    "inference_objective_request_total",
    Kind::Counter,
    MODEL_LABELS,
    Requests,
    Epp,
    "Inference requests, by model and target model.",
);
/// Failed requests; a client's cancel is none.
pub const REQUEST_ERROR_TOTAL: Family = family(
    "inference_objective_request_error_total",
    Kind::Counter,
    &["model_name", "target_model_name", "error_code"],
    Requests,
    Epp,
    "Failed inference requests, by model, target model and error code. A client that leaves is not an error.",
);
/// Headers in to last byte out.
pub const REQUEST_DURATION: Family = histogram(
    "inference_objective_request_duration_seconds",
    LATENCY,
    Seconds,
    Epp,
    "Time from the request's headers to the end of its response.",
);
/// Request body bytes.
pub const REQUEST_SIZES: Family =
    histogram("inference_objective_request_sizes", REQUEST_SIZE, Bytes, Epp, "Request body size on the wire.");
/// Response body bytes, streams included.
pub const RESPONSE_SIZES: Family = histogram(
    "inference_objective_response_sizes",
    RESPONSE_SIZE,
    Bytes,
    Epp,
    "Response body size on the wire, streams included.",
);
/// Prompt tokens.
pub const INPUT_TOKENS_FAMILY: Family = histogram(
    "inference_objective_input_tokens",
    INPUT_TOKENS,
    Tokens,
    Epp,
    "Input tokens of a request, cached ones included.",
);
/// Generated tokens.
pub const OUTPUT_TOKENS_FAMILY: Family = histogram(
    "inference_objective_output_tokens",
    OUTPUT_TOKENS,
    Tokens,
    Epp,
    "Output tokens of a request, reasoning included.",
);
/// Prompt tokens served from a prefix cache.
pub const PROMPT_CACHED_TOKENS: Family = histogram(
    "inference_objective_prompt_cached_tokens",
    INPUT_TOKENS,
    Tokens,
    Epp,
    "Input tokens read from the prefix cache, where the server says so.",
);
/// Requests in flight.
pub const RUNNING_REQUESTS: Family = family(
    "inference_objective_running_requests",
    Kind::Gauge,
    &["model_name"],
    Requests,
    Epp,
    "Inference requests in flight.",
);
/// Duration divided by output tokens.
pub const NORMALIZED_TIME_PER_OUTPUT_TOKEN: Family = histogram(
    "inference_objective_normalized_time_per_output_token_seconds",
    NORMALIZED_TIME,
    Seconds,
    Epp,
    "Request duration divided by its output tokens.",
);
/// The same under the name that EPP's documentation uses.
pub const NORMALIZED_TIME_PER_OUTPUT_TOKEN_SHORT: Family = histogram(
    "normalized_time_per_output_token_seconds",
    NORMALIZED_TIME,
    Seconds,
    Epp,
    "Request duration divided by its output tokens. The name as EPP's documentation spells it.",
);
/// Time to first token.
pub const REQUEST_TTFT: Family = histogram(
    "inference_objective_request_ttft_seconds",
    LATENCY,
    Seconds,
    Epp,
    "Time from the request's headers to the first output token of a stream; role-only frames, pings and lifecycle events do not count.",
);
/// Time per output token after the first.
pub const REQUEST_TPOT: Family = histogram(
    "inference_objective_request_tpot_seconds",
    TIME_PER_OUTPUT_TOKEN,
    Seconds,
    Epp,
    "Time from the first output token to the end of the response, divided by the output tokens after the first; streams only.",
);
/// Time to the first byte of the response body.
pub const REQUEST_FIRST_BYTE: Family = histogram(
    "inference_objective_request_first_byte_seconds",
    LATENCY,
    Seconds,
    Tally,
    "Time from the request's headers to the first byte of the response body.",
);
/// Inter-token latency.
pub const REQUEST_ITL: Family = histogram(
    "inference_objective_request_itl_seconds",
    INTER_TOKEN,
    Seconds,
    LlmD,
    "Gap between output events of a stream; events that arrive in one read share the gap before it.",
);
/// How requests ended.
pub const REQUEST_OUTCOME_TOTAL: Family = family(
    "inference_objective_request_outcome_total",
    Kind::Counter,
    &["model_name", "target_model_name", "outcome"],
    Requests,
    Tally,
    "Ended requests by outcome: complete, client_cancelled, upstream_reset, upstream_error, timeout, rejected, local_reply.",
);
/// Prompt tokens, counted exactly.
pub const CACHE_WRITE_TOKENS_TOTAL: Family = counter(
    "inference_objective_cache_write_tokens_total",
    Tokens,
    "Input tokens written to the prefix cache, where the server says so.",
);
/// Reasoning tokens, a subset of the output.
pub const REASONING_TOKENS_TOTAL: Family =
    counter("inference_objective_reasoning_tokens_total", Tokens, "Reasoning tokens; a subset of the output tokens.");
/// Audio tokens in the prompt.
pub const AUDIO_INPUT_TOKENS_TOTAL: Family = counter(
    "inference_objective_audio_input_tokens_total",
    Tokens,
    "Audio tokens of the input; a subset of the input tokens.",
);
/// Audio tokens in the output.
pub const AUDIO_OUTPUT_TOKENS_TOTAL: Family = counter(
    "inference_objective_audio_output_tokens_total",
    Tokens,
    "Audio tokens of the output; a subset of the output tokens.",
);
/// Prompt tokens of requests that did not end well.
pub const PARTIAL_INPUT_TOKENS_TOTAL: Family = counter(
    "inference_objective_partial_input_tokens_total",
    Tokens,
    "Input tokens that an unfinished response had reported when it ended; not in the histograms.",
);
/// Output tokens seen before a response was cut.
pub const PARTIAL_OUTPUT_TOKENS_TOTAL: Family = counter(
    "inference_objective_partial_output_tokens_total",
    Tokens,
    "Output tokens that an unfinished response had reported, or else its output events, when it ended; not in the histograms.",
);
/// Estimates, never mixed with reported tokens.
pub const ESTIMATED_OUTPUT_TOKENS_TOTAL: Family = counter(
    "inference_objective_estimated_output_tokens_total",
    Tokens,
    "Output events of complete streams whose server reported no usage; only when `estimate_missing_usage` is set.",
);
/// The server answered with another model's name.
pub const MODEL_MISMATCH_TOTAL: Family = counter(
    "inference_objective_model_mismatch_total",
    Requests,
    "Responses whose `model` is neither the requested nor the target model.",
);
/// Was usage there?
pub const USAGE_QUALITY_TOTAL: Family = family(
    "inference_objective_usage_quality_total",
    Kind::Counter,
    &["api", "quality"],
    Requests,
    Tally,
    "Ended requests by what their response said of token usage: found, missing, partial, unparsed, unsupported_encoding, not_expected.",
);
/// Was the request readable?
pub const REQUEST_QUALITY_TOTAL: Family = family(
    "inference_objective_request_quality_total",
    Kind::Counter,
    &["api", "quality"],
    Requests,
    Tally,
    "Requests by what their body said: parsed, model_missing, empty, unparsed, unsupported_encoding, cut.",
);
/// Requests per tenant.
pub const TENANT_REQUEST_TOTAL: Family = family(
    "inference_objective_tenant_request_total",
    Kind::Counter,
    &["model_name", "tenant"],
    Requests,
    Tally,
    "Requests by tenant; only when `tenant_header` is set.",
);
/// Input tokens per tenant.
pub const TENANT_INPUT_TOKENS_TOTAL: Family = family(
    "inference_objective_tenant_input_tokens_total",
    Kind::Counter,
    &["model_name", "tenant"],
    Tokens,
    Tally,
    "Input tokens by tenant; only when `tenant_header` is set.",
);
/// Output tokens per tenant.
pub const TENANT_OUTPUT_TOKENS_TOTAL: Family = family(
    "inference_objective_tenant_output_tokens_total",
    Kind::Counter,
    &["model_name", "tenant"],
    Tokens,
    Tally,
    "Output tokens by tenant; only when `tenant_header` is set.",
);

/// All of the above, in the order docs list them.
pub const FAMILIES: &[&Family] = &[
    &REQUEST_TOTAL,
    &REQUEST_ERROR_TOTAL,
    &REQUEST_DURATION,
    &REQUEST_SIZES,
    &RESPONSE_SIZES,
    &INPUT_TOKENS_FAMILY,
    &OUTPUT_TOKENS_FAMILY,
    &PROMPT_CACHED_TOKENS,
    &RUNNING_REQUESTS,
    &NORMALIZED_TIME_PER_OUTPUT_TOKEN,
    &NORMALIZED_TIME_PER_OUTPUT_TOKEN_SHORT,
    &REQUEST_TTFT,
    &REQUEST_TPOT,
    &REQUEST_FIRST_BYTE,
    &REQUEST_ITL,
    &REQUEST_OUTCOME_TOTAL,
    &CACHE_WRITE_TOKENS_TOTAL,
    &REASONING_TOKENS_TOTAL,
    &AUDIO_INPUT_TOKENS_TOTAL,
    &AUDIO_OUTPUT_TOKENS_TOTAL,
    &PARTIAL_INPUT_TOKENS_TOTAL,
    &PARTIAL_OUTPUT_TOKENS_TOTAL,
    &ESTIMATED_OUTPUT_TOKENS_TOTAL,
    &MODEL_MISMATCH_TOTAL,
    &USAGE_QUALITY_TOTAL,
    &REQUEST_QUALITY_TOTAL,
    &TENANT_REQUEST_TOTAL,
    &TENANT_INPUT_TOKENS_TOTAL,
    &TENANT_OUTPUT_TOKENS_TOTAL,
];
