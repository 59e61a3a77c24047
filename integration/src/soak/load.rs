//! Clients that keep their connections, and send one request after the other: mostly JSON, some streams.
//!
//! In: a port, how many requests. Out: how many are done, and the tokens that must have been counted. An answer that is not
//! whole ends the run.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::wire;

/// Connections.
pub(crate) const CLIENTS: u64 = 16;
/// Between two looks whether a request may go.
const PAUSE: Duration = Duration::from_millis(2);
/// Models that the requests name in turn.
pub(crate) const MODELS: u64 = 5;

/// How far the clients have come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    next: AtomicU64,
    /// Answered.
    pub done: AtomicU64,
    /// So many may be sent by now: the requests are spread over the scrapes, so that both have the whole time to leak.
    pub allowed: AtomicU64,
}

/// Input and output tokens of a request, by its number.
pub(crate) const fn tokens(number: u64) -> (u64, u64) {
    (number % 5_000, 1 + number % 300)
}

/// One client, until so many have been sent in all.
pub(crate) fn client(port: u16, requests: u64, progress: &Progress) -> Result<()> {
    let mut connection: Option<BufReader<TcpStream>> = None;
    loop {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            return Ok(());
        }
        while number >= progress.allowed.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
        let reader = match &mut connection {
            Some(reader) => reader,
            None => connection.insert(connect(port)?),
        };
        let is_last = one(reader, number).with_context(|| format!("request {number}"))?;
        if is_last {
            connection = None;
        }
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
}

fn connect(port: u16) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Says whether Envoy wants the connection to end.
fn one(reader: &mut BufReader<TcpStream>, number: u64) -> Result<bool> {
    let (input, output) = tokens(number);
    let answer = if number.is_multiple_of(8) { "sse" } else { "json" };
    let body = format!(r#"{{"messages":[{{"role":"user","content":"hello"}}],"model":"model-{}"}}"#, number % MODELS);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: tally.test\r\ncontent-type: application/json\r\nx-answer: {answer}\r\n\
         x-tokens: {input}/{output}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    reader.get_mut().write_all(request.as_bytes())?;
    let head = wire::read_head(reader)?.context("the connection ended")?;
    ensure!(head.first.contains(" 200 "), "{}", head.first);
    if head.get("transfer-encoding").is_some() {
        while !wire::read_chunk(reader)?.is_empty() {}
        wire::read_fields(reader)?;
    } else {
        let length: u64 = head.get("content-length").context("no length")?.parse()?;
        let read = std::io::copy(&mut std::io::Read::take(&mut *reader, length), &mut std::io::sink())?;
        ensure!(read == length, "{read} of {length} bytes");
    }
    Ok(head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")))
}
