//! The measurements themselves: rounds of all variants beside each other, starts, memory.
//!
//! In: variants and shapes. Out: plain numbers, each with the round it belongs to, so that they can be paired.

use std::time::Duration;

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::load;
use crate::process::{Envoy, Measured};
use crate::shapes::Shape;
use crate::variants::Variant;

/// Where Envoy runs; everything else is kept off it.
pub(crate) const ENVOY_CORE: usize = 0;
const WARM_UP: Duration = Duration::from_millis(200);
/// Streams open at once when memory is looked at, and uploads.
pub(crate) const STREAMS: usize = 400;
/// As [`STREAMS`].
pub(crate) const UPLOADS: usize = 64;

/// One variant under one shape in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Envoy's processor time for a request, in microseconds.
    pub envoy: f64,
    /// The external processor's.
    pub server: f64,
    /// Latencies in microseconds: median and 99th percentile.
    pub p50: f64,
    /// As above.
    pub p99: f64,
    /// Requests answered.
    pub requests: usize,
}

/// Sends one shape through one Envoy.
///
/// # Errors
/// If an answer is wrong.
pub(crate) async fn cell(envoy: &Envoy, server: &Measured, shape: &Shape, time: Duration) -> Result<Cell> {
    load::send(envoy.port, shape, WARM_UP).await?;
    let before = (envoy.process.nanos()?, server.nanos()?);
    let mut seen = load::send(envoy.port, shape, time).await?;
    let after = (envoy.process.nanos()?, server.nanos()?);
    seen.micros.sort_unstable();
    let requests = seen.micros.len().max(1);
    let at = |share: f64| {
        let index = ((requests as f64 - 1.0) * share) as usize;
        f64::from(seen.micros.get(index).copied().unwrap_or_default())
    };
    Ok(Cell {
        envoy: (after.0 - before.0) as f64 / 1e3 / requests as f64,
        server: (after.1 - before.1) as f64 / 1e3 / requests as f64,
        p50: at(0.5),
        p99: at(0.99),
        requests,
    })
}

/// A variant's start: milliseconds until ready, kilobytes resident then, with one worker; kilobytes with four more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Start {
    /// Milliseconds until Envoy is ready.
    pub millis: f64,
    /// Kilobytes with one worker.
    pub resident_kb: f64,
    /// Kilobytes with five workers.
    pub five_workers_kb: f64,
}

/// Starts a variant twice.
///
/// # Errors
/// If it does not start.
pub(crate) fn start(variant: &Variant, upstream: u16, ext_proc: u16) -> Result<Start> {
    let one = Envoy::start(variant, upstream, ext_proc, ENVOY_CORE, 1)?;
    let (millis, resident_kb) = (one.start.as_secs_f64() * 1e3, one.process.resident_kb()?);
    drop(one);
    let five = Envoy::start(variant, upstream, ext_proc, ENVOY_CORE, 5)?;
    Ok(Start { millis, resident_kb, five_workers_kb: five.process.resident_kb()? })
}

/// Kilobytes that open requests cost a fresh Envoy, one of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// For each of [`STREAMS`] streams of 64 events.
    pub stream_kb: f64,
    /// For each of [`UPLOADS`] requests of 1 MB, half sent.
    pub upload_kb: f64,
}

/// Looks while the requests are open.
///
/// # Errors
/// If an answer is wrong.
pub(crate) async fn memory(
    variant: &Variant,
    upstream: u16,
    ext_proc: u16,
    streams: &Shape,
    upload: &Shape,
) -> Result<Memory> {
    let envoy = Envoy::start(variant, upstream, ext_proc, ENVOY_CORE, 1)?;
    load::send(envoy.port, streams, WARM_UP).await?;
    let before = envoy.process.resident_kb()?;
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(("127.0.0.1", envoy.port)).await?;
        stream.write_all(&streams.request).await?;
        clients.push(tokio::spawn(async move { load::take_answer(&mut stream, &mut Vec::new()).await }));
    }
    let mut most = before;
    while clients.iter().any(|client| !client.is_finished()) {
        most = most.max(envoy.process.resident_kb()?);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for client in clients {
        client.await??;
    }
    let stream_kb = (most - before) / STREAMS as f64;
    drop(envoy);

    let envoy = Envoy::start(variant, upstream, ext_proc, ENVOY_CORE, 1)?;
    load::send(envoy.port, streams, WARM_UP).await?;
    let before = envoy.process.resident_kb()?;
    let half = upload.request.len() / 2;
    let mut open = Vec::new();
    for _ in 0..UPLOADS {
        let mut stream = TcpStream::connect(("127.0.0.1", envoy.port)).await?;
        stream.write_all(upload.request.get(..half).unwrap_or_default()).await?;
        open.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let upload_kb = (envoy.process.resident_kb()? - before) / UPLOADS as f64;
    Ok(Memory { stream_kb, upload_kb })
}
