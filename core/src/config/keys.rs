//! All keys of the filter's configuration but those of admission, in the order docs list them.

use super::admission::{MAX_HEADERS, MAX_PRIORITY};
use super::{ADMISSION_KEYS, Key, Kind};
use crate::doc;

/// Longest time between two flushes.
pub const MAX_FLUSH_INTERVAL_MS: u32 = 60_000;

/// See the file's head.
pub const KEYS: &[Key] = &[
    Key {
        name: "max_models",
        kind: Kind::Whole(1, 10_000, |to| &mut to.max_models),
        meaning: doc(
            "Distinct model names out of traffic that get series of their own; later ones are counted as `other`.",
        ),
    },
    Key {
        name: "models",
        kind: Kind::Names(|to| &mut to.models),
        meaning: doc("Model names that always have series of their own, beside `max_models`."),
    },
    Key {
        name: "flush_interval_ms",
        kind: Kind::Whole(10, MAX_FLUSH_INTERVAL_MS, |to| &mut to.flush_interval_ms),
        meaning: doc(
            "Milliseconds between two flushes of the filter's counts into Envoy's stats; what a failing VM may lose.",
        ),
    },
    Key {
        name: "paths",
        kind: Kind::Paths(|to| &mut to.paths),
        meaning: doc(
            "Path endings beside the built-in ones, with the API they speak. They are tried first, the longest of them \
                  before the others.",
        ),
    },
    Key {
        name: "measure_unknown_paths",
        kind: Kind::Flag(|to| &mut to.measure_unknown_paths),
        meaning: doc("Measure requests with a body on unknown paths too, as API `other`."),
    },
    Key {
        name: "target_model_header",
        kind: Kind::Header(|to| &mut to.target_model_header),
        meaning: doc("Request header with the model that a router in front has rewritten the request to."),
    },
    Key {
        name: "tenant_header",
        kind: Kind::Header(|to| &mut to.tenant_header),
        meaning: doc("Request header that names a tenant; switches the tenant families on."),
    },
    Key {
        name: "hash_tenant",
        kind: Kind::Flag(|to| &mut to.hash_tenant),
        meaning: doc(
            "Write a hash of the tenant's name, 16 hexadecimal digits, instead of the name. Needs `tenant_header` and \
                  `tenant_key`.",
        ),
    },
    Key {
        name: "tenant_key",
        kind: Kind::Secret(|to| &mut to.tenant_key),
        meaning: doc(
            "Key of that hash (SipHash-2-4). Who does not know it cannot find a name by trying names. The same key gives \
                  the same labels, in all workers and proxies.",
        ),
    },
    Key {
        name: "max_tenants",
        kind: Kind::Whole(1, 10_000, |to| &mut to.max_tenants),
        meaning: doc("Distinct tenants that get series of their own; later ones are counted as `other`."),
    },
    Key {
        name: "profile",
        kind: Kind::Profile(|to| &mut to.profile),
        meaning: doc(
            "Serve the families also under llm-d's names (`llm_d_epp_*`), OpenTelemetry's (`gen_ai_*`), or both, beside the \
             usual ones. Needs the tags of envoy/profile-tags.yaml. See docs/METRICS.md.",
        ),
    },
    Key {
        name: "metric_labels",
        kind: Kind::OneOf(["seed", "v15"], |to| &mut to.priority_label),
        meaning: doc(
            "`v15`: `inference_objective_request_total` has the label `priority` too, as in EPP v1.5. Needs the tags of \
             envoy/profile-tags.yaml.",
        ),
    },
    Key {
        name: "histograms",
        kind: Kind::OneOf(["counters", "envoy"], |to| &mut to.native_histograms),
        meaning: doc(
            "`counters`: every distribution is kept as exact counters. `envoy`: those of bytes and tokens are Envoy's own \
             histograms, for sinks and the admin page; less exact, see docs/METRICS.md.",
        ),
    },
    Key {
        name: "objectives",
        kind: Kind::Priorities(MAX_PRIORITY, |to| &mut to.objectives),
        meaning: doc(
            "Priorities of InferenceObjectives, for the label `priority`; others have 0. Also those of `admission`.",
        ),
    },
    Key {
        name: "objective_headers",
        kind: Kind::Headers(MAX_HEADERS, |to| &mut to.objective_headers),
        meaning: doc(
            "Request headers with the name of an InferenceObjective; the first that is there counts. Also those of \
             `admission`.",
        ),
    },
    Key {
        name: "fairness_headers",
        kind: Kind::Headers(MAX_HEADERS, |to| &mut to.fairness_headers),
        meaning: doc(
            "Request headers with the fairness id, for the label of `llm_d_epp_*`; the first that is there counts. Also \
             those of `admission`.",
        ),
    },
    Key {
        name: "max_fairness_ids",
        kind: Kind::Whole(1, 10_000, |to| &mut to.max_fairness_ids),
        meaning: doc("Distinct fairness ids that get series of their own; later ones are counted as `other`."),
    },
    Key {
        name: "estimate_missing_usage",
        kind: Kind::Flag(|to| &mut to.estimate_missing_usage),
        meaning: doc(
            "Count the output events of complete streams whose server reported no usage, in a family of their own.",
        ),
    },
    Key {
        name: "llama_timings",
        kind: Kind::Flag(|to| &mut to.llama_timings),
        meaning: doc("Take llama.cpp's `timings` as usage where it sends none."),
    },
    Key {
        name: "admission",
        kind: Kind::Admission(ADMISSION_KEYS),
        meaning: doc("Switches admission on: a request waits until the companion lets it go. See docs/ADMISSION.md."),
    },
    Key {
        name: "inject_usage",
        kind: Kind::Flag(|to| &mut to.inject_usage),
        meaning: doc(
            "Set `stream_options.include_usage` in streaming chat and completions requests that do not name it, and take \
                  the usage event that this causes out of the answer. Implies `drop_accept_encoding`. See \
                  docs/CHANGES.md.",
        ),
    },
    Key {
        name: "model_rewrites",
        kind: Kind::Rewrites(|to| &mut to.model_rewrites),
        meaning: doc(
            "Models whose requests go upstream under another name, chosen by weight; answers name the model that the \
                  client asked for. Implies `drop_accept_encoding`. See docs/CHANGES.md.",
        ),
    },
    Key {
        name: "drop_accept_encoding",
        kind: Kind::Flag(|to| &mut to.drop_accept_encoding),
        meaning: doc(
            "Remove `accept-encoding` from measured requests, so that answers come in plain text and can be read.",
        ),
    },
    Key {
        name: "route_header",
        kind: Kind::Header(|to| &mut to.route_header),
        meaning: doc(
            "Request header that is set to the body's model before Envoy chooses a route; what a client sends in it is \
                  removed. Needs `allow_on_headers_stop_iteration: true` in Envoy's PluginConfig; not together with \
                  `admission`. See docs/CHANGES.md.",
        ),
    },
    Key {
        name: "route_wait_bytes",
        kind: Kind::Whole(1_024, 16_777_216, |to| &mut to.route_wait_bytes),
        meaning: doc(
            "Length of a body up to which `route_header` gathers it until the model is known; of a longer one only the \
                  beginning is looked at. Not above Envoy's buffer limit (1 MiB unless set), beyond which Envoy answers 413.",
        ),
    },
    Key {
        name: "envoy_token_usage",
        kind: Kind::Flag(|to| &mut to.envoy_token_usage),
        meaning: doc(
            "Take the tokens that another filter has left in Envoy's dynamic metadata under `envoy.ai.token_usage`, as \
                  Envoy's AI protocol manager does, instead of those that the filter has read itself.",
        ),
    },
    Key {
        name: "log_fields",
        kind: Kind::Flag(|to| &mut to.log_fields),
        meaning: doc(
            "Leave model, tokens, times and outcome of each measured request in Envoy's filter state, for access logs: \
                  `%FILTER_STATE(wasm.tally.model:PLAIN)%` and so on. See docs/CHANGES.md.",
        ),
    },
];
