//! `make bench-heap`: what heap sampling costs while tallyd scrapes.
//!
//! Two optimised tallyds, one with sampling and one without, scrape the recorded vLLM page from the same stand-ins at the
//! same time. Printed: processor time for each scrape, and the ratio of the two, round by round and over all.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use tally_integration::admin::{Admin, Says};
use tally_integration::companion::Companion;
use tally_integration::tools;

const ENDPOINTS: usize = 20;
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_secs(6);

fn main() -> Result<()> {
    let page = fs::read_to_string(tools::root().join("testdata/scrapes/vllm-busy.prom"))?;
    let ports: Result<Vec<u16>> = (0..ENDPOINTS).map(|_| Ok(Admin::tcp(Says::Page(page.clone()))?.1)).collect();
    let endpoints: Vec<String> = ports?.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    let config = format!(
        "pools:\n- {{name: p, discovery: {{static: [{}]}}, engine: vllm, refresh_metrics_interval: 20ms}}\n",
        endpoints.join(", ")
    );
    let sampled = Companion::start(&config, &[])?;
    let plain = Companion::start_with(&config, &[], &[("MALLOC_CONF", "prof:false")])?;
    println!("{ENDPOINTS} endpoints with a page of {} bytes, a scrape of each every 20 ms.\n", page.len());
    println!("| round | us a scrape with sampling | without | ratio |\n|---|---|---|---|");
    let (start_sampled, start_plain) = (Usage::of(&sampled)?, Usage::of(&plain)?);
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let before = (Usage::of(&sampled)?, Usage::of(&plain)?);
        sleep(ROUND);
        let with = Usage::of(&sampled)?.since(before.0).micros_per_scrape();
        let without = Usage::of(&plain)?.since(before.1).micros_per_scrape();
        ratios.push(with / without);
        println!("| {round} | {with:.1} | {without:.1} | {:.3} |", with / without);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    let with = Usage::of(&sampled)?.since(start_sampled).micros_per_scrape();
    let without = Usage::of(&plain)?.since(start_plain).micros_per_scrape();
    println!("| all | {with:.1} | {without:.1} | {:.3}; median of rounds {median:.3} |", with / without);
    Ok(())
}

/// Processor time and scrapes of a process so far.
#[derive(Clone, Copy)]
struct Usage {
    nanos: f64,
    scrapes: f64,
}

impl Usage {
    fn of(companion: &Companion) -> Result<Self> {
        let scrapes = companion.page()?.total("inference_pool_scrapes_total", &[]);
        // Fields 14 and 15 of proc(5)'s stat: user and system time of all threads, ended ones too, in hundredths of a second.
        let stat = fs::read_to_string(format!("/proc/{}/stat", companion.pid()))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        let nanos = ticks * 1e7;
        Ok(Self { nanos, scrapes })
    }

    fn since(self, earlier: Self) -> Self {
        Self { nanos: self.nanos - earlier.nanos, scrapes: self.scrapes - earlier.scrapes }
    }

    fn micros_per_scrape(self) -> f64 {
        self.nanos / 1000.0 / self.scrapes.max(1.0)
    }
}
