//! `tallyd`'s pool over real model servers: under more requests than they run at once the gauges rise, and come back.
//! Not part of `make test`: `make test-live` builds or finds the servers and runs these.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tally_integration::client::{Leave, Request};
use tally_integration::companion::Companion;
use tally_integration::llama::{self, Llama};
use tally_integration::lora::{ModelServer, Vllm};
use tally_integration::page::Page;
use tally_integration::tools::poll;

/// Both servers run four requests at once.
const SENDERS: usize = 12;
const TOKENS: u32 = 200;
/// Twelve answers of two hundred tokens on a busy machine.
const SOON: Duration = Duration::from_secs(300);

const QUEUE: &str = "inference_pool_average_queue_size";
const RUNNING: &str = "inference_pool_average_running_requests";
const CACHE: &str = "inference_pool_average_kv_cache_utilization";

fn pool_of(port: u16, engine: &str) -> Result<Companion> {
    let config = format!(
        "pools:\n- {{name: live, engine: {engine}, discovery: {{static: ['127.0.0.1:{port}']}}, \
         refresh_metrics_interval: 50ms, metrics_staleness_threshold: 30s, timeout: 10s}}\n"
    );
    Companion::start(&config, &[])
}

fn until(tallyd: &Companion, what: &str, holds: impl Fn(&Page) -> bool) -> Result<Page> {
    poll(SOON, || tallyd.page().ok().filter(|page| holds(page))).with_context(|| {
        let page = tallyd.page().map(|page| [QUEUE, RUNNING, CACHE].map(|name| page.sum(name, &[])));
        format!("never {what}; queue, running, cache now {page:?}")
    })
}

/// Sends more than the server runs at once, looks while they are there, and again when all have their answers.
fn rises_and_falls(tallyd: &Companion, server: u16, model: &str, has_cache: bool) -> Result<()> {
    let idle = |page: &Page| page.sum(QUEUE, &[]) == Some(0.0) && page.sum(RUNNING, &[]) == Some(0.0);
    let before = until(tallyd, "idle before", idle)?;
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| {
            let body = json!({ "model": model, "prompt": format!("Request {number}: tell a long story"),
                "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true });
            let request = Request::post("/v1/completions", body.to_string()).header("connection", "close");
            let request = request.leaving(Leave::After(SOON));
            thread::spawn(move || request.send(server).map(|answer| answer.status))
        })
        .collect();
    // Twelve were sent and four run, so eight wait until the first has ended.
    let busy = until(tallyd, "full", |page| {
        page.sum(QUEUE, &[]).is_some_and(|waiting| waiting >= 4.0) && page.sum(RUNNING, &[]) == Some(4.0)
    })?;
    ensure!(busy.sum("inference_pool_ready_pods", &[]) == Some(1.0), "a busy endpoint is not an absent one");
    if has_cache {
        until(tallyd, "using its cache", |page| page.sum(CACHE, &[]) > before.sum(CACHE, &[]))?;
    } else {
        ensure!(busy.sum(CACHE, &[]).is_none(), "a cache of a server that shows none");
    }
    for sender in senders {
        let status = sender.join().ok().context("a sender panicked")??;
        ensure!(status == 200, "the server answered {status}");
    }
    let after = until(tallyd, "idle after", idle)?;
    ensure!(after.sum("inference_pool_ready_pods", &[]) == Some(1.0), "the endpoint went");
    if has_cache {
        until(tallyd, "back to its cache before", |page| page.sum(CACHE, &[]) == before.sum(CACHE, &[]))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a real llama.cpp: make test-live"]
fn the_pool_of_a_real_llama_cpp_fills_under_load_and_empties_after_it() -> Result<()> {
    let (_server, port) = Llama::from_environment()?.start()?;
    rises_and_falls(&pool_of(port, "llamacpp")?, port, llama::MODEL, false)
}

#[test]
#[ignore = "needs a real vLLM: make test-live"]
fn the_pool_of_a_real_vllm_fills_under_load_and_empties_after_it() -> Result<()> {
    let server = Vllm::start()?;
    rises_and_falls(&pool_of(server.port(), "vllm")?, server.port(), "tiny-llama", true)
}
