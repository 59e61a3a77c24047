//! A run as a table for people.
//!
//! In: a scenario and what came of it. Out: Markdown. It computes nothing that `tally.rs` does not.

use std::collections::BTreeMap;
use std::fmt::Write;

use tally_core::admission::Outcome;

use super::scenario::Scenario;
use super::tally::{ClassTally, FlowTally, Tally, fairness, percentile};

/// The table of one run.
#[must_use]
pub fn table(scenario: &Scenario, tally: &Tally) -> String {
    let mut text = String::from(
        "| class | priority | asked | sent | refused | timed out | left in server | queue wait p50 / p95 / p99 s | \
         first token p50 / p95 s | goodput | good tokens/s | longest starved s |\n\
         |---|--:|--:|--:|--:|--:|--:|---|---|--:|--:|--:|\n",
    );
    for (class, of) in scenario.classes.iter().zip(&tally.classes) {
        let wait = |share| percentile(&of.waits, share);
        let first = |share| percentile(&of.first_tokens, share);
        // Writing to a String cannot fail; the same holds below.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {:.2} / {:.2} / {:.2} | {:.2} / {:.2} | {:.1} % | {:.0} | {:.1} |",
            class.name,
            class.priority,
            of.asked,
            count(of, &[Outcome::Dispatched]),
            count(of, &[Outcome::RejectedCapacity, Outcome::RejectedOther, Outcome::EvictedOther]),
            count(of, &[Outcome::EvictedTtl, Outcome::EvictedNoEndpoints]),
            of.left_server,
            wait(0.5),
            wait(0.95),
            wait(0.99),
            first(0.5),
            first(0.95),
            goodput(of) * 100.0,
            of.good_tokens as f64 / scenario.seconds,
            of.starved,
        );
    }
    let mut bands: BTreeMap<i32, Vec<FlowTally>> = BTreeMap::new();
    for (class, of) in scenario.classes.iter().zip(&tally.classes) {
        bands.entry(class.priority).or_default().extend(&of.flows);
    }
    for (priority, flows) in bands.iter().rev() {
        let _ = writeln!(
            text,
            "\nJain's index over {} fairness ids of priority {priority}: {:.3} (tokens run over max-min fair share)",
            flows.len(),
            fairness(flows)
        );
    }
    text
}

/// Share of those that asked whose first token came in time.
#[must_use]
pub fn goodput(of: &ClassTally) -> f64 {
    if of.asked == 0 { 1.0 } else { of.good as f64 / of.asked as f64 }
}

fn count(of: &ClassTally, outcomes: &[Outcome]) -> u64 {
    let counted = Outcome::ALL.iter().zip(&of.outcomes).filter(|(outcome, _)| outcomes.contains(outcome));
    counted.map(|(_, count)| count).sum()
}
