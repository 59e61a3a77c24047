//! Too few file descriptors, too little memory.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::Outcome;
use crate::chaos::book::Fate;
use crate::chaos::load::{Meaning, locked};
use crate::chaos::world::World;
use crate::client::{Answer, Request};
use crate::tools::poll;

/// How many descriptors a process may have.
fn file_limit(pid: u32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit")?;
    Ok(line.split_whitespace().nth(3).context("no limit")?.to_owned())
}

/// From now on it gets no further one.
fn take_files(pid: u32) -> Result<()> {
    let open: BTreeSet<u64> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // The limit is on the number of a descriptor, and the lowest free one is given.
    let lowest = (0..).find(|number| !open.contains(number)).context("no free number")?;
    set_files(pid, &lowest.to_string())
}

fn set_files(pid: u32, number: &str) -> Result<()> {
    let limit = format!("--nofile={number}:");
    ensure!(Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status()?.success(), "prlimit");
    Ok(())
}

/// Envoy answers 503 if it cannot open a connection to the model server.
fn no_connection(answer: &Answer) -> Option<Meaning> {
    (answer.status == 503 && answer.complete).then_some(Meaning::Counted("upstream_reset"))
}

pub(super) fn envoy_files(_: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let mut world = World::start()?;
    world.load.explain(no_connection);
    world.load.after(50)?;
    let pid = world.envoy.process().0.id();
    let (unlimited, before) = (world.load.pace(), file_limit(pid)?);
    // Again and again: what closes meanwhile is taken, too. Either no connection to the model server can be opened, or
    // none of a client's is taken.
    let bites = || {
        take_files(pid).ok()?;
        let limited = world.load.pace();
        (world.load.explained() > 0 || limited * 4 < unlimited).then_some(())
    };
    let has_bitten = poll(Duration::from_secs(20), bites);
    thread::sleep(Duration::from_millis(rng.u64(0..1_000)));
    set_files(pid, &before)?;
    ensure!(has_bitten.is_some(), "Envoy had descriptors enough");
    ensure!(world.envoy.alive(), "Envoy ended:\n{}", world.envoy.log());
    world.load.settle()?;
    world.load.after(50)?;
    Ok(Outcome::Checked(world.check()?))
}

pub(super) fn companion_files(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let pid = world.companion.as_ref().context("tallyd runs")?.pid();
    let failed = || {
        let page = world.companion.as_ref()?.page().ok()?;
        Some(page.total("inference_pool_scrape_errors_total", &[("reason", "connect")]))
    };
    let failed_before = failed().context("no page")?;
    let before = file_limit(pid)?;
    take_files(pid)?;
    thread::sleep(Duration::from_millis(rng.u64(500..1_500)));
    set_files(pid, &before)?;
    world.load.after(50)?;
    ensure!(failed().context("no page")? > failed_before, "tallyd had descriptors enough");
    Ok(Outcome::Check)
}

/// The connection manager refuses before any filter sees the request.
fn overloaded(answer: &Answer) -> Option<Meaning> {
    (answer.status == 503 && answer.body == b"envoy overloaded").then_some(Meaning::NotCounted)
}

pub(super) fn overload(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let active = "envoy_overload_envoy_overload_actions_stop_accepting_requests_active";
    let is = |world: &World, value: f64| {
        poll(Duration::from_secs(20), || (world.envoy.page().ok()?.total(active, &[]) == value).then_some(()))
            .with_context(|| format!("{active} does not become {value}"))
    };
    // Shrinks the heap and ends connections after each answer; then refuses as well.
    world.pressure("0.85")?;
    world.load.after(rng.u64(20..80))?;
    world.load.explain(overloaded);
    world.pressure("0.99")?;
    is(world, 1.0)?;
    let refused = |world: &World| -> Result<f64> {
        Ok(world.envoy.page()?.total("envoy_http_downstream_rq_overload_close", &[]))
    };
    let refused_before = refused(world)?;
    world.load.after(rng.u64(20..200))?;
    ensure!(refused(world)? > refused_before, "Envoy refuses nobody");
    world.pressure("0")?;
    is(world, 0.0)?;
    world.load.settle()?;
    world.load.after(50)?;
    Ok(Outcome::Check)
}

pub(super) fn uploads(world: &mut World, _: &mut Rng) -> Result<Outcome> {
    const UPLOADS: usize = 24;
    let before = world.envoy.resident_bytes()?;
    // All wait in their heads, and so do their bodies: Envoy holds back what the clients send.
    world.pool.all_have_waiting(100);
    world.waits(2.0)?;
    let text = "x".repeat(2 << 20);
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],"model":"upload"}}"#);
    let size = body.len() as u64;
    let port = world.envoy.port;
    let request = Request::post("/v1/chat/completions", body).header("x-tokens", "8/9");
    let clients: Vec<_> = (0..UPLOADS)
        .map(|_| {
            let request = request.clone();
            thread::spawn(move || request.send(port))
        })
        .collect();
    world.waits(UPLOADS as f64)?;
    let held = world.envoy.resident_bytes()?.saturating_sub(before);
    world.pool.all_have_waiting(0);
    for client in clients {
        let answer = client.join().ok().context("a client panicked")??;
        ensure!(answer.status == 200, "an upload got {answer:?}");
        let (model, outcome, tokens) = ("upload".to_owned(), "complete", Some((8, 9)));
        locked(&world.books).enter(Fate { model, outcome, tokens, bytes: Some(size), ended: Instant::now() });
    }
    let sent = UPLOADS as u64 * size;
    ensure!(held < sent, "Envoy held {held} bytes more while {sent} waited");
    Ok(Outcome::Check)
}
