//! HTTP/1.1 by hand, so that tests can send and cut any bytes: heads, lengths, chunks.

use std::io::{self, BufRead, Read};

/// Longest head that is read.
const MAX_HEAD_LINE: u64 = 64 * 1024;

/// First line and headers, names in lower case, values as received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a head; `None` if the peer closed before its first byte.
pub(crate) fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let Some(first) = read_line(from)? else { return Ok(None) };
    Ok(Some(Head { first, headers: read_fields(from)? }))
}

/// Header or trailer lines up to the empty one.
pub(crate) fn read_fields(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    while let Some(line) = read_line(from)?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(fields)
}

fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.by_ref().take(MAX_HEAD_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    // Lossy: a value that is not UTF-8 only has to arrive, not to be compared.
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

/// One chunk of a chunked body; empty at the last one, whose trailers remain to be read.
pub(crate) fn read_chunk(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut chunk = vec![0; size];
    from.read_exact(&mut chunk)?;
    if size > 0 {
        read_line(from)?;
    }
    Ok(chunk)
}
