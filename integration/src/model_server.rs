//! A model server that replays recorded exchanges, byte for byte and in their own time, or misbehaves as told.
//!
//! In: HTTP/1.1 requests. A request that equals a recorded one (path and body) gets its answer; `x-replay` names one
//! outright, `x-behave` asks for a made-up answer (JSON of [`Behaviour`]). Out: the bytes. `x-pace` scales the recorded
//! times (0: no waiting), `x-cut` splits the body into pieces of so many bytes.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::client::{Leave, Request};
use crate::corpus::Exchange;
use crate::tools;
use crate::wire::{self, Head};

/// An answer that no recording holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// Status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// Exact body; `None`: `bytes` letters.
    pub body: Option<String>,
    /// Length of a made-up body.
    pub bytes: usize,
    /// Piece size; 0: the whole body with its length instead of chunks.
    pub pieces_of: usize,
    /// Milliseconds before the head.
    pub wait_ms: u64,
    /// Milliseconds between pieces.
    pub gap_ms: u64,
    /// How it ends.
    pub end: End,
    /// Trailers after the last chunk.
    pub trailers: bool,
    /// `103 Early Hints` before the head.
    pub early_hints: bool,
    /// The body is the request as it came: first line, header lines with names in lower case, an empty line, its body.
    pub echo: bool,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Properly.
    Proper,
    /// The connection is closed before the end.
    Close,
    /// The server says nothing more and waits for the other side to leave.
    Hang,
    /// No head at all: the connection is closed at once.
    NoAnswer,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            status: 200,
            content_type: "application/json".to_owned(),
            body: None,
            bytes: 0,
            pieces_of: 0,
            wait_ms: 0,
            gap_ms: 0,
            end: End::Proper,
            trailers: false,
            early_hints: false,
            echo: false,
        }
    }
}

impl Behaviour {
    /// As the value of `x-behave`.
    #[must_use]
    pub fn header(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The recorded request, asking the replaying server for its answer without waiting. Where the recorder left early, this
/// client leaves too.
#[must_use]
pub fn replay(exchange: &Exchange) -> Request {
    let mut request = Request::bare(&exchange.method, &exchange.path);
    request.body.clone_from(&exchange.body);
    for (name, value) in exchange.client_headers() {
        request = request.header(name, value);
    }
    if exchange.expect.ended != "complete" {
        request.leave = Leave::AfterBytes(exchange.answer_body().len());
    }
    request.header("x-replay", exchange.name.as_str()).header("x-pace", "0")
}

/// A running server; its threads end with their connections.
#[derive(Debug)]
pub struct ModelServer {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

/// What goes on the wire for one request.
struct Plan {
    head: Vec<u8>,
    pieces: Vec<(Duration, Vec<u8>)>,
    chunked: bool,
    early_hints: bool,
    trailers: bool,
    end: End,
}

type Corpus = HashMap<String, Exchange>;

impl ModelServer {
    /// Starts one on a free port, with all recorded exchanges.
    ///
    /// # Errors
    /// If the recordings cannot be read or no port is free.
    pub fn start() -> Result<Self> {
        let corpus: Corpus = Exchange::all()?.into_iter().map(|exchange| (exchange.name.clone(), exchange)).collect();
        let corpus = Arc::new(corpus);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let corpus = Arc::clone(&corpus);
                // An error ends the connection, which is all that a peer could see of it.
                thread::spawn(move || serve(&stream, &corpus));
            }
        });
        Ok(Self { port })
    }
}

fn serve(stream: &TcpStream, corpus: &Corpus) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = wire::read_head(&mut reader)? {
        let began = Instant::now();
        let body = read_body(&mut reader, &head)?;
        let plan = plan(&head, &body, corpus);
        let bodiless = head.first.starts_with("HEAD ");
        if !answer(stream, &plan, began, bodiless)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_body(reader: &mut BufReader<&TcpStream>, head: &Head) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.get("transfer-encoding").is_some() {
        loop {
            let chunk = wire::read_chunk(reader)?;
            if chunk.is_empty() {
                wire::read_fields(reader)?;
                break;
            }
            body.extend_from_slice(&chunk);
        }
    } else if let Some(length) = head.get("content-length").and_then(|length| length.parse::<u64>().ok()) {
        reader.take(length).read_to_end(&mut body)?;
    }
    Ok(body)
}

fn plan(head: &Head, body: &[u8], corpus: &Corpus) -> Plan {
    let path = head.first.split(' ').nth(1).unwrap_or_default();
    if let Some(behaviour) = head.get("x-behave").and_then(|text| serde_json::from_str::<Behaviour>(text).ok()) {
        let behaviour =
            if behaviour.echo { Behaviour { body: Some(echo(head, body)), ..behaviour } } else { behaviour };
        return behaviour_plan(&behaviour);
    }
    let named = head.get("x-replay").and_then(|name| corpus.get(name));
    let method = head.first.split(' ').next().unwrap_or_default();
    if path == "/metrics" {
        return metrics_plan();
    }
    let found = named.or_else(|| {
        corpus.values().find(|exchange| exchange.method == method && exchange.path == path && exchange.body == body)
    });
    let Some(exchange) = found else {
        let body = format!(r#"{{"error":{{"message":"nothing recorded for {method} {path}","code":404}}}}"#);
        return behaviour_plan(&Behaviour { status: 404, body: Some(body), ..Behaviour::default() });
    };
    let pace = head.get("x-pace").and_then(|pace| pace.parse().ok()).unwrap_or(1.0);
    let cut: Option<usize> = head.get("x-cut").and_then(|cut| cut.parse().ok());
    let answer = String::from_utf8_lossy(&exchange.answer_head).to_ascii_lowercase();
    let pieces = exchange.pieces.iter().map(|(at, bytes)| (at.mul_f64(pace), bytes.clone()));
    Plan {
        head: exchange.answer_head.clone(),
        pieces: match cut {
            Some(size) => pieces.flat_map(|(at, bytes)| cut_up(at, &bytes, size)).collect(),
            None => pieces.collect(),
        },
        chunked: answer.contains("transfer-encoding: chunked"),
        early_hints: false,
        trailers: false,
        end: if exchange.expect.ended == "complete" { End::Proper } else { End::Hang },
    }
}

fn echo(head: &Head, body: &[u8]) -> String {
    let lines: Vec<String> = head.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("{}\n{}\n{}", head.first, lines.concat(), String::from_utf8_lossy(body))
}

fn cut_up(at: Duration, bytes: &[u8], size: usize) -> Vec<(Duration, Vec<u8>)> {
    bytes.chunks(size.max(1)).map(|piece| (at, piece.to_vec())).collect()
}

fn behaviour_plan(behaviour: &Behaviour) -> Plan {
    let body = behaviour.body.clone().map_or_else(|| vec![b'x'; behaviour.bytes], String::into_bytes);
    let chunked = behaviour.pieces_of > 0;
    let framing =
        if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {}", body.len()) };
    let head = format!(
        "HTTP/1.1 {} Answer\r\ncontent-type: {}\r\n{framing}\r\n\r\n",
        behaviour.status, behaviour.content_type
    );
    let size = if chunked { behaviour.pieces_of } else { body.len().max(1) };
    let pieces = body.chunks(size).enumerate().map(|(index, piece)| {
        let gaps = behaviour.gap_ms * u64::try_from(index).unwrap_or(0);
        (Duration::from_millis(behaviour.wait_ms + gaps), piece.to_vec())
    });
    let first = (Duration::from_millis(behaviour.wait_ms), Vec::new());
    Plan {
        head: head.into_bytes(),
        pieces: std::iter::once(first).chain(pieces).collect(),
        chunked,
        early_hints: behaviour.early_hints,
        trailers: behaviour.trailers,
        end: behaviour.end,
    }
}

/// The page of a busy vLLM, as recorded.
fn metrics_plan() -> Plan {
    let page = std::fs::read_to_string(tools::root().join("testdata/scrapes/vllm-busy.prom")).unwrap_or_default();
    let content_type = "text/plain; version=1.0.0; charset=utf-8".to_owned();
    behaviour_plan(&Behaviour { body: Some(page), content_type, ..Behaviour::default() })
}

/// Writes the answer; says whether the connection can take another request.
fn answer(mut stream: &TcpStream, plan: &Plan, began: Instant, bodiless: bool) -> io::Result<bool> {
    if plan.end == End::NoAnswer {
        stream.shutdown(Shutdown::Both)?;
        return Ok(false);
    }
    if plan.early_hints {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")?;
    }
    wait_until(began, plan.pieces.first().map_or(Duration::ZERO, |(at, _)| *at));
    stream.write_all(&plan.head)?;
    if bodiless {
        return Ok(true);
    }
    for (at, piece) in plan.pieces.iter().filter(|(_, piece)| !piece.is_empty()) {
        wait_until(began, *at);
        if plan.chunked {
            // One write: a chunk is to arrive as one, as from the recorded server.
            let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
            framed.extend_from_slice(piece);
            framed.extend_from_slice(b"\r\n");
            stream.write_all(&framed)?;
        } else {
            stream.write_all(piece)?;
        }
    }
    match plan.end {
        End::Proper if plan.chunked && plan.trailers => stream.write_all(b"0\r\nx-took: 1\r\n\r\n")?,
        End::Proper if plan.chunked => stream.write_all(b"0\r\n\r\n")?,
        End::Proper => {}
        End::Close | End::NoAnswer => {
            stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        End::Hang => {
            let mut left = [0; 1];
            stream.read_exact(&mut left).ok();
            return Ok(false);
        }
    }
    Ok(true)
}

fn wait_until(began: Instant, at: Duration) {
    if let Some(rest) = at.checked_sub(began.elapsed()) {
        thread::sleep(rest);
    }
}
