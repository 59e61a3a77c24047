//! Whole exchanges against the slow reader: recorded ones, hand-made ones, and both with bytes changed.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use tally_core::api::Api;

use crate::oracles::exchange::Bodies;

/// API, request, content type, answer.
type Seed = (Api, Vec<u8>, String, Vec<u8>);

/// Plain answers with status 200 of up to 6,000 bytes.
fn seeds() -> &'static [Seed] {
    static ALL: OnceLock<Vec<Seed>> = OnceLock::new();
    ALL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/exchanges");
        let mut seeds = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let folder = entry.unwrap().path();
            let read = |name: &str| fs::read(folder.join(name)).unwrap();
            let request: serde_json::Value = serde_json::from_slice(&read("request.json")).unwrap();
            let head = String::from_utf8(read("response.headers")).unwrap().to_ascii_lowercase();
            let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().trim();
            let api = Api::of_path(request["path"].as_str().unwrap().as_bytes());
            let (Some(api), Some(body), answer) = (api, request["body"].as_str(), read("response.body")) else {
                continue;
            };
            if head.contains(" 200 ") && !head.contains("content-encoding") && answer.len() <= 6_000 {
                seeds.push((api, body.as_bytes().to_vec(), kind.to_owned(), answer));
            }
        }
        assert!(seeds.len() > 60);
        seeds
    })
}

fn bodies<'a>((api, request, kind, answer): &'a Seed) -> Bodies<'a> {
    Bodies {
        api: *api,
        request,
        status: 200,
        content_type: kind.as_bytes(),
        content_encoding: b"",
        answer,
        cause: None,
    }
}

#[test]
fn the_slow_reader_finds_the_same_in_every_recorded_answer() {
    for seed in seeds() {
        let bodies = bodies(seed);
        let slow = bodies.read().unwrap_or_else(|| panic!("{bodies:?} is not read"));
        let found = bodies.measure(&[]);
        assert!(slow.agrees(bodies.api, &found), "{slow:#?}\n{found:#?}");
        assert!(slow.agrees_in_quality(bodies.api, &found), "{slow:#?}\n{found:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A number for a number, a key for a key: most mutants are JSON still, and few are right.
    #[test]
    fn the_slow_reader_finds_the_same_in_changed_answers(
        which in any::<prop::sample::Index>(),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
        cuts in prop::collection::vec(0_u8..90, 0..5),
    ) {
        let mut seed = which.get(seeds()).clone();
        for (from, to) in swaps {
            let words = words(&seed.3);
            if words.is_empty() {
                continue;
            }
            let (from, to) = (from.get(&words).clone(), to.get(&words).clone());
            let word = seed.3[from].to_vec();
            seed.3.splice(to, word);
        }
        let bodies = bodies(&seed);
        let found = bodies.measure(&cuts);
        if let Some(slow) = bodies.read() {
            prop_assert!(slow.agrees_in_quality(bodies.api, &found), "{slow:#?}\n{found:#?}");
            prop_assert!(slow.agrees(bodies.api, &found), "{slow:#?}\n{found:#?}\n{}", String::from_utf8_lossy(&seed.3));
        }
    }
}

/// Strings with their quotes, and numbers and literals.
fn words(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut words, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let rest = &text[at..];
        let length = if rest[0] == b'"' {
            rest[1..].iter().position(|byte| *byte == b'"').map_or(rest.len(), |end| end + 2)
        } else {
            rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'.').unwrap_or(rest.len())
        };
        if length > 0 {
            words.push(at..at + length);
        }
        at += length.max(1);
    }
    words
}
