//! Every recorded exchange, cut everywhere.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use tally_core::inflate::Inflater;

use crate::oracles::{inflate, json, sse};

/// Bodies up to this size are cut at each byte; up to the other, and of the kind that the reader is for, at each pair of
/// bytes that lie this near to each other.
const CUT_ONCE: usize = 6 << 10;
const CUT_TWICE: usize = 600;
const NEAR: usize = 64;

fn bodies() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/exchanges");
    let mut bodies: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let folder = entry.unwrap().path();
        if let Ok(text) = fs::read(folder.join("request.json")) {
            let request: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let body = match (request["body"].as_str(), request["body_base64"].as_str()) {
                (Some(body), _) => body.as_bytes().to_vec(),
                (_, Some(body)) => base64::prelude::BASE64_STANDARD.decode(body).unwrap(),
                _ => Vec::new(),
            };
            bodies.push((folder.join("request.json"), body));
        }
        let path = folder.join("response.body");
        if let Ok(body) = fs::read(&path) {
            bodies.push((path, body));
        }
    }
    bodies.sort_by(|(_, one), (_, other)| one.cmp(other));
    bodies.dedup_by(|(_, one), (_, other)| one == other);
    assert!(bodies.len() > 250, "the recordings are there");
    bodies
}

/// Calls `check` with the body whole, then with each cut.
fn for_each_cut(body: &[u8], twice: bool, mut check: impl FnMut(&[&[u8]])) {
    check(&[body]);
    if body.len() > CUT_ONCE {
        return;
    }
    for first in 0..=body.len() {
        let (head, tail) = body.split_at(first);
        check(&[head, tail]);
        if twice && body.len() <= CUT_TWICE {
            for second in 1..tail.len().min(NEAR) {
                let (middle, tail) = tail.split_at(second);
                check(&[head, middle, tail]);
            }
        }
    }
}

#[test]
fn recorded_bodies_read_as_json_give_what_serde_json_finds_at_every_cut() {
    let mut documents = 0;
    for (path, body) in bodies() {
        let whole = json::scan::<json::Most>([&body[..]]);
        let theirs = json::read::<json::Most>(&body);
        if let Some(theirs) = &theirs {
            documents += 1;
            assert!(json::agree(&whole.0, theirs), "{}: {:?}\n{theirs:?}", path.display(), whole.0);
            assert_eq!(whole.1, tally_core::json::State::Complete, "{}", path.display());
        }
        for_each_cut(&body, theirs.is_some(), |pieces| {
            assert_eq!(json::scan::<json::Most>(pieces.iter().copied()), whole, "{}", path.display());
        });
    }
    assert!(documents > 200, "{documents} documents");
}

#[test]
fn recorded_bodies_read_as_event_streams_give_what_the_standards_steps_give_at_every_cut() {
    let mut events = 0;
    for (path, body) in bodies() {
        let theirs = sse::read(&body);
        events += theirs.events.len();
        for_each_cut(&body, !theirs.events.is_empty(), |pieces| {
            assert_eq!(sse::scan(pieces.iter().copied()), theirs, "{}", path.display());
        });
    }
    assert!(events > 1000, "{events} events");
}

#[test]
fn recorded_gzip_bodies_inflate_to_what_flate2_makes_of_them_at_every_cut() {
    let mut whole = 0;
    for (path, body) in bodies() {
        let Some(theirs) = inflate::gunzip_members(&body) else { continue };
        whole += 1;
        for_each_cut(&body, true, |pieces| {
            let (plain, state) = inflate::scan(Inflater::gzip(), pieces.iter().copied());
            assert_eq!(state, tally_core::inflate::State::Complete, "{}", path.display());
            assert!(plain == theirs, "{}", path.display());
        });
    }
    assert!(whole >= 2, "{whole} gzip bodies");
}
