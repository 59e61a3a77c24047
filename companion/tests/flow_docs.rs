//! docs/FLOW_CONTROL.md names every setting there is, and its example is one that starts.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use tally_core::admission::Outcome;
use tallyd::flow::config::{Band, FlowConfig, PriorityBand, SaturationDetector};
use tallyd::flow::objective_watch::ObjectiveWatch;

const DOCS: &str = include_str!("../../docs/FLOW_CONTROL.md");

/// The keys of a section, as its reader lists them in the error for a wrong one.
fn keys<T: for<'de> Deserialize<'de> + std::fmt::Debug>() -> Vec<String> {
    let error = serde_json::from_str::<T>(r#"{"no such key": 1}"#).unwrap_err().to_string();
    let list = error.split_once("expected one of").unwrap().1;
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_setting_is_documented() {
    let sections = [keys::<FlowConfig>(), keys::<Band>(), keys::<PriorityBand>(), keys::<SaturationDetector>()];
    let keys: Vec<String> = sections.into_iter().flatten().chain(keys::<ObjectiveWatch>()).collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        let is_named =
            [format!("`{key}`"), format!("`{key}[]`"), format!("{{{key}, "), format!(" {key}, "), format!(" {key}}}")]
                .iter()
                .any(|spelled| DOCS.contains(spelled.as_str()));
        assert!(is_named, "{key} is not in docs/FLOW_CONTROL.md");
    }
}

#[test]
fn every_outcome_is_documented() {
    for outcome in Outcome::ALL {
        assert!(DOCS.contains(&format!("`{}`", outcome.label())), "{}", outcome.label());
    }
}

#[test]
fn the_example_is_a_configuration_that_starts() {
    #[derive(Deserialize)]
    struct File {
        flow_control: FlowConfig,
    }
    let yaml = DOCS.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0;
    let file: File = serde_saphyr::from_str(yaml).unwrap();
    let plan = file.flow_control.plan().unwrap();
    assert_eq!(plan.controller.queue.bands.len(), 3);
}
