//! What is measured again and again of Envoy and tallyd, and whether it grows.

use std::fs;

use anyhow::{Context, Result};

use crate::companion::Companion;
use crate::envoy::Envoy;

/// What a sample has.
pub(crate) const MEASURES: [Measure; 9] = [
    Measure { name: "Envoy, resident", unit: "MB", may_grow: 4.0 },
    Measure { name: "tallyd, resident", unit: "MB", may_grow: 4.0 },
    Measure { name: "linear memory of all VMs", unit: "MB", may_grow: 0.0 },
    Measure { name: "samples on Envoy's page", unit: "", may_grow: 0.0 },
    Measure { name: "samples on tallyd's page", unit: "", may_grow: 0.0 },
    Measure { name: "tasks of tallyd", unit: "", may_grow: 2.0 },
    Measure { name: "threads of both", unit: "", may_grow: 2.0 },
    Measure { name: "descriptors of Envoy", unit: "", may_grow: 4.0 },
    Measure { name: "descriptors of tallyd", unit: "", may_grow: 4.0 },
];

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    pub name: &'static str,
    pub unit: &'static str,
    /// From the first to the last sample after the warm-up, along the fitted line: noise, and no more.
    pub may_grow: f64,
}

/// One look.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub seconds: f64,
    pub requests: f64,
    pub scrapes: f64,
    pub values: [f64; MEASURES.len()],
}

const MEGABYTE: f64 = 1e6;

impl Sample {
    /// Looks at both.
    pub(crate) fn take(envoy: &mut Envoy, companion: &Companion, seconds: f64, requests: u64) -> Result<Self> {
        let (page, own) = (envoy.page()?, companion.page()?);
        let pids = [envoy.process().0.id(), companion.pid()];
        let threads = files(pids[0], "task")? + files(pids[1], "task")?;
        let resident = |pid: u32| -> Result<f64> {
            let statm = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = statm.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
            let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
            Ok(kilobytes * 1024.0 / MEGABYTE)
        };
        let tasks = String::from_utf8_lossy(&companion.get("/debug/pprof/goroutine?debug=1", None)?.body).into_owned();
        Ok(Self {
            seconds,
            requests: requests as f64,
            scrapes: own.total("inference_pool_scrapes_total", &[]),
            values: [
                resident(pids[0])?,
                resident(pids[1])?,
                page.total("tally_filter_vm_memory_bytes", &[]) / MEGABYTE,
                page.samples.len() as f64,
                own.samples.len() as f64,
                count_of(&tasks).with_context(|| format!("no number of tasks in {tasks:?}"))?,
                threads,
                files(pids[0], "fd")?,
                files(pids[1], "fd")?,
            ],
        })
    }
}

fn files(pid: u32, folder: &str) -> Result<f64> {
    Ok(fs::read_dir(format!("/proc/{pid}/{folder}"))?.count() as f64)
}

/// The first whole number of a text.
fn count_of(text: &str) -> Option<f64> {
    text.split(|letter: char| !letter.is_ascii_digit()).find(|word| !word.is_empty())?.parse().ok()
}

/// Slope of the least-squares line through (x, y), in y per x; 0 if all x are the same.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let number = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / number;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    if spread > 0.0 { both / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_its_own_and_noise_around_a_level_has_none() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 4.0), (1.0, 6.0), (2.0, 4.0)]), 0.0);
        assert_eq!(slope(&[(1.0, 4.0), (1.0, 6.0)]), 0.0);
    }
}
