//! A model server that costs next to nothing: it takes a request of any framing and answers with ready bytes.
//!
//! In: the shapes. Out: a port. The header `x-shape` says which answer is wanted. It parses no JSON.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::shapes::Shape;

/// At least this long between two events of a paced stream; the timer makes about two of it.
const PACE: Duration = Duration::from_millis(1);

/// Serves for as long as the runtime lives.
pub(crate) async fn start(shapes: Arc<Vec<Shape>>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shapes.clone()));
        }
    });
    Ok(port)
}

/// Ends with its connection, whatever ends that.
async fn serve(mut stream: TcpStream, shapes: Arc<Vec<Shape>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut bytes = Vec::with_capacity(64 << 10);
    loop {
        let shape = take_request(&mut stream, &mut bytes).await?;
        let shape = shapes.iter().find(|known| known.name.as_bytes() == shape)?;
        for (number, piece) in shape.answer.iter().enumerate() {
            if number > 0 {
                tokio::time::sleep(PACE).await;
            }
            stream.write_all(piece).await.ok()?;
        }
    }
}

/// Reads one whole request and says its shape.
async fn take_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    bytes.clear();
    let head = loop {
        read_some(stream, bytes).await?;
        if let Some(end) = memmem::find(bytes, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let shape = value("x-shape")?.as_bytes().to_vec();
    match value("content-length") {
        Some(length) => {
            let length: usize = length.parse().ok()?;
            while bytes.len() < head + length {
                read_some(stream, bytes).await?;
            }
        }
        // Chunks: JSON holds no raw line ends of this kind.
        None => {
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                read_some(stream, bytes).await?;
            }
        }
    }
    Some(shape)
}

async fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.reserve(64 << 10);
    let read = stream.read_buf(bytes).await.ok()?;
    (read > 0).then_some(())
}
