//! What an unfriendly client can send, and how much: series stay bounded, memory stays flat, labels stay labels.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_core::catalog::{self, Source};
use tally_integration::client::Request;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, within};
use tally_integration::model_server::{Behaviour, ModelServer};

const SOON: Duration = Duration::from_secs(60);

fn chat(model: &str) -> Request {
    let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
    let usage = r#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.to_owned();
    let answer = Behaviour { body: Some(usage), ..Behaviour::default() };
    Request::post("/v1/chat/completions", body).header("x-behave", answer.header())
}

/// Istio makes its tag expressions from the labels' names alone and does not anchor them.
#[test]
fn labels_come_out_right_under_istios_own_expressions_too() -> Result<()> {
    let mut options = Options::to(ModelServer::start()?.port)
        .edit("stats_config:\n", "stats_config:\n  use_all_default_tags: false\n");
    let labels: Vec<&str> = catalog::usual()
        .filter(|family| family.source == Source::Envoy)
        .flat_map(|family| family.labels.iter().copied())
        .chain(["le"])
        .collect();
    for label in labels {
        let (ours, istios) =
            (format!(r"(?:^wasmcustom\.|;\.;)({label}=\.=([^;]*);\.;)"), format!(r"({label}=\.=(.*?);\.;)"));
        if !options.edits.iter().any(|(from, _)| *from == ours) {
            options = options.edit(&ours, &istios);
        }
    }
    let envoy = Envoy::start(&options)?;
    let names = ["plain", "a=b", "x;.;le=.=9;.;y", "target_model_name=.=z;.;", "ends.", "line\\nbreak"];
    for name in names {
        chat(name).header("x-gateway-model-name-rewrite", "target").send(envoy.port)?;
    }
    let count = names.len() as f64;
    let page = within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &[("target_model_name", "target")], count),
            exact("inference_objective_request_total", &[("model_name", "plain")], 1.0),
            exact("inference_objective_output_tokens_sum", &[], 2.0 * count),
            exact("inference_objective_output_tokens_bucket", &[("le", "+Inf")], count),
            exact("inference_objective_request_quality_total", &[("api", "chat"), ("quality", "parsed")], count),
        ],
    )?;
    for sample in page.samples.iter().filter(|sample| sample.name.starts_with("inference_objective_")) {
        ensure!(!sample.name.contains("___"), "a label stayed in a name: {sample:?}");
        let allowed = ["model_name", "target_model_name", "le", "outcome", "error_code", "api", "quality"];
        let foreign: Vec<_> = sample.labels.keys().filter(|key| !allowed.contains(&key.as_str())).collect();
        ensure!(foreign.is_empty(), "{foreign:?} in {sample:?}");
        let is_bucket = sample.name.ends_with("_bucket");
        ensure!(sample.labels.contains_key("le") == is_bucket, "{sample:?}");
    }
    Ok(())
}

#[test]
fn ten_thousand_model_names_make_no_more_series_than_was_announced() -> Result<()> {
    let mut envoy = Envoy::start(&Options::to(ModelServer::start()?.port).config(r#"{"max_models":20}"#))?;
    std::thread::scope(|scope| {
        for client in 0..8 {
            let port = envoy.port;
            scope.spawn(move || {
                for number in 0..1_250 {
                    chat(&format!("hostile-{client}-{number}")).send(port).unwrap();
                }
            });
        }
    });
    let page = within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &[], 10_000.0),
            exact("inference_objective_output_tokens_sum", &[], 20_000.0),
        ],
    )?;
    // Both workers have filled their own tables: at most twice the cap, `other` and what is not from traffic.
    let models = page.label_values("inference_objective_request_total", "model_name");
    ensure!(models.len() <= 2 * 20 + 1 && models.iter().any(|model| model == "other"), "{} models", models.len());
    ensure!(
        page.total("tally_filter_label_overflow_total", &[("label", "model_name")]) > 9_000.0,
        "the overflow is counted"
    );
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("not run: promtool is not installed (make setup)");
        return Ok(());
    };
    promtool.stdin.take().context("stdin")?.write_all(envoy.ask("/stats/prometheus")?.as_bytes())?;
    let said = promtool.wait_with_output()?;
    ensure!(!String::from_utf8_lossy(&said.stderr).contains("error while linting"), "promtool cannot read the page");
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "{}", envoy.log());
    Ok(())
}

const MEBIBYTE: usize = 1 << 20;

/// A server that reads any request to its end and keeps nothing, then answers with so many events.
fn swallowing(events: usize) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || swallow(&stream, events));
        }
    });
    Ok(port)
}

fn swallow(mut stream: &TcpStream, events: usize) -> std::io::Result<()> {
    let mut last = Vec::new();
    let mut piece = vec![0; MEBIBYTE];
    // The last chunk of a chunked body; what came before it does not matter.
    while !last.ends_with(b"0\r\n\r\n") {
        let size = stream.read(&mut piece)?;
        if size == 0 {
            return Ok(());
        }
        last.extend_from_slice(&piece[..size]);
        last.drain(..last.len().saturating_sub(5));
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    let event = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"}}]}\n\n";
    for _ in 0..events {
        stream.write_all(event)?;
    }
    stream.write_all(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\n")
}

/// Sends a request of so many mebibytes, with the model last, and reads the answer to its end; returns its size.
fn upload(port: u16, mebibytes: usize) -> Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let mut chunk = |bytes: &[u8]| -> std::io::Result<()> {
        stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        stream.write_all(bytes)?;
        stream.write_all(b"\r\n")
    };
    chunk(b"{\"messages\":[{\"role\":\"user\",\"content\":\"")?;
    let text = vec![b'x'; MEBIBYTE];
    for _ in 0..mebibytes {
        chunk(&text)?;
    }
    chunk(b"\"}],\"model\":\"large\"}")?;
    stream.write_all(b"0\r\n\r\n")?;
    let mut answer = vec![0; MEBIBYTE];
    let mut total = stream.read(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..total.min(100)]));
    loop {
        match stream.read(&mut answer)? {
            0 => return Ok(total),
            size => total += size,
        }
    }
}

#[test]
fn a_gigabyte_of_request_passes_in_flat_memory_and_its_model_is_known() -> Result<()> {
    let mut envoy = Envoy::start(&Options::to(swallowing(1)?))?;
    upload(envoy.port, 8)?;
    let before = envoy.resident_bytes()?;
    upload(envoy.port, 1024)?;
    let grown = envoy.resident_bytes()?.saturating_sub(before);
    ensure!(grown < 32 * MEBIBYTE as u64, "Envoy grew by {grown} bytes");
    let large = [("model_name", "large")];
    let bytes = (8 + 1024) * MEBIBYTE + 2 * (r#"{"messages":[{"role":"user","content":""}],"model":"large"}"#.len());
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &large, 2.0),
            exact("inference_objective_request_sizes_sum", &large, bytes as f64),
            exact("inference_objective_output_tokens_sum", &large, 18.0),
        ],
    )?;
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "{}", envoy.log());
    Ok(())
}

/// As many events as an hour at 100 tokens a second has, as fast as they go.
#[test]
fn a_stream_of_an_hours_events_leaves_memory_flat() -> Result<()> {
    let events = 360_000;
    let mut envoy = Envoy::start(&Options::to(swallowing(events)?))?;
    upload(envoy.port, 1)?;
    let before = envoy.resident_bytes()?;
    upload(envoy.port, 1)?;
    let grown = envoy.resident_bytes()?.saturating_sub(before);
    ensure!(grown < 16 * MEBIBYTE as u64, "Envoy grew by {grown} bytes");
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &[("model_name", "large")], 2.0),
            exact("inference_objective_output_tokens_sum", &[("model_name", "large")], 18.0),
            exact("inference_objective_request_ttft_seconds_count", &[("model_name", "large")], 2.0),
        ],
    )?;
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "{}", envoy.log());
    Ok(())
}
