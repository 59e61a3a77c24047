//! What is on the dashboard, row by row.
//!
//! In: the catalog's families. Out: panels. A ratio never divides by nothing: no traffic draws no line.

use tally_core::catalog::{Family, filter, flow, lora, objective, pool};

use super::panel::{Panel, Shape, quantile, rate};
use super::{JOB, MODEL, POOL, PRIORITY, Row};

const BY_MODEL: &str = "model_name, target_model_name";
const LEGEND: &str = "{{model_name}} > {{target_model_name}}";

/// All rows, the most wanted first.
pub(super) fn all() -> Vec<Row> {
    vec![
        Row { title: "Overview", panels: overview() },
        Row { title: "Traffic", panels: traffic() },
        Row { title: "Latency", panels: latency() },
        Row { title: "Tokens", panels: tokens() },
        Row { title: "Errors and outcomes", panels: outcomes() },
        Row { title: "Pool", panels: pool_panels() },
        Row { title: "Flow control", panels: flow_panels() },
        Row { title: "LoRA adapters", panels: lora_panels() },
        Row { title: "Filter health", panels: filter_panels() },
    ]
}

/// Failed requests over ended ones; 0 where nothing failed.
fn error_ratio(by: &str) -> String {
    let ended = rate(&objective::REQUEST_OUTCOME_TOTAL, "", MODEL, by);
    let failed = rate(&objective::REQUEST_ERROR_TOTAL, "", MODEL, by);
    format!("({failed} or {ended} * 0) / ({ended} > 0)")
}

fn sum(family: &Family, selector: &str, by: &str) -> String {
    format!("sum by ({by}) ({}{{{selector}}})", family.name)
}

fn max(family: &Family, selector: &str, by: &str) -> String {
    format!("max by ({by}) ({}{{{selector}}})", family.name)
}

fn overview() -> Vec<Panel> {
    let total = |family: &Family, part: &str| format!("sum(rate({}{part}{{{MODEL}}}[$__rate_interval]))", family.name);
    vec![
        Panel::of("Requests / s", Shape::Stat, &objective::REQUEST_TOTAL)
            .unit("reqps")
            .show(total(&objective::REQUEST_TOTAL, ""), "requests"),
        Panel::of("Failed", Shape::Stat, &objective::REQUEST_ERROR_TOTAL)
            .unit("percentunit")
            .limits(0.01, 0.05)
            .note("Failed requests over ended ones, rejections in both.")
            .show(error_ratio(""), "failed"),
        Panel::of("TTFT, p95", Shape::Stat, &objective::REQUEST_TTFT)
            .limits(2.0, 10.0)
            .show(quantile("0.95", &objective::REQUEST_TTFT, MODEL, "le"), "p95"),
        Panel::of("Duration, p95", Shape::Stat, &objective::REQUEST_DURATION)
            .show(quantile("0.95", &objective::REQUEST_DURATION, MODEL, "le"), "p95"),
        Panel::of("Output tokens / s", Shape::Stat, &objective::OUTPUT_TOKENS_FAMILY)
            .show(total(&objective::OUTPUT_TOKENS_FAMILY, "_sum"), "tokens"),
        Panel::of("Ready endpoints", Shape::Stat, &pool::READY_PODS)
            .show(format!("sum({}{{{POOL}}})", pool::READY_PODS.name), "ready"),
    ]
}

fn traffic() -> Vec<Panel> {
    vec![
        Panel::of("Requests / s", Shape::Stacked, &objective::REQUEST_TOTAL)
            .unit("reqps")
            .show(rate(&objective::REQUEST_TOTAL, "", MODEL, BY_MODEL), LEGEND),
        Panel::of("Running requests", Shape::Stacked, &objective::RUNNING_REQUESTS)
            .show(sum(&objective::RUNNING_REQUESTS, MODEL, "model_name"), "{{model_name}}"),
        Panel::of("Requests / s by tenant (top 10)", Shape::Lines, &objective::TENANT_REQUEST_TOTAL)
            .unit("reqps")
            .show(format!("topk(10, {})", rate(&objective::TENANT_REQUEST_TOTAL, "", MODEL, "tenant")), "{{tenant}}"),
        Panel::quantiles("Request size", &objective::REQUEST_SIZES, MODEL),
        Panel::quantiles("Response size", &objective::RESPONSE_SIZES, MODEL)
            .note("The last bound is 65536: larger answers draw as 65536."),
        Panel::of("Tokens / s by tenant (top 10)", Shape::Lines, &objective::TENANT_INPUT_TOKENS_TOTAL)
            .and(&objective::TENANT_OUTPUT_TOKENS_TOTAL)
            .show(
                format!("topk(10, {})", rate(&objective::TENANT_INPUT_TOKENS_TOTAL, "", MODEL, "tenant")),
                "{{tenant}} in",
            )
            .show(
                format!("topk(10, {})", rate(&objective::TENANT_OUTPUT_TOKENS_TOTAL, "", MODEL, "tenant")),
                "{{tenant}} out",
            ),
    ]
}

fn latency() -> Vec<Panel> {
    vec![
        Panel::quantiles("Request duration", &objective::REQUEST_DURATION, MODEL),
        Panel::quantiles("Time to first token", &objective::REQUEST_TTFT, MODEL).limits(2.0, 10.0),
        Panel::quantiles("Time to first byte", &objective::REQUEST_FIRST_BYTE, MODEL)
            .note("Far below the time to first token: the server sends something before it has a token."),
        Panel::quantiles("Time per output token", &objective::REQUEST_TPOT, MODEL),
        Panel::quantiles("Inter-token latency", &objective::REQUEST_ITL, MODEL),
        Panel::quantiles("Normalized time per output token", &objective::NORMALIZED_TIME_PER_OUTPUT_TOKEN, MODEL),
        Panel::of("Request duration, all", Shape::Heatmap, &objective::REQUEST_DURATION).show(
            format!("sum by (le) (increase({}_bucket{{{MODEL}}}[$__rate_interval]))", objective::REQUEST_DURATION.name),
            "{{le}}",
        ),
        Panel::of("Time to first token, all", Shape::Heatmap, &objective::REQUEST_TTFT).show(
            format!("sum by (le) (increase({}_bucket{{{MODEL}}}[$__rate_interval]))", objective::REQUEST_TTFT.name),
            "{{le}}",
        ),
        Panel::of("Time to first token by model, p95", Shape::Lines, &objective::REQUEST_TTFT)
            .show(quantile("0.95", &objective::REQUEST_TTFT, MODEL, "le, model_name"), "{{model_name}}"),
    ]
}

fn tokens() -> Vec<Panel> {
    let cached = rate(&objective::PROMPT_CACHED_TOKENS, "_sum", MODEL, "model_name");
    let input = rate(&objective::INPUT_TOKENS_FAMILY, "_sum", MODEL, "model_name");
    vec![
        Panel::of("Input tokens / s", Shape::Stacked, &objective::INPUT_TOKENS_FAMILY)
            .show(rate(&objective::INPUT_TOKENS_FAMILY, "_sum", MODEL, BY_MODEL), LEGEND),
        Panel::of("Output tokens / s", Shape::Stacked, &objective::OUTPUT_TOKENS_FAMILY)
            .show(rate(&objective::OUTPUT_TOKENS_FAMILY, "_sum", MODEL, BY_MODEL), LEGEND),
        Panel::of("Prefix cache: share of the input", Shape::Lines, &objective::PROMPT_CACHED_TOKENS)
            .unit("percentunit")
            .show(format!("{cached} / ({input} > 0)"), "{{model_name}}"),
        Panel::quantiles("Input tokens of a request", &objective::INPUT_TOKENS_FAMILY, MODEL),
        Panel::quantiles("Output tokens of a request", &objective::OUTPUT_TOKENS_FAMILY, MODEL)
            .note("The last bound is 8192: longer answers draw as 8192."),
        Panel::of("Tokens / s by kind", Shape::Lines, &objective::REASONING_TOKENS_TOTAL)
            .and(&objective::CACHE_WRITE_TOKENS_TOTAL)
            .and(&objective::AUDIO_INPUT_TOKENS_TOTAL)
            .and(&objective::AUDIO_OUTPUT_TOKENS_TOTAL)
            .show(rate(&objective::REASONING_TOKENS_TOTAL, "", MODEL, ""), "reasoning")
            .show(rate(&objective::CACHE_WRITE_TOKENS_TOTAL, "", MODEL, ""), "written to the cache")
            .show(rate(&objective::AUDIO_INPUT_TOKENS_TOTAL, "", MODEL, ""), "audio in")
            .show(rate(&objective::AUDIO_OUTPUT_TOKENS_TOTAL, "", MODEL, ""), "audio out"),
        Panel::of("Tokens / s outside the histograms", Shape::Lines, &objective::PARTIAL_INPUT_TOKENS_TOTAL)
            .and(&objective::PARTIAL_OUTPUT_TOKENS_TOTAL)
            .and(&objective::ESTIMATED_OUTPUT_TOKENS_TOTAL)
            .show(rate(&objective::PARTIAL_INPUT_TOKENS_TOTAL, "", MODEL, ""), "unfinished, in")
            .show(rate(&objective::PARTIAL_OUTPUT_TOKENS_TOTAL, "", MODEL, ""), "unfinished, out")
            .show(rate(&objective::ESTIMATED_OUTPUT_TOKENS_TOTAL, "", MODEL, ""), "estimated, out"),
    ]
}

fn outcomes() -> Vec<Panel> {
    vec![
        Panel::of("Errors / s", Shape::Stacked, &objective::REQUEST_ERROR_TOTAL).unit("reqps").show(
            rate(&objective::REQUEST_ERROR_TOTAL, "", MODEL, "error_code, model_name, target_model_name"),
            "{{error_code}}: {{model_name}} > {{target_model_name}}",
        ),
        Panel::of("Failed, by model", Shape::Lines, &objective::REQUEST_ERROR_TOTAL)
            .and(&objective::REQUEST_OUTCOME_TOTAL)
            .unit("percentunit")
            .limits(0.01, 0.05)
            .note("Failed requests over ended ones, rejections in both; a client that leaves is no failure.")
            .show(error_ratio("model_name"), "{{model_name}}"),
        Panel::of("How requests ended", Shape::Stacked, &objective::REQUEST_OUTCOME_TOTAL)
            .unit("reqps")
            .show(rate(&objective::REQUEST_OUTCOME_TOTAL, "", MODEL, "outcome"), "{{outcome}}"),
        Panel::of("Token usage in the answers", Shape::Stacked, &objective::USAGE_QUALITY_TOTAL)
            .unit("reqps")
            .note("Much `missing`: clients stream without `stream_options.include_usage`.")
            .show(rate(&objective::USAGE_QUALITY_TOTAL, "", JOB, "api, quality"), "{{api}}: {{quality}}"),
        Panel::of("Readable requests", Shape::Stacked, &objective::REQUEST_QUALITY_TOTAL)
            .unit("reqps")
            .show(rate(&objective::REQUEST_QUALITY_TOTAL, "", JOB, "api, quality"), "{{api}}: {{quality}}"),
        Panel::of("Answered by another model", Shape::Lines, &objective::MODEL_MISMATCH_TOTAL)
            .unit("reqps")
            .show(rate(&objective::MODEL_MISMATCH_TOTAL, "", MODEL, BY_MODEL), LEGEND),
    ]
}

fn pool_panels() -> Vec<Panel> {
    let spread = |title, mean: &'static Family, least: &'static Family, most: &'static Family| {
        Panel::of(title, Shape::Lines, mean)
            .and(least)
            .and(most)
            .show(max(mean, POOL, "name"), "{{name}} mean")
            .show(max(least, POOL, "name"), "{{name}} least")
            .show(max(most, POOL, "name"), "{{name}} most")
    };
    let errors = rate(&pool::SCRAPE_ERRORS_TOTAL, "", POOL, "name, reason");
    let scrapes = rate(&pool::SCRAPES_TOTAL, "", POOL, "name");
    vec![
        spread(
            "KV cache use",
            &pool::AVERAGE_KV_CACHE_UTILIZATION,
            &pool::MIN_KV_CACHE_UTILIZATION,
            &pool::MAX_KV_CACHE_UTILIZATION,
        )
        .limits(0.8, 0.9),
        spread("Queue", &pool::AVERAGE_QUEUE_SIZE, &pool::MIN_QUEUE_SIZE, &pool::MAX_QUEUE_SIZE).limits(5.0, 50.0),
        spread(
            "Running in the pool",
            &pool::AVERAGE_RUNNING_REQUESTS,
            &pool::MIN_RUNNING_REQUESTS,
            &pool::MAX_RUNNING_REQUESTS,
        ),
        Panel::of("Queue of each endpoint", Shape::Lines, &pool::PER_POD_QUEUE_SIZE)
            .show(max(&pool::PER_POD_QUEUE_SIZE, POOL, "name, model_server_pod"), "{{name}} {{model_server_pod}}"),
        Panel::of("Unevenness (standard deviation)", Shape::Lines, &pool::STDDEV_QUEUE_SIZE)
            .and(&pool::STDDEV_RUNNING_REQUESTS)
            .and(&pool::STDDEV_KV_CACHE_UTILIZATION)
            .show(max(&pool::STDDEV_QUEUE_SIZE, POOL, "name"), "{{name}} queue")
            .show(max(&pool::STDDEV_RUNNING_REQUESTS, POOL, "name"), "{{name}} running")
            .show(max(&pool::STDDEV_KV_CACHE_UTILIZATION, POOL, "name"), "{{name}} KV cache"),
        Panel::of("Ready endpoints", Shape::Lines, &pool::READY_PODS)
            .show(max(&pool::READY_PODS, POOL, "name"), "{{name}}"),
        Panel::of("Age of the samples", Shape::Lines, &pool::SAMPLE_AGE)
            .limits(2.0, 10.0)
            .show(max(&pool::SAMPLE_AGE, POOL, "name, model_server_pod"), "{{name}} {{model_server_pod}}"),
        Panel::of("Failed scrapes of endpoints", Shape::Lines, &pool::SCRAPE_ERRORS_TOTAL)
            .and(&pool::SCRAPES_TOTAL)
            .unit("percentunit")
            .show(format!("{errors} / on (name) group_left () ({scrapes} > 0)"), "{{name}} {{reason}}"),
        Panel::of("Endpoints with the adapter", Shape::Lines, &pool::LORA_RUNNING_PODS)
            .show(max(&pool::LORA_RUNNING_PODS, POOL, "name, adapter_name"), "{{name}} {{adapter_name}}"),
    ]
}

fn flow_panels() -> Vec<Panel> {
    vec![
        Panel::of("Saturation of the pool", Shape::Lines, &flow::POOL_SATURATION)
            .limits(0.8, 1.0)
            .show(max(&flow::POOL_SATURATION, JOB, "inference_pool"), "{{inference_pool}}"),
        Panel::of("Held requests by priority", Shape::Stacked, &flow::QUEUE_SIZE)
            .show(sum(&flow::QUEUE_SIZE, PRIORITY, "priority"), "priority {{priority}}"),
        Panel::of("Held bytes by priority", Shape::Stacked, &flow::QUEUE_BYTES)
            .show(sum(&flow::QUEUE_BYTES, PRIORITY, "priority"), "priority {{priority}}"),
        Panel::of("Held requests by flow (top 10)", Shape::Lines, &flow::QUEUE_SIZE).show(
            format!("topk(10, {})", sum(&flow::QUEUE_SIZE, PRIORITY, "fairness_id, priority")),
            "{{fairness_id}}, priority {{priority}}",
        ),
        Panel::of("Decisions / s", Shape::Stacked, &flow::REQUESTS_TOTAL)
            .unit("reqps")
            .show(rate(&flow::REQUESTS_TOTAL, "", PRIORITY, "outcome, priority"), "{{outcome}}, priority {{priority}}"),
        Panel::of("Growth of the queue / s", Shape::Lines, &flow::QUEUE_SIZE)
            .note("Above zero for long: more comes in than the pool takes.")
            .show(format!("sum(deriv({}{{{PRIORITY}}}[$__rate_interval]))", flow::QUEUE_SIZE.name), "all"),
        Panel::of("Wait by priority, p99", Shape::Lines, &flow::QUEUE_DURATION)
            .show(quantile("0.99", &flow::QUEUE_DURATION, PRIORITY, "le, priority"), "priority {{priority}}"),
        Panel::of("Wait by outcome, p95", Shape::Lines, &flow::QUEUE_DURATION)
            .show(quantile("0.95", &flow::QUEUE_DURATION, PRIORITY, "le, outcome"), "{{outcome}}"),
        Panel::of("Own work, p99", Shape::Lines, &flow::DISPATCH_CYCLE_DURATION)
            .and(&flow::ENQUEUE_DURATION)
            .show(quantile("0.99", &flow::DISPATCH_CYCLE_DURATION, JOB, "le"), "dispatch cycle")
            .show(quantile("0.99", &flow::ENQUEUE_DURATION, PRIORITY, "le"), "enqueue"),
        Panel::of("Flows counted as `other` / s", Shape::Lines, &flow::FLOW_OVERFLOW_TOTAL)
            .unit("reqps")
            .show(rate(&flow::FLOW_OVERFLOW_TOTAL, "", JOB, ""), "requests"),
        Panel::of("Admission as the filter saw it", Shape::Stacked, &filter::ADMISSIONS_TOTAL)
            .unit("reqps")
            .show(rate(&filter::ADMISSIONS_TOTAL, "", JOB, "result"), "{{result}}"),
    ]
}

fn lora_panels() -> Vec<Panel> {
    let since = format!("time() - {}{{{JOB}}}", lora::LAST_SUCCESS.name);
    vec![
        Panel::of("Adapters as asked", Shape::Lines, &lora::ADAPTER_STATUS)
            .show(sum(&lora::ADAPTER_STATUS, JOB, "adapter_name"), "{{adapter_name}}"),
        Panel::of("Reconcile runs / s", Shape::Stacked, &lora::RECONCILES_TOTAL)
            .show(rate(&lora::RECONCILES_TOTAL, "", JOB, "result"), "{{result}}"),
        Panel::of("Failed calls / s", Shape::Lines, &lora::ERRORS_TOTAL)
            .show(rate(&lora::ERRORS_TOTAL, "", JOB, "adapter_name, reason"), "{{adapter_name}} {{reason}}"),
        Panel::of("Since everything was as asked", Shape::Lines, &lora::LAST_SUCCESS)
            .unit("s")
            .limits(60.0, 600.0)
            .show(since, "{{instance}}"),
        Panel::of("Duration of the last run", Shape::Lines, &lora::RECONCILE_DURATION)
            .show(max(&lora::RECONCILE_DURATION, JOB, "instance"), "{{instance}}"),
        Panel::of("Configuration", Shape::Lines, &lora::CONFIG_VALID)
            .and(&lora::CONFIG_GENERATION)
            .show(max(&lora::CONFIG_VALID, JOB, "instance"), "{{instance}} valid")
            .show(max(&lora::CONFIG_GENERATION, JOB, "instance"), "{{instance}} generation"),
    ]
}

fn filter_panels() -> Vec<Panel> {
    let flushing = rate(&filter::FLUSH_NANOSECONDS_TOTAL, "", JOB, "instance");
    let flushes = rate(&filter::FLUSHES_TOTAL, "", JOB, "instance");
    vec![
        Panel::of("Streams in the filter", Shape::Lines, &filter::LIVE_STREAMS)
            .show(sum(&filter::LIVE_STREAMS, JOB, "instance"), "{{instance}}"),
        Panel::of("Series in Envoy", Shape::Lines, &filter::SERIES)
            .show(sum(&filter::SERIES, JOB, "instance"), "{{instance}}"),
        Panel::of("Counted as `other` / s", Shape::Lines, &filter::LABEL_OVERFLOW_TOTAL)
            .unit("reqps")
            .show(rate(&filter::LABEL_OVERFLOW_TOTAL, "", JOB, "label"), "{{label}}"),
        Panel::of("Time of a flush", Shape::Lines, &filter::FLUSH_NANOSECONDS_TOTAL)
            .and(&filter::FLUSHES_TOTAL)
            .show(format!("{flushing} / ({flushes} > 0)"), "{{instance}}"),
        Panel::of("Bytes read / s", Shape::Stacked, &filter::SCANNED_BYTES_TOTAL)
            .unit("Bps")
            .show(rate(&filter::SCANNED_BYTES_TOTAL, "", JOB, "direction"), "{{direction}}"),
        Panel::of("Memory of the VMs", Shape::Lines, &filter::VM_MEMORY_BYTES)
            .show(sum(&filter::VM_MEMORY_BYTES, JOB, "instance"), "{{instance}}"),
        Panel::of("Failed host calls / s", Shape::Lines, &filter::HOST_CALL_ERRORS_TOTAL)
            .show(rate(&filter::HOST_CALL_ERRORS_TOTAL, "", JOB, "call"), "{{call}}"),
        Panel::of("Streams of failed VMs / s", Shape::Lines, &filter::REAPED_STREAMS_TOTAL)
            .show(rate(&filter::REAPED_STREAMS_TOTAL, "", JOB, "instance"), "{{instance}}"),
        Panel::of("Passed unmeasured / s", Shape::Stacked, &filter::REQUESTS_IGNORED_TOTAL)
            .unit("reqps")
            .show(rate(&filter::REQUESTS_IGNORED_TOTAL, "", JOB, "reason"), "{{reason}}"),
        Panel::of("Envoys that tallyd reads", Shape::Lines, &pool::ENVOY_UP)
            .show(max(&pool::ENVOY_UP, JOB, "envoy"), "{{envoy}}"),
        Panel::of("Age of Envoy's families on tallyd's page", Shape::Lines, &pool::ENVOY_AGE)
            .limits(10.0, 60.0)
            .show(max(&pool::ENVOY_AGE, JOB, "envoy"), "{{envoy}}"),
        Panel::of("Versions and conflicts", Shape::Lines, &filter::INFO)
            .and(&pool::EXTENSION_INFO)
            .and(&pool::ENVOY_CONFLICTS_TOTAL)
            .show(sum(&filter::INFO, JOB, "version"), "filter {{version}}")
            .show(sum(&pool::EXTENSION_INFO, JOB, "commit, build_ref"), "tallyd {{commit}} {{build_ref}}")
            .show(rate(&pool::ENVOY_CONFLICTS_TOTAL, "", JOB, "family"), "conflict in {{family}}"),
    ]
}
