//! Event streams line by line over the whole buffer, written from the WHATWG standard's steps.

use tally_core::sse::{MAX_NAME, Piece, Reader};

/// One stream, read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stream {
    /// Name (cut) and data of each.
    pub events: Vec<(Vec<u8>, Vec<u8>)>,
    /// The event that the end of the stream left without a blank line.
    pub unfinished: Option<(Vec<u8>, Vec<u8>)>,
    pub comments: usize,
}

/// By the push reader.
pub fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Stream {
    let (mut reader, mut stream, mut data) = (Reader::new(), Stream::default(), Vec::new());
    for mut piece in pieces {
        while let Some(found) = reader.next(&mut piece) {
            match found {
                Piece::Data(bytes) => {
                    assert!(!bytes.is_empty(), "a piece of data has bytes");
                    data.extend_from_slice(bytes);
                }
                Piece::EventEnd => stream.events.push((reader.event_name().to_vec(), std::mem::take(&mut data))),
                Piece::Comment => stream.comments += 1,
            }
        }
        assert!(piece.is_empty(), "a reader that wants more has used up what it had");
    }
    if reader.finish() {
        stream.unfinished = Some((reader.event_name().to_vec(), data));
    }
    assert!(!reader.finish(), "an unfinished event is offered once");
    stream
}

/// By the standard's steps.
pub fn read(bytes: &[u8]) -> Stream {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut stream = Stream::default();
    let (mut name, mut data): (Vec<u8>, Option<Vec<u8>>) = (Vec::new(), None);
    let (lines, last) = lines(bytes);
    for line in lines {
        if !line.is_empty() {
            field(&line, &mut name, &mut data, &mut stream.comments);
            continue;
        }
        let event_name = std::mem::take(&mut name);
        if let Some(data) = data.take() {
            stream.events.push((cut(event_name), data));
        }
    }
    // A last line without its end: the standard drops it with its event; both are offered here if it has a colon.
    if last.contains(&b':') {
        field(&last, &mut name, &mut data, &mut stream.comments);
    }
    stream.unfinished = data.map(|data| (cut(name), data));
    stream
}

/// The lines that end with CR LF, LF or CR, and what is behind the last.
fn lines(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\r' | b'\n' => {
                lines.push(std::mem::take(&mut line));
                if bytes[at..].starts_with(b"\r\n") {
                    at += 1;
                }
            }
            byte => line.push(byte),
        }
        at += 1;
    }
    (lines, line)
}

fn field(line: &[u8], name: &mut Vec<u8>, data: &mut Option<Vec<u8>>, comments: &mut usize) {
    let colon = line.iter().position(|byte| *byte == b':');
    let (field, value) = match colon {
        Some(0) => {
            *comments += 1;
            return;
        }
        Some(colon) => (&line[..colon], &line[colon + 1..]),
        None => (line, &b""[..]),
    };
    let value = value.strip_prefix(b" ").unwrap_or(value);
    match field {
        b"event" => *name = value.to_vec(),
        b"data" => match data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => *data = Some(value.to_vec()),
        },
        _ => {}
    }
}

fn cut(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(MAX_NAME);
    name
}
