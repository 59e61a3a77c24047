//! `/metrics`: all parts on one page, in the format and encoding that the reader asks for.
//!
//! In: the parts. Out: one answer, made of what is known now. It never waits for a peer.

mod info;
mod negotiate;

use std::io::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tally_core::exposition::Writer;

use crate::collect::Collect;
pub(crate) use info::Info;

type Parts = Arc<[Arc<dyn Collect>]>;

/// The page's route.
pub(crate) fn router(parts: Parts) -> axum::Router {
    axum::Router::new().route("/metrics", get(page)).with_state(parts)
}

async fn page(State(parts): State<Parts>, headers: HeaderMap) -> Response {
    let format = negotiate::format(&headers);
    let is_zipped = negotiate::takes_gzip(&headers);
    // A page of many models takes milliseconds to write and to compress: not on the threads that answer others.
    let made = tokio::task::spawn_blocking(move || {
        let mut page = Writer::new(format);
        for part in parts.iter() {
            part.collect(&mut page);
        }
        let text = page.finish();
        if is_zipped { zip(text.as_bytes()).map(Bytes::from) } else { Ok(Bytes::from(text)) }
    });
    let Ok(Ok(body)) = made.await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written\n").into_response();
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_zipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn zip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    // Level 1 takes a third of the time of level 6 and makes pages of this kind a tenth longer.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}
