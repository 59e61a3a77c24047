//! Endpoints for tallyd to scrape: recorded pages of real servers, over connections that stay.

use std::fs;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Result;

use crate::tools;
use crate::wire;

/// One in so many is a vLLM, whose page is 61 KB; the others are llama.cpp's.
const VLLM_EVERY: usize = 5;

/// Starts so many; their ports.
pub(crate) fn start(number: usize) -> Result<Vec<u16>> {
    let page = |name: &str| -> Result<Arc<Vec<u8>>> {
        let body = fs::read(tools::root().join("testdata/scrapes").join(name))?;
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(&body);
        Ok(Arc::new(answer))
    };
    let (vllm, llama) = (page("vllm-idle.prom")?, page("llamacpp-idle.prom")?);
    (0..number)
        .map(|index| {
            let answer = Arc::clone(if index % VLLM_EVERY == 0 { &vllm } else { &llama });
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let answer = Arc::clone(&answer);
                    // An error ends the connection, which is all that a peer could see of it.
                    thread::spawn(move || serve(&stream, &answer));
                }
            });
            Ok(port)
        })
        .collect()
}

fn serve(mut stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while wire::read_head(&mut reader)?.is_some() {
        stream.write_all(answer)?;
    }
    Ok(())
}
