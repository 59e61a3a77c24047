//! One round of each fault of `make chaos`, with a seed of its own each time; the seed is printed, and repeats the round.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tally_integration::chaos::{Choice, Settings, run};
use tally_integration::tools;

fn one_round(choice: &Choice) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let report = run(Settings { seed, time: Duration::ZERO }, choice)?;
    println!("{}", report.table());
    ensure!(report.is_good(), "SEED={seed}:\n{}", report.troubles());
    Ok(())
}

#[test]
fn each_fault_under_traffic_leaves_the_metrics_equal_to_the_ledger() -> Result<()> {
    one_round(&Choice::Shared)
}

#[test]
fn each_fault_that_ends_envoy_or_its_vms_or_moves_its_clock_leaves_the_metrics_equal_to_the_ledger() -> Result<()> {
    one_round(&Choice::Apart)
}

#[test]
fn every_test_that_the_page_on_reliability_names_exists() -> Result<()> {
    let page = std::fs::read_to_string(tools::root().join("docs/RELIABILITY.md"))?;
    let named: Vec<(&str, &str)> = page.split('`').filter_map(|part| part.split_once(".rs: ")).collect();
    ensure!(named.len() > 30, "the table is gone");
    for (file, test) in named {
        let path = tools::root().join(format!("integration/tests/{file}.rs"));
        let text = std::fs::read_to_string(path).with_context(|| file.to_owned())?;
        ensure!(text.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
    Ok(())
}
