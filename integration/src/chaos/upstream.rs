//! The model server of a chaos run: knows which request it has seen how far, and breaks off in every way there is.
//!
//! In: requests with `x-answer` (what to do), `x-tokens` (what usage to report) and, if somebody waits for their progress,
//! `x-watch` (a number). Out: bytes, a FIN or a reset.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use socket2::SockRef;

use crate::wire::{self, Head};

/// More than Envoy takes of an answer's head (60 KiB).
const HUGE_HEADER: usize = 100 * 1024;
/// Pieces of an event stream: no event comes whole.
const PIECE: usize = 37;

/// How far a watched request has come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Its head.
    Head,
    /// All of it.
    Whole,
}

type Watched = Arc<(Mutex<HashMap<u64, (Progress, u32)>>, Condvar)>;

/// A running server; its threads end with their connections.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    watched: Watched,
}

impl Upstream {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let upstream = Self { port: listener.local_addr()?.port(), watched: Watched::default() };
        let served = upstream.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let upstream = served.clone();
                // An error ends the connection, which is all that a peer could see of it.
                thread::spawn(move || upstream.serve(&stream));
            }
        });
        Ok(upstream)
    }

    /// Waits until this request has come so far.
    pub(crate) fn wait(&self, number: u64, progress: Progress, within: Duration) -> bool {
        let (watched, changed) = &*self.watched;
        let guard = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let not_yet = |watched: &mut HashMap<u64, (Progress, u32)>| {
            watched.get(&number).is_none_or(|(found, _)| *found < progress)
        };
        let (_guard, result) =
            changed.wait_timeout_while(guard, within, not_yet).unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// How often this watched request has come.
    pub(crate) fn attempts(&self, number: u64) -> u32 {
        let watched = self.watched.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.get(&number).map_or(0, |(_, attempts)| *attempts)
    }

    fn note(&self, number: Option<u64>, progress: Progress) -> u32 {
        let Some(number) = number else { return 1 };
        let (watched, changed) = &*self.watched;
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = watched.entry(number).or_insert((progress, 0));
        entry.0 = progress;
        if progress == Progress::Head {
            entry.1 += 1;
        }
        changed.notify_all();
        entry.1
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(head) = wire::read_head(&mut reader)? {
            let number = head.get("x-watch").and_then(|text| text.parse().ok());
            let attempt = self.note(number, Progress::Head);
            swallow_body(&mut reader, &head)?;
            self.note(number, Progress::Whole);
            if !answer(stream, &head, attempt)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn swallow_body(reader: &mut impl BufRead, head: &Head) -> io::Result<()> {
    if head.get("transfer-encoding").is_some() {
        while !wire::read_chunk(reader)?.is_empty() {}
        wire::read_fields(reader)?;
    } else if let Some(length) = head.get("content-length").and_then(|length| length.parse().ok()) {
        let read = io::copy(&mut reader.take(length), &mut io::sink())?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Says whether the connection can take another request.
fn answer(mut stream: &TcpStream, head: &Head, attempt: u32) -> io::Result<bool> {
    let asked = head.get("x-answer").unwrap_or("json");
    let (what, number) = asked.split_once(':').unwrap_or((asked, "0"));
    let number: u64 = number.parse().unwrap_or(0);
    let (input, output) = head.get("x-tokens").and_then(|text| text.split_once('/')).unwrap_or(("1", "1"));
    let usage = format!(r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}"#);
    let json = format!(r#"{{"choices":[{{"message":{{"content":"hello"}}}}],{usage}}}"#);
    let events = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]}}\n\ndata: {{\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n"
    );
    match what {
        "json" => whole(stream, 200, &json, "")?,
        "wait" => {
            thread::sleep(Duration::from_millis(number));
            whole(stream, 200, &json, "")?;
        }
        "sse" => stream_events(stream, &events, Duration::from_millis(number))?,
        "status" => whole(stream, number, r#"{"error":{"message":"no"}}"#, "")?,
        "fail-first" if u64::from(attempt) <= number => {
            if attempt.is_multiple_of(2) {
                reset(stream)?;
                return Ok(false);
            }
            whole(stream, 503, "{}", "")?;
        }
        "fail-first" => whole(stream, 200, &json, "")?,
        "close-before" => return Ok(false),
        "reset-before" => {
            reset(stream)?;
            return Ok(false);
        }
        "close-mid" | "reset-mid" | "half-mid" | "hang-mid" => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{json}")?;
            match what {
                "reset-mid" => {
                    // Without the pause the reset would overtake the head in Envoy's socket.
                    thread::sleep(Duration::from_millis(50));
                    reset(stream)?;
                }
                "half-mid" => half_close(stream)?,
                "hang-mid" => wait_for_peer(stream),
                _ => {}
            }
            return Ok(false);
        }
        "hang-chunk" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{\"choices\":[]    \r\n")?;
            wait_for_peer(stream);
            return Ok(false);
        }
        "half-after" => {
            whole(stream, 200, &json, "connection: close\r\n")?;
            half_close(stream)?;
            return Ok(false);
        }
        "garbage" => {
            stream.write_all(b"\x16\x03\x01 what is this\r\n\r\n\0\xff")?;
            return Ok(false);
        }
        "huge-head" => {
            whole(stream, 200, &json, &format!("x-huge: {}\r\n", "h".repeat(HUGE_HEADER)))?;
            return Ok(false);
        }
        _ => {
            wait_for_peer(stream);
            return Ok(false);
        }
    }
    Ok(true)
}

fn whole(mut stream: &TcpStream, status: u64, body: &str, more: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} S\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn stream_events(mut stream: &TcpStream, events: &str, gap: Duration) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for piece in events.as_bytes().chunks(PIECE) {
        let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
        stream.write_all(&framed)?;
        thread::sleep(gap);
    }
    stream.write_all(b"0\r\n\r\n")
}

/// The connection ends with a reset instead of a FIN.
pub(crate) fn reset(stream: &TcpStream) -> io::Result<()> {
    // The thread that serves it drops its last handle next.
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// A FIN, and the other half stays open until the peer leaves.
fn half_close(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    wait_for_peer(stream);
    Ok(())
}

fn wait_for_peer(mut stream: &TcpStream) {
    // Anything but more bytes is the end.
    while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
}
