//! The filter that one would write in an afternoon: wait for whole bodies, parse them into values, keep the stream's text
//! until its end, record into Envoy's histograms. It measures less than Tally does.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MetricType};
use serde_json::Value;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::default()))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

#[derive(Default)]
struct Stream {
    model: String,
    request_bytes: usize,
    response_bytes: usize,
    is_sse: bool,
    text: String,
}

impl Stream {
    fn record(&self, family: &str, kind: MetricType, value: u64) {
        let name = format!("model_name=.={};.;naive_{family}", self.model);
        if let Ok(id) = hostcalls::define_metric(kind, &name) {
            let _ = match kind {
                MetricType::Counter => hostcalls::increment_metric(id, value as i64),
                _ => hostcalls::record_metric(id, value),
            };
        }
    }

    fn finish(&self, usage: &Value) {
        let tokens = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or(0);
        self.record("requests", MetricType::Counter, 1);
        self.record("request_bytes", MetricType::Histogram, self.request_bytes as u64);
        self.record("response_bytes", MetricType::Histogram, self.response_bytes as u64);
        self.record("input_tokens", MetricType::Histogram, tokens("prompt_tokens"));
        self.record("output_tokens", MetricType::Histogram, tokens("completion_tokens"));
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if !end {
            return Action::Pause;
        }
        self.request_bytes = size;
        let body = self.get_http_request_body(0, size).unwrap_or_default();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.model = value.get("model").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.is_sse = self.get_http_response_header("content-type").is_some_and(|kind| kind.contains("event-stream"));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.is_sse {
            self.response_bytes += size;
            let chunk = self.get_http_response_body(0, size).unwrap_or_default();
            self.text.push_str(&String::from_utf8_lossy(&chunk));
            if end {
                let mut usage = Value::Null;
                for data in self.text.lines().filter_map(|line| line.strip_prefix("data: ")) {
                    let event: Value = serde_json::from_str(data).unwrap_or_default();
                    if let Some(found) = event.get("usage").filter(|found| found.is_object()) {
                        usage = found.clone();
                    }
                }
                self.finish(&usage);
            }
            return Action::Continue;
        }
        if !end {
            return Action::Pause;
        }
        self.response_bytes = size;
        let body = self.get_http_response_body(0, size).unwrap_or_default();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.finish(value.get("usage").unwrap_or(&Value::Null));
        Action::Continue
    }
}
