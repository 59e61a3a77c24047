//! `make bench`: real Envoys side by side, with no filter, with Tally, and with other ways of measuring.
//!
//! In: built modules (see scripts/bench.sh), `ROUNDS`, `MILLIS_EACH`, `SHAPES`. Out: docs/BENCHMARKS.md and its picture, or with
//! `SHAPES` set the table on the screen only; with the argument `instructions` docs/INSTRUCTIONS.md. Ratios are paired: each round has its own run without a filter.
#![forbid(unsafe_code)]

mod ext_proc;
mod instructions;
mod load;
mod measure;
mod process;
mod report;
mod shapes;
mod upstream;
mod variants;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use process::{Envoy, Measured};
use report::Run;
use shapes::Shape;
use tally_integration::tools;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use variants::Parts;

/// Rounds of starts and of memory: each starts fresh Envoys.
const STARTS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // One thread: clients, model server and external processor share what is not Envoy's core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.as_slice() {
        [command, port] if command == "ext-proc" => runtime.block_on(serve_ext_proc(port.parse()?)),
        [command] if command == "instructions" => runtime.block_on(instructions()),
        _ => runtime.block_on(bench()),
    }
}

async fn serve_ext_proc(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let service = tonic::transport::Server::builder().add_service(ext_proc::ExtProc);
    Ok(service.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

async fn instructions() -> Result<()> {
    let shapes: Arc<Vec<Shape>> = Arc::new(shapes::all());
    let upstream = upstream::start(shapes.clone()).await?;
    let port = tools::free_port()?;
    let _server =
        Measured::start(measure::ENVOY_CORE + 1, &std::env::current_exe()?, &["ext-proc", &port.to_string()])?;
    instructions::run(upstream, port, &Parts { tally: tools::filter()?, filters: filters()? }, &shapes).await
}

async fn bench() -> Result<()> {
    let rounds = number("ROUNDS", 5)?;
    let time = Duration::from_millis(number("MILLIS_EACH", 1_500)? as u64);
    let only = std::env::var("SHAPES").unwrap_or_default();
    let shapes: Arc<Vec<Shape>> = Arc::new(shapes::all());
    let chosen = |shape: &&Shape| only.is_empty() || only.split(',').any(|name| name == shape.name);

    let upstream = upstream::start(shapes.clone()).await?;
    let port = tools::free_port()?;
    let server_core = measure::ENVOY_CORE + 1;
    let server = Measured::start(server_core, &std::env::current_exe()?, &["ext-proc", &port.to_string()])?;
    let parts = Parts { tally: tools::filter()?, filters: filters()? };
    let variants = variants::all(&parts);

    let mut run = Run { rounds, ..Run::default() };
    let began = Instant::now();
    let mut envoys = Vec::new();
    for variant in &variants {
        envoys.push(Envoy::start(variant, upstream, port, measure::ENVOY_CORE, 1)?);
    }
    for round in 0..rounds {
        for (at, shape) in shapes.iter().enumerate().filter(|(_, shape)| chosen(shape)) {
            // Forwards, then backwards, each time from another start: nobody is always behind the same neighbour.
            let mut order: Vec<usize> = (0..variants.len()).collect();
            order.rotate_left(round % variants.len());
            if round % 2 == 1 {
                order.reverse();
            }
            for number in order {
                let (Some(variant), Some(envoy)) = (variants.get(number), envoys.get(number)) else { continue };
                let cell = measure::cell(envoy, &server, shape, time).await;
                let cell = cell.with_context(|| format!("{} through {}", shape.name, variant.name))?;
                run.cells.entry((at, number)).or_default().push(cell);
            }
            eprintln!("  round {} of {rounds}, {}: {} s", round + 1, shape.name, began.elapsed().as_secs());
        }
    }
    for envoy in &envoys {
        run.requests_kb.push(envoy.process.resident_kb()?);
    }
    drop(envoys);
    if only.is_empty() {
        let streams = shapes.iter().find(|shape| shape.name == "sse-paced").context("no streams")?;
        let upload = shapes.iter().find(|shape| shape.name == "json-1m").context("no uploads")?;
        for round in 0..STARTS {
            for (number, variant) in variants.iter().enumerate() {
                run.starts.entry(number).or_default().push(measure::start(variant, upstream, port)?);
                let memory = measure::memory(variant, upstream, port, streams, upload).await;
                run.memories.entry(number).or_default().push(memory.with_context(|| variant.name)?);
            }
            eprintln!("  starts and memory, {} of {STARTS}: {} s", round + 1, began.elapsed().as_secs());
        }
    }
    let page = report::page(&run, &variants, &shapes)?;
    println!("{page}");
    if only.is_empty() {
        let docs = tools::root().join("docs");
        std::fs::write(docs.join("BENCHMARKS.md"), page)?;
        std::fs::write(docs.join("benchmarks.svg"), report::picture(&run, &variants, &shapes))?;
        eprintln!("  written: docs/BENCHMARKS.md and docs/benchmarks.svg");
    }
    Ok(())
}

fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}={text}: expected a whole number")),
        _ => Ok(default),
    }
}

fn filters() -> Result<PathBuf> {
    Ok(std::env::var_os("BENCH_FILTERS").context("BENCH_FILTERS is not set: run `make bench`")?.into())
}
