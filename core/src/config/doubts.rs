//! What a configuration may say but its writer hardly means.
//!
//! In: a whole [`Config`]. Out: one sentence for each doubt, for Envoy's log when the filter is loaded. It refuses
//! nothing: what cannot be is an error elsewhere.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::key::short;
use super::{Admission, Config};
use crate::labels::clean;
use crate::table::Table;

/// Stats beyond which a scrape keeps Envoy's main thread for most of a second (measured: 25 ms for 10,000).
const MANY_STATS: usize = 300_000;
/// Envoy's buffer limit unless it is set.
const BUFFER_LIMIT: u32 = 1 << 20;
/// Envoy ends a stream that is silent for so long unless it is told otherwise.
const IDLE_TIMEOUT_MS: u32 = 300_000;
/// Beyond this, rates over the usual scrape intervals are steps.
const SLOW_FLUSH_MS: u32 = 10_000;
/// Headers that carry what must not stand on a metrics page.
const SECRET_HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"];

impl Config {
    /// Sentences to warn of, each with the key that it is about in front.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let stats = Table::worst_case(self);
        if stats > MANY_STATS {
            doubts.push(format!(
                "`max_models`: at most {stats} stats, which are a page of about {} MB for Envoy to write at each scrape",
                stats / 10_000
            ));
        }
        if self.flush_interval_ms > SLOW_FLUSH_MS {
            doubts.push(format!(
                "`flush_interval_ms`: a failing VM loses up to {} ms of counts, and rates are steps",
                self.flush_interval_ms
            ));
        }
        self.doubt_names(&mut doubts);
        self.doubt_headers(&mut doubts);
        self.doubt_idle_keys(&mut doubts);
        if let Some(admission) = &self.admission {
            admission.doubt(&mut doubts);
        }
        doubts
    }

    fn doubt_names(&self, doubts: &mut Vec<String>) {
        for (ending, _) in &self.paths {
            if ending.contains(['?', '*', '{', '#']) {
                doubts.push(format!(
                    "`paths`: {} is compared letter by letter with the end of a path without its query; no pattern is known",
                    short(ending)
                ));
            }
        }
        for name in &self.models {
            let label = clean(name.as_bytes());
            if label != *name {
                doubts.push(format!("`models`: {} is written as {} in labels", short(name), short(&label)));
            } else if name == "other" || name == "unknown" {
                doubts.push(format!(
                    "`models`: `{name}` also counts requests for {}",
                    match name.as_str() {
                        "other" => "models beyond `max_models`",
                        _ => "models that nobody named",
                    }
                ));
            }
        }
        for rewrite in &self.model_rewrites {
            let model = rewrite.model();
            let again = |name: &&str| *name != model && self.model_rewrites.iter().any(|other| other.model() == *name);
            if let Some(target) = rewrite.targets().find(again) {
                doubts.push(format!(
                    "`model_rewrites`: {} becomes {}, which is rewritten only where a client asks for it",
                    short(model),
                    short(target)
                ));
            }
        }
    }

    fn doubt_headers(&self, doubts: &mut Vec<String>) {
        if !self.hash_tenant && SECRET_HEADERS.contains(&self.tenant_header.as_str()) {
            doubts.push(format!(
                "`tenant_header`: what stands in {} will be read by everybody who sees the metrics; set `hash_tenant`",
                self.tenant_header
            ));
        }
        if !self.route_header.is_empty() {
            for (key, header) in
                [("target_model_header", &self.target_model_header), ("tenant_header", &self.tenant_header)]
            {
                if self.route_header == *header {
                    doubts.push(format!(
                        "`route_header`: {header} is `{key}` too; it is read as a client sent it before it is set"
                    ));
                }
            }
        }
        if self.route_wait_bytes > BUFFER_LIMIT {
            doubts.push(format!(
                "`route_wait_bytes`: Envoy answers 413 to bodies above its buffer limit, {BUFFER_LIMIT} bytes unless \
                 that is raised too"
            ));
        }
    }

    /// Keys that do nothing without another one.
    fn doubt_idle_keys(&self, doubts: &mut Vec<String>) {
        let usual = Self::default();
        for (key, is_idle, other) in [
            ("max_tenants", self.max_tenants != usual.max_tenants && self.tenant_header.is_empty(), "tenant_header"),
            ("tenant_key", self.tenant_key.is_some() && !self.hash_tenant, "hash_tenant"),
            (
                "max_fairness_ids",
                self.max_fairness_ids != usual.max_fairness_ids && !self.profile.llm_d_epp,
                "profile: llm_d_epp",
            ),
            (
                "objectives",
                !self.objectives.is_empty() && !self.has_priorities() && self.admission.is_none(),
                "profile`, `metric_labels` or `admission",
            ),
            (
                "route_wait_bytes",
                self.route_wait_bytes != usual.route_wait_bytes && self.route_header.is_empty(),
                "route_header",
            ),
        ] {
            if is_idle {
                doubts.push(format!("`{key}`: does nothing without `{other}`"));
            }
        }
    }
}

impl Admission {
    fn doubt(&self, doubts: &mut Vec<String>) {
        if self.timeout_ms > IDLE_TIMEOUT_MS {
            doubts.push(format!(
                "`admission.timeout_ms`: Envoy's stream_idle_timeout, {IDLE_TIMEOUT_MS} ms unless set, ends a waiting \
                 request before"
            ));
        }
        if !self.objectives.is_empty() && self.objective_headers.is_empty() {
            doubts
                .push("`admission.objectives`: no header names an objective, `objective_headers` is empty".to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubts(text: &str) -> Vec<String> {
        Config::parse(text.as_bytes()).unwrap().doubts()
    }

    #[test]
    fn a_usual_configuration_raises_no_doubt() {
        for text in [
            "{}",
            r#"{"max_models":300,"models":["a","b"],"paths":{"/ask":"chat"}}"#,
            r#"{"tenant_header":"x-tenant","max_tenants":50,"estimate_missing_usage":true,"inject_usage":true}"#,
            r#"{"tenant_header":"authorization","hash_tenant":true,"tenant_key":"00112233445566778899aabbccddeeff"}"#,
            r#"{"route_header":"x-model","route_wait_bytes":1048576}"#,
            r#"{"admission":{"timeout_ms":300000,"objectives":{"a":1}}}"#,
            r#"{"profile":["llm_d_epp","gen_ai"],"max_fairness_ids":50,"objectives":{"a":1}}"#,
            r#"{"metric_labels":"v15","objectives":{"a":1}}"#,
            r#"{"model_rewrites":[{"model":"a","targets":[{"model":"a","weight":9},{"model":"b"}]}]}"#,
        ] {
            assert_eq!(doubts(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn each_doubt_names_its_key_on_one_line() {
        for (text, start) in [
            (r#"{"max_models":2000}"#, "`max_models`: at most "),
            (r#"{"flush_interval_ms":60000}"#, "`flush_interval_ms`: a failing VM loses up to 60000 ms"),
            (r#"{"paths":{"/v1/*":"chat"}}"#, "`paths`: /v1/* is compared letter by letter"),
            (r#"{"paths":{"/v1/x?stream=1":"chat"}}"#, "`paths`: /v1/x?stream=1 is compared"),
            (r#"{"models":["a;b\n"]}"#, "`models`: a;b  is written as a_b_ in labels"),
            (r#"{"models":["other"]}"#, "`models`: `other` also counts requests for models beyond `max_models`"),
            (
                r#"{"model_rewrites":[{"model":"a","targets":[{"model":"b"}]},{"model":"b","targets":[{"model":"c"}]}]}"#,
                "`model_rewrites`: a becomes b, which is rewritten only where a client asks for it",
            ),
            (r#"{"tenant_header":"Authorization"}"#, "`tenant_header`: what stands in authorization will be read"),
            (
                r#"{"route_header":"x-gateway-model-name-rewrite"}"#,
                "`route_header`: x-gateway-model-name-rewrite is `target_model_header` too",
            ),
            (r#"{"route_header":"t","tenant_header":"t"}"#, "`route_header`: t is `tenant_header` too"),
            (r#"{"route_header":"x","route_wait_bytes":1048577}"#, "`route_wait_bytes`: Envoy answers 413"),
            (r#"{"route_wait_bytes":2048}"#, "`route_wait_bytes`: does nothing without `route_header`"),
            (r#"{"max_tenants":5}"#, "`max_tenants`: does nothing without `tenant_header`"),
            (
                r#"{"tenant_header":"t","tenant_key":"00112233445566778899aabbccddeeff"}"#,
                "`tenant_key`: does nothing without `hash_tenant`",
            ),
            (
                r#"{"max_fairness_ids":5,"profile":"gen_ai"}"#,
                "`max_fairness_ids`: does nothing without `profile: llm_d_epp`",
            ),
            (
                r#"{"objectives":{"a":1}}"#,
                "`objectives`: does nothing without `profile`, `metric_labels` or `admission`",
            ),
            (r#"{"admission":{"timeout_ms":300001}}"#, "`admission.timeout_ms`: Envoy's stream_idle_timeout"),
            (
                r#"{"admission":{"objectives":{"a":1},"objective_headers":[]}}"#,
                "`admission.objectives`: no header names an objective",
            ),
        ] {
            let found = doubts(text);
            assert!(found.len() == 1 && found[0].starts_with(start), "{text}: {found:?}");
            assert!(!found[0].contains(char::is_control), "{found:?}");
        }
    }
}
