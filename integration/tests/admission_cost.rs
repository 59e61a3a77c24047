//! What admission adds to a request at light load: two Envoys side by side, one that asks and one that does not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tally_integration::companion::Companion;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::model_server::{Behaviour, ModelServer};
use tally_integration::tools;

const REQUESTS: usize = 3_000;

/// Sends the request on a kept connection and reads the answer, whose body is five letters.
fn exchange(client: &mut TcpStream, request: &[u8]) -> Result<Duration> {
    let began = Instant::now();
    client.write_all(request)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    while !answer.ends_with(b"\r\n\r\nxxxxx") {
        let read = client.read(&mut piece)?;
        ensure!(read > 0, "the answer broke off: {}", String::from_utf8_lossy(&answer));
        answer.extend(piece.iter().take(read));
    }
    Ok(began.elapsed())
}

fn quantile(times: &mut [Duration], q: f64) -> Duration {
    times.sort_unstable();
    times.get((times.len() as f64 * q) as usize).copied().unwrap_or_default()
}

/// Run with `scripts/integration.sh --ignored --nocapture what_admission`.
#[test]
#[ignore = "a measurement, not a proof"]
fn what_admission_adds_at_light_load() -> Result<()> {
    let server = ModelServer::start()?;
    let grpc = tools::free_port()?;
    let _companion =
        Companion::start("flow_control: {}\n", &["--grpc-port", &grpc.to_string(), "--grpc-health-port", "0"])?;
    let options = || Options { companion: grpc, workers: 1, ..Options::to(server.port) };
    let plain = Envoy::start(&options())?;
    let asking = Envoy::start(&options().config(r#"{"admission":{"on_failure":"closed"}}"#))?;
    let behaviour = Behaviour { bytes: 5, ..Behaviour::default() }.header();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: tally.test\r\nx-behave: {behaviour}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut clients = [TcpStream::connect(("127.0.0.1", plain.port))?, TcpStream::connect(("127.0.0.1", asking.port))?];
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..REQUESTS {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            client.set_nodelay(true)?;
            let took = exchange(client, request.as_bytes())?;
            // The first requests open connections.
            if number >= 100 {
                times.push(took);
            }
        }
    }
    for q in [0.5, 0.9, 0.99] {
        let [without, with] = times.each_mut().map(|times| quantile(times, q));
        println!("p{}: {without:?} without, {with:?} with, {:?} more", q * 100.0, with.saturating_sub(without));
    }
    Ok(())
}
