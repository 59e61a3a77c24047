//! The ledger of a chaos run: what the clients know of each request, against what the metrics say.
//!
//! In: the fate of each request, as its own client saw it. Out: what a page says too little (lost) and too much (counted
//! twice), series by series. Nothing here is asked of the filter.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::page::Page;

/// Bounds at which the token histograms are compared.
const BOUNDS: [u64; 4] = [8, 128, 1024, 8192];

/// How a request ended, and what has to be counted of it.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    /// The model it must be counted under.
    pub model: String,
    /// The outcome it must be counted with.
    pub outcome: &'static str,
    /// Input and output tokens of its answer, if it was complete.
    pub tokens: Option<(u64, u64)>,
    /// Bytes of its body; `None` if it was cut off somewhere.
    pub bytes: Option<u64>,
    /// When its end was seen.
    pub ended: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tokens {
    sum: u64,
    within: [u64; BOUNDS.len()],
}

impl Tokens {
    fn add(&mut self, tokens: u64) {
        self.sum += tokens;
        for (count, bound) in self.within.iter_mut().zip(BOUNDS) {
            *count += u64::from(tokens <= bound);
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Account {
    by_outcome: BTreeMap<&'static str, u64>,
    /// `None`: the size of one was not known.
    bytes: Option<u64>,
    with_tokens: u64,
    input: Tokens,
    output: Tokens,
}

/// All fates, and the page from which on they are counted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    accounts: BTreeMap<String, Account>,
    base: Page,
    /// The fates themselves, while somebody wants to look at their times.
    pub journal: Option<Vec<Fate>>,
}

/// One series that is not what the book says.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    /// The series.
    pub series: String,
    /// By the book.
    pub expected: f64,
    /// On the page, since the base.
    pub found: f64,
}

impl Book {
    /// Enters one.
    pub(crate) fn enter(&mut self, fate: Fate) {
        let new = || Account { bytes: Some(0), ..Account::default() };
        let account = self.accounts.entry(fate.model.clone()).or_insert_with(new);
        *account.by_outcome.entry(fate.outcome).or_default() += 1;
        account.bytes = account.bytes.zip(fate.bytes).map(|(sum, bytes)| sum + bytes);
        if let Some((input, output)) = fate.tokens {
            account.with_tokens += 1;
            account.input.add(input);
            account.output.add(output);
        }
        if let Some(journal) = &mut self.journal {
            journal.push(fate);
        }
    }

    /// Requests that must have been counted.
    pub(crate) fn requests(&self) -> u64 {
        self.accounts.values().flat_map(|account| account.by_outcome.values()).sum()
    }

    /// From here on: what the page says now is the new zero.
    pub(crate) fn rebase(&mut self, page: Page) {
        *self = Self { base: page, ..Self::default() };
    }

    /// Of how many requests the page says too little, and of how many too much.
    pub(crate) fn lost_and_twice(&self, page: &Page) -> (u64, u64) {
        let (lost, twice) = self.lost_and_twice_of_known(page);
        // What was counted under a name that the book does not know.
        let all = self.since("inference_objective_request_outcome_total", &[], page);
        let foreign = all - (self.requests() as f64 - lost as f64 + twice as f64);
        (lost, twice + foreign.max(0.0) as u64)
    }

    /// The same of the names only that the book knows.
    pub(crate) fn lost_and_twice_of_known(&self, page: &Page) -> (u64, u64) {
        let (mut lost, mut twice) = (0.0, 0.0);
        for (model, account) in &self.accounts {
            for (outcome, expected) in &account.by_outcome {
                let labels = [("model_name", model.as_str()), ("outcome", *outcome)];
                let found = self.since("inference_objective_request_outcome_total", &labels, page);
                lost += (*expected as f64 - found).max(0.0);
                twice += (found - *expected as f64).max(0.0);
            }
        }
        (lost as u64, twice as u64)
    }

    /// All series that differ.
    pub(crate) fn differences(&self, page: &Page) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut compare = |name: &str, labels: &[(&str, &str)], expected: u64| {
            let found = self.since(name, labels, page);
            if found != expected as f64 {
                all.push(Difference { series: format!("{name}{labels:?}"), expected: expected as f64, found });
            }
        };
        for (model, account) in &self.accounts {
            let of_model = [("model_name", model.as_str())];
            compare("inference_objective_request_total", &of_model, account.by_outcome.values().sum());
            for (outcome, requests) in &account.by_outcome {
                let labels = [of_model[0], ("outcome", *outcome)];
                compare("inference_objective_request_outcome_total", &labels, *requests);
            }
            if let Some(bytes) = account.bytes {
                compare("inference_objective_request_sizes_sum", &of_model, bytes);
            }
            for (family, tokens) in [("input", account.input), ("output", account.output)] {
                let name = format!("inference_objective_{family}_tokens");
                compare(&format!("{name}_count"), &of_model, account.with_tokens);
                compare(&format!("{name}_sum"), &of_model, tokens.sum);
                for (bound, count) in BOUNDS.iter().zip(tokens.within) {
                    let le = bound.to_string();
                    compare(&format!("{name}_bucket"), &[of_model[0], ("le", &le)], count);
                }
            }
        }
        let requests = self.requests();
        compare("inference_objective_request_total", &[], requests);
        compare("inference_objective_request_outcome_total", &[], requests);
        compare("tally_filter_admissions_total", &[], requests);
        all
    }

    fn since(&self, name: &str, labels: &[(&str, &str)], page: &Page) -> f64 {
        page.total(name, labels) - self.base.total(name, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        let mut book = Book::default();
        for (outcome, tokens) in [("complete", Some((7, 200))), ("complete", Some((9_000, 1))), ("timeout", None)] {
            let (model, ended) = ("m".to_owned(), Instant::now());
            book.enter(Fate { model, outcome, tokens, bytes: Some(10), ended });
        }
        book
    }

    fn page(complete: u64, timeout: u64, more: &str) -> Page {
        let all = complete + timeout;
        Page::parse(&format!(
            "inference_objective_request_total{{model_name=\"m\"}} {all}\ntally_filter_admissions_total {all}\n\
             inference_objective_request_outcome_total{{model_name=\"m\",outcome=\"complete\"}} {complete}\n\
             inference_objective_request_outcome_total{{model_name=\"m\",outcome=\"timeout\"}} {timeout}\n\
             inference_objective_request_sizes_sum{{model_name=\"m\"}} 30\n\
             inference_objective_input_tokens_count{{model_name=\"m\"}} 2\ninference_objective_input_tokens_sum{{model_name=\"m\"}} 9007\n\
             inference_objective_input_tokens_bucket{{model_name=\"m\",le=\"8\"}} 1\ninference_objective_input_tokens_bucket{{model_name=\"m\",le=\"128\"}} 1\n\
             inference_objective_input_tokens_bucket{{model_name=\"m\",le=\"1024\"}} 1\ninference_objective_input_tokens_bucket{{model_name=\"m\",le=\"8192\"}} 1\n\
             inference_objective_output_tokens_count{{model_name=\"m\"}} 2\ninference_objective_output_tokens_sum{{model_name=\"m\"}} 201\n\
             inference_objective_output_tokens_bucket{{model_name=\"m\",le=\"8\"}} 1\ninference_objective_output_tokens_bucket{{model_name=\"m\",le=\"128\"}} 1\n\
             inference_objective_output_tokens_bucket{{model_name=\"m\",le=\"1024\"}} 2\ninference_objective_output_tokens_bucket{{model_name=\"m\",le=\"8192\"}} 2\n{more}"
        ))
    }

    #[test]
    fn a_page_that_says_what_the_clients_know_differs_in_nothing() {
        assert!(book().differences(&page(2, 1, "")).is_empty(), "{:?}", book().differences(&page(2, 1, "")));
        assert_eq!(book().lost_and_twice(&page(2, 1, "")), (0, 0));
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_too_much_was_counted_twice() {
        assert_eq!(book().lost_and_twice(&page(1, 1, "")), (1, 0));
        assert_eq!(book().lost_and_twice(&page(2, 3, "")), (0, 2));
        assert_eq!(book().lost_and_twice(&page(1, 2, "")), (1, 1));
        let foreign = "inference_objective_request_outcome_total{model_name=\"x\",outcome=\"complete\"} 4\n";
        assert_eq!(book().lost_and_twice(&page(2, 1, foreign)), (0, 4));
        assert!(book().differences(&page(2, 1, foreign)).iter().any(|difference| difference.found == 7.0));
    }

    #[test]
    fn after_a_rebase_only_what_is_new_counts() {
        let mut book = book();
        book.rebase(page(1, 1, ""));
        assert!(book.differences(&page(1, 1, "")).is_empty());
        assert_eq!(book.lost_and_twice(&page(2, 1, "")), (0, 1));
    }
}
