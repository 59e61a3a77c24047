//! Any cut of any request and any answer is measured as the whole is, and as the slow reader does where it takes the bytes.
#![no_main]

#[path = "../../core/tests/oracles/mod.rs"]
mod oracles;

use libfuzzer_sys::fuzz_target;
use oracles::exchange::Bodies;
use tally_core::api::Api;
use tally_core::exchange::Measured;
use tally_core::outcome::Cause;

fuzz_target!(|data: &[u8]| {
    let (cuts, rest) = oracles::cuts_and_bytes(data);
    let Some(([shape, kind, length], rest)) = rest.split_first_chunk().map(|(head, rest)| (*head, rest)) else {
        return;
    };
    let (request, answer) = rest.split_at(rest.len().min(usize::from(length)));
    let bodies = Bodies {
        api: Api::ALL[usize::from(shape) % Api::ALL.len()],
        request,
        status: [200, 200, 204, 302, 429, 500][usize::from(kind >> 5) % 6],
        content_type: [&b"text/event-stream"[..], b"application/json", b"", b"text/plain"][usize::from(kind) % 4],
        content_encoding: [&b""[..], b"", b"gzip", b"br"][usize::from(kind >> 2) % 4],
        answer,
        cause: [None, None, None, Some(Cause::ClientLeft), Some(Cause::Upstream)][usize::from(shape >> 4) % 5],
    };
    let whole = bodies.measure(&[]);
    for cuts in [cuts, &[1]] {
        assert_eq!(essence(&bodies.measure(cuts)), essence(&whole), "{cuts:?}");
    }
    assert!(whole.gaps.counts.iter().map(|count| u64::from(*count)).sum::<u64>() <= whole.output_events);
    if bodies.status == 200
        && bodies.content_encoding.is_empty()
        && let Some(slow) = bodies.read()
    {
        assert!(slow.agrees(bodies.api, &whole), "{slow:#?}\n{whole:#?}");
        assert!(bodies.cause.is_some() || slow.agrees_in_quality(bodies.api, &whole), "{slow:#?}\n{whole:#?}");
    }
});

fn essence(measured: &Measured) -> impl PartialEq + std::fmt::Debug + '_ {
    (
        (&measured.model, &measured.answered_model, measured.usage, measured.output_events),
        (measured.usage_quality, measured.request_quality, measured.outcome, measured.first_token.is_some()),
        (measured.request_bytes, measured.response_bytes),
    )
}
