//! What was sent and what must have been counted, kept by the client; nothing here is asked of the filter.

use std::collections::BTreeMap;

use crate::corpus::Exchange;
use crate::expect::{Expect, at_least, exact, missing};

/// The entries of one model.
#[derive(Debug, Default, Clone)]
pub struct Account {
    /// Requests that named it.
    pub requests: u64,
    /// Answered with 4xx or 5xx.
    pub errors: u64,
    /// Left by the client before the end.
    pub cancelled: u64,
    /// Request body sizes, of all.
    pub request_bytes: Vec<u64>,
    /// Response body sizes, of all.
    pub response_bytes: Vec<u64>,
    /// Input tokens, of those that ended well and reported them.
    pub input_tokens: Vec<u64>,
    /// Output tokens, likewise.
    pub output_tokens: Vec<u64>,
    /// Input tokens out of the prefix cache, likewise.
    pub cached_tokens: Vec<u64>,
}

/// All models.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    accounts: BTreeMap<String, Account>,
}

impl Ledger {
    /// The account of a model.
    pub fn of(&mut self, model: &str) -> &mut Account {
        self.accounts.entry(model.to_owned()).or_default()
    }

    /// Enters a recorded exchange that has been sent, by its independent reading.
    pub fn enter(&mut self, model: &str, exchange: &Exchange) {
        let account = self.of(model);
        let read = &exchange.expect;
        account.requests += 1;
        account.request_bytes.push(read.request_bytes);
        account.response_bytes.push(read.response_bytes);
        if read.ended != "complete" {
            account.cancelled += 1;
        } else if read.status >= 400 {
            account.errors += 1;
        } else if let Some(usage) = &read.usage {
            account.input_tokens.extend(usage.input_tokens);
            account.output_tokens.extend(usage.output_tokens);
            account.cached_tokens.extend(usage.cached_tokens);
        }
    }

    /// What the page must say.
    #[must_use]
    pub fn statements(&self) -> Vec<Expect> {
        self.accounts.iter().flat_map(|(model, account)| account.statements(model)).collect()
    }

    /// The models and their accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &Account)> {
        self.accounts.iter().map(|(model, account)| (model.as_str(), account))
    }
}

impl Account {
    fn statements(&self, model: &str) -> Vec<Expect> {
        let labels = [("model_name", model)];
        let complete = self.requests - self.errors - self.cancelled;
        let mut all = vec![
            count("inference_objective_request_total", &labels, self.requests),
            count(
                "inference_objective_request_error_total",
                &with(model, "error_code", "ModelServerError"),
                self.errors,
            ),
            count("inference_objective_request_error_total", &labels, self.errors),
            count(
                "inference_objective_request_outcome_total",
                &with(model, "outcome", "client_cancelled"),
                self.cancelled,
            ),
            count("inference_objective_request_outcome_total", &with(model, "outcome", "complete"), complete),
            count("inference_objective_request_outcome_total", &labels, self.requests),
            missing("inference_objective_running_requests", &labels),
            at_least("inference_objective_request_duration_seconds_count", &labels, exactly(complete)),
        ];
        all.extend(histogram("inference_objective_request_sizes", &labels, &self.request_bytes));
        all.extend(histogram("inference_objective_response_sizes", &labels, &self.response_bytes));
        all.extend(histogram("inference_objective_input_tokens", &labels, &self.input_tokens));
        all.extend(histogram("inference_objective_output_tokens", &labels, &self.output_tokens));
        let cached = self.cached_tokens.iter().sum();
        if cached > 0 {
            all.push(count("inference_objective_prompt_cached_tokens_sum", &labels, cached));
        }
        all
    }
}

fn with<'a>(model: &'a str, label: &'a str, value: &'a str) -> [(&'a str, &'a str); 2] {
    [("model_name", model), (label, value)]
}

/// A count that may also be absent where it is 0.
fn count(name: &str, labels: &[(&str, &str)], value: u64) -> Expect {
    if value == 0 { missing(name, labels) } else { exact(name, labels, exactly(value)) }
}

/// Count, sum and the last bucket are exact.
fn histogram(family: &str, labels: &[(&str, &str)], values: &[u64]) -> Vec<Expect> {
    let number = u64::try_from(values.len()).unwrap_or(u64::MAX);
    let mut all = vec![
        count(&format!("{family}_count"), labels, number),
        count(&format!("{family}_sum"), labels, values.iter().sum()),
    ];
    if number > 0 {
        let mut last = labels.to_vec();
        last.push(("le", "+Inf"));
        all.push(count(&format!("{family}_bucket"), &last, number));
    }
    all
}

/// Test counts stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn exactly(count: u64) -> f64 {
    count as f64
}
