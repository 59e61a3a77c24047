//! A metrics page of the whole catalog that moves with the time: something to draw without any real traffic.
//!
//! In: which sources' families it has. Out: an HTTP server whose `/metrics` is that page. It stands in for `tallyd` in
//! tests of dashboards, rules and the live page; it says nothing about Tally's own numbers.

use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tally_core::catalog::{self, Family, Kind, Source, Unit};
use tally_core::exposition::{Format, Writer};
use tally_core::histogram::Histogram;

use crate::wire;

/// As if it had run this long when it starts, so that no counter is zero.
const HEAD_START: f64 = 100.0;

/// A running server; it ends with the process.
#[derive(Debug)]
pub struct GrowingPage {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl GrowingPage {
    /// Starts one that has the families of these sources, and the given text after them.
    ///
    /// # Errors
    /// If no port is free.
    pub fn start(sources: &[Source], more: &str) -> Result<Self> {
        let families: Vec<&'static Family> = catalog::all().filter(|family| sources.contains(&family.source)).collect();
        let (families, more) = (Arc::new(families), Arc::new(more.to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let began = Instant::now();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (families, more) = (Arc::clone(&families), Arc::clone(&more));
                // An error ends the connection, which is all that a peer could see of it.
                thread::spawn(move || serve(&stream, &families, &more, began));
            }
        });
        Ok(Self { port })
    }
}

fn serve(mut stream: &TcpStream, families: &[&Family], more: &str, began: Instant) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while wire::read_head(&mut reader)?.is_some() {
        let body = page(families, began.elapsed().as_secs_f64() + HEAD_START) + more;
        let kind = Format::Text.content_type();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

/// The page of these sources after this many seconds.
#[must_use]
pub fn text(sources: &[Source], seconds: f64) -> String {
    let families: Vec<&'static Family> = catalog::all().filter(|family| sources.contains(&family.source)).collect();
    page(&families, seconds)
}

fn page(families: &[&Family], seconds: f64) -> String {
    let mut page = Writer::new(Format::Text);
    for family in families {
        let mut writer = page.family(family);
        for (turn, labels) in label_sets(family).iter().enumerate() {
            let labels: Vec<(&str, &str)> = labels.clone();
            let share = turn as f64 + 1.0;
            match family.kind {
                Kind::Counter => {
                    // Errors are rarer than what they are errors of.
                    let rarer = if family.name.contains("error") { 25.0 } else { 1.0 };
                    writer.sample(&labels, (seconds * scale(family.unit) / share / rarer).floor());
                }
                Kind::Gauge => writer.sample(&labels, gauge(family, seconds, share)),
                Kind::Histogram(bounds) => {
                    let mut histogram = Histogram::new(bounds);
                    for count in 0..(seconds * 4.0 / share) as u64 {
                        // A spread of one decade around an early bound, in an order that repeats.
                        let middle = bounds.get(bounds.len() / 3).map_or(1, |bound| bound.at);
                        histogram.observe(middle * (1 + (count * 7) % 19) / 6);
                    }
                    writer.histogram(&labels, &histogram);
                }
            }
        }
    }
    page.finish()
}

/// Counters of bytes and nanoseconds grow faster than those of requests.
const fn scale(unit: Unit) -> f64 {
    match unit {
        Unit::Bytes => 20_000.0,
        Unit::Nanoseconds => 400_000.0,
        Unit::Tokens => 40.0,
        _ => 3.0,
    }
}

fn gauge(family: &Family, seconds: f64, share: f64) -> f64 {
    let wave = 1.0 + (seconds / 7.0 + share).sin();
    match family.unit {
        _ if family.name.ends_with("_info") || family.name.ends_with("_up") => 1.0,
        Unit::Ratio => 0.2 + 0.25 * wave,
        Unit::Bytes => 1e6 * (1.0 + wave),
        Unit::Seconds => 0.05 * (1.0 + wave),
        Unit::UnixSeconds => {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64().floor() - 3.0)
        }
        Unit::None => 2.0,
        Unit::Nanoseconds | Unit::Requests | Unit::Tokens => (4.0 * wave / share).round(),
    }
}

/// As many label sets as the label with the most values has; the others take turns.
fn label_sets(family: &Family) -> Vec<Vec<(&'static str, &'static str)>> {
    let most = family.labels.iter().map(|label| values(family, label).len()).max().unwrap_or(1);
    (0..most)
        .map(|turn| {
            let pick = |label: &&'static str| {
                let values = values(family, label);
                (*label, values.get(turn % values.len()).copied().unwrap_or_default())
            };
            family.labels.iter().map(pick).collect()
        })
        .collect()
}

/// Values that such a label has in real life.
fn values(family: &Family, label: &str) -> &'static [&'static str] {
    match label {
        "model_name" => &["llama-3.1-8b", "qwen2.5-7b", "support-bot"],
        "target_model_name" => &["llama-3.1-8b", "qwen2.5-7b", "llama-3.1-8b-lora-7"],
        "error_code" => &["ModelServerError", "ServiceUnavailable"],
        "outcome" if family.name.starts_with("inference_extension") => {
            &["Dispatched", "RejectedCapacity", "EvictedTTL"]
        }
        "outcome" => &["complete", "client_cancelled", "upstream_error", "rejected"],
        "priority" => &["0", "10", "-5"],
        "fairness_id" => &["default-flow", "team-a", "team-b"],
        "name" | "inference_pool" => &["pool-a"],
        "model_server_pod" => &["vllm-0-rank-0", "vllm-1-rank-0", "vllm-2-rank-0"],
        "adapter_name" => &["lora-7", "lora-9"],
        "api" => &["chat", "completions"],
        "quality" if family.name.contains("request_quality") => &["parsed", "model_missing"],
        "quality" => &["found", "missing", "partial"],
        "tenant" => &["acme", "globex"],
        "result" if family.name.starts_with("lora") => &["ok", "partial"],
        "result" => &["dispatched", "rejected", "failed_open"],
        "direction" => &["request", "response"],
        "reason" => &["timeout", "status"],
        "version" => &["0.1.0"],
        "commit" => &["0123abc"],
        "envoy" => &["127.0.0.1:9901"],
        _ => &["a"],
    }
}
