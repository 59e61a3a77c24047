//! The hand-made hard exchanges of `testdata/conformance`, whole and cut everywhere: see docs/CONFORMANCE.md.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "conformance/case.rs"]
mod case;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use case::{Case, Ended, Expect};
use tally_core::api::Api;
use tally_core::exchange::{Exchange, Measured, RequestHead};
use tally_core::outcome::{Cause, End};
use tally_core::response::ResponseHead;
use tally_core::timing::Nanos;

/// Bodies up to this size are cut at every position.
const EVERY_CUT_BYTES: usize = 4_000;
/// Answers up to this size are cut at every pair of positions.
const EVERY_PAIR_BYTES: usize = 200;
/// Answers up to this size are cut at every pair of positions that lie so close together.
const NEAR_PAIR_BYTES: usize = 700;
const NEAR: usize = 14;
/// Larger ones are cut so close to their ends, and at as many places between.
const EDGE_BYTES: usize = 60;
/// Larger ones are cut at fewer places, and do not come byte by byte.
const LARGE_BYTES: usize = 500_000;

fn cases() -> &'static [Case] {
    static ALL: OnceLock<Vec<Case>> = OnceLock::new();
    ALL.get_or_init(|| Case::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/conformance")).unwrap())
}

/// Runs a case; piece number `n` of the answer comes at the instant `n + 1`.
fn measure(case: &Case, request: &[&[u8]], answer: &[&[u8]]) -> Measured {
    let api = Api::of_path(case.path.as_bytes()).unwrap();
    let mut exchange = Exchange::begin(&RequestHead { api, target_model: b"", tenant: b"" }, Nanos(0));
    for piece in request {
        let wanted = exchange.wants_request_chunk().then_some(*piece);
        exchange.request_chunk(piece.len() as u64, wanted);
    }
    exchange.request_end();
    let header = |name: &str| case.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    exchange.response_head(&ResponseHead {
        status: case.status,
        content_type: header("content-type"),
        content_encoding: header("content-encoding"),
    });
    for (index, piece) in answer.iter().enumerate() {
        let wanted = exchange.wants_response_chunk().then_some(*piece);
        exchange.response_chunk(piece.len() as u64, wanted, Nanos(index as u64 + 1));
    }
    let last = Nanos(answer.len() as u64 + 1);
    let cause = match case.ended {
        Ended::Properly => {
            exchange.response_end(last);
            Cause::None
        }
        Ended::ClientLeft => Cause::ClientLeft,
        Ended::ServerLeft => Cause::Upstream,
    };
    exchange.end(End { cause, ..End::default() }, false, last)
}

/// What was measured, in the words of the case files. `first_token` is the index of the piece as it came.
fn said(case: &Case, measured: &Measured) -> Expect {
    let name = |bytes: &[u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
    let usage = &measured.usage;
    let tokens = [
        ("input", usage.input),
        ("output", usage.output),
        ("cached", usage.cached),
        ("cache_write", usage.cache_write),
        ("reasoning", usage.reasoning),
        ("audio_input", usage.audio_input),
        ("audio_output", usage.audio_output),
    ];
    let tokens: BTreeMap<_, _> =
        tokens.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count?))).collect();
    Expect {
        outcome: measured.outcome.label().to_owned(),
        model: name(&measured.model),
        answered_model: name(&measured.answered_model),
        usage: measured.usage_quality.label().to_owned(),
        tokens,
        first_token: measured.first_token.map(|at| usize::try_from(at.0).unwrap() - 1),
        output_events: (case.is_stream() && case.status < 400).then_some(measured.output_events),
    }
}

/// In other pieces all is as in the case's own, and the first token comes with the piece that brings its event.
fn check(case: &Case, whole: &Measured, request: &[&[u8]], answer: &[&[u8]], how: impl FnOnce() -> String) {
    let found = measure(case, request, answer);
    let is_same = found.usage == whole.usage
        && found.usage_quality == whole.usage_quality
        && found.outcome == whole.outcome
        && found.output_events == whole.output_events
        && found.model == whole.model
        && found.answered_model == whole.answered_model
        && found.request_quality == whole.request_quality
        && (found.request_bytes, found.response_bytes) == (whole.request_bytes, whole.response_bytes);
    let first_token = found.first_token.map(|at| usize::try_from(at.0).unwrap() - 1);
    let is_in_time = match (first_token, case.expect.first_token) {
        (None, None) => true,
        (Some(index), Some(right)) => {
            let before = answer[..index].iter().map(|piece| piece.len()).sum::<usize>();
            let right_before = case.answer[..right].iter().map(Vec::len).sum::<usize>();
            before < right_before + case.answer[right].len() && right_before < before + answer[index].len()
        }
        _ => false,
    };
    assert!(is_same && is_in_time, "{}, {}\n{:#?}", case.name, how(), said(case, &found));
}

/// Where a body is cut: everywhere, or at its ends and at some places between.
fn cuts(length: usize) -> BTreeSet<usize> {
    if length <= EVERY_CUT_BYTES {
        return (0..=length).collect();
    }
    let between = (1..20).map(|part| length / 20 * part + part % 7);
    let all = (0..EDGE_BYTES).chain(length - EDGE_BYTES..=length).chain(between).collect::<BTreeSet<_>>();
    // Megabytes take their time.
    all.into_iter().step_by(1 + length / 20_000).collect()
}

fn in_its_own_pieces<'a>(case: &'a Case) -> Measured {
    let borrowed = |pieces: &'a [Vec<u8>]| -> Vec<&'a [u8]> { pieces.iter().map(Vec::as_slice).collect() };
    measure(case, &borrowed(&case.request), &borrowed(&case.answer))
}

#[test]
fn the_corpus_is_there_and_each_case_says_why() {
    assert!(cases().len() > 100);
    for case in cases() {
        assert!(case.why.len() > 20 && case.why.ends_with('.'), "{}", case.name);
        assert!(case.expect.output_events.is_some() == (case.is_stream() && case.status < 400), "{}", case.name);
    }
}

#[test]
fn every_case_is_measured_as_it_says() {
    let mut wrong = String::new();
    for case in cases() {
        let found = said(case, &in_its_own_pieces(case));
        if found != case.expect {
            wrong += &format!("\n{}: {}\n  found    {found:?}\n  expected {:?}", case.name, case.why, case.expect);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn one_cut_anywhere_changes_nothing() {
    for case in cases() {
        let (request, answer, whole) = (case.request.concat(), case.answer.concat(), in_its_own_pieces(case));
        // Beside a megabyte of one body nothing new can be learnt of the other.
        for at in cuts(answer.len()).into_iter().filter(|_| request.len() < LARGE_BYTES) {
            let (one, two) = answer.split_at(at);
            check(case, &whole, &[&request], &[one, two], || format!("answer cut at {at}"));
        }
        for at in cuts(request.len()).into_iter().filter(|_| answer.len() < LARGE_BYTES) {
            let (one, two) = request.split_at(at);
            check(case, &whole, &[one, two], &[&answer], || format!("request cut at {at}"));
        }
    }
}

#[test]
fn two_cuts_change_nothing_in_a_short_answer() {
    let mut short = 0;
    for case in cases() {
        let (request, answer, whole) = (case.request.concat(), case.answer.concat(), in_its_own_pieces(case));
        if answer.len() > NEAR_PAIR_BYTES || request.len() > EVERY_CUT_BYTES {
            continue;
        }
        let near = if answer.len() <= EVERY_PAIR_BYTES { answer.len() } else { NEAR };
        short += 1;
        for first in 0..=answer.len() {
            for second in first..=answer.len().min(first + near) {
                let pieces = [&answer[..first], &answer[first..second], &answer[second..]];
                check(case, &whole, &[&request], &pieces, || format!("answer cut at {first} and {second}"));
            }
        }
    }
    assert!(short > 90, "{short} short answers");
}

#[test]
fn pieces_of_one_size_change_nothing() {
    for case in cases() {
        let (request, answer, whole) = (case.request.concat(), case.answer.concat(), in_its_own_pieces(case));
        for size in [1, 2, 3, 7, 64, 1_000, 16_384] {
            if answer.len() > LARGE_BYTES && size < 1_000 {
                continue;
            }
            let (requests, answers): (Vec<_>, Vec<_>) = (request.chunks(size).collect(), answer.chunks(size).collect());
            check(case, &whole, &requests, &answers, || format!("pieces of {size}"));
        }
    }
}
