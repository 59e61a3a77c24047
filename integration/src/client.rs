//! A client that can do what real ones do and test clients cannot: send bad bytes, dribble, leave in the middle.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::wire;

/// No answer of a test takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request to send.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Header lines without `host` and `content-length`; values are bytes, so that they may be broken.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
    /// Send the body in pieces of this many bytes, as chunks; `None`: at once, with its length.
    pub pieces_of: Option<usize>,
    /// When to leave.
    pub leave: Leave,
}

/// When and how a client leaves before the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Leave {
    /// It stays.
    #[default]
    Never,
    /// After this many body bytes of the answer.
    AfterBytes(usize),
    /// After this long without an answer.
    After(Duration),
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status; 0 if none came.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body without chunk framing.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Did it come to its proper end?
    pub complete: bool,
    /// From sending the first byte to the last byte received.
    pub took: Duration,
}

impl Request {
    /// A POST of JSON.
    #[must_use]
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST".to_owned(), path: path.to_owned(), body: body.into(), ..Self::default() }
            .header("content-type", "application/json")
    }

    /// Any method, no body.
    #[must_use]
    pub fn bare(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The client leaves early.
    #[must_use]
    pub fn leaving(mut self, leave: Leave) -> Self {
        self.leave = leave;
        self
    }

    /// The body goes in pieces.
    #[must_use]
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.pieces_of = Some(bytes);
        self
    }

    /// Sends it over a connection of its own and reads the answer.
    ///
    /// # Errors
    /// If it cannot be sent. An answer that breaks off is no error: see `Answer::complete`.
    pub fn send(&self, port: u16) -> io::Result<Answer> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let patience = if let Leave::After(patience) = self.leave { patience } else { PATIENCE };
        stream.set_read_timeout(Some(patience))?;
        let began = Instant::now();
        self.write(&stream)?;
        let mut answer = Answer::default();
        // An error while reading is how a cut shows: the answer then stays incomplete.
        let _ = self.read(&mut BufReader::new(&stream), &mut answer);
        answer.took = began.elapsed();
        Ok(answer)
    }

    fn write(&self, mut to: &TcpStream) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: tally.test\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        match self.pieces_of {
            Some(size) => {
                head.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                to.write_all(&head)?;
                for piece in self.body.chunks(size) {
                    to.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    to.write_all(piece)?;
                    to.write_all(b"\r\n")?;
                }
                to.write_all(b"0\r\n\r\n")
            }
            None => {
                if !self.body.is_empty() || self.method == "POST" {
                    head.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
                }
                head.extend_from_slice(b"\r\n");
                head.extend_from_slice(&self.body);
                to.write_all(&head)
            }
        }
    }

    fn read(&self, from: &mut BufReader<&TcpStream>, answer: &mut Answer) -> io::Result<()> {
        let head = loop {
            let Some(head) = wire::read_head(from)? else { return Ok(()) };
            let status = head.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            if !(100..200).contains(&status) {
                answer.status = status;
                break head;
            }
        };
        answer.headers.clone_from(&head.headers);
        if self.method == "HEAD" || answer.status == 204 || answer.status == 304 {
            answer.complete = true;
        } else if head.get("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let chunk = wire::read_chunk(from)?;
                if chunk.is_empty() {
                    answer.trailers = wire::read_fields(from)?;
                    answer.complete = true;
                    break;
                }
                answer.body.extend_from_slice(&chunk);
                if self.left(answer) {
                    break;
                }
            }
        } else if let Some(length) = head.get("content-length").and_then(|length| length.parse::<u64>().ok()) {
            from.take(length).read_to_end(&mut answer.body)?;
            answer.complete = answer.body.len() as u64 == length;
        } else {
            from.read_to_end(&mut answer.body)?;
            answer.complete = true;
        }
        Ok(())
    }

    fn left(&self, answer: &Answer) -> bool {
        matches!(self.leave, Leave::AfterBytes(bytes) if answer.body.len() >= bytes)
    }
}
