//! gRPC over HTTP/2, as much of it as two methods need: messages with their length in front, the status in trailers.
//!
//! In: pieces of a body; what to answer. Out: messages; frames for the HTTP/2 library. It never waits: what it sends is a
//! few hundred bytes, which the library holds until the socket takes them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    code: &'static str,
    message: &'static str,
}

impl Status {
    /// The caller's message can't be taken as it is.
    pub(super) const fn invalid(message: &'static str) -> Self {
        Self { code: "3", message }
    }

    /// There is no such method, or no such way to write a message.
    pub(super) const fn unimplemented(message: &'static str) -> Self {
        Self { code: "12", message }
    }

    /// A message is longer than its method takes.
    const TOO_LONG: Self = Self { code: "8", message: "the message is too long" };
    /// The bytes are none of the method's messages, or they are missing.
    pub(super) const BROKEN: Self = Self { code: "13", message: "the message can't be read" };
}

/// Cuts a body into its messages.
#[derive(Debug)]
pub(super) struct Messages {
    unread: BytesMut,
    max_bytes: usize,
}

impl Messages {
    /// Of a body whose messages have at most so many bytes.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { unread: BytesMut::new(), max_bytes }
    }

    /// The next piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.unread.extend_from_slice(piece);
    }

    /// The next message, once it is whole. Call until there is none: what is held unread is then less than one message.
    pub(super) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(([compression, length @ ..], rest)) = self.unread.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if *compression != 0 {
            return Err(Status::unimplemented("messages may not be compressed"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            return Err(Status::TOO_LONG);
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(message).map_err(|_| Status::BROKEN)?;
        self.unread.advance(PREFIX_BYTES + length);
        Ok(Some(message))
    }
}

/// Answers a call with its one message. A caller that is no longer there is not told, and that is all.
pub(super) fn answer(respond: &mut SendResponse<Bytes>, message: &impl Message) {
    let Ok(length) = u32::try_from(message.encoded_len()) else { return };
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    body.put_u8(0);
    body.put_u32(length);
    if message.encode(&mut body).is_err() {
        return;
    }
    let Ok(mut stream) = respond.send_response(head(), false) else { return };
    if stream.send_data(body.freeze(), false).is_ok() {
        let _ = stream.send_trailers(HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]));
    }
}

/// Ends a call without an answer.
pub(super) fn refuse(respond: &mut SendResponse<Bytes>, status: Status) {
    let mut head = head();
    head.headers_mut().insert(STATUS, HeaderValue::from_static(status.code));
    head.headers_mut().insert(MESSAGE, HeaderValue::from_static(status.message));
    let _ = respond.send_response(head, true);
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head
}

const STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");
const MESSAGE: http::HeaderName = http::HeaderName::from_static("grpc-message");
/// A byte that says whether the message is compressed, and its length in four.
const PREFIX_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tally_core::admission::{EnqueueAndWaitRequest, ReportRequest};

    use super::*;

    fn framed(messages: &[EnqueueAndWaitRequest]) -> Vec<u8> {
        messages
            .iter()
            .flat_map(|message| {
                let bytes = message.encode_to_vec();
                [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_the_body_is_cut(
            names in proptest::collection::vec("[a-z]{0,40}", 0..5),
            cuts in proptest::collection::vec(1..20_usize, 1..20),
        ) {
            let sent: Vec<EnqueueAndWaitRequest> =
                names.into_iter().map(|fairness_id| EnqueueAndWaitRequest { fairness_id, ..Default::default() }).collect();
            let body = framed(&sent);
            let (mut messages, mut read, mut rest) = (Messages::new(100), Vec::new(), body.as_slice());
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                messages.push(piece);
                while let Some(message) = messages.next::<EnqueueAndWaitRequest>().unwrap() {
                    read.push(message);
                }
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read, sent);
        }
    }

    #[test]
    fn a_message_that_is_compressed_too_long_or_none_is_refused_before_it_is_held() {
        let refused = |body: &[u8]| {
            let mut messages = Messages::new(10);
            messages.push(body);
            messages.next::<ReportRequest>().unwrap_err()
        };
        assert_eq!(refused(&[1, 0, 0, 0, 0]).code, "12");
        assert_eq!(refused(&[0, 0, 0, 0, 11]), Status::TOO_LONG);
        assert_eq!(refused(&[0, 0xff, 0xff, 0xff, 0xff]), Status::TOO_LONG);
        assert_eq!(refused(&[0, 0, 0, 0, 1, 0xff]), Status::BROKEN);
    }
}
