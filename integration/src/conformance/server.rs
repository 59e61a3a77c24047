//! A model server that answers each case as it is written, piece by piece.
//!
//! In: a request with the case's name in a header. Out: its answer, chunked, a moment between the pieces.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::CASE_HEADER;
use super::case::{Case, Ended};
use crate::wire::{self, Head};

/// So that pieces arrive apart.
const GAP: Duration = Duration::from_millis(2);

/// Starts one on 127.0.0.1; port 0: a free one. Returns the port.
///
/// # Errors
/// If the port is not free.
pub fn start(port: u16, cases: Vec<Case>) -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let port = listener.local_addr()?.port();
    let cases = Arc::new(cases);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let cases = Arc::clone(&cases);
            // An error ends the connection, which is all that a peer could see of it.
            thread::spawn(move || serve(&stream, &cases));
        }
    });
    Ok(port)
}

fn serve(mut stream: &TcpStream, cases: &[Case]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = wire::read_head(&mut reader)? {
        swallow(&mut reader, &head)?;
        match cases.iter().find(|case| head.get(CASE_HEADER) == Some(&case.name)) {
            Some(case) if answer(stream, case)? => {}
            Some(_) => return Ok(()),
            None => stream.write_all(b"HTTP/1.1 404 No such case\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
    Ok(())
}

fn swallow(reader: &mut BufReader<&TcpStream>, head: &Head) -> io::Result<()> {
    if head.get("transfer-encoding").is_some() {
        while !wire::read_chunk(reader)?.is_empty() {}
        wire::read_fields(reader)?;
    } else if let Some(length) = head.get("content-length").and_then(|length| length.parse().ok()) {
        io::copy(&mut reader.take(length), &mut io::sink())?;
    }
    Ok(())
}

/// False: the connection is over.
fn answer(mut stream: &TcpStream, case: &Case) -> io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} Case\r\ntransfer-encoding: chunked\r\n", case.status);
    for (name, value) in &case.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    for piece in case.answer.iter().filter(|piece| !piece.is_empty()) {
        thread::sleep(GAP);
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        stream.write_all(&chunk)?;
    }
    match case.ended {
        Ended::Properly => stream.write_all(b"0\r\n\r\n").map(|()| true),
        // Nothing more, until the other side goes.
        Ended::ClientLeft => stream.read(&mut [0]).map(|_| false),
        Ended::ServerLeft => stream.shutdown(Shutdown::Both).map(|()| false),
    }
}
