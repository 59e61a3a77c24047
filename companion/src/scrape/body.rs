//! The body of an answer, read piece by piece.
//!
//! In: a response. Out: what its page says. Plain or gzip, as its head says. It never holds more than one piece, and never
//! reads more than the cap, before or after decompression.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use http::{Response, StatusCode, header};
use hyper::body::{Body, Incoming};

use super::Reason;
use super::link::Link;
use crate::model_server::{Mapping, Page, Read};

/// Reads the whole answer.
pub(super) async fn read(
    link: &mut Link,
    response: Response<Incoming>,
    max_body: usize,
    mapping: &Mapping,
) -> Result<Read, Reason> {
    if response.status() != StatusCode::OK {
        return Err(Reason::Status);
    }
    let encoding = response.headers().get(header::CONTENT_ENCODING).map_or(&b"identity"[..], |value| value.as_bytes());
    let page = Bounded { page: Page::new(mapping), left: max_body };
    let mut sink = match encoding {
        b"identity" => Sink::Plain(page),
        b"gzip" => Sink::Gzip(Box::new(MultiGzDecoder::new(page))),
        _ => return Err(Reason::Parse),
    };
    let mut body = response.into_body();
    if body.size_hint().lower() > max_body as u64 {
        return Err(Reason::TooLarge);
    }
    let mut sent = 0;
    while let Some(frame) = link.frame(&mut body).await {
        let Ok(piece) = frame?.into_data() else { continue };
        sent += piece.len();
        if sent > max_body {
            return Err(Reason::TooLarge);
        }
        sink.feed(&piece)?;
    }
    Ok(sink.finish()?.page.finish()?)
}

#[expect(clippy::large_enum_variant, reason = "one lives at a time, and the greater one is the usual one")]
enum Sink<'m> {
    Gzip(Box<MultiGzDecoder<Bounded<'m>>>),
    Plain(Bounded<'m>),
}

impl<'m> Sink<'m> {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Reason> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(piece).map_err(|error| reason(&error)),
            Self::Plain(page) => page.write_all(piece).map_err(|error| reason(&error)),
        }
    }

    fn finish(self) -> Result<Bounded<'m>, Reason> {
        match self {
            // An end before the checksum is the only fault left to find here.
            Self::Gzip(decoder) => decoder.finish().map_err(|_| Reason::Truncated),
            Self::Plain(page) => Ok(page),
        }
    }
}

/// A page that takes so many bytes and no more.
struct Bounded<'m> {
    page: Page<'m>,
    left: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(piece.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.page.feed(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reason(error: &io::Error) -> Reason {
    if error.kind() == io::ErrorKind::FileTooLarge { Reason::TooLarge } else { Reason::Parse }
}
