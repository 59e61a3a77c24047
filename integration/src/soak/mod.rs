//! `make soak`: a million requests through the filter and a million scrapes by tallyd, and what grows meanwhile.
//!
//! In: how many of each. Out: samples, a table with slopes, a picture; an error if something grew, or if one request was
//! counted other than once.

mod endpoints;
mod load;
mod picture;
mod report;
mod sample;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use load::Progress;
pub use report::Report;
use sample::Sample;

use crate::chaos::upstream::Upstream;
use crate::companion::Companion;
use crate::envoy::{Envoy, Options};
use crate::tools::{self, poll};

/// Endpoints that tallyd scrapes.
const ENDPOINTS: usize = 20;
/// Between two scrapes of one of them.
const INTERVAL: &str = "10ms";
/// The requests may be ahead of the scrapes by this share, which is work until the next look.
const AHEAD: f64 = 0.01;
const SOON: Duration = Duration::from_secs(60);

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Requests through the filter.
    pub requests: u64,
    /// Scrapes of endpoints by tallyd.
    pub scrapes: u64,
    /// Between two looks.
    pub every: Duration,
}

/// Sends, scrapes and looks, until there was enough of both.
///
/// # Errors
/// If a process cannot be started, or a request fails.
pub fn run(settings: Settings) -> Result<Report> {
    let upstream = Upstream::start()?;
    let grpc = tools::free_port()?;
    let mut options = Options { companion: grpc, ..Options::to(upstream.port) };
    options = options.config(r#"{"admission":{}}"#);
    let mut envoy = Envoy::start(&options)?;
    let companion = companion(&envoy, grpc)?;
    let progress = Arc::new(Progress::default());
    let began = Instant::now();
    let clients: Vec<_> = (0..load::CLIENTS)
        .map(|_| {
            let (progress, port) = (Arc::clone(&progress), envoy.port);
            thread::spawn(move || load::client(port, settings.requests, &progress))
        })
        .collect();
    let mut samples: Vec<Sample> = Vec::new();
    let done = || progress.done.load(Ordering::Relaxed);
    loop {
        thread::sleep(settings.every);
        let sample = Sample::take(&mut envoy, &companion, began.elapsed().as_secs_f64(), done())?;
        eprintln!(
            "  {:6.0} s: {} requests, {} scrapes, {:?}",
            sample.seconds, sample.requests, sample.scrapes, sample.values
        );
        let share = sample.scrapes / settings.scrapes.max(1) as f64 + AHEAD;
        progress.allowed.store((settings.requests as f64 * share) as u64, Ordering::Relaxed);
        let is_enough = done() >= settings.requests && sample.scrapes >= settings.scrapes as f64;
        let have_all_failed = clients.iter().all(thread::JoinHandle::is_finished) && done() < settings.requests;
        samples.push(sample);
        if is_enough || have_all_failed {
            break;
        }
    }
    for client in clients {
        client.join().ok().context("a client panicked")??;
    }
    let wrong = count(&envoy, settings.requests)?;
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "Envoy or its VM failed:\n{}", envoy.log());
    Ok(Report { settings, samples, wrong })
}

fn companion(envoy: &Envoy, grpc: u16) -> Result<Companion> {
    let endpoints: Vec<String> =
        endpoints::start(ENDPOINTS)?.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    let config = format!(
        "envoy: [{{url: 'http://127.0.0.1:{}', interval: 1s}}]\n\
         pools: [{{name: soak, discovery: {{static: [{}]}}, refresh_metrics_interval: {INTERVAL}}}]\n\
         flow_control: {{saturationDetector: {{metricsStalenessThreshold: 2s}}}}\n",
        envoy.admin,
        endpoints.join(", ")
    );
    let port = grpc.to_string();
    let companion = Companion::start(&config, &["--grpc-port", &port, "--grpc-health-port", "0"])?;
    ensure!(tools::listening(grpc, SOON), "tallyd does not listen at {port}");
    Ok(companion)
}

/// What is not as the clients know it, in words.
fn count(envoy: &Envoy, requests: u64) -> Result<Vec<String>> {
    let (input, output) = (0..requests).map(load::tokens).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let complete = [("outcome", "complete")];
    let expected = [
        ("inference_objective_request_total", &[][..], requests),
        ("inference_objective_request_outcome_total", &complete[..], requests),
        ("inference_objective_input_tokens_sum", &[], input),
        ("inference_objective_output_tokens_sum", &[], output),
        ("tally_filter_admissions_total", &[], requests),
        ("inference_objective_running_requests", &[], 0),
        ("tally_filter_live_streams", &[], 0),
        ("tally_filter_host_call_errors_total", &[], 0),
    ];
    let wrong = || -> Result<Vec<String>> {
        let page = envoy.page()?;
        let differs = expected.iter().filter(|(name, labels, value)| page.total(name, labels) != *value as f64);
        Ok(differs
            .map(|(name, labels, value)| format!("{name}: {value} sent, {} counted", page.total(name, labels)))
            .collect())
    };
    poll(SOON, || wrong().is_ok_and(|wrong| wrong.is_empty()).then_some(()));
    wrong()
}
