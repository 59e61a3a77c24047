//! The simulator: repeatable, complete, and the shipped examples show what the documentation says of them.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tallyd::flow::sim::report::{goodput, table};
use tallyd::flow::sim::scenario::Scenario;
use tallyd::flow::sim::tally::{Tally, fairness};
use tallyd::flow::sim::{picture, world};

fn example(name: &str) -> (Scenario, Tally, Tally) {
    let path = format!("{}/../bench/flow-sim/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let scenario = Scenario::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (without, with) = (world::run(&scenario, false).unwrap(), world::run(&scenario, true).unwrap());
    (scenario, without, with)
}

#[test]
fn the_same_file_gives_the_same_table_and_both_runs_see_the_same_requests() {
    let (scenario, without, with) = example("priorities");
    let (_, _, again) = example("priorities");
    assert_eq!(table(&scenario, &with), table(&scenario, &again));
    for (before, after) in without.classes.iter().zip(&with.classes) {
        assert_eq!(before.asked, after.asked);
        assert_eq!(
            before.flows.iter().map(|flow| flow.offered).collect::<Vec<_>>(),
            after.flows.iter().map(|flow| flow.offered).collect::<Vec<_>>()
        );
    }
}

#[test]
fn every_simulated_request_has_one_outcome_or_still_waits_at_the_end() {
    for name in ["priorities", "noisy-neighbour", "pool-shrinks"] {
        let (_, _, with) = example(name);
        for class in &with.classes {
            let outcomes: u64 = class.outcomes.iter().sum();
            // The last look at the queue is a 120th of the run before its end; at most what came since differs.
            assert!(outcomes <= class.asked, "{name}");
            assert!(class.asked - outcomes <= 1_000, "{name}: {} of {}", outcomes, class.asked);
        }
    }
}

#[test]
fn priority_keeps_chat_good_beside_a_batch_job() {
    let (_, without, with) = example("priorities");
    assert!(goodput(&without.classes[0]) < 0.6, "{}", goodput(&without.classes[0]));
    assert!(goodput(&with.classes[0]) > 0.9, "{}", goodput(&with.classes[0]));
    assert!(goodput(&with.classes[1]) > 0.9, "batch loses time, not requests");
}

#[test]
fn a_noisy_tenant_does_not_take_what_quiet_ones_ask_for() {
    let (_, without, with) = example("noisy-neighbour");
    assert!(goodput(&without.classes[0]) < 0.2);
    assert!(goodput(&with.classes[0]) > 0.8);
    let fair = |tally: &Tally| {
        let flows: Vec<_> = tally.classes.iter().flat_map(|class| class.flows.clone()).collect();
        fairness(&flows)
    };
    assert!(fair(&with) >= 0.99 && fair(&with) > fair(&without), "{} {}", fair(&with), fair(&without));
}

#[test]
fn half_a_pool_is_enough_for_those_who_go_first() {
    let (_, without, with) = example("pool-shrinks");
    assert!(goodput(&with.classes[0]) > 0.95);
    assert!(goodput(&with.classes[0]) > goodput(&without.classes[0]) + 0.1);
}

#[test]
fn the_picture_is_whole_and_a_title_cannot_break_it() {
    let (mut scenario, without, with) = example("pool-shrinks");
    scenario.title = "a < b & c".into();
    let svg = picture::svg(&scenario, &without, &with);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b &amp; c"));
    assert_eq!(svg.matches("<path ").count(), 2 * 2 + 2 + 2, "two curves in two panels, four below");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn a_file_that_makes_no_sense_is_refused_in_words() {
    let text = std::fs::read_to_string(format!("{}/../bench/flow-sim/priorities.yaml", env!("CARGO_MANIFEST_DIR")));
    let text = text.unwrap();
    for (from, to, said) in [
        ("endpoints: 4", "endpoints: 0", "pool.endpoints"),
        ("seconds: 600", "seconds: 0", "seconds"),
        ("    per_second: 6", "    per_second: -6", "class chat"),
        ("slowdown", "slow_down", "slow_down"),
        ("    per_second: 6", "    per_second: 600000", "20 million"),
    ] {
        let error = Scenario::parse(&text.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}
