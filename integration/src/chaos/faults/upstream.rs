//! Model servers that fail, and what Envoy does about it: each answer has one meaning.

use std::thread;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::{Outcome, Probe, probe};
use crate::chaos::bootstrap::{HASTY, IDLE, RETRIED};
use crate::chaos::load::chat;
use crate::chaos::world::World;

const EACH: usize = 3;
const MODEL: &str = "faulty";

/// All at once: Envoy takes a second to close a connection whose answer broke off.
#[expect(clippy::needless_collect, reason = "every client is started before the first is waited for")]
fn probe_all(world: &World, probes: Vec<Probe>) -> Result<Outcome> {
    thread::scope(|scope| {
        let clients: Vec<_> = probes.into_iter().map(|one| scope.spawn(move || probe(world, one))).collect();
        clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
    })?;
    Ok(Outcome::Check)
}

/// So often, in an order of its own: what the model server does, status, whether the answer is whole, the outcome.
fn send(world: &World, rng: &mut Rng, kinds: &[(&str, u16, bool, &'static str)]) -> Result<Outcome> {
    let mut all: Vec<_> = kinds.iter().cycle().take(kinds.len() * EACH).collect();
    rng.shuffle(&mut all);
    let all = all.into_iter().map(|(answer, status, is_complete, outcome)| {
        let tokens = (rng.u64(0..5_000), rng.u64(1..900));
        Probe {
            request: chat(MODEL, answer, tokens),
            model: MODEL,
            status: *status,
            is_complete: *is_complete,
            outcome,
            tokens: (*outcome == "complete").then_some(tokens),
        }
    });
    probe_all(world, all.collect())
}

pub(super) fn resets(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let (before, within) = (("reset-before", 503, true, "upstream_reset"), ("reset-mid", 200, false, "upstream_reset"));
    send(world, rng, &[before, within])
}

pub(super) fn closes(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let kinds = [
        ("close-before", 503, true, "upstream_reset"),
        ("close-mid", 200, false, "upstream_reset"),
        ("half-mid", 200, false, "upstream_reset"),
        ("half-after", 200, true, "complete"),
    ];
    send(world, rng, &kinds)
}

pub(super) fn garbage(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    send(world, rng, &[("garbage", 502, true, "upstream_reset")])
}

pub(super) fn oversized(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    send(world, rng, &[("huge-head", 502, true, "upstream_reset")])
}

pub(super) fn slow(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let (pieces, whole) = (format!("sse:{}", rng.u64(5..60)), format!("wait:{}", rng.u64(100..600)));
    send(world, rng, &[(&pieces, 200, true, "complete"), (&whole, 200, true, "complete")])
}

pub(super) fn timeouts(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let mut kinds = [(HASTY, "hang", 504, true), (IDLE, "hang-mid", 200, false), (IDLE, "hang", 504, true)];
    rng.shuffle(&mut kinds);
    let probes = kinds.map(|((header, value), answer, status, is_complete)| {
        let request = chat(MODEL, answer, (1, 1)).header(header, value);
        Probe { request, model: MODEL, status, is_complete, outcome: "timeout", tokens: None }
    });
    probe_all(world, probes.into())
}

pub(super) fn retries(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    for _ in 0..EACH {
        let (failures, watch, tokens) = (rng.u32(1..=4), world.watch(), (rng.u64(0..5_000), rng.u64(1..900)));
        let request = chat(MODEL, &format!("fail-first:{failures}"), tokens)
            .header(RETRIED.0, RETRIED.1)
            .header("x-watch", watch.to_string());
        let (outcome, tokens) = ("complete", Some(tokens));
        probe(world, Probe { request, model: MODEL, status: 200, is_complete: true, outcome, tokens })?;
        let attempts = world.upstream.attempts(watch);
        ensure!(attempts == failures + 1, "{attempts} attempts after {failures} failures");
    }
    // Nothing helps: the last answer is the model server's.
    let request = chat(MODEL, "status:500", (1, 1)).header(RETRIED.0, RETRIED.1);
    let outcome = "upstream_error";
    probe(world, Probe { request, model: MODEL, status: 500, is_complete: true, outcome, tokens: None })?;
    Ok(Outcome::Check)
}
