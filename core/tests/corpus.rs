//! Every recorded exchange, whole and in pieces, says what an independent reader found in it.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use common::{Recorded, essence};
use proptest::prelude::*;
use tally_core::outcome::Outcome;

/// Bodies up to this size are cut at every position.
const EVERY_CUT_BYTES: usize = 2_500;

fn recorded() -> &'static [Recorded] {
    static ALL: OnceLock<Vec<Recorded>> = OnceLock::new();
    ALL.get_or_init(read_all)
}

fn read_all() -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/exchanges");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let read = |name: &Path, file: &str| fs::read(folder.join(name).join(file)).unwrap();
    let parse = |name: &std::ffi::OsString| {
        let name = Path::new(name);
        let string = |file| String::from_utf8(read(name, file)).unwrap();
        let (request, head, expect) = (string("request.json"), string("response.headers"), string("expect.json"));
        Recorded::parse(name.to_str().unwrap(), &request, &head, &read(name, "response.body"), &expect)
    };
    let all: Vec<_> = names.iter().filter_map(parse).filter(|recorded| recorded.api().is_some()).collect();
    assert!(all.len() > 100, "the corpus is there");
    all
}

#[test]
fn every_recorded_exchange_has_the_tokens_its_server_reported() {
    for recorded in recorded() {
        let measured = recorded.measure(&[&recorded.request], &[&recorded.answer]);
        recorded.check(&measured);
        if recorded.head.0 >= 400 {
            assert_eq!(measured.outcome, Outcome::UpstreamError, "{}", recorded.name);
        }
    }
}

#[test]
fn every_stream_with_output_tokens_has_a_first_token_and_no_other_answer_has_one() {
    for recorded in recorded() {
        let measured = recorded.measure(&[&recorded.request], &[&recorded.answer]);
        let streamed = recorded.expect["stream_answered"] == true;
        let output = recorded.expect["usage"]["output_tokens"].as_u64();
        if streamed && output.is_some_and(|output| output > 1) {
            assert!(measured.first_token.is_some(), "{}", recorded.name);
        }
        if !streamed {
            assert!(measured.first_token.is_none(), "{}", recorded.name);
        }
    }
}

#[test]
fn one_cut_anywhere_changes_nothing() {
    for recorded in recorded() {
        let whole = recorded.measure(&[&recorded.request], &[&recorded.answer]);
        if recorded.answer.len() <= EVERY_CUT_BYTES {
            for at in 0..=recorded.answer.len() {
                let (one, two) = recorded.answer.split_at(at);
                let cut = recorded.measure(&[&recorded.request], &[one, two]);
                assert_eq!(essence(&cut), essence(&whole), "{}: answer cut at {at}", recorded.name);
            }
        }
        if recorded.request.len() <= EVERY_CUT_BYTES {
            for at in 0..=recorded.request.len() {
                let (one, two) = recorded.request.split_at(at);
                let cut = recorded.measure(&[one, two], &[&recorded.answer]);
                assert_eq!(essence(&cut), essence(&whole), "{}: request cut at {at}", recorded.name);
            }
        }
    }
}

#[test]
fn a_byte_at_a_time_changes_nothing() {
    for recorded in recorded() {
        let whole = recorded.measure(&[&recorded.request], &[&recorded.answer]);
        let (request, answer): (Vec<_>, Vec<_>) =
            (recorded.request.chunks(1).collect(), recorded.answer.chunks(1).collect());
        assert_eq!(essence(&recorded.measure(&request, &answer)), essence(&whole), "{}", recorded.name);
    }
}

/// Found by `no_bytes_break_it`: a body that closes early, and goes on.
#[test]
fn what_follows_a_whole_body_counts_wherever_it_is_cut() {
    let recorded = recorded().iter().find(|recorded| recorded.name == "vllm-responses-nonstream").unwrap();
    let answer: &[u8] = b"{\"model\":\"m\"} and more";
    let whole = essence(&recorded.measure(&[&recorded.request], &[answer]));
    for at in 0..=answer.len() {
        let (one, two) = answer.split_at(at);
        assert_eq!(essence(&recorded.measure(&[&recorded.request], &[one, two])), whole, "cut at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_pieces_change_nothing(which in any::<prop::sample::Index>(), sizes in prop::collection::vec(0_usize..700, 1..40)) {
        let recorded = which.get(recorded());
        let whole = recorded.measure(&[&recorded.request], &[&recorded.answer]);
        let cut = recorded.measure(&pieces(&recorded.request, &sizes), &pieces(&recorded.answer, &sizes));
        prop_assert_eq!(format!("{:?}", essence(&cut)), format!("{:?}", essence(&whole)), "{}", &recorded.name);
    }

    #[test]
    fn no_bytes_break_it(
        which in any::<prop::sample::Index>(),
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        end in any::<prop::sample::Index>(),
    ) {
        let recorded = which.get(recorded());
        let mut answer = recorded.answer.clone();
        for (at, byte) in spots {
            if !answer.is_empty() {
                let at = at.index(answer.len());
                answer[at] = byte;
            }
        }
        answer.truncate(end.index(answer.len() + 1));
        let whole = recorded.measure(&[&answer], &[&answer]);
        let bytes: Vec<_> = answer.chunks(1).collect();
        prop_assert_eq!(
            format!("{:?}", essence(&recorded.measure(&bytes, &bytes))),
            format!("{:?}", essence(&whole)),
            "{}", &recorded.name
        );
    }
}

/// The body in pieces of these sizes, over and over; an empty piece is one too.
fn pieces<'a>(mut body: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    for size in sizes.iter().chain([&1]).cycle() {
        let (piece, rest) = body.split_at((*size).min(body.len()));
        found.push(piece);
        body = rest;
        if body.is_empty() {
            return found;
        }
    }
    found
}
