//! The conformance corpus against a whole gateway: see docs/CONFORMANCE.md.
//!
//! In: the cases of `testdata/conformance`, a gateway that sends everything to [`server`], the names of its metrics. Out:
//! per case what was counted otherwise than the case says. It knows of no gateway but by its metrics page.

#[path = "../../../core/tests/conformance/case.rs"]
#[allow(missing_docs, reason = "documented in docs/CONFORMANCE.md")]
pub mod case;
pub mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
pub use case::Case;

use crate::client::{Leave, Request};
use crate::page::Page;
use crate::tools;

/// Until a gateway has counted what it has carried.
const PATIENCE: Duration = Duration::from_secs(10);
/// Which case the server is to answer.
const CASE_HEADER: &str = "x-conformance-case";

/// What a case says, by name, and under which series a gateway counts it.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<String, String>);

/// The names that [`Names`] may have: those of [`expected`].
pub const MEASURES: [&str; 9] =
    ["requests", "request_bytes", "response_bytes", "input", "output", "cached", "first_tokens", "outcome", "usage"];

impl Names {
    /// Tally's.
    #[must_use]
    pub fn tally() -> Self {
        let names = [
            ("requests", "inference_objective_request_total"),
            ("request_bytes", "inference_objective_request_sizes_sum"),
            ("response_bytes", "inference_objective_response_sizes_sum"),
            ("input", "inference_objective_input_tokens_sum"),
            ("output", "inference_objective_output_tokens_sum"),
            ("cached", "inference_objective_prompt_cached_tokens_sum"),
            ("first_tokens", "inference_objective_request_ttft_seconds_count"),
            ("outcome", "inference_objective_request_outcome_total"),
            ("usage", "inference_objective_usage_quality_total"),
        ];
        Self(names.into_iter().map(|(measure, name)| (measure.to_owned(), name.to_owned())).collect())
    }

    /// Every series that is to grow, or not to grow, by a case.
    fn of<'a>(&'a self, case: &'a Case) -> Vec<Series<'a>> {
        let series = |(measure, name): (&'a String, &'a String)| {
            let label = match measure.as_str() {
                "outcome" => Some(("outcome", case.expect.outcome.as_str())),
                "usage" => Some(("quality", case.expect.usage.as_str())),
                _ => None,
            };
            Some(Series { name, label, by: expected(case, measure)? })
        };
        self.0.iter().filter_map(series).collect()
    }
}

/// The series of one name that have one label, and by how much they are to grow together.
struct Series<'a> {
    name: &'a str,
    label: Option<(&'a str, &'a str)>,
    by: f64,
}

impl Series<'_> {
    fn total(&self, page: &Page) -> f64 {
        page.total(self.name, self.label.as_slice())
    }

    fn difference(&self, grown: f64) -> Option<String> {
        let Self { name, label, by } = self;
        let label = label.map_or_else(String::new, |(key, value)| format!("{{{key}=\"{value}\"}}"));
        (grown != *by).then(|| format!("{name}{label} grew by {grown} instead of {by}"))
    }
}

/// By how much a measure grows; `None`: the case does not say.
fn expected(case: &Case, measure: &str) -> Option<f64> {
    let is_whole = case.expect.outcome == "complete";
    let size = |pieces: &[Vec<u8>]| pieces.iter().map(Vec::len).sum::<usize>() as f64;
    let tokens =
        |name: &str| if is_whole { case.expect.tokens.get(name).map_or(0.0, |count| *count as f64) } else { 0.0 };
    Some(match measure {
        "request_bytes" => size(&case.request),
        // A client that leaves may leave bytes behind in the gateway.
        "response_bytes" if is_whole => size(&case.answer),
        "input" | "output" | "cached" => tokens(measure),
        "first_tokens" if is_whole => f64::from(u8::from(case.expect.first_token.is_some())),
        "requests" | "outcome" | "usage" => 1.0,
        _ => return None,
    })
}

/// Sends a case through the gateway at `gateway` and reads its page before and after.
///
/// # Errors
/// What was counted otherwise, one line each; or why there is no answer.
pub fn run(case: &Case, gateway: u16, names: &Names, page: &impl Fn() -> Result<Page>) -> Result<()> {
    let series = names.of(case);
    let first = page()?;
    let before: Vec<f64> = series.iter().map(|series| series.total(&first)).collect();
    let mut request = Request::post(&case.path, case.request.concat()).header(CASE_HEADER, case.name.as_str());
    if case.ended == case::Ended::ClientLeft {
        request.leave = Leave::AfterBytes(case.answer.iter().map(Vec::len).sum());
    }
    let answer = request.send(gateway)?;
    if answer.status != case.status {
        return Err(anyhow!("the gateway answered {}", answer.status));
    }
    let mut wrong = Vec::new();
    let settled = tools::poll(PATIENCE, || {
        let page = page().ok()?;
        let differences =
            series.iter().zip(&before).map(|(series, before)| series.difference(series.total(&page) - before));
        wrong = differences.flatten().collect();
        wrong.is_empty().then_some(())
    });
    settled.ok_or_else(|| anyhow!("{}", wrong.join("\n")))
}
