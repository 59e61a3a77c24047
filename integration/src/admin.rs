//! A stand-in for an Envoy's admin that says what a test wants, over TCP or a Unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// What it says next.
#[derive(Debug, Clone)]
pub enum Says {
    /// This page, in chunks of a few hundred bytes as Envoy sends it.
    Page(String),
    /// Half of this page, then the connection is cut.
    Half(String),
    /// Nothing, for as long as the peer waits.
    Nothing,
    /// This status.
    Status(u16),
}

/// A running stand-in; it ends with the process.
#[derive(Debug, Clone)]
pub struct Admin {
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Admin {
    /// On a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If there is none.
    pub fn tcp(says: Says) -> Result<(Self, u16)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let admin = Self::new(says);
        admin.serve(move || listener.accept().map(|(stream, _)| stream));
        Ok((admin, port))
    }

    /// On a Unix socket.
    ///
    /// # Errors
    /// If the path can't be bound.
    pub fn unix(path: &Path, says: Says) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let admin = Self::new(says);
        admin.serve(move || listener.accept().map(|(stream, _)| stream));
        Ok(admin)
    }

    /// Changes what it says.
    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// The request lines so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn new(says: Says) -> Self {
        Self { says: Arc::new(Mutex::new(says)), asked: Arc::default() }
    }

    fn serve<S: Read + Write + Send + 'static>(&self, mut accept: impl FnMut() -> std::io::Result<S> + Send + 'static) {
        let admin = self.clone();
        thread::spawn(move || {
            while let Ok(stream) = accept() {
                let admin = admin.clone();
                // A peer that goes away is what a test may be about.
                thread::spawn(move || admin.answer(stream));
            }
        });
    }

    fn answer<S: Read + Write>(&self, stream: S) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(first.trim_end().to_owned());
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = reader.get_mut();
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut pieces = |text: &[u8]| -> std::io::Result<()> {
            stream.write_all(head)?;
            for piece in text.chunks(300) {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            Ok(())
        };
        match says {
            Says::Page(page) => {
                pieces(page.as_bytes())?;
                stream.write_all(b"0\r\n\r\n")
            }
            Says::Half(page) => pieces(page.as_bytes().get(..page.len() / 2).unwrap_or_default()),
            Says::Nothing => stream.read(&mut [0]).map(drop),
            Says::Status(status) => write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"),
        }
    }
}
