//! Clients: so many connections, each with one request after the other, as fast as answers come or at a rate.
//!
//! In: a port, a shape, how long. Out: how many requests were answered and how long each took. A wrong answer is an error.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::shapes::Shape;

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From the request's first byte to the answer's last, in microseconds.
    pub micros: Vec<u32>,
}

/// Sends until the time is over; an answer under way is waited for and counts.
///
/// # Errors
/// If an answer is not 200, or breaks off.
pub(crate) async fn send(port: u16, shape: &Shape, time: Duration) -> Result<Seen> {
    let end = Instant::now() + time;
    // Each connection has its share of the rate, and its own offset.
    let pause = (shape.rate > 0).then(|| Duration::from_secs_f64(shape.connections as f64 / f64::from(shape.rate)));
    let mut connections = Vec::new();
    for number in 0..shape.connections {
        let offset = pause.unwrap_or_default().mul_f64(number as f64 / shape.connections as f64);
        connections.push(tokio::spawn(connection(port, shape.request.clone(), end, pause, offset)));
    }
    let mut seen = Seen::default();
    for connection in connections {
        seen.micros.extend(connection.await??);
    }
    Ok(seen)
}

async fn connection(
    port: u16,
    request: Vec<u8>,
    end: Instant,
    pause: Option<Duration>,
    offset: Duration,
) -> Result<Vec<u32>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    let mut due = Instant::now() + offset;
    while Instant::now() < end {
        if let Some(pause) = pause {
            tokio::time::sleep_until(due.into()).await;
            due += pause;
        }
        let began = Instant::now();
        stream.write_all(&request).await?;
        take_answer(&mut stream, &mut bytes).await?;
        times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(times)
}

/// Reads one whole answer.
///
/// # Errors
/// If it is not 200, or breaks off.
pub(crate) async fn take_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.clear();
    let (mut length, mut is_chunked) = (None, false);
    loop {
        bytes.reserve(64 << 10);
        if stream.read_buf(bytes).await? == 0 {
            bail!("the answer broke off");
        }
        if length.is_none() && !is_chunked {
            let Some(head) = memmem::find(bytes, b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(bytes.get(..head).unwrap_or_default()).to_ascii_lowercase();
            if !text.starts_with("http/1.1 200") {
                bail!("the answer was {}", text.lines().next().unwrap_or_default());
            }
            match text.lines().find_map(|line| line.strip_prefix("content-length: ")) {
                Some(value) => length = Some(head + 4 + value.parse::<usize>()?),
                None => is_chunked = true,
            }
        }
        let is_whole = match length {
            Some(length) => bytes.len() >= length,
            None => bytes.ends_with(b"0\r\n\r\n"),
        };
        if is_whole {
            return Ok(());
        }
    }
}
